use proptest::prelude::*;
use spiffe::selector::Facts;

use super::{scalar, suggest};

fn facts(user: Option<&str>) -> Facts {
    Facts {
        user: user.map(str::to_owned),
        ..Facts::new(1, 1000, 1000)
    }
}

#[test]
fn the_entry_names_the_user_and_the_program() {
    let expected =
        "  local/orders:\n    owner: CHANGE-ME\n    hosts: [CHANGE-ME]\n    attest: {user: orders, exe: /srv/orders}\n";
    assert_eq!(suggest(&facts(Some("orders")), Some("/srv/orders")), expected);
}

#[test]
fn a_user_without_a_name_is_a_number_and_a_program_that_is_not_believed_is_left_out() {
    assert!(suggest(&facts(None), None).contains("attest: {uid: 1000}\n"));
    assert!(suggest(&facts(None), None).starts_with("  local/bot:\n"));
    assert!(suggest(&facts(Some("root")), Some("/usr/bin/Python3.11")).starts_with("  local/python3-11:\n"));
}

#[test]
fn a_text_that_yaml_would_read_as_something_else_is_quoted() {
    for text in [
        "true",
        "No",
        "null",
        "1e3",
        "a: b",
        "a #b",
        "- a",
        "",
        "/srv/a b",
        "/srv/\u{e9}",
        "a\nb",
        "{a",
        "~",
    ] {
        assert!(scalar(text).starts_with('"'), "{text:?}");
    }
    assert_eq!(scalar("/usr/bin/python3.11"), "/usr/bin/python3.11");
}

proptest! {
    #[test]
    fn a_path_cannot_add_a_line_or_a_key_to_the_entry(path in ".{0,60}") {
        let entry = suggest(&facts(Some("orders")), Some(&path));
        prop_assert_eq!(entry.lines().count(), 4);
        let quoted = entry.split_once("exe: ").unwrap().1.trim_end().strip_suffix('}').unwrap();
        let read = serde_json::from_str::<String>(quoted).unwrap_or_else(|_| quoted.to_owned());
        prop_assert_eq!(read, path);
    }
}
