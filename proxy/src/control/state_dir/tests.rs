use super::*;

fn open() -> (tempfile::TempDir, StateDir) {
    let dir = tempfile::tempdir().unwrap();
    let state = StateDir::open(dir.path().join("a/b")).unwrap();
    (dir, state)
}

fn node() -> SavedSvid {
    SavedSvid {
        key: Zeroizing::new(vec![1, 2, 3]),
        chain: vec![vec![4], vec![5, 6]],
    }
}

fn time(seen_unix_ms: i64) -> SavedTime {
    SavedTime {
        seen_unix_ms,
        ca_heard_unix_ms: Some(seen_unix_ms),
    }
}

#[test]
fn what_is_kept_is_found_again() {
    let (_dir, state) = open();
    assert!(state.node().unwrap().is_none());
    state.save_join_key(b"key").unwrap();
    assert_eq!(**state.join_key().unwrap().unwrap(), *b"key");
    state.save_node(&node()).unwrap();
    let found = state.node().unwrap().unwrap();
    assert_eq!((&*found.key, &found.chain), (&*node().key, &node().chain));
    assert!(
        state.join_key().unwrap().is_none(),
        "the key that claimed the token is gone"
    );
    let bundle = SavedBundle {
        epoch: 3,
        jwks: "{}".into(),
    };
    state.save_bundle(&bundle).unwrap();
    assert_eq!(state.bundle().unwrap(), Some(bundle));
    state.save_time(&time(17)).unwrap();
    state.save_time(&time(18)).unwrap();
    assert_eq!(state.time().unwrap(), Some(time(18)));
    state.write(TIME, b"{\"seen_unix_ms\":5}").unwrap();
    let seen = SavedTime {
        seen_unix_ms: 5,
        ca_heard_unix_ms: None,
    };
    assert_eq!(state.time().unwrap(), Some(seen), "as an earlier version wrote it");
}

#[test]
fn every_file_is_for_its_owner_only() {
    let (_dir, state) = open();
    state.save_node(&node()).unwrap();
    state.save_time(&time(1)).unwrap();
    assert_eq!(fs::metadata(&state.path).unwrap().permissions().mode() & 0o777, 0o700);
    for entry in fs::read_dir(&state.path).unwrap() {
        let mode = entry.unwrap().metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}

#[test]
fn a_key_that_others_could_read_is_refused() {
    let (_dir, state) = open();
    state.save_node(&node()).unwrap();
    fs::set_permissions(state.node_file(), fs::Permissions::from_mode(0o640)).unwrap();
    assert!(matches!(state.node(), Err(StateError::Exposed { mode: 0o640, .. })));
}

#[test]
fn a_damaged_file_is_said_to_be_damaged_without_its_content() {
    let (_dir, state) = open();
    state.write(NODE, b"{\"key\":\"c2VjcmV0\",\"chain\":[\"*\"]}").unwrap();
    assert!(matches!(state.node(), Err(StateError::Damaged { .. })));
    state.write(NODE, b"{\"key\":\"c2VjcmV0\",\"more\":1}").unwrap();
    let Err(error) = state.node() else {
        panic!("unknown fields are damage")
    };
    assert!(!error.to_string().contains("c2VjcmV0"));
}

#[test]
fn a_file_left_half_written_changes_nothing() {
    let (_dir, state) = open();
    state.save_time(&time(1)).unwrap();
    fs::write(state.path.join("time.new"), b"{\"seen").unwrap();
    assert_eq!(state.time().unwrap(), Some(time(1)));
    state.save_time(&time(2)).unwrap();
    assert_eq!(state.time().unwrap(), Some(time(2)));
}

#[test]
fn an_evicted_host_forgets_who_it_was() {
    let (_dir, state) = open();
    state.save_node(&node()).unwrap();
    state
        .save_slice(&SavedSlice {
            generation: Generation::default(),
            json: "{}".into(),
        })
        .unwrap();
    state.forget().unwrap();
    assert!(state.node().unwrap().is_none() && state.slice().unwrap().is_none());
    state.forget().unwrap();
}
