//! The kill switch: who is listed, for how long, what is refused meanwhile, and who has said so.

use std::time::Duration;

use ca_api::Generation;
use ca_api::admin::{HostState, Problem, QuarantineStatus, Quarantined, path};
use ca_api::node::{Quarantines, QuarantinesApplied, ca_message, host_message};
use serde_json::{Value, json};
use spiffe::id::{BotName, SpiffeId};
use spiffe_tls::PrivateKey;

use crate::support::*;

fn orders() -> Value {
    json!({"bot": "prod/orders"})
}

impl TestCa {
    async fn quarantine(&self, whom: Value, for_seconds: Option<u64>) -> Result<QuarantineStatus, Problem> {
        let body = json!({"whom": whom, "reason": "it calls what it should not", "for_seconds": for_seconds});
        self.admin("POST", path::QUARANTINE, body).await
    }

    async fn release(&self, whom: Value) -> Result<QuarantineStatus, Problem> {
        self.admin("POST", path::RELEASE, json!({"whom": whom})).await
    }

    async fn enforced(&self) -> QuarantineStatus {
        self.get(&format!("{}?wait_seconds=30", path::QUARANTINES)).await
    }
}

impl Stream {
    async fn quarantines(&mut self) -> Quarantines {
        self.find(|message| match message {
            ca_message::Message::Quarantines(quarantines) => Some(quarantines),
            _ => None,
        })
        .await
    }

    async fn enforces(&self, list: &Quarantines, streams_cut: u64) {
        let receipt = QuarantinesApplied {
            generation: list.generation,
            streams_cut,
        };
        self.send(host_message::Message::QuarantinesApplied(receipt)).await;
    }
}

fn csr(bot: &str) -> Vec<u8> {
    let id = SpiffeId::for_bot(&domain(), &BotName::parse(bot).unwrap());
    PrivateKey::generate().unwrap().csr(&id).unwrap()
}

#[tokio::test]
async fn every_host_gets_the_whole_list_first_and_at_each_change_and_is_counted_by_its_receipt() {
    let ca = TestCa::with_mesh().await;
    let mut streams = Vec::new();
    for name in ["web-1", "web-2", "db-1"] {
        let host = ca.join(name).await;
        let mut stream = ca.connect(&host).await.sync(hello("")).await.unwrap();
        let Some(ca_message::Message::Quarantines(list)) = stream.next().await else {
            panic!("the first message is another one");
        };
        assert_eq!((list.bots.len(), list.hosts.len(), list.serials.len()), (0, 0, 0));
        streams.push(stream);
    }
    let set = ca.quarantine(orders(), None).await.unwrap();
    assert_eq!(set.quarantines.len(), 1);
    for (n, stream) in streams.iter_mut().enumerate() {
        let list = stream.quarantines().await;
        assert_eq!(list.bots, ["prod/orders"]);
        assert_eq!(list.generation.map(Generation::from), Some(set.generation));
        if n < 2 {
            stream.enforces(&list, 3).await;
        }
    }
    let two = eventually(async || {
        let status: QuarantineStatus = ca.get(path::QUARANTINES).await;
        (status.streams_cut == 6).then_some(status)
    })
    .await;
    let behind: Vec<_> = two
        .hosts
        .iter()
        .filter(|host| host.state == HostState::Behind)
        .collect();
    assert_eq!(behind.len(), 1, "{behind:?}");
    assert_eq!(behind[0].host.as_str(), "db-1");
    assert!(two.slowest_ms.is_some());
    // A receipt for a list that was never sent is none.
    let later = Quarantines {
        generation: Some(Generation { epoch: 1, revision: 99 }.into()),
        ..Quarantines::default()
    };
    streams[2].enforces(&later, 50).await;
    let list = Quarantines {
        generation: Some(set.generation.into()),
        ..Quarantines::default()
    };
    streams[2].enforces(&list, 1).await;
    let all = ca.enforced().await;
    assert!(all.hosts.iter().all(|host| host.state == HostState::Live), "{all:?}");
    assert_eq!(all.streams_cut, 7);
}

