use super::*;

fn bot() -> BotName {
    BotName::parse("prod/orders").unwrap()
}

fn facts() -> Facts {
    Facts {
        pid: 77,
        uid: 1001,
        gid: 1002,
        user: Some("orders".to_owned()),
        exe: Some("/srv/orders".to_owned()),
        exe_seen: Some("/somewhere/else".to_owned()),
        exe_sha256: Some("ab".repeat(32)),
        run: Some(bot()),
    }
}

fn text(value: &str) -> Option<String> {
    Some(value.to_owned())
}

fn check(set: &SelectorSet, facts: &Facts) -> Result<(), &'static str> {
    set.matches(&bot(), facts).map_err(|mismatch| mismatch.selector)
}

#[test]
fn a_set_matches_when_all_its_demands_hold() {
    let set = SelectorSet {
        user: text("orders"),
        uid: Some(1001),
        exe: text("/srv/orders"),
        exe_sha256: text(&"ab".repeat(32)),
        run_by: vec!["root".to_owned()],
    };
    assert_eq!(check(&set, &facts()), Ok(()));
}

#[test]
fn each_boundary_suffices_alone() {
    for set in [
        SelectorSet {
            user: text("orders"),
            ..Default::default()
        },
        SelectorSet {
            uid: Some(1001),
            ..Default::default()
        },
        SelectorSet {
            run_by: vec!["root".to_owned()],
            ..Default::default()
        },
    ] {
        assert!(set.is_bounded());
        assert_eq!(check(&set, &facts()), Ok(()));
    }
}

#[test]
fn a_set_without_boundary_matches_nothing() {
    let narrow = SelectorSet {
        exe: text("/srv/orders"),
        exe_sha256: text(&"ab".repeat(32)),
        ..Default::default()
    };
    for set in [SelectorSet::default(), narrow] {
        assert!(!set.is_bounded());
        assert_eq!(check(&set, &facts()), Err("boundary"));
    }
}

#[test]
fn each_demand_that_does_not_hold_refuses() {
    let bounded = SelectorSet {
        user: text("orders"),
        ..Default::default()
    };
    let cases = [
        (
            SelectorSet {
                user: text("other"),
                ..Default::default()
            },
            "user",
        ),
        (
            SelectorSet {
                uid: Some(0),
                ..bounded.clone()
            },
            "uid",
        ),
        (
            SelectorSet {
                exe: text("/srv/other"),
                ..bounded.clone()
            },
            "exe",
        ),
        (
            SelectorSet {
                exe: text("/somewhere/else"),
                ..bounded.clone()
            },
            "exe",
        ),
        (
            SelectorSet {
                exe_sha256: text(&"AB".repeat(32)),
                ..bounded.clone()
            },
            "exe_sha256",
        ),
    ];
    for (set, selector) in cases {
        assert_eq!(check(&set, &facts()), Err(selector), "{set:?}");
    }
}

#[test]
fn unknown_facts_match_no_demand() {
    let unknown = Facts {
        user: None,
        exe: None,
        exe_sha256: None,
        run: None,
        ..facts()
    };
    let bounded = SelectorSet {
        uid: Some(1001),
        ..Default::default()
    };
    assert_eq!(check(&bounded, &unknown), Ok(()));
    assert_eq!(
        check(
            &SelectorSet {
                user: text("orders"),
                ..bounded.clone()
            },
            &unknown
        ),
        Err("user")
    );
    assert_eq!(
        check(
            &SelectorSet {
                exe: text("/srv/orders"),
                ..bounded.clone()
            },
            &unknown
        ),
        Err("exe")
    );
    assert_eq!(
        check(
            &SelectorSet {
                exe_sha256: text("ab"),
                ..bounded.clone()
            },
            &unknown
        ),
        Err("exe_sha256")
    );
    assert_eq!(
        check(
            &SelectorSet {
                run_by: vec!["root".to_owned()],
                ..bounded
            },
            &unknown
        ),
        Err("run_by")
    );
}

#[test]
fn a_process_run_as_another_bot_does_not_match() {
    let set = SelectorSet {
        run_by: vec!["root".to_owned(), "ann".to_owned()],
        ..Default::default()
    };
    let other = Facts {
        run: Some(BotName::parse("prod/other").unwrap()),
        ..facts()
    };
    let mismatch = set.matches(&bot(), &other).unwrap_err();
    assert_eq!(
        mismatch.to_string(),
        "run_by: wanted a process started as prod/orders by root, ann, found one run as prod/other"
    );
}

#[test]
fn the_first_mismatch_tells_both_sides() {
    let set = SelectorSet {
        user: text("other"),
        uid: Some(0),
        ..Default::default()
    };
    let wanted = Mismatch {
        selector: "user",
        wanted: "other".to_owned(),
        found: "orders".to_owned(),
    };
    assert_eq!(set.matches(&bot(), &facts()), Err(wanted));
}

#[test]
fn sets_and_facts_keep_their_form_in_json() {
    let set = SelectorSet {
        user: text("orders"),
        exe: text("/srv/orders"),
        ..Default::default()
    };
    let json = serde_json::to_string(&set).unwrap();
    assert_eq!(json, r#"{"user":"orders","exe":"/srv/orders"}"#);
    assert_eq!(serde_json::from_str::<SelectorSet>(&json).unwrap(), set);
    assert!(
        serde_json::from_str::<SelectorSet>(r#"{"unit":"x.service"}"#).is_err(),
        "unknown demands are refused"
    );

    let json = serde_json::to_string(&facts()).unwrap();
    assert_eq!(serde_json::from_str::<Facts>(&json).unwrap(), facts());
    assert!(serde_json::from_str::<Facts>(r#"{"pid":1,"uid":2,"gid":3}"#).is_ok());
}
