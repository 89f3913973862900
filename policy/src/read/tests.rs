use super::*;

/// Loads files with small bounds and gives the codes of the errors.
fn codes(texts: &[&str]) -> Vec<String> {
    let few = Counts {
        bots: 2,
        groups: 1,
        rules: 3,
        limits: 2,
        audit_only: 2,
        credentials: 2,
        tests: 2,
    };
    let sources: Vec<Source> = texts
        .iter()
        .map(|text| Source {
            name: "m".to_owned(),
            text: format!("version: 1\n{text}"),
        })
        .collect();
    let errors = load_within(&sources, few).err();
    errors.iter().flatten().map(|diag| diag.code.to_string()).collect()
}

const NONE: [&str; 0] = [];
const HEAD: &str = "trust_domain: a.b\n";
const ONE_BOT: &str = "trust_domain: a.b\nbots: {a: {owner: o, hosts: h, attest: {uid: 1}, serve: {http: 80}}}\n";

#[test]
fn the_bounds_are_those_that_are_documented() {
    assert_eq!(
        COUNTS,
        Counts {
            bots: 10_000,
            groups: 1_000,
            rules: 10_000,
            limits: 1_000,
            audit_only: 1_000,
            credentials: 1_000,
            tests: 10_000
        }
    );
    assert_eq!(
        (MESH_BYTES_MAX, MESH_DEPTH_MAX, LIST_ITEMS_MAX),
        (4 * 1024 * 1024, 8, 1_000)
    );
}

#[test]
fn bots_are_counted_over_all_files() {
    let bot = |n| format!("b{n}: {{owner: o, hosts: h, attest: {{uid: {n}}}}}");
    let two = format!("bots: {{{}, {}}}", bot(2), bot(3));
    let one = format!("bots: {{{}}}", bot(4));
    assert_eq!(codes(&[HEAD, &two]), NONE);
    assert_eq!(codes(&[ONE_BOT, &one]), NONE);
    assert_eq!(codes(&[ONE_BOT, &two]), ["BM0103"]);
    assert_eq!(
        codes(&[HEAD, &two.replace("}}}", &format!("}}}}, {}}}", bot(5)))]),
        ["BM0103"]
    );
}

#[test]
fn rules_are_counted_allow_and_deny_together_over_all_files() {
    let allow = |n: &u8| format!("{{id: a{n}, from: a, to: a, http: GET /}}");
    let deny = |n: &u8| format!("{{id: d{n}, from: a, to: a, reason: r}}");
    let file = |allowed: &[u8], denied: &[u8]| {
        let list = |rules: Vec<String>| rules.join(", ");
        format!(
            "allow: [{}]\ndeny: [{}]",
            list(allowed.iter().map(allow).collect()),
            list(denied.iter().map(deny).collect())
        )
    };
    assert_eq!(codes(&[ONE_BOT, &file(&[1, 2], &[1])]), NONE);
    assert_eq!(codes(&[ONE_BOT, &file(&[1, 2], &[1, 2])]), ["BM0103"]);
    assert_eq!(codes(&[ONE_BOT, &file(&[1, 2, 3], &[])]), NONE);
    assert_eq!(codes(&[ONE_BOT, &file(&[1, 2, 3, 4], &[])]), ["BM0103"]);
    assert_eq!(codes(&[ONE_BOT, &file(&[1, 2], &[]), &file(&[3], &[])]), NONE);
    assert_eq!(codes(&[ONE_BOT, &file(&[1, 2], &[]), &file(&[3], &[1])]), ["BM0103"]);
}

#[test]
fn groups_and_tests_are_counted_over_all_files() {
    assert_eq!(
        codes(&[
            ONE_BOT,
            "groups: {g: a}\nallow: [{id: r, from: group:g, to: a, http: GET /}]"
        ]),
        NONE
    );
    assert_eq!(codes(&[ONE_BOT, "groups: {g: a, h: a}"]), ["BM0103"]);
    assert_eq!(codes(&[ONE_BOT, "groups: {g: a}", "groups: {h: a}"]), ["BM0103"]);
    let test = "{name: t, from: a, to: a, deny: GET /}";
    let (one, two) = (format!("tests: [{test}]"), format!("tests: [{test}, {test}]"));
    assert_eq!(codes(&[ONE_BOT, &two]), NONE);
    assert_eq!(codes(&[ONE_BOT, &one, &one]), NONE);
    assert_eq!(codes(&[ONE_BOT, &two, &one]), ["BM0103"]);
    assert_eq!(
        codes(&[ONE_BOT, &format!("tests: [{test}, {test}, {test}]")]),
        ["BM0103"]
    );
}

#[test]
fn entries_of_audit_only_are_counted_over_all_files() {
    let entry = "{to: a, until: 2026-12-01T00:00:00Z, reason: r}";
    let (one, two) = (
        format!("audit_only: [{entry}]"),
        format!("audit_only: [{entry}, {entry}]"),
    );
    assert_eq!(codes(&[ONE_BOT, &two]), NONE);
    assert_eq!(codes(&[ONE_BOT, &one, &one]), NONE);
    assert_eq!(codes(&[ONE_BOT, &two, &one]), ["BM0103"]);
}

#[test]
fn limits_are_counted_over_all_files() {
    let limits = |ids: &[u8]| {
        let limits: Vec<String> = ids
            .iter()
            .map(|id| format!("{{id: l{id}, from: a, to: a, rate: 1/s, burst: 1}}"))
            .collect();
        format!("limits: [{}]", limits.join(", "))
    };
    assert_eq!(codes(&[ONE_BOT, &limits(&[1, 2])]), NONE);
    assert_eq!(codes(&[ONE_BOT, &limits(&[1]), &limits(&[2])]), NONE);
    assert_eq!(codes(&[ONE_BOT, &limits(&[1, 2]), &limits(&[3])]), ["BM0103"]);
}

#[test]
fn a_rule_and_a_limit_do_not_share_an_id_whichever_comes_first() {
    let limit = "limits: [{id: x, from: a, to: a, rate: 1/s, burst: 1}]";
    let rule = "allow: [{id: x, from: a, to: a, http: GET /}]";
    for files in [[ONE_BOT, limit, rule], [ONE_BOT, rule, limit], [ONE_BOT, limit, limit]] {
        assert_eq!(codes(&files), ["BM0131"]);
    }
    assert_eq!(codes(&[ONE_BOT, &rule.replace("id: x", "id: y"), limit]), NONE);
}

#[test]
fn beside_errors_neither_a_missing_trust_domain_nor_warnings_are_told() {
    let bad = "bots: {a: {owner: o, hosts: h, attest: {uid: 1}, serve: {http: 80}}}\n\
        groups: {g: a}\nallow: [{id: r, from: b, to: a, http: GET /}]";
    assert_eq!(codes(&[bad]), ["BM0121"]);
    assert_eq!(codes(&[&format!("{HEAD}{bad}")]), ["BM0121"], "the group is unused");
}

#[test]
fn of_a_slice_with_tests_only_that_is_told() {
    let slice = "slice: h\ntests: [{name: t, from: x, to: y, deny: GET /}]";
    assert_eq!(codes(&[&format!("{HEAD}{slice}")]), ["BM0160"]);
    assert_eq!(codes(&[HEAD, "slice: h"]), ["BM0160"], "nor is a slice merged");
}