#[tokio::test]
async fn a_quarantine_outlives_restart_apply_and_rollback_and_ends_by_release_only() {
    let ca = TestCa::with_mesh().await;
    let set = ca.quarantine(orders(), None).await.unwrap();
    ca.apply(&MESH.replace("reads-orders", "reads"), Some((1, 1)))
        .await
        .unwrap();
    let _rolled: Value = ca
        .admin("POST", path::ROLLBACK, json!({"revision": 1, "epoch": null}))
        .await
        .unwrap();
    let ca = ca.restart().await;
    let status: QuarantineStatus = ca.get(path::QUARANTINES).await;
    assert_eq!(status.generation, set.generation);
    let [quarantine] = status.quarantines.as_slice() else {
        panic!("{status:?}")
    };
    assert_eq!(
        quarantine.whom,
        Quarantined::Bot(BotName::parse("prod/orders").unwrap())
    );
    assert_eq!(quarantine.reason, "it calls what it should not");
    let host = ca.join("web-1").await;
    let mut stream = ca.connect(&host).await.sync(hello("")).await.unwrap();
    assert_eq!(stream.quarantines().await.bots, ["prod/orders"]);
    let released = ca.release(orders()).await.unwrap();
    assert!(released.generation > set.generation, "numbers only go up");
    assert!(stream.quarantines().await.bots.is_empty());
    assert_eq!(ca.release(orders()).await.unwrap_err().code, "not_quarantined");
    for kind in ["quarantined", "released"] {
        let events = ca.events(kind);
        assert_eq!(events.len(), 1, "{kind}");
        assert_eq!(events[0]["subject"], "bot:prod/orders");
        assert!(
            events[0]["actor"].as_str().unwrap().starts_with("operator:"),
            "{events:?}"
        );
    }
}

#[tokio::test]
async fn one_with_an_end_ends_by_itself_and_asking_again_does_not_shorten_it() {
    let ca = TestCa::with_mesh().await;
    let host = ca.join("web-1").await;
    let mut stream = ca.connect(&host).await.sync(hello("")).await.unwrap();
    ca.quarantine(orders(), Some(600)).await.unwrap();
    let status = ca.quarantine(orders(), Some(60)).await.unwrap();
    assert_eq!(
        status.quarantines[0].until,
        Some(ca.clock.now() + Duration::from_secs(600))
    );
    while stream.quarantines().await.bots.is_empty() {}
    ca.hand.advance(Duration::from_secs(599));
    let status: QuarantineStatus = ca.get(path::QUARANTINES).await;
    assert_eq!(status.quarantines.len(), 1);
    ca.hand.advance(Duration::from_secs(1));
    while !stream.quarantines().await.bots.is_empty() {}
    let ended = eventually(async || ca.events("released").pop()).await;
    assert_eq!(
        (&ended["actor"], &ended["detail"]["why"]),
        (&"ca".into(), &"its time is over".into())
    );
}

#[tokio::test]
async fn a_quarantined_bot_gets_no_svid_until_it_is_released() {
    let ca = TestCa::with_mesh().await;
    let host = ca.join("web-2").await;
    let mut connection = ca.connect(&host).await;
    ca.quarantine(orders(), None).await.unwrap();
    let refused = connection.issue("prod/orders", csr("prod/orders")).await.unwrap();
    assert_eq!((refused.refusal.as_str(), refused.chain.len()), ("quarantined", 0));
    ca.release(orders()).await.unwrap();
    let issued = connection.issue("prod/orders", csr("prod/orders")).await.unwrap();
    assert_eq!((issued.refusal.as_str(), issued.chain.len()), ("", 1));
}

