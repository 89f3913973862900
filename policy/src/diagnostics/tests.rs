use super::*;
use crate::code;
use crate::source::Source;

fn sources(text: &str) -> Sources {
    Sources::new(&[Source {
        name: "mesh.yaml".to_owned(),
        text: text.to_owned(),
    }])
}

fn draft(code: Code, start: usize, end: usize) -> Draft {
    Draft::new(code, Span { source: 0, start, end }, "message", "label")
}

fn rendered(text: &str, start: usize, end: usize) -> String {
    let mut collector = Collector::default();
    collector.push(draft(code::SYNTAX, start, end));
    collector.finish(&sources(text)).render(false)
}

#[test]
fn a_caret_stands_under_the_span() {
    let wanted = "error[BM0100]: message\n --> mesh.yaml:2:3\n  |\n2 | b bad\n  |   ^^^ label\n\n";
    assert_eq!(rendered("a\nb bad\n", 4, 7), wanted);
}

#[test]
fn an_empty_span_is_shown_as_one_character() {
    assert!(rendered("a\u{e9}b", 1, 1).contains("1 | a\u{e9}b\n  |  ^ label"));
    assert!(rendered("a\u{1f980}b", 1, 1).contains("^"));
    assert!(
        rendered("ab", 2, 2).contains("1 | ab\n  |   ^ label"),
        "after the end of the line"
    );
    assert!(rendered("", 0, 0).contains("mesh.yaml:1:1"));
}

#[test]
fn a_place_in_a_long_line_is_the_true_one() {
    let text = format!("{}bad{}", "x".repeat(300), "y".repeat(300));
    let shown = rendered(&text, 300, 303);
    assert!(
        shown.contains("mesh.yaml:1:301") && shown.contains("^^^ label"),
        "{shown}"
    );
}

#[test]
fn diagnostics_come_in_the_order_of_the_sources() {
    let mut collector = Collector::default();
    collector.push(draft(code::SYNTAX, 3, 4));
    collector.push(
        draft(code::SHARED_USER, 1, 2)
            .also(
                Span {
                    source: 0,
                    start: 0,
                    end: 1,
                },
                "there",
            )
            .help("do"),
    );
    assert_eq!(collector.errors(), 1);
    let all = collector.finish(&sources("abcdef"));
    let columns: Vec<(usize, Severity)> = all.iter().map(|diag| (diag.column, diag.severity)).collect();
    assert_eq!(columns, [(2, Severity::Warning), (4, Severity::Error)]);
    assert_eq!(all.iter().next().unwrap().help.as_deref(), Some("do"));
}

#[test]
fn beyond_the_bound_errors_push_warnings_out_and_nothing_else() {
    let mut collector = Collector::default();
    for _ in 0..DIAGNOSTICS_MAX {
        collector.push(draft(code::SHARED_USER, 0, 1));
    }
    collector.push(draft(code::UNUSED_GROUP, 0, 1));
    collector.push(draft(code::SYNTAX, 0, 1));
    assert!(!collector.is_full());
    let all = collector.finish(&sources("a"));
    let count = |code: Code| all.iter().filter(|diag| diag.code == code).count();
    assert_eq!(
        (count(code::SHARED_USER), count(code::UNUSED_GROUP), count(code::SYNTAX)),
        (99, 0, 1)
    );

    let mut collector = Collector::default();
    for _ in 0..DIAGNOSTICS_MAX - 1 {
        collector.push(draft(code::SYNTAX, 0, 1));
    }
    assert!(!collector.is_full());
    collector.push(draft(code::PATH, 0, 1));
    assert!(collector.is_full());
    collector.push(draft(code::METHOD, 0, 1));
    collector.push(draft(code::UNUSED_GROUP, 0, 1));
    let all = collector.finish(&sources("a"));
    assert_eq!(
        (all.len(), all.iter().filter(|diag| diag.code == code::PATH).count()),
        (DIAGNOSTICS_MAX, 1)
    );
}
