//! By tokio's paused clock and a timestamp of the test's own: no test waits.

use policy::{ClientAuth, Credential, Grant, Mesh, OAuth, Source, TokenUrl};

use super::*;
use crate::credentials::exchange::answer::granted;

const TTL: Duration = Duration::from_mins(5);
const STALE: Duration = Duration::from_hours(1);
const LIFE_SAID: u64 = 1_000;

fn mesh() -> Mesh {
    let source = Source {
        name: "mesh.yaml".to_owned(),
        text: "version: 1\ntrust_domain: acme.internal\n".to_owned(),
    };
    policy::load(&[source]).unwrap()
}

fn exchange(scope: &str, value: &str) -> Exchange {
    let credential = Credential {
        owner: "o".to_owned(),
        injection: Injection::OAuth(Box::new(OAuth {
            token_url: TokenUrl::parse("https://login.example.com/token").unwrap(),
            client_id: "c".into(),
            grant: Grant::ClientCredentials,
            auth: ClientAuth::Basic,
            scope: Some(scope.into()),
            audience: None,
            resource: None,
        })),
        rotate_every: None,
        shared: None,
        probe: None,
    };
    let value = Arc::new(Secret::new(value.as_bytes().to_vec()).unwrap());
    Exchange::of(&credential, &value, &mesh()).unwrap()
}

struct Bench {
    tokens: Tokens,
    of: Exchange,
    clock: Timestamp,
}

impl Bench {
    fn new() -> Self {
        Self {
            tokens: Tokens::default(),
            of: exchange("read", "client-secret"),
            clock: Timestamp::from_unix_seconds(1_000_000),
        }
    }

    fn now(&self) -> Moment {
        Moment {
            clock: self.clock,
            steady: Instant::now(),
        }
    }

    async fn wait(&mut self, seconds: u64) {
        let step = Duration::from_secs(seconds);
        tokio::time::advance(step).await;
        self.clock = self.clock + step;
    }

    /// What is done for a call, in a word.
    fn look(&mut self) -> &'static str {
        let (of, now) = (self.of.clone(), self.now());
        match self.tokens.look(&of, now) {
            Look::Use(_) => "use",
            Look::Due(_) => "due",
            Look::Ask => "ask",
            Look::LeftAlone(_) => "left alone",
        }
    }

    fn given(&mut self, token: &str, expires_in: &str, jitter: u8) -> Token {
        let body = format!(r#"{{"access_token": "{token}", "token_type": "Bearer"{expires_in}}}"#);
        let (of, asked) = (self.of.clone(), (self.now(), jitter));
        let noted = self
            .tokens
            .note(&of, asked, (TTL, STALE), Ok(granted(body.as_bytes()).unwrap()));
        noted.unwrap().0
    }

    fn fails(&mut self) -> Change {
        let (of, asked) = (self.of.clone(), (self.now(), 0));
        self.tokens
            .note(&of, asked, (TTL, STALE), Err(ExchangeError::Closing))
            .unwrap_err()
            .1
    }
}

