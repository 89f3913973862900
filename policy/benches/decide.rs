//! How long a decision takes with 10 000 rules: `cargo bench -p botmesh-policy`.
//!
//! Three meshes: rules spread over many bots, all rules between one pair, and all rules between everybody. Each line gives
//! the times of single decisions over many different calls.

#![expect(
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a measurement, which ends with its first error"
)]

use std::fmt::Write as _;
use std::time::Duration;

use policy::{Call, CanonicalPath, Generation, HttpAsk, Mesh, Method, Source, What, load};
use spiffe::id::{BotName, SpiffeId};
use spiffe::time::Timestamp;

const RULES: usize = 10_000;
const CALLS: usize = 5_000;
const ROUNDS: usize = 200_000;

/// How rule number `n` is written, without its id.
type RuleText = fn(usize) -> String;
/// Caller and callee of a call that rule number `n` covers.
type Ends = fn(usize) -> (usize, usize);

fn main() {
    let spread: RuleText = |n| {
        let (from, to) = spread_ends(n);
        format!("from: t/b{from}, to: t/b{to}, http: [GET /orders/*, GET /r{n}/**]")
    };
    measure("spread over 1 000 bots", 1_000, spread, spread_ends);
    measure(
        "all between one pair",
        2,
        |n| format!("from: t/b0, to: t/b1, http: [GET /orders/*, GET /r{n}/**]"),
        |_| (0, 1),
    );
    let wide: RuleText = |n| format!("from: \"**\", to: t/**, http: [GET /orders/*, GET /r{n}/**]");
    measure("all between everybody", 100, wide, |n| (n % 100, n / 100));
}

fn spread_ends(n: usize) -> (usize, usize) {
    (n % 1_000, (n * 7 + n / 1_000) % 1_000)
}

/// Writes a mesh of `bots` bots with rules of this text.
fn mesh(bots: usize, rule: RuleText) -> Mesh {
    let mut text = String::from("{version: 1, trust_domain: acme.internal, bots: {\n");
    for bot in 0..bots {
        let line = format!("t/b{bot}: {{owner: o, hosts: [h], attest: {{uid: {bot}}}, serve: {{http: 80}}}},");
        writeln!(text, "{line}").expect("a String");
    }
    text.push_str("}, allow: [\n");
    for n in 0..RULES - 1 {
        writeln!(text, "{{id: rule-{n}, {}}},", rule(n)).expect("a String");
    }
    text.push_str("], deny: [{id: no-admin, from: \"**\", to: t/**, http: [\"* /admin/**\"], reason: people only}]}\n");
    load(&[Source {
        name: "mesh.yaml".to_owned(),
        text,
    }])
    .expect("a valid mesh")
}

fn measure(name: &str, bots: usize, rule: RuleText, ends: Ends) {
    let start = now();
    let mesh = mesh(bots, rule);
    let loaded = now();
    let policy = mesh.compile(Generation::default());
    println!("{name}: read in {:?}, compiled in {:?}", loaded - start, now() - loaded);
    for (kind, method, path) in [
        ("allow, shared path", "GET", "/orders/17"),
        ("allow, own path", "GET", "/r{}/a/b"),
        ("no rule, method", "HEAD", "/orders/17"),
        ("no rule, path", "GET", "/nothing/like/it"),
        ("deny rule", "GET", "/ADMIN/keys"),
    ] {
        let calls: Vec<Call> = (0..CALLS)
            .map(|round| call(round * 7_919 % (RULES - 1), method, path, ends))
            .collect();
        let mut times: Vec<Duration> = Vec::with_capacity(ROUNDS);
        for call in calls.iter().cycle().take(ROUNDS) {
            let call = call.clone();
            let start = now();
            let answer = std::hint::black_box(policy.decide(Timestamp::from_unix_millis(0), call));
            times.push(now() - start);
            drop(answer);
        }
        times.sort_unstable();
        let at = |share: usize| times.get(times.len() * share / 1_000).copied().unwrap_or_default();
        println!(
            "  {kind:<18} p50 {:>9?}  p99 {:>9?}  p99.9 {:>9?}",
            at(500),
            at(990),
            at(999)
        );
    }
}

fn call(rule: usize, method: &str, path: &str, ends: Ends) -> Call {
    let (from, to) = ends(rule);
    Call {
        from: SpiffeId::parse(&format!("spiffe://acme.internal/t/b{from}")).expect("an ID"),
        to: BotName::parse(&format!("t/b{to}")).expect("a name").into(),
        what: What::Http(HttpAsk::new(
            Method::parse(method).expect("a method"),
            CanonicalPath::parse(path.replace("{}", &rule.to_string()).as_bytes()).expect("a path"),
        )),
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "tokio's clock is a crate more, and this is a measurement"
)]
fn now() -> std::time::Instant {
    std::time::Instant::now()
}
