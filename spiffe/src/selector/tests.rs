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
        gids: vec![50, 1002],
        groups: vec!["orders".to_owned(), "staff".to_owned()],
        unit: Some("orders.service".to_owned()),
        cgroup: Some("/system.slice/orders.service".to_owned()),
        socket: Some(bot()),
    }
}

/// Adds one demand to a set.
type Demand = fn(&mut SelectorSet);

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
        unit: text("orders.service"),
        cgroup: text("/system.slice/orders.service"),
        group: text("staff"),
        gid: Some(50),
        socket: true,
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
            unit: text("orders.service"),
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
        cgroup: text("/system.slice/orders.service"),
        group: text("staff"),
        gid: Some(50),
        socket: true,
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
    let cases: [(&str, Demand); 10] = [
        ("user", |set| set.user = text("other")),
        ("uid", |set| set.uid = Some(0)),
        ("unit", |set| set.unit = text("other.service")),
        ("group", |set| set.group = text("wheel")),
        ("gid", |set| set.gid = Some(51)),
        ("cgroup", |set| set.cgroup = text("/system.slice")),
        ("exe", |set| set.exe = text("/srv/other")),
        ("exe", |set| set.exe = text("/somewhere/else")),
        ("exe_sha256", |set| set.exe_sha256 = text(&"AB".repeat(32))),
        ("run_by", |set| set.run_by = vec!["root".to_owned()]),
    ];
    for (selector, demand) in cases {
        let mut set = bounded.clone();
        demand(&mut set);
        let facts = Facts { run: None, ..facts() };
        assert_eq!(check(&set, &facts), Err(selector), "{set:?}");
    }
}

#[test]
fn unknown_facts_match_no_demand() {
    let unknown = Facts::new(77, 1001, 1002);
    let bounded = SelectorSet {
        uid: Some(1001),
        ..Default::default()
    };
    assert_eq!(check(&bounded, &unknown), Ok(()));
    let demands: [(&str, Demand); 9] = [
        ("user", |set| set.user = text("orders")),
        ("unit", |set| set.unit = text("orders.service")),
        ("group", |set| set.group = text("staff")),
        ("gid", |set| set.gid = Some(50)),
        ("cgroup", |set| set.cgroup = text("/system.slice/orders.service")),
        ("exe", |set| set.exe = text("/srv/orders")),
        ("exe_sha256", |set| set.exe_sha256 = text("ab")),
        ("run_by", |set| set.run_by = vec!["root".to_owned()]),
        ("socket", |set| set.socket = true),
    ];
    for (selector, demand) in demands {
        let mut set = bounded.clone();
        demand(&mut set);
        assert_eq!(check(&set, &unknown), Err(selector));
    }
}

#[test]
fn a_process_over_the_socket_of_another_bot_does_not_match() {
    let set = SelectorSet {
        uid: Some(1001),
        socket: true,
        ..Default::default()
    };
    let other = Facts {
        socket: Some(BotName::parse("prod/other").unwrap()),
        ..facts()
    };
    let mismatch = set.matches(&bot(), &other).unwrap_err();
    assert_eq!(
        mismatch.to_string(),
        "socket: wanted a connection over the socket of prod/orders, found one over the socket of prod/other"
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
        serde_json::from_str::<SelectorSet>(r#"{"units":"x.service"}"#).is_err(),
        "unknown demands are refused"
    );

    let json = serde_json::to_string(&facts()).unwrap();
    assert_eq!(serde_json::from_str::<Facts>(&json).unwrap(), facts());
    let little = serde_json::from_str::<Facts>(r#"{"pid":1,"uid":2,"gid":3}"#);
    assert_eq!(little.unwrap(), Facts::new(1, 2, 3));
}

#[test]
fn a_unit_is_a_service_of_the_systems_own_tree() {
    for (cgroup, unit) in [
        ("/system.slice/orders.service", "orders.service"),
        ("/system.slice/system-orders.slice/orders@1.service", "orders@1.service"),
        ("/system.slice/a.slice/a-b.slice/c.service", "c.service"),
        ("/system.slice/_cpu.service", "cpu.service"),
    ] {
        assert_eq!(unit_of(cgroup), Some(unit), "{cgroup}");
    }
    for cgroup in [
        "/",
        "",
        "/orders.service",
        "/system.slice",
        "/system.slice/",
        "/system.slice/.service",
        "/system.slice/_.service",
        "/system.slice/docker-0123.scope",
        "/system.slice/orders.service/payload",
        "/system.slice/podman.service/orders.service",
        "/system.slice/.slice/orders.service",
        "/system.slice//orders.service",
        "/user.slice/user-1000.slice/user@1000.service/app.slice/orders.service",
        "/user.slice/user-1000.slice/user@1000.service",
        "/user.slice/system.slice/orders.service",
        "/kubepods.slice/orders.service",
        "/container/system.slice/orders.service",
        "/system.slicer/orders.service",
    ] {
        assert_eq!(unit_of(cgroup), None, "{cgroup}");
    }
}
