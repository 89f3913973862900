use super::*;

fn value(text: &str) -> Value {
    parse(0, text).unwrap().value
}

fn entry(text: &str) -> Value {
    let Value::Map(entries) = value(text) else {
        panic!("{text} is a map");
    };
    entries[0].1.value.clone()
}

fn text(text: &str) -> Value {
    Value::Text(text.to_owned())
}

#[test]
fn scalars_have_the_types_of_yaml_core_without_its_traps() {
    for (source, wanted) in [
        ("a: b", text("b")),
        ("a: yes", text("yes")),
        ("a: on", text("on")),
        ("a: 010", text("010")),
        ("a: 1_000", text("1_000")),
        ("a: 2026-12-01T18:00:00Z", text("2026-12-01T18:00:00Z")),
        ("a: 12:30", text("12:30")),
        ("a: \"true\"", text("true")),
        ("a: '5'", text("5")),
        ("a: !!str 5", text("5")),
        ("a: true", Value::Bool(true)),
        ("a: False", Value::Bool(false)),
        ("a: 80", Value::Integer(80)),
        ("a: -1", Value::Integer(-1)),
        ("a: 18446744073709551615", Value::Integer(u64::MAX.into())),
        ("a: 1.5", Value::Float),
        ("a: 1e3", Value::Float),
        ("a:", Value::Null),
        ("a: ~", Value::Null),
        ("a: null", Value::Null),
        ("a: []", Value::List(Vec::new())),
        ("a: {}", Value::Map(Vec::new())),
    ] {
        assert_eq!(entry(source), wanted, "{source}");
    }
}

#[test]
fn every_value_and_key_knows_where_it_stands() {
    let source = "x: [\u{e9}, \"b c\"]\n";
    let Value::Map(entries) = value(source) else {
        panic!("a map");
    };
    let (key, list) = &entries[0];
    let Value::List(items) = &list.value else {
        panic!("a list");
    };
    let at = |node: &Node| source.get(node.span.start..node.span.end).unwrap();
    assert_eq!((at(key), at(&items[0]), at(&items[1])), ("x", "\u{e9}", "\"b c\""));
    assert_eq!(parse(7, "a").unwrap().span.source, 7);
}

#[test]
fn both_of_two_equal_keys_are_in_the_tree() {
    let Value::Map(entries) = value("{a: 1, a: 2}") else {
        panic!("a map");
    };
    assert_eq!(entries.len(), 2);
}

#[test]
fn json_and_other_line_ends_are_read() {
    assert_eq!(entry("{\"a\": \"\\u00e9\\n\"}"), text("\u{e9}\n"));
    assert_eq!(entry("a: b\r\nc: d\r\n"), text("b"));
    assert_eq!(entry("\u{feff}a: b\n"), text("b"));
}

#[test]
fn kinds_have_names_for_people() {
    let names: Vec<&str> = ["a:", "a: true", "a: 1", "a: 1.5", "a: b", "a: []", "a: {}"]
        .map(|t| entry(t).kind())
        .to_vec();
    assert_eq!(
        names,
        [
            "nothing",
            "a boolean",
            "a number",
            "a number",
            "text",
            "a list",
            "a map"
        ]
    );
}

#[test]
fn tiny_values_are_bounded() {
    // The list and its items.
    assert!(parse_within(0, "[1, 2, 3]", 4).is_ok());
    assert!(parse_within(0, "[1, 2, 3, 4]", 4).is_err());
    let flat = format!("[{}]", "1,".repeat(999));
    assert!(parse_within(0, &flat, 1_000).is_ok(), "nothing else is reached first");
}
