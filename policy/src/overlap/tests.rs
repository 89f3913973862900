use super::*;

fn set(text: &str) -> SelectorSet {
    let mut set = SelectorSet::default();
    for part in text.split_whitespace() {
        let (key, value) = part.split_once('=').unwrap();
        match key {
            "user" => set.user = Some(value.to_owned()),
            "uid" => set.uid = Some(value.parse().unwrap()),
            "exe" => set.exe = Some(value.to_owned()),
            "unit" => set.unit = Some(value.to_owned()),
            "cgroup" => set.cgroup = Some(value.to_owned()),
            "group" => set.group = Some(value.to_owned()),
            "gid" => set.gid = Some(value.parse().unwrap()),
            "socket" => set.socket = value == "true",
            "sha" => set.exe_sha256 = Some(value.to_owned()),
            _ => set.run_by.push(value.to_owned()),
        }
    }
    set
}

#[test]
fn a_map_covers_another_if_it_demands_nothing_more() {
    for (wide, narrow) in [
        ("user=a", "user=a"),
        ("user=a", "user=a exe=/x"),
        ("user=a", "user=a uid=5 exe=/x sha=0"),
        ("user=a exe=/x", "user=a exe=/x sha=0"),
        ("user=a", "user=a run=root"),
        ("user=a", "user=a unit=a.service group=g gid=5 cgroup=/a socket=true"),
        ("unit=a.service", "unit=a.service user=a"),
        ("unit=a.service", "user=a cgroup=/system.slice/a.service"),
        ("user=a group=g", "user=a group=g gid=5"),
        ("user=a cgroup=/a", "user=a cgroup=/a group=g"),
    ] {
        assert!(covers(&set(wide), &set(narrow)), "{wide} / {narrow}");
    }
    for (wide, narrow) in [
        ("user=a", "user=b"),
        ("user=a", "uid=5"),
        ("uid=5", "uid=6"),
        ("user=a exe=/x", "user=a"),
        ("user=a exe=/x", "user=a exe=/y"),
        ("user=a sha=0", "user=a"),
        ("user=a sha=0", "user=a sha=1"),
        ("user=a uid=5", "user=a"),
        ("user=a run=root", "user=a run=root"),
        ("user=a socket=true", "user=a socket=true"),
        ("user=a unit=a.service", "user=a"),
        ("unit=a.service", "unit=b.service"),
        ("unit=a.service", "user=a cgroup=/user.slice/a.service"),
        ("user=a group=g", "user=a"),
        ("user=a group=g", "user=a group=h"),
        ("user=a gid=5", "user=a"),
        ("user=a gid=5", "user=a gid=6"),
        ("user=a cgroup=/a", "user=a"),
        ("user=a cgroup=/a", "user=a cgroup=/a/b"),
    ] {
        assert!(!covers(&set(wide), &set(narrow)), "{wide} / {narrow}");
    }
}

#[test]
fn host_patterns_meet_if_one_host_can_match_both() {
    let mutual = |one: &str, other: &str| {
        let (one, other) = (HostPattern::parse(one).unwrap(), HostPattern::parse(other).unwrap());
        let met = meet(&one, &other);
        assert_eq!(met, meet(&other, &one), "it is mutual");
        met
    };
    for (one, other) in [
        ("web-1", "web-1"),
        ("web-*", "web-1"),
        ("*", "web-1"),
        ("*", "*"),
        ("web-*", "web-1*"),
        ("*", "db-*"),
    ] {
        assert!(mutual(one, other), "{one} {other}");
    }
    for (one, other) in [
        ("web-1", "web-2"),
        ("web-*", "db-1"),
        ("web-*", "db-*"),
        ("web*", "web"),
        ("web-1*", "web-2*"),
    ] {
        assert!(!mutual(one, other), "{one} {other}");
    }
}

/// Reads a mesh of bots and gives the codes that it is told, with the two bots of each.
fn told(bots: &[(&str, &str, &str)]) -> Vec<String> {
    let mut text = String::from("version: 1\ntrust_domain: a.b\nbots:\n");
    for (name, hosts, attest) in bots {
        text.push_str(&format!("  {name}: {{owner: o, hosts: {hosts}, attest: {attest}}}\n"));
    }
    let source = crate::Source {
        name: "m".to_owned(),
        text,
    };
    let diagnostics = match crate::load(&[source]) {
        Ok(mesh) => mesh.warnings().clone(),
        Err(errors) => errors,
    };
    diagnostics
        .iter()
        .map(|diag| format!("{} {}", diag.code, diag.message))
        .collect()
}

#[test]
fn bots_that_one_process_would_be_are_refused_where_a_host_may_claim_both() {
    let same = ["BM0140 one process would be bot `a` and bot `b`"];
    assert_eq!(told(&[("a", "h1", "{user: x}"), ("b", "h*", "{user: x}")]), same);
    assert_eq!(
        told(&[("a", "h1", "{uid: 5, user: x}"), ("b", "h1", "{user: x}")]),
        same
    );
    assert_eq!(told(&[("a", "h1", "{uid: 5}"), ("b", "h1", "{uid: 5, user: x}")]), same);
    assert_eq!(
        told(&[("a", "h1", "{uid: 5, user: x}"), ("b", "h1", "{uid: 5, user: x}")]),
        same,
        "told once"
    );
    assert_eq!(
        told(&[
            ("a", "[h1, h2]", "{user: x}"),
            ("b", "[h3, h2]", "{user: x, exe: /srv/b}")
        ]),
        same
    );
    assert_eq!(
        told(&[("a", "h1", "{user: x}"), ("b", "h2", "{user: x}")]),
        [] as [&str; 0]
    );
    assert_eq!(
        told(&[("a", "h1", "{user: x}"), ("b", "h1", "{user: y}")]),
        [] as [&str; 0]
    );
    assert_eq!(
        told(&[("a", "h1", "[{user: x}, {user: x, exe: /srv/a}]")]),
        [] as [&str; 0],
        "one bot, two ways"
    );
}

