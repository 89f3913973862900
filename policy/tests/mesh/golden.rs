//! What users read when a file is wrong: `golden/NAME.yaml` gives `golden/NAME.txt`.
//!
//! A line `#--- NAME` in an input starts another source. When a text changed on purpose, copy the file that the failure names.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use policy::{Source, explain_code, load};

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

fn names() -> BTreeSet<String> {
    let files = std::fs::read_dir(golden())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap());
    files
        .filter_map(|name| Some(name.strip_suffix(".yaml")?.to_owned()))
        .collect()
}

fn sources(name: &str) -> Vec<Source> {
    let text = std::fs::read_to_string(golden().join(format!("{name}.yaml"))).unwrap();
    let mut parts = text.split("#--- ");
    let first = Source {
        name: "mesh.yaml".to_owned(),
        text: parts.next().unwrap().to_owned(),
    };
    let others = parts.map(|part| {
        let (name, text) = part.split_once('\n').unwrap();
        Source {
            name: name.to_owned(),
            text: text.to_owned(),
        }
    });
    std::iter::once(first).chain(others).collect()
}

fn rendered(name: &str) -> String {
    match load(&sources(name)) {
        Ok(mesh) if mesh.warnings().is_empty() => "valid\n".to_owned(),
        Ok(mesh) => format!("valid, with warnings\n\n{}", mesh.warnings().render(false)),
        Err(errors) => format!("refused\n\n{}", errors.render(false)),
    }
}

#[test]
fn every_file_is_told_as_written_down() {
    let mut failures = String::new();
    for name in names() {
        let (wanted, got) = (golden().join(format!("{name}.txt")), rendered(&name));
        if std::fs::read_to_string(&wanted).unwrap_or_default() != got {
            let made = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}.txt"));
            std::fs::write(&made, &got).unwrap();
            writeln!(failures, "cp {} {}\n{got}", made.display(), wanted.display()).unwrap();
        }
    }
    assert!(failures.is_empty(), "these texts changed; if they should:\n{failures}");
}

#[test]
fn every_code_is_shown_by_one_of_the_files() {
    let texts: String = names().iter().map(|name| rendered(name)).collect();
    let codes = (100..500)
        .map(|number| format!("BM0{number}"))
        .filter(|code| explain_code(code).is_some());
    let unseen: Vec<String> = codes.filter(|code| !texts.contains(&format!("[{code}]"))).collect();
    assert_eq!(
        unseen,
        ["BM0301"],
        "BM0301 is told by the tests of a mesh, not by its reading"
    );
}

#[test]
fn color_changes_nothing_but_the_color() {
    let errors = load(&sources("duplicate-key")).unwrap_err();
    let (plain, styled) = (errors.render(false), errors.render(true));
    assert!(!plain.contains('\u{1b}') && styled.contains('\u{1b}'));
    let mut bare = String::new();
    let mut rest = styled.as_str();
    while let Some((before, after)) = rest.split_once('\u{1b}') {
        bare.push_str(before);
        rest = after.split_once('m').unwrap().1;
    }
    bare.push_str(rest);
    assert_eq!(bare, plain);
    assert_eq!(errors.to_string(), plain.trim_end());
}

#[test]
fn a_diagnostic_is_data_too() {
    let errors = load(&sources("unknown-names")).unwrap_err();
    let first = errors.iter().next().unwrap();
    assert_eq!(
        serde_json::to_value(first).unwrap(),
        serde_json::json!({
            "code": "BM0121", "severity": "error", "file": "mesh.yaml", "line": 6, "column": 13,
            "message": "group `staging` names bot `prod/order`, which is not defined",
            "help": "did you mean `prod/orders`?",
        })
    );
    assert_eq!(
        (errors.len(), errors.is_empty(), errors.into_iter().count()),
        (errors.len(), false, errors.len())
    );
}
