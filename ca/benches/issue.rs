//! How many X.509-SVIDs one CA process issues in a second, each with its durable record: real CA, real TLS, real disk.
//!
//! `cargo bench -p botmesh-ca --bench issue`. Several hosts ask at once, because the CA bounds what one host may ask
//! for; the keys and requests are made before the clock starts, for proxies make them on other machines.
#![allow(
    unused_crate_dependencies,
    dead_code,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::wildcard_enum_match_arm,
    clippy::print_stdout,
    clippy::cast_precision_loss,
    reason = "a measurement for people; it shares the harness of the tests"
)]

#[path = "../tests/ca/support.rs"]
mod support;

use std::fmt::Write as _;

use ca_api::node::{ISSUE_BATCH_MAX, IssueRequest, SvidRequest};
use spiffe_tls::PrivateKey;
use support::{TestCa, bot_id};
use tokio::task::JoinSet;
use tokio::time::Instant;

const HOSTS: usize = 64;
/// SVIDs that each host asks for, one request after the other.
const EACH: usize = 192;

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    for batch in [1, 8, ISSUE_BATCH_MAX] {
        runtime.block_on(measure(batch));
    }
}

fn mesh() -> String {
    let mut text = "version: 1\ntrust_domain: acme.internal\nbots:\n".to_owned();
    for host in 0..HOSTS {
        writeln!(
            text,
            "  load/bot-{host}: {{owner: load@acme.internal, hosts: [load-{host}], attest: {{uid: {host}}}}}"
        )
        .unwrap();
    }
    text
}

async fn measure(batch: usize) {
    let ca = TestCa::start().await;
    ca.apply(&mesh(), None).await.unwrap();
    let mut hosts = Vec::new();
    for host in 0..HOSTS {
        let joined = ca.join(&format!("load-{host}")).await;
        let bot = format!("load/bot-{host}");
        let csr = PrivateKey::generate().unwrap().csr(&bot_id(&bot)).unwrap();
        let one = SvidRequest { bot, csr };
        hosts.push((ca.connect(&joined).await, vec![one; batch]));
    }
    let started = Instant::now();
    let mut asking = JoinSet::new();
    for (mut connection, svids) in hosts {
        asking.spawn(async move {
            for _ in 0..EACH / batch {
                let request = IssueRequest { svids: svids.clone() };
                let answer = connection.client.issue(request).await.unwrap().into_inner();
                let refused = answer.results.iter().find(|result| !result.refusal.is_empty());
                assert!(refused.is_none(), "{refused:?}");
            }
        });
    }
    asking.join_all().await;
    let seconds = started.elapsed().as_secs_f64();
    let issued = (EACH / batch * batch * HOSTS) as f64;
    println!(
        "{HOSTS} hosts, {batch:>2} SVIDs a request: {:>6.0} SVIDs a second (CA and hosts share the cores)",
        issued / seconds
    );
    let _stopped = ca.stop().await;
}
