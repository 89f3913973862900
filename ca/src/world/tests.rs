use super::*;

fn row(version: u64, state: HostRowState) -> HostRow {
    HostRow {
        name: HostName::parse("web-1").unwrap(),
        state,
        key: [1; 32],
        pending_key: None,
        serial: String::new(),
        not_after: Timestamp::from_unix_millis(0),
        joined: Timestamp::from_unix_millis(0),
        last_seen: Timestamp::from_unix_millis(0),
        advertise: Some("10.0.0.1:1".parse().unwrap()),
        version,
    }
}

fn world() -> World {
    let live = Live {
        generation: Generation::default(),
        mesh: None,
        sources_sha256: String::new(),
    };
    World::new(live, vec![row(1, HostRowState::Joined)])
}

fn connect(world: &World, key: u8, millis: i64) -> Option<Admitted> {
    let now = Timestamp::from_unix_millis(millis);
    let source = IpAddr::from([10, 0, 0, 1]);
    world.connect(&HostName::parse("web-1").unwrap(), &[key; 32], source, now, None)
}

#[test]
fn a_snapshot_that_an_eviction_has_overtaken_does_not_bring_the_host_back() {
    let world = world();
    world.put_row(row(3, HostRowState::Evicted));
    world.put_row(row(2, HostRowState::Joined));
    assert!(connect(&world, 1, 0).is_none());
    assert!(world.routes().is_empty());
}

#[test]
fn only_the_key_that_the_host_holds_opens_a_stream() {
    let world = world();
    assert!(connect(&world, 2, 0).is_none());
    assert!(connect(&world, 1, 0).is_some());
}

#[test]
fn a_stream_that_was_replaced_says_nothing_any_more() {
    let world = world();
    let name = HostName::parse("web-1").unwrap();
    let old = connect(&world, 1, 0).unwrap();
    let new = connect(&world, 1, 0).unwrap();
    assert_eq!(*old.ended.borrow(), Some(GoodbyeReason::Replaced));
    let generation = Generation { epoch: 1, revision: 1 };
    let now = Timestamp::from_unix_millis(0);
    world.receipt(&name, old.session, now, generation, Ok(()));
    world.disconnect(&name, old.session, now);
    let view = world.hosts().get(&name).unwrap().clone();
    assert!(view.session.is_some());
    assert_eq!(view.applied, None);
    world.receipt(&name, new.session, now, generation, Ok(()));
    assert_eq!(world.hosts().get(&name).unwrap().applied, Some(generation));
}

#[test]
fn a_host_that_comes_and_goes_is_recorded_every_ten_seconds_at_most() {
    let world = world();
    let recorded = [0, 1000, 9999, 10_000, 10_001].map(|millis| connect(&world, 1, millis).unwrap().record);
    assert_eq!(recorded, [true, false, false, true, false]);
}

#[test]
fn the_live_mesh_goes_only_upward() {
    let world = world();
    let live = |revision| Live {
        generation: Generation { epoch: 1, revision },
        mesh: None,
        sources_sha256: String::new(),
    };
    world.set_live(live(2));
    world.set_live(live(1));
    assert_eq!(world.live().generation.revision, 2);
}
