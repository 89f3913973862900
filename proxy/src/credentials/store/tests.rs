//! By tokio's paused clock: no test waits.

use policy::{Credential, Injection, Outside};
use spiffe::id::BotName;

use super::slot::BACKOFF;
use super::*;

pub(super) const NOTHING: Environment = Environment(|_name| None);
const TTL: Duration = Duration::from_mins(5);
const STALE: Duration = Duration::from_hours(1);

struct Bench {
    folder: tempfile::TempDir,
    credentials: Arc<Credentials>,
    tasks: TaskTracker,
}

/// A store whose one source is an encrypted file. (Reading a file holds the paused clock still; a program would not.)
fn bench() -> Bench {
    let folder = tempfile::tempdir().unwrap();
    let (sealer, tasks) = (Sealer::new(folder.path()), TaskTracker::new());
    let sources = BTreeMap::from([(name("key"), Source::File(sealer.file(&name("raw"))))]);
    let credentials = Credentials::new(
        sources,
        (sealer, NOTHING, leases(folder.path(), &tasks)),
        outward(),
        (TTL, STALE),
        tasks.clone(),
    );
    Bench {
        folder,
        credentials: Arc::new(credentials),
        tasks,
    }
}

/// A mesh that says nothing of any destination.
fn mesh() -> Mesh {
    let source = policy::Source {
        name: "mesh.yaml".to_owned(),
        text: "version: 1\ntrust_domain: acme.internal\n".to_owned(),
    };
    policy::load(&[source]).unwrap()
}

pub(super) fn outward() -> Outward {
    let clock = Clock::system();
    Outward {
        way_out: WayOut::new(None, clock.clone(), TaskTracker::new()),
        clock,
        signer: Signer::nobody(),
    }
}

pub(super) fn leases(folder: &std::path::Path, tasks: &TaskTracker) -> Arc<Leases> {
    let (vaults, clock) = (super::super::vault::Vaults::default(), Clock::system());
    Arc::new(Leases::new(vaults, folder, clock, tasks.clone()))
}

pub(super) fn name(text: &str) -> CredentialName {
    CredentialName::parse(text).unwrap()
}

fn credential(injection: Injection) -> Credential {
    Credential {
        owner: "o".to_owned(),
        injection,
        rotate_every: None,
        shared: None,
        probe: None,
    }
}

impl Bench {
    async fn says(&self, value: Option<&str>) {
        let sealer = Sealer::new(self.folder.path());
        match value {
            Some(value) => {
                let secret = Arc::new(Secret::new(value.as_bytes().to_vec()).unwrap());
                sealer.put(&name("raw"), &secret).await.unwrap();
            }
            None => std::fs::remove_file(sealer.file(&name("raw"))).unwrap(),
        }
    }

    async fn load(&self) -> Result<String, String> {
        let loaded = self
            .credentials
            .load(&name("key"), &credential(Injection::Bearer), &mesh())
            .await;
        let text = |loaded: Arc<Loaded>| String::from_utf8(loaded.secret().bytes().to_vec()).unwrap();
        loaded.map(text).map_err(|error| error.to_string())
    }

