//! By a signer of the tests' own, with JWT-SVIDs that are sent themselves; exchanges are tried with servers, in the suite.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use spiffe::time::{Clock, ClockHand};
use tokio_util::task::TaskTracker;

use super::super::super::source::{Sealer, Source};
use super::super::super::svid::Signer;
use super::super::Outward;
use super::super::tests::{NOTHING, leases, name, outward};
use super::*;
use crate::control::{JwtSvid, MintError};

const LIFE: Duration = Duration::from_mins(5);
const RULE: &str = "  - {id: llm, from: prod/*, to: \"https://llm.example.com\", http: [\"* /**\"], inject: llm}\n";

struct Bench {
    credentials: Arc<Credentials>,
    signed: Arc<AtomicUsize>,
    away: Arc<AtomicBool>,
    hand: ClockHand,
    tasks: TaskTracker,
    _folder: tempfile::TempDir,
}

/// What the CA signs for a bot the so-many-th time: a JWT by its looks.
fn jwt(bot: &str, number: usize) -> String {
    let end = format!("{number}-{}", bot.replace('/', "-"));
    format!("eyJhbGciOiJF.eyJzdWIiOiJ.{end:s<86}")
}

fn mesh(rules: &str) -> Mesh {
    mesh_of("federate: {audience: api}", rules)
}

fn mesh_of(how: &str, rules: &str) -> Mesh {
    let text = format!(
        "version: 1\ntrust_domain: acme.internal\nbots:\n  prod/a: {{owner: o, hosts: [web-1], attest: {{user: a}}}}\n  \
         prod/b: {{owner: o, hosts: [web-1], attest: {{user: b}}}}\ncredentials:\n  llm: {{owner: o, {how}}}\nallow:\n{rules}"
    );
    let source = policy::Source {
        name: "mesh.yaml".to_owned(),
        text,
    };
    policy::load(&[source]).unwrap()
}

fn bot(name: &str) -> BotName {
    BotName::parse(name).unwrap()
}

impl Bench {
    fn new(sources: BTreeMap<CredentialName, Source>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (signed, away) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let (count, gone) = (Arc::clone(&signed), Arc::clone(&away));
        let signer = Signer(Arc::new(move |bot, audience| {
            assert_eq!(&*audience, "api");
            let number = count.fetch_add(1, Ordering::Relaxed) + 1;
            let gone = gone.load(Ordering::Relaxed);
            Box::pin(async move {
                if gone {
                    return Err(MintError::NoStream);
                }
                let token = Secret::new(jwt(bot.as_str(), number).into_bytes()).unwrap();
                Ok(JwtSvid { token, life: LIFE })
            })
        }));
        let (clock, hand) = Clock::fixed(Timestamp::from_unix_seconds(1_000_000));
        let outward = Outward {
            signer,
            clock,
            ..outward()
        };
        let tasks = TaskTracker::new();
        let credentials = Credentials::new(
            sources,
            (Sealer::new(folder.path()), NOTHING, leases(folder.path(), &tasks)),
            outward,
            (Duration::from_mins(5), Duration::from_hours(1)),
            tasks.clone(),
        );
        Self {
            credentials: Arc::new(credentials),
            signed,
            away,
            hand,
            tasks,
            _folder: folder,
        }
    }

    async fn of(&self, mesh: &Mesh, of: &str) -> Result<String, String> {
        let llm = name("llm");
        let credential = mesh.credential("llm").unwrap();
        let Injection::Federate(federate) = &credential.injection else {
            panic!("{credential:?}")
        };
        let loaded = self
            .credentials
            .federated((&llm, credential), (federate, &bot(of)), mesh)
            .await;
        loaded
            .map(|loaded| String::from_utf8(loaded.secret().bytes().to_vec()).unwrap())
            .map_err(|error| crate::control::chain_of(&error))
    }

    /// Lets time go by, on both clocks.
    async fn later(&self, by: Duration) {
        self.hand.set(self.credentials.moment().clock + by);
        tokio::time::advance(by).await;
    }

    async fn settle(&self) {
        while !self.tasks.is_empty() {
            tokio::task::yield_now().await;
        }
    }

    fn keep(&self, mesh: &Mesh, is_here: impl Fn(&BotName) -> bool) {
        self.credentials
            .keep_pairs(mesh, self.credentials.moment().clock, is_here);
    }

    fn bots(&self) -> Vec<String> {
        let states = self.credentials.pairs.states(&name("llm"), self.credentials.moment());
        states.into_iter().map(|(bot, _)| bot.to_string()).collect()
    }
}

