use super::*;

fn user(name: &str) -> SelectorSet {
    SelectorSet {
        user: Some(name.to_owned()),
        ..Default::default()
    }
}

fn program(name: &str, exe: &str) -> SelectorSet {
    SelectorSet {
        exe: Some(exe.to_owned()),
        ..user(name)
    }
}

fn entry(bot: &str, attest: Vec<SelectorSet>) -> Entry {
    Entry {
        bot: BotName::parse(bot).unwrap(),
        attest,
    }
}

fn process(name: &str) -> Facts {
    Facts {
        user: Some(name.to_owned()),
        exe: Some("/bin/a".to_owned()),
        ..Facts::new(7, 1000, 1000)
    }
}

/// The nearest entry's bot, its set and the selector that did not hold.
fn nearest_of(entries: &[Entry], facts: &Facts) -> Option<(String, usize, &'static str)> {
    let Pick::None { nearest } = pick(entries, facts) else {
        panic!("somebody matched");
    };
    nearest.map(|nearest| (nearest.entry.bot.to_string(), nearest.set, nearest.mismatch.selector))
}

#[test]
fn the_one_entry_that_matches_is_picked_with_its_set() {
    let entries = [
        entry("a", vec![user("x")]),
        entry("b", vec![user("y"), user("me"), user("me")]),
    ];
    assert_eq!(pick(&entries, &process("me")), Pick::One(&entries[1], 1));
}

#[test]
fn two_entries_that_match_are_refused_with_both_names() {
    let entries = [
        entry("a", vec![user("me")]),
        entry("b", vec![user("x")]),
        entry("c", vec![user("me")]),
    ];
    assert_eq!(pick(&entries, &process("me")), Pick::Two(&entries[0], &entries[2]));
}

#[test]
fn no_entries_and_no_sets_match_nobody() {
    assert_eq!(nearest_of(&[], &process("me")), None);
    assert_eq!(nearest_of(&[entry("a", vec![])], &process("me")), None);
    assert_eq!(
        nearest_of(&[entry("a", vec![SelectorSet::default()])], &process("me")),
        Some(("a".to_owned(), 0, "boundary"))
    );
}

#[test]
fn the_nearest_entry_has_the_fewest_demands_unmet() {
    let entries = [
        entry("a", vec![program("x", "/bin/b")]),
        entry("b", vec![user("x"), program("me", "/bin/b")]),
    ];
    assert_eq!(
        nearest_of(&entries[..1], &process("me")),
        Some(("a".to_owned(), 0, "user"))
    );
    assert_eq!(nearest_of(&entries, &process("me")), Some(("b".to_owned(), 1, "exe")));
}

#[test]
fn demands_met_do_not_outweigh_a_demand_unmet() {
    let much = SelectorSet {
        uid: Some(1000),
        exe_sha256: Some("ab".to_owned()),
        ..program("me", "/bin/b")
    };
    let entries = [entry("a", vec![much]), entry("b", vec![user("x")])];
    assert_eq!(nearest_of(&entries, &process("me")), Some(("b".to_owned(), 0, "user")));
}

#[test]
fn among_equals_the_one_with_more_demands_met_is_nearest() {
    let entries = [entry("a", vec![user("x")]), entry("b", vec![program("x", "/bin/a")])];
    assert_eq!(nearest_of(&entries, &process("me")), Some(("b".to_owned(), 0, "user")));
}

#[test]
fn the_order_of_entries_does_not_choose_the_nearest() {
    let forwards = [entry("a", vec![user("x"), user("y")]), entry("b", vec![user("x")])];
    let backwards = [forwards[1].clone(), forwards[0].clone()];
    let wanted = Some(("a".to_owned(), 0, "user"));
    assert_eq!(nearest_of(&forwards, &process("me")), wanted);
    assert_eq!(nearest_of(&backwards, &process("me")), wanted);
}

#[test]
fn an_entry_keeps_its_form_in_json() {
    let one = entry("prod/orders", vec![user("orders")]);
    let json = serde_json::to_string(&one).unwrap();
    assert_eq!(json, r#"{"bot":"prod/orders","attest":[{"user":"orders"}]}"#);
    assert_eq!(serde_json::from_str::<Entry>(&json).unwrap(), one);
    assert!(serde_json::from_str::<Entry>(r#"{"bot":"prod/orders","attest":[],"hosts":[]}"#).is_err());
}
