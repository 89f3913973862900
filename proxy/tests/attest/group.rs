//! Bots of one user that their groups tell apart.

use spiffe::selector::SelectorSet;

use crate::world::{Actor, World, bot, by_uid, entry, orders_uid, refused, skip_without_root};

/// Groups that no system has.
const ONE: u32 = 61_101;
const OTHER: u32 = 61_102;

fn by_gid(uid: u32, gid: u32) -> SelectorSet {
    SelectorSet {
        gid: Some(gid),
        ..by_uid(uid)
    }
}

fn by_group(uid: u32, group: &str) -> SelectorSet {
    SelectorSet {
        group: Some(group.to_owned()),
        ..by_uid(uid)
    }
}

#[tokio::test]
async fn the_effective_and_each_supplementary_group_tell_two_bots_of_one_user_apart() {
    if skip_without_root() {
        return;
    }
    let (world, uid) = (World::new(), orders_uid());
    world.entries([
        entry("prod/one", by_gid(uid, ONE)),
        entry("prod/other", by_gid(uid, OTHER)),
    ]);
    let (unix, tcp) = (world.unix(), world.tcp("127.0.0.1:0").await);
    for (gid, groups, name) in [
        (ONE, "5", "prod/one"),
        (uid, "5,61101", "prod/one"),
        (OTHER, "5", "prod/other"),
        (uid, "61102,5", "prod/other"),
    ] {
        let mut actor = Actor::in_groups(&world.program("orders"), uid, gid, groups);
        let (_, caller, _stream) = unix.attest(&mut actor).await.unwrap();
        assert_eq!(caller.bot, bot(name));
        assert!(caller.facts.gids.is_sorted() && caller.facts.gids.contains(&5));
        caller.recheck().unwrap();
        assert_eq!(tcp.attest(&mut actor).await.unwrap().1.bot, bot(name));
    }
    let mut neither = Actor::in_groups(&world.program("orders"), uid, uid, "5");
    let refusal = unix.attest(&mut neither).await.unwrap_err();
    assert_eq!(refusal.nearest().unwrap().selector, "gid");
    let mut both = Actor::in_groups(&world.program("orders"), uid, ONE, "61102");
    assert_eq!(refused(unix.attest(&mut both).await), "two_entries");
}

#[tokio::test]
async fn the_names_of_groups_tell_two_bots_of_one_user_apart() {
    if skip_without_root() {
        return;
    }
    let (world, uid) = (World::new(), orders_uid());
    let of = |name: &str| nix::unistd::Group::from_name(name).unwrap().unwrap().gid.to_string();
    world.entries([
        entry("prod/one", by_group(uid, "audio")),
        entry("prod/other", by_group(uid, "video")),
        entry("prod/none", by_group(uid, "no-such-group")),
    ]);
    let door = world.unix();
    for (name, found) in [("audio", "prod/one"), ("video", "prod/other")] {
        let mut actor = Actor::in_groups(&world.program("orders"), uid, uid, &of(name));
        let (_, caller, _stream) = door.attest(&mut actor).await.unwrap();
        assert_eq!(
            (caller.bot.as_str(), caller.facts.groups.as_slice()),
            (found, &[name.to_owned()][..])
        );
    }
    let mut actor = Actor::in_groups(&world.program("orders"), uid, uid, "5");
    let refusal = door.attest(&mut actor).await.unwrap_err();
    assert_eq!(refusal.nearest().unwrap().selector, "group");
}

#[tokio::test]
async fn a_process_that_changes_its_groups_is_nobody() {
    if skip_without_root() {
        return;
    }
    let world = World::new();
    world.entries([entry("prod/one", by_gid(0, ONE))]);
    let (unix, tcp) = (world.unix(), world.tcp("127.0.0.1:0").await);
    let mut actor = Actor::in_groups(&world.program("orders"), 0, 0, "61101");
    let (_, by_socket, _stream) = unix.attest(&mut actor).await.unwrap();
    let (_, by_port, _connection) = tcp.attest(&mut actor).await.unwrap();
    by_socket.recheck().unwrap();
    by_port.recheck().unwrap();
    actor.ask("regroup 61102");
    assert_eq!(refused(by_socket.recheck()), "groups_changed");
    assert_eq!(refused(by_port.recheck()), "groups_changed");
    assert_eq!(refused(unix.attest(&mut actor).await), "no_entry");
}

#[tokio::test]
async fn whois_tells_the_groups_though_no_entry_asks_for_them() {
    if skip_without_root() {
        return;
    }
    let (world, uid) = (World::new(), orders_uid());
    let actor = Actor::in_groups(&world.program("orders"), uid, 0, "61101");
    let report = world.attestor.whois(actor.pid).await.unwrap();
    assert_eq!(report.facts.gids, [0, ONE]);
    assert_eq!(report.facts.groups, ["root"]);
}