    /// Lets what reads beside calls come to its end.
    async fn settle(&self) {
        while !self.tasks.is_empty() {
            tokio::task::yield_now().await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_value_is_read_once_and_again_after_its_time() {
    let bench = bench();
    bench.says(Some("value-one")).await;
    assert_eq!(bench.load().await.unwrap(), "value-one");
    bench.says(Some("value-two")).await;
    tokio::time::advance(TTL - Duration::from_secs(1)).await;
    assert_eq!(bench.load().await.unwrap(), "value-one");
    tokio::time::advance(Duration::from_secs(1)).await;
    assert_eq!(
        bench.load().await.unwrap(),
        "value-one",
        "no call waits while it is read again"
    );
    bench.settle().await;
    assert_eq!(bench.load().await.unwrap(), "value-two");
}

#[tokio::test(start_paused = true)]
async fn a_source_that_fails_is_lived_without_for_a_bounded_time_and_comes_back_by_itself() {
    let bench = bench();
    bench.says(Some("value-one")).await;
    assert_eq!(bench.load().await.unwrap(), "value-one");
    bench.says(None).await;
    tokio::time::advance(TTL).await;
    assert_eq!(bench.load().await.unwrap(), "value-one");
    bench.settle().await;
    tokio::time::advance(STALE - Duration::from_secs(1)).await;
    assert_eq!(bench.load().await.unwrap(), "value-one", "still within bounds");
    bench.settle().await;
    tokio::time::advance(Duration::from_secs(1)).await;
    let error = bench.load().await.unwrap_err();
    assert_eq!(error, "credential key was not read");
    let state = &bench.credentials.states([name("key")].iter())[0];
    assert!(
        state.fingerprint.is_none() && state.error.is_some(),
        "nothing is kept beyond its time"
    );
    bench.says(Some("value-two")).await;
    tokio::time::advance(BACKOFF.1).await;
    assert_eq!(bench.load().await.unwrap(), "value-two");
    assert!(bench.credentials.states([name("key")].iter())[0].error.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_value_that_nobody_asks_for_any_more_is_wiped_when_its_time_is_over() {
    let bench = bench();
    bench.says(Some("value-one")).await;
    bench.load().await.unwrap();
    let in_memory = || bench.credentials.states([name("key")].iter())[0].fingerprint.is_some();
    assert!(bench.credentials.live().unwrap().is_in(b"a value-one"));
    tokio::time::advance(TTL + STALE - Duration::from_secs(1)).await;
    bench.credentials.sweep();
    assert!(in_memory());
    tokio::time::advance(Duration::from_secs(1)).await;
    bench.credentials.sweep();
    assert!(!in_memory() && bench.credentials.live().is_none());
}

#[tokio::test(start_paused = true)]
async fn a_source_that_failed_is_left_alone_for_a_while() {
    let bench = bench();
    bench.load().await.unwrap_err();
    bench.says(Some("value-one")).await;
    bench.load().await.unwrap_err();
    tokio::time::advance(BACKOFF.0).await;
    assert_eq!(bench.load().await.unwrap(), "value-one");
}

#[tokio::test(start_paused = true)]
async fn calls_that_come_together_read_once() {
    let bench = bench();
    bench.says(Some("value-one")).await;
    let (key, bearer, none) = (name("key"), credential(Injection::Bearer), mesh());
    let one = || bench.credentials.load(&key, &bearer, &none);
    let (a, b, c) = tokio::join!(one(), one(), one());
    assert!(Arc::ptr_eq(&a.unwrap(), &b.unwrap()) && c.is_ok());
    let state = &bench.credentials.states([key].iter())[0];
    assert_eq!((state.reads_ok, state.reads_failed), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn what_is_put_is_used_by_the_next_call_and_found_after_a_restart() {
    let bench = bench();
    let (of, bearer, none) = (name("put"), credential(Injection::Bearer), mesh());
    let error = bench.credentials.load(&of, &bearer, &none).await.unwrap_err();
    let cause = std::error::Error::source(&error).unwrap().to_string();
    assert!(cause.contains("`botmesh secret put put`"), "{cause}");
    let value = |text: &str| Secret::new(text.as_bytes().to_vec()).unwrap();
    bench.credentials.put(&of, value("value-one")).await.unwrap();
    let first = bench.credentials.load(&of, &bearer, &none).await.unwrap();
    assert_eq!(first.secret().bytes(), b"value-one");
    bench.credentials.put(&of, value("value-two")).await.unwrap();
    assert_eq!(
        bench
            .credentials
            .load(&of, &bearer, &none)
            .await
            .unwrap()
            .secret()
            .bytes(),
        b"value-two"
    );
    assert_eq!(
        first.secret().bytes(),
        b"value-one",
        "a call under way keeps what it has"
    );
    let restarted = Credentials::new(
        BTreeMap::new(),
        (
            Sealer::new(bench.folder.path()),
            NOTHING,
            leases(bench.folder.path(), &bench.tasks),
        ),
        outward(),
        (TTL, STALE),
        bench.tasks.clone(),
    );
    let restarted = Arc::new(restarted);
    assert_eq!(
        restarted.load(&of, &bearer, &none).await.unwrap().secret().bytes(),
        b"value-two"
    );
    restarted.renew(&of, &bearer, &none).await;
    assert_eq!(
        restarted.load(&of, &bearer, &none).await.unwrap().secret().bytes(),
        b"value-two"
    );
    let refused = bench
        .credentials
        .put(&name("key"), value("value-one"))
        .await
        .unwrap_err();
    assert!(refused.to_string().contains("reads it from a file"), "{refused}");
}

#[tokio::test(start_paused = true)]
async fn what_is_made_of_a_value_is_made_again_when_it_is_added_in_another_way() {
    let bench = bench();
    bench.says(Some("value-one")).await;
    let load = async |injection| {
        bench
            .credentials
            .load(&name("key"), &credential(injection), &mesh())
            .await
            .unwrap()
    };
    let bearer = load(Injection::Bearer).await;
    assert!(Arc::ptr_eq(&bearer, &load(Injection::Bearer).await));
    let basic = load(Injection::Basic { user: "robot".into() }).await;
    assert!(!basic.finder.is_in(b"value"));
    // robot:value-one
    assert!(basic.finder.is_in(b"Basic cm9ib3Q6dmFsdWUtb25l"));
    basic.masked(&BotName::parse("prod/a").unwrap());
    assert_eq!(bench.credentials.states([name("key")].iter())[0].masked, 1);
    tokio::time::advance(TTL).await;
    load(Injection::Bearer).await;
    bench.settle().await;
    let again = load(Injection::Bearer).await;
    assert!(Arc::ptr_eq(&again.value, &bearer.value), "the same value is the same");
}

#[tokio::test(start_paused = true)]
async fn an_address_that_was_read_is_not_sent_where_the_mesh_file_says_another_place_since() {
    let bench = bench();
    bench.says(Some("https://hooks.example.com/services/0123456789")).await;
    let load = async |to: &str| {
        let injection = Injection::Url(Outside::parse(to).unwrap());
        let loaded = bench
            .credentials
            .load(&name("key"), &credential(injection), &mesh())
            .await;
        loaded.map(drop).map_err(|error| {
            let Unavailable::NotRead { source, .. } = error else {
                panic!("{error:?}");
            };
            source.to_string()
        })
    };
    load("https://hooks.example.com").await.unwrap();
    let moved = load("https://evil.example").await.unwrap_err();
    assert!(moved.contains("another scheme, host or port"), "{moved}");
    assert!(!moved.contains("0123456789"), "{moved}");
    // What is right again is used again, once the source is asked again.
    tokio::time::advance(Duration::from_mins(2)).await;
    load("https://hooks.example.com").await.unwrap();
    let live = bench.credentials.live().unwrap();
    assert!(live.is_in(b"GET /services/0123456789") && !live.is_in(b"https://hooks.example.com/"));
}