#[tokio::test(start_paused = true)]
async fn each_bot_has_its_own_and_it_is_asked_for_once() {
    let (bench, mesh) = (Bench::new(BTreeMap::new()), mesh(RULE));
    for _ in 0..3 {
        assert_eq!(bench.of(&mesh, "prod/a").await.unwrap(), jwt("prod/a", 1));
    }
    for _ in 0..3 {
        assert_eq!(bench.of(&mesh, "prod/b").await.unwrap(), jwt("prod/b", 2));
    }
    assert_eq!(bench.of(&mesh, "prod/a").await.unwrap(), jwt("prod/a", 1));
    // Its signature is what nobody else may be sent.
    let live = bench.credentials.live().unwrap();
    for (of, number) in [("prod/a", 1), ("prod/b", 2)] {
        let token = jwt(of, number);
        let signature = token.rsplit('.').next().unwrap();
        assert!(live.is_in(token.as_bytes()) && live.is_in(format!("x={signature}").as_bytes()));
    }
    assert!(!live.is_in(b"eyJhbGciOiJF.eyJzdWIiOiJ.other"));
    let state = &bench.credentials.states([name("llm")].iter())[0];
    assert_eq!(
        (state.exchanges.ok, state.bots.len(), state.token.is_none()),
        (2, 2, true)
    );
}

#[tokio::test(start_paused = true)]
async fn the_next_one_is_asked_for_at_half_of_its_life_beside_calls() {
    let (bench, mesh) = (Bench::new(BTreeMap::new()), mesh(RULE));
    assert_eq!(bench.of(&mesh, "prod/a").await.unwrap(), jwt("prod/a", 1));
    bench.later(LIFE / 2 - LIFE / 10 - Duration::from_secs(1)).await;
    assert_eq!(bench.of(&mesh, "prod/a").await.unwrap(), jwt("prod/a", 1));
    bench.settle().await;
    assert_eq!(bench.signed.load(Ordering::Relaxed), 1);
    bench.later(LIFE / 10 + Duration::from_secs(1)).await;
    assert_eq!(bench.of(&mesh, "prod/a").await.unwrap(), jwt("prod/a", 1));
    bench.settle().await;
    assert_eq!(bench.of(&mesh, "prod/a").await.unwrap(), jwt("prod/a", 2));
}

