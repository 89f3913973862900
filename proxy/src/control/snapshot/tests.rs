use ca_api::admin::Quarantined;
use spiffe::id::SpiffeId;

use super::*;
use crate::control::tests::fake_ca::{Root, trust_domain};
use crate::control::tests::{slice_json, start_time};

fn first() -> Snapshot {
    Snapshot::first(trust_domain(), HostName::parse("web-1").unwrap()).unwrap()
}

fn offer(epoch: u64, revision: u64, bots: &[&str]) -> OfferedSlice {
    let json = slice_json("web-1", bots).into_bytes();
    OfferedSlice {
        generation: Generation { epoch, revision },
        sha256: sha256(&json).to_vec(),
        json,
        features: Vec::new(),
    }
}

fn next<E: std::fmt::Debug>(change: Result<Change, E>) -> Snapshot {
    let Ok(Change::Next(next)) = change else {
        panic!("not news: {change:?}")
    };
    *next
}

fn root() -> Root {
    Root::new(start_time())
}

#[test]
fn before_the_first_slice_nobody_exists_and_nobody_is_trusted() {
    let first = first();
    assert!(!first.has_slice() && first.entries.is_empty());
    assert_eq!(first.claimable().count(), 0);
    assert!(first.bundle.authorities().is_empty());
}

#[test]
fn the_first_slice_may_have_any_number() {
    let snapshot = next(first().with_slice(&offer(0, 0, &["prod/orders"])));
    assert!(snapshot.has_slice());
}

#[test]
fn a_later_epoch_counts_more_than_a_later_revision() {
    let snapshot = next(first().with_slice(&offer(1, 900, &["prod/orders"])));
    let restored = next(snapshot.with_slice(&offer(2, 1, &["prod/quotes"])));
    assert_eq!(restored.generation, Generation { epoch: 2, revision: 1 });
    assert!(matches!(
        restored.with_slice(&offer(1, 901, &[])),
        Err(SliceError::Older { .. })
    ));
}

#[test]
fn a_host_may_claim_only_the_bots_that_name_it() {
    let json = serde_json::json!({
        "version": 1, "trust_domain": "acme.internal", "slice": "web-1", "bots": {
            "prod/orders": { "owner": "ops@acme.internal", "hosts": ["web-*"], "attest": { "uid": 2000 } },
            "prod/other": { "owner": "ops@acme.internal", "hosts": ["db-*"] },
        },
    })
    .to_string();
    let offered = OfferedSlice {
        generation: Generation { epoch: 1, revision: 1 },
        sha256: sha256(json.as_bytes()).to_vec(),
        json: json.into_bytes(),
        features: Vec::new(),
    };
    let snapshot = next(first().with_slice(&offered));
    assert_eq!(
        snapshot.claimable().map(BotName::as_str).collect::<Vec<_>>(),
        ["prod/orders"]
    );
    assert_eq!(snapshot.entries.len(), 1);
}

#[test]
fn a_slice_without_generation_or_host_is_refused() {
    let wire = node::Slice {
        generation: None,
        sha256: vec![],
        json: vec![],
        features: vec![],
    };
    assert!(matches!(OfferedSlice::from_wire(wire), Err(SliceError::NoGeneration)));
    let json = br#"{"version":1,"trust_domain":"acme.internal","bots":{}}"#.to_vec();
    let offered = OfferedSlice {
        generation: Generation::default(),
        sha256: sha256(&json).to_vec(),
        json,
        features: Vec::new(),
    };
    assert!(matches!(first().with_slice(&offered), Err(SliceError::Head { .. })));
    let json = vec![0xff];
    let offered = OfferedSlice {
        generation: Generation::default(),
        sha256: sha256(&json).to_vec(),
        json,
        features: Vec::new(),
    };
    assert!(matches!(first().with_slice(&offered), Err(SliceError::Utf8 { .. })));
}

#[test]
fn a_bundle_goes_upward_by_epoch_then_sequence() {
    let (root, other) = (root(), root());
    let jwks = |root: &Root, sequence| root.bundle(sequence).to_jwks();
    let snapshot = next(first().with_bundle(Some(1), &jwks(&root, 5)));
    let older = snapshot.with_bundle(Some(1), &jwks(&other, 4));
    assert!(matches!(
        older,
        Err(BundleRefusal::Older {
            offered: (1, 4),
            applied: (1, 5)
        })
    ));
    let other_of_same_number = snapshot.with_bundle(Some(1), &jwks(&other, 5));
    assert!(matches!(other_of_same_number, Err(BundleRefusal::Differs { .. })));
    assert!(matches!(
        snapshot.with_bundle(Some(1), &jwks(&root, 5)),
        Ok(Change::Known)
    ));
    let restored = next(snapshot.with_bundle(Some(2), &jwks(&other, 1)));
    assert!(matches!(
        restored.with_bundle(None, &jwks(&root, 0)),
        Err(BundleRefusal::Older { .. })
    ));
    assert!(matches!(
        restored.with_bundle(Some(1), &jwks(&root, 9)),
        Err(BundleRefusal::Older { .. })
    ));
}

