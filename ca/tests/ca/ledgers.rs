//! Questions about the ledgers of hosts: each answer is taken once, from whom was asked, within its bounds.

use ca_api::admin::{LedgersAnswer, LedgersQuestion, Problem, path};
use ca_api::node::{LEDGER_ANSWER_BYTES_MAX, LEDGER_ROWS_MAX, LedgerAnswer, ca_message};
use tonic::Code;

use crate::support::*;

fn question(filter: &str) -> LedgersQuestion {
    LedgersQuestion {
        filter: filter.to_owned(),
        by: Vec::new(),
        limit: 10,
    }
}

async fn ask(ca: &TestCa, question: &LedgersQuestion) -> Result<LedgersAnswer, Problem> {
    ca.admin("POST", path::LEDGERS, question).await
}

fn refusals(ca: &TestCa) -> Vec<String> {
    let refused = ca.events("host_refused");
    let word = |event: &serde_json::Value| event["detail"]["reason"].as_str().unwrap().to_owned();
    refused.iter().map(word).collect()
}

#[tokio::test]
async fn a_host_answers_what_it_was_asked_once_and_the_rest_is_refused() {
    let ca = TestCa::start().await;
    let host = ca.join("web-1").await;
    let _away = ca.join("web-2").await;
    let mut connection = ca.connect(&host).await;
    let mut stream = connection.sync(hello(":15443")).await.unwrap();
    stream.is_open().await;
    let answering = async {
        let wanted = |message| match message {
            ca_message::Message::LedgerQuestion(question) => Some(question),
            _ => None,
        };
        let asked = stream.find(wanted).await;
        assert_eq!((asked.filter.as_str(), asked.rows_max), ("verdict=deny", 10));
        let answer = |rows: Vec<String>| LedgerAnswer {
            id: asked.id,
            rows,
            ..LedgerAnswer::default()
        };
        let tell = async |connection: &mut Connection, answer| within(connection.client.answer(answer)).await;
        let many = answer(vec!["{}".to_owned(); LEDGER_ROWS_MAX + 1]);
        let long = answer(vec!["x".repeat(LEDGER_ANSWER_BYTES_MAX + 1)]);
        for too_long in [many, long] {
            let refused = tell(&mut connection, too_long).await.unwrap_err();
            assert_eq!(refused.code(), Code::InvalidArgument);
        }
        let never = LedgerAnswer {
            id: asked.id + 1,
            ..LedgerAnswer::default()
        };
        assert_eq!(tell(&mut connection, never).await.unwrap_err().code(), Code::NotFound);
        let right = answer(vec![r#"{"kind":"call"}"#.to_owned()]);
        tell(&mut connection, right.clone()).await.unwrap();
        assert_eq!(tell(&mut connection, right).await.unwrap_err().code(), Code::NotFound);
    };
    let question = question("verdict=deny");
    let (found, ()) = tokio::join!(ask(&ca, &question), answering);
    let found = found.unwrap();
    let told: Vec<_> = found
        .ledgers
        .iter()
        .map(|one| (one.ledger.as_str(), one.rows.len(), one.missing.as_deref()))
        .collect();
    assert_eq!(told[0].1, 0);
    assert_eq!(
        told[1..],
        [("host:web-1", 1, None), ("host:web-2", 0, Some("it is not connected"))]
    );
    let refused = refusals(&ca);
    assert!(refused.contains(&"answer_too_long".to_owned()), "{refused:?}");
    assert!(refused.contains(&"answer_not_asked".to_owned()), "{refused:?}");
    let asked = ca.events("operator");
    assert_eq!(asked.len(), 1);
    assert_eq!(asked[0]["detail"]["filter"], "verdict=deny");
}

#[tokio::test]
async fn what_is_no_question_reaches_no_host_and_no_record() {
    let ca = TestCa::start().await;
    let by = |words: &[&str]| LedgersQuestion {
        by: words.iter().map(|word| (*word).to_owned()).collect(),
        ..question("")
    };
    for wrong in [question("verdikt=deny"), by(&["verdikt"]), by(&["rule"; 7])] {
        assert_eq!(ask(&ca, &wrong).await.unwrap_err().code, "bad_request", "{wrong:?}");
    }
    assert!(ca.events("operator").is_empty());
    assert!(
        ask(&ca, &question("kind=operator")).await.unwrap().ledgers[0]
            .rows
            .len()
            <= 1
    );
}