#[tokio::test]
async fn a_quarantined_host_gets_nothing_but_the_list_and_what_it_holds_is_listed() {
    let ca = TestCa::with_mesh().await;
    let caller = ca.join("web-1").await;
    let mut watching = ca.connect(&caller).await.sync(hello("")).await.unwrap();
    let host = ca.join("web-2").await;
    let mut connection = ca.connect(&host).await;
    let mut stream = connection.sync(hello(":15443")).await.unwrap();
    let issued = connection.issue("prod/orders", csr("prod/orders")).await.unwrap();
    assert_eq!(issued.chain.len(), 1);
    while watching.endpoints().await.is_empty() {}
    let whom = json!({"host": "web-2"});
    ca.quarantine(whom.clone(), None).await.unwrap();
    let list = eventually(async || Some(stream.quarantines().await).filter(|list| !list.hosts.is_empty())).await;
    assert_eq!(list.hosts, ["web-2"]);
    let serials = ca.events("issued");
    let serial = serials
        .iter()
        .find(|event| event["subject"] == bot_id("prod/orders").as_str())
        .unwrap()["detail"]["serial"]
        .as_str()
        .unwrap();
    assert!(list.serials.iter().any(|listed| listed == serial), "{list:?}");
    while !watching.endpoints().await.is_empty() {}
    let refused = connection.issue("prod/orders", csr("prod/orders")).await.unwrap();
    assert_eq!(refused.refusal, "quarantined");
    let mut again = ca.connect(&host).await;
    let key = PrivateKey::generate().unwrap();
    let request = bound_request(&host.name, host.svid.key(), &key, &again.exporter);
    let refused = again.client.attest(request).await.unwrap_err();
    assert!(refused.message().contains("quarantined"), "{refused}");
    let token = ca.token("web-2").await;
    ca.release(whom).await.unwrap();
    let mut again = ca.connect(&host).await;
    let request = bound_request(&host.name, host.svid.key(), &key, &again.exporter);
    again.client.attest(request).await.unwrap();
    drop(token);
}

#[tokio::test]
async fn what_an_evicted_host_held_stays_listed_after_it_has_joined_again() {
    let ca = TestCa::with_mesh().await;
    let host = ca.join("web-2").await;
    ca.connect(&host)
        .await
        .issue("prod/orders", csr("prod/orders"))
        .await
        .unwrap();
    ca.evict("web-2").await;
    let ca = ca.restart().await;
    let host = ca.join("web-2").await;
    let mut connection = ca.connect(&host).await;
    let issued = connection.issue("prod/orders", csr("prod/orders")).await.unwrap();
    assert_eq!(issued.chain.len(), 1);
    let list = connection.sync(hello("")).await.unwrap().quarantines().await;
    // The node SVID and the bot's, both from before.
    assert_eq!((list.hosts.len(), list.serials.len()), (0, 2));
}

#[tokio::test]
async fn a_request_that_would_give_false_comfort_is_refused() {
    let ca = TestCa::with_mesh().await;
    let missing = ca.quarantine(json!({"bot": "prod/odrers"}), None).await.unwrap_err();
    assert_eq!((missing.status, missing.code.as_str()), (404, "no_such_bot"));
    let missing = ca.quarantine(json!({"host": "web-9"}), None).await.unwrap_err();
    assert_eq!((missing.status, missing.code.as_str()), (404, "no_such_host"));
    assert_eq!(ca.quarantine(orders(), Some(0)).await.unwrap_err().status, 400);
    for reason in [" ", &"x".repeat(257), "two\nlines"] {
        let body = json!({"whom": orders(), "reason": reason});
        let refused: Result<QuarantineStatus, Problem> = ca.admin("POST", path::QUARANTINE, body).await;
        assert_eq!(refused.unwrap_err().status, 400, "{reason:?}");
    }
    let status: QuarantineStatus = ca.get(path::QUARANTINES).await;
    assert!(status.quarantines.is_empty());
    let unknown = format!("{}?revision=99", path::QUARANTINES);
    let refused: Result<QuarantineStatus, Problem> = ca.admin("GET", &unknown, Value::Null).await;
    assert_eq!(refused.unwrap_err().code, "no_such_revision");
}
