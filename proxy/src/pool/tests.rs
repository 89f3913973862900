//! What a connection belongs to.

use std::time::Duration;

use spiffe::id::BotName;

use super::*;
use crate::control::tests::fake_ca::{Root, trust_domain};
use crate::metrics::Way;
use crate::upstream::{CalleeBounds, Upstreams};

fn bot(name: &str) -> BotName {
    BotName::parse(name).unwrap()
}

fn id(name: &str) -> SpiffeId {
    SpiffeId::for_bot(&trust_domain(), &bot(name))
}

#[test]
fn no_connection_is_shared_by_two_callers_callees_addresses_or_bundles() {
    let now = Timestamp::from_unix_seconds(1_800_000_000);
    let (root, clock, pool) = (Root::new(now), Clock::system(), Pool::new(true));
    let svid = |name| root.svid(&id(name), now, Duration::from_hours(1));
    let (checkout, renewed, report) = (svid("prod/checkout"), svid("prod/checkout"), svid("prod/report"));
    let (orders, stock) = (id("prod/orders"), id("prod/stock"));
    let bundles = [1, 2].map(|sequence| Arc::new(root.bundle(sequence)));
    let [here, there] = [1, 2].map(|port| SocketAddr::from(([10, 0, 0, 1], port)));
    let bounds = CalleeBounds {
        in_flight: 1,
        failures: 1,
    };
    let upstream = Upstreams::new(7).of(Way::Out, &bot("prod/orders").into());
    let admitted = upstream.admit(&bot("prod/checkout"), bounds, Duration::ZERO).unwrap();
    let slot_for = |streams, svid, callee, bundle, address| {
        let peer = Peer {
            svid,
            callee,
            bundle,
            connect: None,
            addresses: &[address],
            admitted: &admitted,
            retries: 0,
            pending: 1,
            streams,
        };
        pool.slot(&clock, peer, address).unwrap()
    };
    let slot = |svid, callee, bundle, address| slot_for(Streams::Requests, svid, callee, bundle, address);
    let first = slot(&checkout, &orders, &bundles[0], here);
    assert!(Arc::ptr_eq(&first, &slot(&checkout, &orders, &bundles[0], here)));
    for (what, other) in [
        ("caller", slot(&report, &orders, &bundles[0], here)),
        ("SVID of the caller", slot(&renewed, &orders, &bundles[0], here)),
        ("callee", slot(&checkout, &stock, &bundles[0], here)),
        ("bundle", slot(&checkout, &orders, &bundles[1], here)),
        (
            "kind of stream",
            slot_for(Streams::Connections, &checkout, &orders, &bundles[0], here),
        ),
        ("address", slot(&checkout, &orders, &bundles[0], there)),
    ] {
        assert!(
            !Arc::ptr_eq(&first, &other),
            "another {what} has a connection of its own"
        );
    }
}
