//! A new value beside the one in use, by the files of a host.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use http::StatusCode;
use policy::{Injection, Outside};
use spiffe::id::TrustDomain;
use spiffe::time::Clock;
use tokio_util::task::TaskTracker;

use super::super::super::age::{Identity, Recipient};
use super::super::super::source::{Environment, Sealer, Source};
use super::super::super::svid::Signer;
use super::super::super::vault::Vaults;
use super::super::{Leases, Outward};
use super::*;
use crate::outside::WayOut;

/// A mesh that says nothing of any destination.
fn mesh() -> policy::Mesh {
    let source = policy::Source {
        name: "mesh.yaml".to_owned(),
        text: "version: 1\ntrust_domain: acme.internal\n".to_owned(),
    };
    policy::load(&[source]).unwrap()
}

struct Bench {
    folder: tempfile::TempDir,
    credentials: Arc<Credentials>,
}

fn name() -> CredentialName {
    CredentialName::parse("key").unwrap()
}

fn credential() -> Credential {
    Credential {
        owner: "o".to_owned(),
        injection: Injection::Bearer,
        rotate_every: None,
        shared: None,
        probe: None,
    }
}

fn secret(value: &str) -> Secret {
    Secret::new(value.as_bytes().to_vec()).unwrap()
}

fn bot(name: &str) -> SpiffeId {
    let domain = TrustDomain::parse("acme.internal").unwrap();
    SpiffeId::for_bot(&domain, &BotName::parse(name).unwrap())
}

fn over(folder: &Path, sources: BTreeMap<CredentialName, Source>) -> Arc<Credentials> {
    let times = (Duration::from_mins(5), Duration::from_hours(1));
    let environment = Environment(|_name| None);
    let (clock, tasks) = (Clock::system(), TaskTracker::new());
    let leases = Leases::new(Vaults::default(), folder, clock.clone(), tasks.clone());
    let parts = (Sealer::new(folder), environment, Arc::new(leases));
    let outward = Outward {
        way_out: WayOut::new(None, clock.clone(), TaskTracker::new()),
        clock,
        signer: Signer::nobody(),
    };
    Arc::new(Credentials::new(sources, parts, outward, times, tasks))
}