#[test]
fn the_first_bundle_may_have_any_number_but_must_trust_somebody() {
    assert_eq!(
        next(first().with_bundle(None, &root().bundle(0).to_jwks()))
            .bundle
            .authorities()
            .len(),
        1
    );
    assert!(matches!(
        first().with_bundle(None, br#"{"keys":[]}"#),
        Err(BundleRefusal::Empty)
    ));
    assert!(matches!(
        first().with_bundle(None, b"no"),
        Err(BundleRefusal::Parse { .. })
    ));
}

fn endpoints(revision: u64, address: &str) -> node::Endpoints {
    node::Endpoints {
        generation: Some(node::Generation { epoch: 1, revision }),
        bots: vec![node::BotEndpoints {
            bot: "prod/orders".into(),
            address: vec![address.into()],
        }],
    }
}

#[test]
fn endpoints_and_quarantines_of_an_earlier_state_are_left() {
    let at = |revision| Some(node::Generation { epoch: 1, revision });
    let Change::Next(snapshot) = first().with_endpoints(endpoints(5, "10.0.0.1:1")) else {
        panic!("news")
    };
    assert!(matches!(
        snapshot.with_endpoints(endpoints(4, "10.0.0.2:1")),
        Change::Known
    ));
    assert!(matches!(
        snapshot.with_endpoints(endpoints(5, "10.0.0.1:1")),
        Change::Known
    ));
    assert!(
        matches!(snapshot.with_endpoints(endpoints(5, "10.0.0.2:1")), Change::Next(_)),
        "hosts come and go"
    );
    let quarantines = |revision, bots: &[&str]| node::Quarantines {
        generation: at(revision),
        bots: bots.iter().map(|bot| (*bot).to_owned()).collect(),
        hosts: vec![],
        serials: vec![],
    };
    let Some(Change::Next(snapshot)) = snapshot.with_quarantines(&quarantines(5, &["prod/orders"])) else {
        panic!("news")
    };
    assert!(matches!(
        snapshot.with_quarantines(&quarantines(4, &[])),
        Some(Change::Known)
    ));
    assert!(snapshot.with_quarantines(&quarantines(6, &["NOT A NAME"])).is_none());
}

#[test]
fn a_slice_that_was_read_of_an_earlier_moment_takes_nothing_else_back() {
    let early = first();
    let read = next(early.with_slice(&offer(1, 7, &["prod/orders"])));
    let Some(Change::Next(now)) = early.with_quarantines(&listed(1, &["prod/orders"], &[])) else {
        panic!("news")
    };
    let now = next(now.with_bundle(Some(1), &root().bundle(5).to_jwks()));
    let Change::Next(now) = now.with_endpoints(endpoints(5, "10.0.0.1:1")) else {
        panic!("news")
    };
    let merged = now.with_policy_of(read.clone());
    assert!(merged.is_quarantined(&BotName::parse("prod/orders").unwrap()));
    assert_eq!(merged.bundle.sequence(), 5);
    assert_eq!(merged.endpoints.len(), 1);
    assert_eq!(merged.slice_sha256(), read.slice_sha256());
    assert_eq!(
        (merged.generation, merged.entries.len()),
        (read.generation, read.entries.len())
    );
    assert!(merged.mesh.bots().contains_key(&BotName::parse("prod/orders").unwrap()));
}

#[test]
fn addresses_of_one_bot_are_bounded() {
    let address = (0..200).map(|port| format!("10.0.0.1:{}", port + 1)).collect();
    let bots = vec![node::BotEndpoints {
        bot: "prod/orders".into(),
        address,
    }];
    let Change::Next(snapshot) = first().with_endpoints(node::Endpoints { generation: None, bots }) else {
        panic!("news")
    };
    assert_eq!(snapshot.endpoints.values().map(Vec::len).sum::<usize>(), ADDRESSES_MAX);
}

#[test]
fn what_is_kept_is_the_same_moment_again() {
    let snapshot = next(first().with_slice(&offer(1, 7, &["prod/orders"])));
    let snapshot = next(snapshot.with_bundle(Some(1), &root().bundle(5).to_jwks()));
    let saved = offer(1, 7, &["prod/orders"]).to_save();
    let again = next(first().with_slice(&OfferedSlice::from_saved(saved)));
    assert_eq!(again.slice_sha256(), snapshot.slice_sha256());
    let bundle = snapshot.bundle_to_save();
    let again = next(again.with_bundle(Some(bundle.epoch), bundle.jwks.as_bytes()));
    assert_eq!(again.bundle, snapshot.bundle);
}

impl Snapshot {
    /// The moment of a host with this slice and these quarantines, for tests of what uses it.
    pub(crate) fn of_slice(json: &str, quarantines: &node::Quarantines) -> Self {
        let offered = OfferedSlice {
            features: Vec::new(),
            generation: Generation { epoch: 1, revision: 1 },
            sha256: sha256(json.as_bytes()).to_vec(),
            json: json.as_bytes().to_vec(),
        };
        let snapshot = next(first().with_slice(&offered));
        let Some(change) = snapshot.with_quarantines(quarantines) else {
            panic!("no list: {quarantines:?}")
        };
        match change {
            Change::Next(next) => (*next).with_local(Arc::default()),
            Change::Known => snapshot.with_local(Arc::default()),
        }
    }
}

fn listed(revision: u64, bots: &[&str], hosts: &[&str]) -> node::Quarantines {
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    node::Quarantines {
        generation: Some(node::Generation { epoch: 1, revision }),
        bots: names(bots),
        hosts: names(hosts),
        serials: vec!["0a".into()],
    }
}

fn local(whom: Quarantined) -> Arc<LocalList> {
    let quarantine = ca_api::admin::Quarantine {
        whom: whom.clone(),
        reason: "r".into(),
        actor: "root".into(),
        since: start_time(),
        until: None,
    };
    Arc::new(BTreeMap::from([(whom, quarantine)]))
}

#[test]
fn both_lists_count_and_the_end_of_one_leaves_the_other() {
    let (orders, quotes) = (
        BotName::parse("prod/orders").unwrap(),
        BotName::parse("prod/quotes").unwrap(),
    );
    let Some(Change::Next(snapshot)) = first().with_quarantines(&listed(1, &["prod/orders"], &[])) else {
        panic!("news")
    };
    let both = snapshot.with_local(local(Quarantined::Bot(quotes.clone())));
    assert!(both.is_quarantined(&orders) && both.is_quarantined(&quotes));
    let Some(Change::Next(released)) = both.with_quarantines(&listed(2, &[], &[])) else {
        panic!("news")
    };
    assert!(!released.is_quarantined(&orders) && released.is_quarantined(&quotes));
    assert!(!released.with_local(Arc::default()).is_quarantined(&quotes));
}

#[test]
fn what_the_ca_quarantined_is_kept_and_what_was_set_here_is_kept_elsewhere() {
    let Some(Change::Next(snapshot)) = first().with_quarantines(&listed(3, &["prod/orders"], &["web-7"])) else {
        panic!("news")
    };
    let here = Quarantined::Host(HostName::parse("web-1").unwrap());
    let saved = snapshot.with_local(local(here)).endpoints_to_save();
    let again = first().with_saved(saved);
    assert!(again.is_quarantined(&BotName::parse("prod/orders").unwrap()));
    let hosts: Vec<_> = again.quarantined_hosts.iter().map(HostName::as_str).collect();
    assert_eq!((hosts, again.mesh_quarantines().serials.len()), (vec!["web-7"], 1));
    assert!(
        matches!(again.with_quarantines(&listed(2, &[], &[])), Some(Change::Known)),
        "an older list releases nobody"
    );
}

#[test]
fn quarantines_that_cannot_be_read_stop_everything_here_until_the_ca_is_heard() {
    let unknown = first().with_quarantines_unknown();
    let (id, bot) = (
        SpiffeId::parse("spiffe://acme.internal/prod/orders").unwrap(),
        BotName::parse("prod/orders").unwrap(),
    );
    assert!(unknown.cut_off(&id, &bot, None, Some(&bot)).is_some());
    let Some(Change::Next(told)) = unknown.with_quarantines(&listed(1, &[], &[])) else {
        panic!("news")
    };
    assert!(told.cut_off(&id, &bot, None, Some(&bot)).is_none());
}