#[test]
fn bots_that_share_a_user_are_warned_of_once_each() {
    let shared = |one, other| format!("BM0402 bots `{one}` and `{other}` share a user");
    let exe = |name: &str| format!("{{user: x, exe: /srv/{name}}}");
    let (a, b, c) = (exe("a"), exe("b"), exe("c"));
    assert_eq!(told(&[("a", "h", &a), ("b", "h", &b)]), [shared("a", "b")]);
    assert_eq!(
        told(&[("a", "h", &a), ("b", "h", &b), ("c", "h", &c)]),
        [shared("a", "b"), shared("b", "c")]
    );
    assert_eq!(
        told(&[
            ("a", "h", "{run_by: root, user: x}"),
            ("b", "h", "{run_by: root, user: x}")
        ]),
        [shared("a", "b")]
    );
    assert_eq!(
        told(&[("a", "h", "{run_by: root}"), ("b", "h", "{run_by: root}")]),
        [] as [&str; 0]
    );
    assert_eq!(
        told(&[("b", "h", &b), ("a", "h", &a)]),
        [shared("b", "a")],
        "in the order of the file"
    );
}

#[test]
fn the_other_selectors_tell_bots_of_one_user_apart_with_a_warning() {
    let shared = ["BM0402 bots `a` and `b` share a user"];
    for (left, right) in [
        ("{uid: 5, group: g}", "{uid: 5, group: h}"),
        ("{uid: 5, gid: 7}", "{uid: 5, gid: 8}"),
        ("{uid: 5, cgroup: /a}", "{uid: 5, cgroup: /b}"),
        ("{uid: 5, unit: a.service}", "{uid: 5, unit: b.service}"),
    ] {
        assert_eq!(told(&[("a", "h", left), ("b", "h", right)]), shared, "{left} {right}");
    }
}

#[test]
fn bots_of_one_unit_are_told_and_bots_of_two_are_not() {
    let one = "{unit: a.service}";
    let same = ["BM0140 one process would be bot `a` and bot `b`"];
    assert_eq!(told(&[("a", "h", one), ("b", "h", one)]), same);
    assert_eq!(told(&[("a", "h", one), ("b", "h", "{unit: a.service, user: x}")]), same);
    assert_eq!(
        told(&[("a", "h", one), ("b", "h", "{unit: b.service}")]),
        [] as [&str; 0]
    );
    assert_eq!(
        told(&[
            ("a", "h", "{unit: a.service, exe: /srv/a}"),
            ("b", "h", "{unit: a.service, exe: /srv/b}")
        ]),
        ["BM0402 bots `a` and `b` share a unit"]
    );
    assert_eq!(
        told(&[
            ("a", "h", "{unit: a.service, user: x}"),
            ("b", "h", "{unit: a.service, user: y}")
        ]),
        [] as [&str; 0],
        "users keep them apart"
    );
}

#[test]
fn a_host_tells_which_of_its_bots_it_cannot_tell_apart() {
    let entry = |bot: &str, text: &str| Entry {
        bot: BotName::parse(bot).unwrap(),
        attest: vec![set(text)],
    };
    let uid_of = |user: &str| ["zero", "one", "two"].iter().position(|known| *known == user);
    let uid_of = |user: &str| uid_of(user).map(|uid| u32::try_from(uid).unwrap());
    let alike = |left: &str, right: &str| {
        let found = on_host(&[entry("b", right), entry("a", left)], uid_of);
        found.first().map(|pair| {
            assert_eq!((pair.one.as_str(), pair.other.as_str(), found.len()), ("a", "b", 1));
            pair.likeness
        })
    };
    for (left, right, likeness) in [
        ("user=one", "uid=1", Some(Likeness::SameProcess)),
        ("user=one", "uid=1 user=one", Some(Likeness::SameProcess)),
        ("user=one exe=/x", "uid=1 exe=/y", Some(Likeness::Shared)),
        ("user=one socket=true", "uid=1 socket=true", Some(Likeness::Shared)),
        ("unit=a.service", "unit=a.service exe=/x", Some(Likeness::SameProcess)),
        (
            "unit=a.service user=one",
            "unit=a.service uid=1 gid=5",
            Some(Likeness::SameProcess),
        ),
        ("unit=a.service user=one", "unit=a.service uid=2", None),
        ("user=one", "uid=2", None),
        ("user=one", "user=two", None),
        ("user=none", "uid=1", None),
        ("user=none", "user=none", Some(Likeness::SameProcess)),
    ] {
        assert_eq!(alike(left, right), likeness, "{left} / {right}");
    }
}
