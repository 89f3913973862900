//! How long a decision takes with 10 000 rules: `cargo bench -p botmesh-policy`.
//!
//! Three meshes: rules spread over many bots, all rules between one pair, and all rules between everybody. Each line gives
//! the time of single decisions, the clock's own time taken off.

#![expect(
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a measurement, which ends with its first error"
)]

use std::fmt::Write as _;
use std::time::Duration;

use policy::{CanonicalPath, Generation, Method, Policy, Source, load};
use spiffe::id::{BotName, SpiffeId, TrustDomain};
use spiffe::time::Timestamp;

const RULES: usize = 10_000;
const ROUNDS: usize = 200_000;

fn main() {
    measure(
        "spread over 1 000 bots",
        &mesh(1_000, |n| {
            let (from, to) = (n % 1_000, (n * 7 + n / 1_000) % 1_000);
            format!("from: t/b{from}, to: t/b{to}, http: [GET /orders/*, POST /r{n}/**]")
        }),
    );
    measure(
        "all between one pair",
        &mesh(2, |n| format!("from: t/b0, to: t/b1, http: [GET /r{n}/*/items]")),
    );
    measure(
        "all between everybody",
        &mesh(100, |n| format!("from: \"**\", to: t/**, http: [GET /r{}/*]", n % 50)),
    );
}

/// Writes a mesh of `bots` bots with rules of this text.
fn mesh(bots: usize, rule: impl Fn(usize) -> String) -> String {
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
    text
}

fn measure(name: &str, text: &str) {
    let start = now();
    let mesh = load(&[Source {
        name: "mesh.yaml".to_owned(),
        text: text.to_owned(),
    }])
    .expect("a valid mesh");
    let loaded = now();
    let policy = mesh.compile(Generation::default());
    let compiled = now();
    println!(
        "{name}: read in {:?}, compiled in {:?}",
        loaded - start,
        compiled - loaded
    );
    let bots: Vec<&BotName> = mesh.bots().keys().collect();
    for (verdict, path) in [
        ("allow or no rule", "/orders/17"),
        ("by own path", "/r{}/17"),
        ("three segments", "/r{}/17/items"),
        ("deny rule", "/ADMIN/keys"),
    ] {
        let mut times: Vec<Duration> = (0..ROUNDS).map(|round| once(&policy, &bots, path, round)).collect();
        times.sort_unstable();
        let at = |share: usize| times.get(times.len() * share / 1_000).copied().unwrap_or_default();
        println!(
            "  {verdict:<18} p50 {:>8?}  p99 {:>8?}  p99.9 {:>8?}",
            at(500),
            at(990),
            at(999)
        );
    }
}

/// Times one decision.
fn once(policy: &Policy, bots: &[&BotName], path: &str, round: usize) -> Duration {
    let rule = round * 7_919 % (RULES - 1);
    let domain = TrustDomain::parse("acme.internal").expect("a name");
    let pick = |index: usize| {
        bots.iter()
            .find(|bot| bot.as_str() == format!("t/b{}", index % bots.len()))
            .copied()
    };
    let (from, to) = if bots.len() == 2 {
        (0, 1)
    } else {
        (rule % 1_000, (rule * 7 + rule / 1_000) % 1_000)
    };
    let call = policy::Call {
        from: SpiffeId::for_bot(&domain, pick(from).expect("a bot")),
        to: pick(to).expect("a bot").clone(),
        method: Method::parse("GET").expect("a method"),
        path: CanonicalPath::parse(path.replace("{}", &rule.to_string()).as_bytes()).expect("a path"),
        browser: false,
    };
    let start = now();
    let answer = policy.decide(Timestamp::from_unix_millis(0), call);
    let end = now();
    drop(std::hint::black_box(answer));
    end - start
}

#[expect(
    clippy::disallowed_methods,
    reason = "tokio's clock is a crate more, and this is a measurement"
)]
fn now() -> std::time::Instant {
    std::time::Instant::now()
}
