//! The bounds of a mesh file, each at its edge; the counts of rules, bots, groups and tests are tested with the reader.

use std::fmt::Write as _;

use policy::{DIAGNOSTICS_MAX, Diagnostics, MESH_BYTES_MAX, Source, load};

const HEAD: &str = "version: 1\ntrust_domain: acme.internal\nbots:\n  a: {owner: o, hosts: [h], attest: {user: a}, serve: {http: 80}}\n";

fn source(text: String) -> Source {
    Source {
        name: "mesh.yaml".to_owned(),
        text,
    }
}

fn errors(texts: &[String]) -> Option<Diagnostics> {
    let sources: Vec<Source> = texts.iter().cloned().map(source).collect();
    load(&sources).err()
}

fn codes(errors: Option<Diagnostics>) -> Vec<String> {
    errors.iter().flatten().map(|diag| diag.code.to_string()).collect()
}

/// Writes `count` lines, numbered from `first`.
fn lines(first: usize, count: usize, line: impl Fn(usize) -> String) -> String {
    (first..first + count).fold(String::new(), |mut text, number| {
        writeln!(text, "  {}", line(number)).unwrap();
        text
    })
}

fn assert_edge(within: &[String], beyond: &[String]) {
    assert_eq!(codes(errors(within)), [] as [String; 0]);
    assert_eq!(codes(errors(beyond)), ["BM0103"]);
}

#[test]
fn a_mesh_has_at_most_4_mib_in_all_files() {
    let half = format!("{HEAD}{}", "#".repeat(MESH_BYTES_MAX / 2 - HEAD.len()));
    let rest = format!("version: 1\n{}", "#".repeat(MESH_BYTES_MAX / 2 - 11));
    assert_edge(&[half.clone(), rest.clone()], &[half, format!("{rest}#")]);
}

#[test]
fn a_list_has_at_most_1_000_items() {
    let rule = |count: usize| {
        let items: Vec<String> = (0..count).map(|n| format!("GET /{n}")).collect();
        format!(
            "{HEAD}allow:\n  - {{id: a, from: a, to: a, http: [{}]}}\n",
            items.join(", ")
        )
    };
    assert_eq!(codes(errors(&[rule(1_000)])), [] as [String; 0]);
    // Without items the rule also says nothing.
    assert_eq!(codes(errors(&[rule(1_001)])), ["BM0103", "BM0136"]);
}

#[test]
fn values_nest_at_most_8_levels() {
    let nested = |levels: usize| format!("version: 1\nbots: {}{}", "[".repeat(levels - 1), "]".repeat(levels - 1));
    assert_eq!(
        codes(errors(&[nested(8)])),
        ["BM0106"],
        "read, and not what is expected"
    );
    assert_eq!(codes(errors(&[nested(9)])), ["BM0103"]);
}

#[test]
fn at_most_100_diagnostics_are_reported_and_errors_before_warnings() {
    let bad = |count| {
        format!(
            "{HEAD}allow:\n{}",
            lines(0, count, |n| format!(
                "- {{id: a{n}, from: none/x, to: a, http: [GET /]}}"
            ))
        )
    };
    assert_eq!(errors(&[bad(99)]).unwrap().len(), 99);
    assert_eq!(errors(&[bad(150)]).unwrap().len(), DIAGNOSTICS_MAX);
    let sharing = lines(0, 150, |n| {
        format!("w{n}: {{owner: o, hosts: [h], attest: {{user: m, exe: /srv/{n}}}}}")
    });
    let same = lines(0, 10, |n| {
        format!("e{n}: {{owner: o, hosts: [h], attest: {{user: z{}}}}}", n / 2)
    });
    let found = errors(&[format!("{HEAD}{sharing}{same}")]).unwrap();
    assert_eq!(found.len(), DIAGNOSTICS_MAX);
    assert_eq!(found.iter().filter(|diag| diag.code.as_str() == "BM0140").count(), 5);
}

#[test]
fn no_file_is_no_mesh() {
    assert_eq!(codes(load(&[]).err()), ["BM0107"]);
}