impl Bench {
    /// A host that has `value-one`.
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let credentials = over(folder.path(), BTreeMap::new());
        credentials.put(&name(), secret("value-one")).await.unwrap();
        Self { folder, credentials }
    }

    /// The value, sealed to this host.
    fn sealed(&self, value: &str) -> Vec<u8> {
        let recipient = Sealer::new(self.folder.path()).recipient().unwrap();
        secret(value).seal_to(&Recipient::parse(&recipient).unwrap()).unwrap()
    }

    async fn stage(&self, value: &str) -> Result<(), RotateError> {
        self.stage_as(value, Shape::Line).await
    }

    async fn stage_as(&self, value: &str, shape: Shape) -> Result<(), RotateError> {
        let print = secret(value).fingerprint();
        self.credentials
            .stage(&name(), shape, (&self.sealed(value), &print))
            .await
    }

    async fn promote(&self, rotation: u64, value: &str) -> Result<(), RotateError> {
        let print = secret(value).fingerprint();
        let before = self.credentials.promote(&name(), (rotation, &print)).await?;
        assert_eq!(before.strong_count(), 0, "no call has the value before");
        Ok(())
    }

    /// What the calls of a bot get.
    async fn of(&self, from: &str) -> String {
        let on_trial = self
            .credentials
            .slot(&name())
            .on_trial(&name(), &credential(), &bot(from))
            .unwrap();
        let loaded = match on_trial {
            Some(loaded) => loaded,
            None => self.credentials.load(&name(), &credential(), &mesh()).await.unwrap(),
        };
        String::from_utf8(loaded.secret().bytes().to_vec()).unwrap()
    }

    fn guards(&self, value: &str) -> bool {
        self.credentials.live().is_some_and(|live| live.is_in(value.as_bytes()))
    }

    fn files(&self) -> Vec<String> {
        let folder = self.folder.path().join("credentials");
        let mut names: Vec<String> = std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

#[tokio::test]
async fn one_bot_gets_a_new_value_first_then_all_do_and_the_old_one_is_guarded_until_it_is_refused() {
    let bench = Bench::new().await;
    bench.stage("value-two").await.unwrap();
    assert_eq!(bench.of("prod/a").await, "value-one", "kept, and given to nobody");
    bench
        .credentials
        .try_out(&name(), &BotName::parse("prod/a").unwrap())
        .await
        .unwrap();
    assert_eq!(
        [bench.of("prod/a").await, bench.of("prod/b").await],
        ["value-two", "value-one"]
    );
    assert!(bench.guards("value-one") && bench.guards("value-two"));
    let on_trial = bench
        .credentials
        .slot(&name())
        .on_trial(&name(), &credential(), &bot("prod/a"));
    let loaded = on_trial.unwrap().unwrap();
    for status in [200, 401, 500] {
        loaded.answered(StatusCode::from_u16(status).unwrap());
    }
    assert_eq!(bench.credentials.trial(&name()), Some((3, 1)));
    bench.promote(7, "value-two").await.unwrap();
    assert_eq!(
        [bench.of("prod/a").await, bench.of("prod/b").await],
        ["value-two", "value-two"]
    );
    assert_eq!(bench.credentials.trial(&name()), None);
    assert_eq!(bench.files(), ["host.key", "key.age", "key.age.old", "key.rotation"]);
    assert!(bench.guards("value-one"), "a service may take it still");
    // After a restart too.
    let again = over(bench.folder.path(), BTreeMap::new());
    again.remember_old(&name()).await;
    assert!(again.live().unwrap().is_in(b"value-one"));
    bench.credentials.forget_old(&name()).await.unwrap();
    assert!(!bench.guards("value-one"));
    assert_eq!(bench.files(), ["host.key", "key.age", "key.rotation"]);
}

#[tokio::test]
async fn what_is_done_is_done_once_and_what_was_put_since_stays() {
    let bench = Bench::new().await;
    for _ in 0..2 {
        bench.stage("value-two").await.unwrap();
        bench.promote(7, "value-two").await.unwrap();
    }
    assert_eq!(bench.of("prod/a").await, "value-two");
    let old = bench.credentials.for_probe(&name(), &credential(), Which::Old).await;
    assert_eq!(
        old.unwrap().unwrap().secret().bytes(),
        b"value-one",
        "and not overwritten by itself"
    );
    assert!(bench.credentials.has_done(&name(), 7).await.unwrap());
    assert!(!bench.credentials.has_done(&name(), 8).await.unwrap());
    let older = bench.credentials.has_done(&name(), 6).await.unwrap_err();
    assert_eq!(
        older.to_string(),
        "a later rotation, 7, has brought this host a value already"
    );
    std::fs::write(bench.folder.path().join("credentials/key.rotation"), "seven").unwrap();
    assert!(bench.credentials.has_done(&name(), 7).await.is_err(), "nobody knows");
}

#[tokio::test]
async fn an_address_that_leads_elsewhere_is_not_kept_and_one_that_is_not_there_is_refused() {
    let bench = Bench::new().await;
    let to = Outside::parse("https://hooks.example.com").unwrap();
    let shape = || Shape::of(&Injection::Url(to.clone()));
    let elsewhere = bench
        .stage_as("https://evil.example/services/0123456789", shape())
        .await;
    let Err(RotateError::Sealed { source }) = elsewhere else {
        panic!("{elsewhere:?}");
    };
    assert!(source.to_string().contains("another scheme, host or port"), "{source}");
    assert_eq!(bench.files(), ["host.key", "key.age"]);
    let good = "https://hooks.example.com/services/0123456789";
    bench.stage_as(good, shape()).await.unwrap();
    bench
        .credentials
        .try_out(&name(), &BotName::parse("prod/a").unwrap())
        .await
        .unwrap();
    let hook = Credential {
        injection: Injection::Url(to.clone()),
        ..credential()
    };
    let slot = bench.credentials.slot(&name());
    let loaded = slot.on_trial(&name(), &hook, &bot("prod/a")).unwrap().unwrap();
    // Of the new address before it is in use, of which not only the whole is a secret.
    assert!(bench.guards("see services/0123456789 for it"));
    for status in [200, 401, 403, 404, 410, 429, 500] {
        loaded.answered(StatusCode::from_u16(status).unwrap());
    }
    assert_eq!(bench.credentials.trial(&name()), Some((7, 4)));
}

#[tokio::test]
async fn a_value_that_is_not_what_was_announced_or_is_sealed_to_another_is_not_kept() {
    let bench = Bench::new().await;
    let print = secret("value-two").fingerprint();
    let other = bench
        .credentials
        .stage(&name(), Shape::Line, (&bench.sealed("value-xxx"), &print))
        .await;
    assert!(matches!(other, Err(RotateError::OtherValue { .. })), "{other:?}");
    let stranger = Identity::generate().unwrap().seal(b"value-two").unwrap();
    let sealed = bench.credentials.stage(&name(), Shape::Line, (&stranger, &print)).await;
    assert!(matches!(sealed, Err(RotateError::Sealed { .. })), "{sealed:?}");
    let none = bench.promote(7, "value-two").await;
    assert!(matches!(none, Err(RotateError::NotStaged)), "{none:?}");
    assert_eq!(bench.files(), ["host.key", "key.age"]);
    assert_eq!(bench.of("prod/a").await, "value-one");
    let sources = BTreeMap::from([(name(), Source::Env("KEY".to_owned()))]);
    let elsewhere = over(bench.folder.path(), sources);
    let refused = elsewhere
        .stage(&name(), Shape::Line, (&bench.sealed("value-two"), &print))
        .await
        .unwrap_err();
    assert!(refused.to_string().contains("reads the value from a env"), "{refused}");
}

#[tokio::test]
async fn a_value_that_is_given_up_leaves_nothing() {
    let bench = Bench::new().await;
    bench.stage("value-two").await.unwrap();
    bench
        .credentials
        .try_out(&name(), &BotName::parse("prod/a").unwrap())
        .await
        .unwrap();
    bench.credentials.give_up(&name()).await.unwrap();
    assert_eq!(bench.of("prod/a").await, "value-one");
    assert!(!bench.guards("value-two"));
    assert_eq!(bench.files(), ["host.key", "key.age"]);
    // Of a rotation whose end this host did not hear.
    bench.stage("value-two").await.unwrap();
    bench
        .credentials
        .try_out(&name(), &BotName::parse("prod/a").unwrap())
        .await
        .unwrap();
    bench.stage("value-three").await.unwrap();
    assert_eq!(bench.of("prod/a").await, "value-one");
}

#[tokio::test]
async fn a_host_that_had_no_value_gets_its_first() {
    let folder = tempfile::tempdir().unwrap();
    let credentials = over(folder.path(), BTreeMap::new());
    let bench = Bench { folder, credentials };
    bench.stage("value-two").await.unwrap();
    bench.promote(7, "value-two").await.unwrap();
    assert_eq!(bench.of("prod/a").await, "value-two");
    let old = bench.credentials.for_probe(&name(), &credential(), Which::Old).await;
    assert!(old.unwrap().is_none());
}
