//! What a host takes for the word of a witness, and what it makes of one that has seen something else.

use audit::key::KeyName;
use audit::note::Note;
use audit::{Cosigner, CosignerKey};
use ca_api::node::{WitnessRequest, WitnessResponse};

use super::fake_ca::{FakeCa, Heads};
use super::*;

type Says = fn(&Heads, &WitnessRequest, Timestamp) -> WitnessResponse;

fn key(name: &str) -> CosignerKey {
    CosignerKey::generate(KeyName::parse(name).unwrap()).unwrap()
}

/// A host whose heads are cosigned, and the key of the witness that says this of them.
async fn told(says: Says) -> (FakeCa, Host, Running, Cosigner) {
    let host = Host::new();
    let ca = FakeCa::start(&host.clock).await;
    let heads = Heads {
        ca: key("acme.internal/ca/ca-1/cosigner"),
        witness: key("w.example/w1"),
        says,
        cosigned: Vec::new(),
        asked: 0,
    };
    let witness = heads.witness.verifier();
    ca.state().heads = Some(heads);
    let (host, running) = Host::joined(&ca, host).await;
    (ca, host, running, witness)
}

/// Waits until the witness was asked so often, in minutes that pass.
async fn asked(ca: &FakeCa, host: &Host, times: usize) {
    let patience = async {
        loop {
            let now = ca.state().heads.as_ref().unwrap().asked;
            if now >= times {
                return;
            }
            host.hand.advance(Duration::from_secs(61));
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(WAIT_MAX, patience)
        .await
        .expect("the witness to be asked");
}

fn note(note: &Note) -> WitnessResponse {
    WitnessResponse {
        note: note.to_string(),
        ..WitnessResponse::default()
    }
}

fn newest(heads: &Heads) -> &Note {
    heads.cosigned.last().unwrap()
}

#[tokio::test]
async fn a_head_that_the_witness_cosigned_is_kept_and_not_asked_for_again() {
    let (ca, host, running, witness) = told(|heads, request, now| {
        let size = newest(heads).text().lines().nth(1).unwrap().parse();
        assert_eq!((Ok(request.size), request.old_size), (size, 0));
        note(&heads.witness.cosign(newest(heads), now).unwrap())
    })
    .await;
    asked(&ca, &host, 1).await;
    let dir = host.dir.path().join("ledger");
    let kept = tokio::time::timeout(WAIT_MAX, async {
        loop {
            if let Some(kept) = audit::kept::kept_witnessed(&dir, &witness) {
                return kept;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    let kept = kept.await.unwrap();
    let counted = running.control.witnessed();
    assert_eq!(counted["w.example/w1"].records, kept.checkpoint.size);
    running.stop().await;
}

#[tokio::test]
async fn what_the_ledger_or_the_witness_has_not_signed_is_not_kept() {
    let lies: [Says; 4] = [
        |heads, _, now| note(&key("w.example/w1").cosign(newest(heads), now).unwrap()),
        |heads, _, _| note(newest(heads)),
        |heads, _, now| {
            let other = newest(heads).to_string().replacen("web-1\n", "web-1\n1", 1);
            note(
                &heads
                    .witness
                    .cosign(&Note::parse(other.as_bytes()).unwrap(), now)
                    .unwrap(),
            )
        },
        |_, _, _| WitnessResponse {
            note: "no note".to_owned(),
            ..WitnessResponse::default()
        },
    ];
    // At once: each waits for its ledger's first checkpoint.
    let [one, two, three, four] = lies.map(is_not_kept);
    tokio::join!(one, two, three, four);
}

async fn is_not_kept(says: Says) {
    let (ca, host, running, witness) = told(says).await;
    asked(&ca, &host, 2).await;
    let dir = host.dir.path().join("ledger");
    assert_eq!(audit::kept::kept_witnessed(&dir, &witness), None);
    assert!(!dir.join("witnessed").exists());
    assert_eq!(running.control.witnessed()["w.example/w1"].records, 0);
    running.stop().await;
}

#[tokio::test]
async fn an_older_head_in_place_of_the_one_that_was_told_is_not_kept() {
    let (ca, host, running, witness) = told(|heads, _, now| {
        let of = if heads.cosigned.len() > 1 {
            &heads.cosigned[0]
        } else {
            newest(heads)
        };
        match heads.cosigned.len() {
            1 => WitnessResponse {
                refusal: "away".to_owned(),
                ..WitnessResponse::default()
            },
            _ => note(&heads.witness.cosign(of, now).unwrap()),
        }
    })
    .await;
    asked(&ca, &host, 1).await;
    let patience = async {
        while ca.state().heads.as_ref().unwrap().cosigned.len() < 2 {
            running.ledger.stranger(std::net::IpAddr::from([127, 0, 0, 1]), "test");
            host.hand.advance(Duration::from_secs(61));
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(WAIT_MAX, patience).await.expect("a second head");
    let before = ca.state().heads.as_ref().unwrap().asked;
    asked(&ca, &host, before + 2).await;
    let dir = host.dir.path().join("ledger");
    assert_eq!(audit::kept::kept_witnessed(&dir, &witness), None);
    running.stop().await;
}

#[tokio::test]
async fn a_witness_that_has_seen_another_past_is_recorded_once_and_begins_no_epoch() {
    let (ca, host, running, _witness) = told(|_, _, _| WitnessResponse {
        refusal: "set_back".to_owned(),
        size: 1_000_000,
        ..WitnessResponse::default()
    })
    .await;
    asked(&ca, &host, 3).await;
    assert_eq!(running.ledger.stats().epoch, 1);
    running.stop().await;
    let text = host.ledger_text();
    assert_eq!(text.matches("ledger_not_as_witnessed").count(), 1, "{text}");
    assert!(text.contains("\"witnessed\":1000000"), "{text}");
}