#[tokio::test(start_paused = true)]
async fn while_the_ca_is_away_the_kept_one_is_used_until_it_ends() {
    let (bench, mesh) = (Bench::new(BTreeMap::new()), mesh(RULE));
    assert_eq!(bench.of(&mesh, "prod/a").await.unwrap(), jwt("prod/a", 1));
    bench.away.store(true, Ordering::Relaxed);
    bench.later(LIFE - Duration::from_secs(31)).await;
    assert_eq!(bench.of(&mesh, "prod/a").await.unwrap(), jwt("prod/a", 1));
    bench.settle().await;
    bench.later(Duration::from_secs(1)).await;
    let error = bench.of(&mesh, "prod/a").await.unwrap_err();
    assert!(error.contains("not connected to its CA"), "{error}");
    // An operator reads it in the list, of that bot.
    let state = &bench.credentials.states([name("llm")].iter())[0];
    let (of, token) = &state.bots[0];
    let why = crate::control::chain_of(&**token.error.as_ref().unwrap());
    assert_eq!((of.as_str(), token.left), ("prod/a", None));
    assert!(why.contains("not connected to its CA"), "{why}");
    bench.away.store(false, Ordering::Relaxed);
    bench.later(Duration::from_mins(1)).await;
    assert!(bench.of(&mesh, "prod/a").await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn what_a_bot_may_have_no_more_is_forgotten() {
    let all = mesh(RULE);
    let to_a = RULE.replace("prod/*", "prod/a");
    let ends = to_a.replace(", inject", ", until: 1970-01-12T13:46:40Z, reason: r, inject");
    let others = [
        ("the rule is revoked", mesh("  []\n"), true, vec![]),
        ("it is of one bot", mesh(&to_a), true, vec!["prod/a"]),
        ("it has ended", mesh(&ends), true, vec![]),
        (
            "it is for another audience",
            mesh_of("federate: {audience: api2}", RULE),
            true,
            vec![],
        ),
        (
            "it is exchanged",
            mesh_of(
                "federate: {audience: api, token_url: \"https://sts.example.com/t\"}",
                RULE,
            ),
            true,
            vec![],
        ),
        ("the bots are not here, or quarantined", mesh(RULE), false, vec![]),
        ("nothing has changed", mesh(RULE), true, vec!["prod/a", "prod/b"]),
    ];
    for (what, after, is_here, left) in others {
        let bench = Bench::new(BTreeMap::new());
        for of in ["prod/a", "prod/b"] {
            bench.of(&all, of).await.unwrap();
        }
        assert!(bench.credentials.live().is_some());
        bench.keep(&after, |_bot| is_here);
        assert_eq!(bench.bots(), left, "{what}");
        assert_eq!(bench.credentials.live().is_some(), !left.is_empty(), "{what}");
        // What was counted is.
        assert_eq!(
            bench.credentials.states([name("llm")].iter())[0].exchanges.ok,
            2,
            "{what}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn so_many_are_kept_and_the_next_one_waits_until_one_was_not_used_for_long() {
    let (bench, mesh) = (Bench::new(BTreeMap::new()), mesh(RULE));
    let (llm, credential) = (name("llm"), mesh.credential("llm").unwrap());
    let federate = credential.injection.federate().unwrap();
    let pair = |of: &str| {
        let made = bench.credentials.pair((&llm, credential), (federate, &bot(of)));
        made.map(drop).map_err(|error| crate::control::chain_of(&error))
    };
    for number in 0..PAIRS_MAX {
        pair(&format!("many/b{number}")).unwrap();
    }
    let error = pair("prod/a").unwrap_err();
    assert!(error.contains("256 bots of this host"), "{error}");
    assert!(bench.credentials.states([name("llm")].iter())[0].error.is_some());
    bench.later(IDLE).await;
    for number in 1..PAIRS_MAX {
        pair(&format!("many/b{number}")).unwrap();
    }
    pair("prod/a").unwrap();
    let known = |of: &str| {
        bench
            .credentials
            .pairs
            .known()
            .pairs
            .contains_key(&(name("llm"), bot(of)))
    };
    assert!(!known("many/b0") && known("many/b1") && known("prod/a"));
    assert!(bench.credentials.states([name("llm")].iter())[0].error.is_none());
    pair("prod/b").unwrap_err();
}

#[tokio::test(start_paused = true)]
async fn a_place_for_a_value_that_there_is_not_is_refused() {
    let sources = BTreeMap::from([(name("llm"), Source::Env("LLM".to_owned()))]);
    let (bench, mesh) = (Bench::new(sources), mesh(RULE));
    let error = bench.of(&mesh, "prod/a").await.unwrap_err();
    assert!(error.contains("take the env out of credentials.sources"), "{error}");
    assert_eq!(bench.signed.load(Ordering::Relaxed), 0);
}

#[tokio::test(start_paused = true)]
async fn an_operator_has_new_ones_asked_for() {
    let (bench, mesh) = (Bench::new(BTreeMap::new()), mesh(RULE));
    assert_eq!(bench.of(&mesh, "prod/a").await.unwrap(), jwt("prod/a", 1));
    let (llm, credential) = (name("llm"), mesh.credential("llm").unwrap());
    bench
        .credentials
        .renew_for((&llm, credential), &[bot("prod/a"), bot("prod/b")], &mesh)
        .await;
    assert_eq!((bench.signed.load(Ordering::Relaxed), bench.bots().len()), (3, 2));
    assert_ne!(bench.of(&mesh, "prod/a").await.unwrap(), jwt("prod/a", 1));
}

#[tokio::test(start_paused = true)]
async fn what_has_ended_is_wiped_whether_anybody_asks_or_not() {
    let (bench, mesh) = (Bench::new(BTreeMap::new()), mesh(RULE));
    bench.of(&mesh, "prod/a").await.unwrap();
    assert!(bench.credentials.live().is_some());
    bench.later(LIFE).await;
    bench.credentials.sweep();
    assert!(bench.credentials.live().is_none());
}

#[tokio::test(start_paused = true)]
async fn what_a_service_echoes_of_it_is_masked_its_signature_alone_too() {
    let (bench, mesh) = (Bench::new(BTreeMap::new()), mesh(RULE));
    let (llm, credential) = (name("llm"), mesh.credential("llm").unwrap());
    let federate = credential.injection.federate().unwrap();
    let loaded = bench
        .credentials
        .federated((&llm, credential), (federate, &bot("prod/a")), &mesh)
        .await
        .unwrap();
    let token = jwt("prod/a", 1);
    let signature = token.rsplit('.').next().unwrap();
    for (said, heard) in [
        (format!("Bearer {token}"), format!("Bearer {}", "*".repeat(token.len()))),
        (
            format!("signature: {signature}"),
            format!("signature: {}", "*".repeat(86)),
        ),
        ("eyJhbGciOiJF alone".to_owned(), "eyJhbGciOiJF alone".to_owned()),
    ] {
        let mut text = said.into_bytes();
        loaded.finder.mask_text(&mut text);
        assert_eq!(String::from_utf8(text).unwrap(), heard);
    }
}