fn said(seconds: u64) -> String {
    format!(r#", "expires_in": {seconds}"#)
}

#[tokio::test(start_paused = true)]
async fn a_token_is_renewed_in_time_and_never_used_at_its_end() {
    let mut bench = Bench::new();
    assert_eq!(bench.look(), "ask");
    bench.given("token-one", &said(LIFE_SAID), 0);
    assert_eq!(bench.look(), "use");
    bench.wait(799).await;
    assert_eq!(bench.look(), "use");
    bench.wait(1).await;
    assert_eq!(bench.look(), "due");
    bench.wait(169).await;
    assert_eq!(bench.look(), "due");
    bench.wait(1).await;
    assert_eq!(bench.look(), "ask", "30 s before its end");
    assert_eq!(bench.tokens.secrets().count(), 0, "it is wiped");
}

#[tokio::test(start_paused = true)]
async fn hosts_that_began_together_do_not_renew_together() {
    for (jitter, renew) in [(0, 800), (128, 750), (255, 700)] {
        let mut bench = Bench::new();
        bench.given("token-one", &said(LIFE_SAID), jitter);
        bench.wait(renew - 2).await;
        assert_eq!(bench.look(), "use", "{jitter}");
        bench.wait(2).await;
        assert_eq!(bench.look(), "due", "{jitter}");
    }
}

#[tokio::test(start_paused = true)]
async fn one_asks_for_the_next_token_while_calls_go_on() {
    let mut bench = Bench::new();
    bench.given("token-one", &said(LIFE_SAID), 0);
    bench.wait(800).await;
    assert!(bench.look() == "due" && bench.tokens.begin());
    assert!(bench.look() == "due" && !bench.tokens.begin());
    bench.given("token-two", &said(LIFE_SAID), 0);
    bench.tokens.ended();
    assert_eq!(bench.look(), "use");
    bench.wait(800).await;
    assert!(bench.look() == "due" && bench.tokens.begin());
}

#[tokio::test(start_paused = true)]
async fn whatever_is_said_of_a_life_it_has_bounds() {
    for (expires_in, renew, end) in [
        (said(0), 8, 9),
        (said(1), 8, 9),
        (said(60), 48, 54),
        (said(u64::MAX), 69_120, 86_370),
        (String::new(), 300, 3_900),
        (r#", "expires_in": "soon""#.to_owned(), 300, 3_900),
    ] {
        let mut bench = Bench::new();
        bench.given("token-one", &expires_in, 0);
        bench.wait(renew - 1).await;
        assert_eq!(bench.look(), "use", "{expires_in}");
        bench.wait(1).await;
        assert_eq!(bench.look(), "due", "{expires_in}");
        bench.wait(end - renew - 1).await;
        assert_eq!(bench.look(), "due", "{expires_in}");
        bench.wait(1).await;
        assert_eq!(bench.look(), "ask", "{expires_in}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_host_that_slept_has_an_old_token() {
    let mut bench = Bench::new();
    bench.given("token-one", &said(LIFE_SAID), 0);
    // The steady clock stands still while it sleeps.
    bench.clock = bench.clock + Duration::from_secs(970);
    assert_eq!(bench.look(), "ask");
    // And a clock that is set back makes nothing younger.
    bench.given("token-two", &said(LIFE_SAID), 0);
    bench.wait(970).await;
    bench.clock = bench.clock - Duration::from_hours(1);
    assert_eq!(bench.look(), "ask");
}

#[tokio::test(start_paused = true)]
async fn a_token_that_a_service_refuses_is_replaced_once_a_minute_at_most() {
    let mut bench = Bench::new();
    let token = bench.given("token-one", &said(LIFE_SAID), 0);
    token.doubted.store(true, Ordering::Relaxed);
    assert_eq!(bench.look(), "use");
    bench.wait(59).await;
    assert_eq!(bench.look(), "use", "as often as services refuse it");
    bench.wait(1).await;
    assert_eq!(bench.look(), "ask");
    // Nobody gives another one: the old one is used on, and it is asked for anew after a pause.
    bench.fails();
    assert_eq!(bench.look(), "use");
    bench.wait(1).await;
    assert_eq!(bench.look(), "ask");
    bench.given("token-two", &said(LIFE_SAID), 0);
    bench.wait(60).await;
    assert_eq!(bench.look(), "use", "the next one is not doubted");
}

#[tokio::test(start_paused = true)]
async fn pauses_between_failures_grow_and_have_a_bound() {
    let mut bench = Bench::new();
    for (number, pause) in [1, 2, 4, 8, 16, 30, 30, 30].into_iter().enumerate() {
        assert_eq!(bench.look(), "ask", "{pause}");
        assert_eq!(bench.fails() == Change::Worse, number == 0, "told once");
        assert_eq!(bench.look(), "left alone", "{pause}");
        bench.wait(pause - 1).await;
        assert_eq!(bench.look(), "left alone", "{pause}");
        bench.wait(1).await;
    }
    assert_eq!(bench.look(), "ask");
    let state = bench.tokens.state(bench.now()).unwrap();
    assert_eq!((state.counts.ok, state.counts.failed), (0, 8));
    assert!(state.fingerprint.is_none() && state.error.is_some());
}

#[tokio::test(start_paused = true)]
async fn a_failure_leaves_the_token_that_is_here_in_use_to_its_end() {
    let mut bench = Bench::new();
    bench.given("token-one", &said(LIFE_SAID), 0);
    bench.wait(800).await;
    bench.fails();
    assert_eq!(bench.look(), "use");
    bench.wait(30).await;
    assert_eq!(bench.look(), "due");
    bench.fails();
    bench.wait(139).await;
    assert_eq!(bench.look(), "due");
    bench.fails();
    bench.wait(1).await;
    assert_eq!(bench.look(), "left alone", "no longer than its end");
}

#[tokio::test(start_paused = true)]
async fn a_token_is_of_its_value_and_of_what_the_mesh_file_asks() {
    for other in [
        exchange("read", "client-secret-2"),
        exchange("read write", "client-secret"),
    ] {
        let mut bench = Bench::new();
        bench.given("token-one", &said(LIFE_SAID), 0);
        assert_eq!(bench.look(), "use");
        bench.of = other.clone();
        assert_eq!(bench.look(), "ask");
        assert_eq!(bench.tokens.secrets().count(), 0);
        bench.fails();
        assert_eq!(bench.look(), "left alone");
        bench.of = exchange("read", "client-secret");
        assert_eq!(bench.look(), "ask", "a failure is of its value too");
    }
}
