//! `policy explain` and the live proxies agree: generated rules, generated calls, a new seed each run.
//!
//! The generator knows the grammar of a mesh file and nothing of the code that reads it.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::support::{Caller, Mesh, Setup, botmesh, free_port, ok, root_or_skip};

/// Calls that the generator makes, of which [`PER_KIND`] of each kind are sent.
const POOL: usize = 8_000;
const PER_KIND: usize = 650;
/// Of the rarer kinds.
const FEW: usize = 150;
const PAIRS: usize = 2_000;
const SEGMENTS: [&str; 6] = ["orders", "refunds", "17", "items", "admin", "Reports"];
const METHODS: [&str; 4] = ["GET", "POST", "PUT", "DELETE"];

/// Name, host, uid, and whether it serves.
const BOTS: [(&str, &str, u32, bool); 7] = [
    ("prod/checkout", "web-1", 61_011, false),
    ("prod/report-1", "web-1", 61_012, false),
    ("staging/load", "web-2", 61_013, false),
    ("prod/orders", "web-1", 61_014, true),
    ("prod/stock", "web-2", 61_015, true),
    ("staging/echo", "web-2", 61_016, true),
    ("lone", "web-1", 61_017, true),
];

/// A xorshift generator: the run prints its seed.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 33).expect("fits") % sides
    }

    fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.roll(from.len())]
    }
}

/// One rule as the generator made it, to aim calls at.
struct Aim {
    method: String,
    path: String,
    from: Vec<&'static str>,
    to: &'static str,
}

fn rule_path(dice: &mut Dice) -> String {
    let mut path = String::new();
    for _ in 0..=dice.roll(3) {
        let segment = if dice.roll(4) == 0 { "*" } else { *dice.pick(&SEGMENTS) };
        write!(path, "/{segment}").expect("a String");
    }
    if dice.roll(4) == 0 {
        path.push_str("/**");
    }
    path
}

/// A path that the rule's pattern covers, by the grammar's words alone.
fn covered(dice: &mut Dice, pattern: &str) -> String {
    let mut path = String::new();
    for segment in pattern.split('/').skip(1) {
        match segment {
            "*" => write!(path, "/{}", dice.pick(&SEGMENTS)).expect("a String"),
            "**" => {
                for _ in 0..dice.roll(3) {
                    write!(path, "/{}", dice.pick(&SEGMENTS)).expect("a String");
                }
            }
            literal => write!(path, "/{literal}").expect("a String"),
        }
    }
    if path.is_empty() { "/".to_owned() } else { path }
}

fn from_patterns(dice: &mut Dice) -> (String, Vec<&'static str>) {
    let callers: Vec<&str> = BOTS.iter().filter(|b| !b.3).map(|b| b.0).collect();
    match dice.roll(5) {
        0 => ("\"**\"".to_owned(), callers),
        1 => ("prod/**".to_owned(), vec!["prod/checkout", "prod/report-1"]),
        2 => ("group:reporters".to_owned(), vec!["prod/report-1", "staging/load"]),
        3 => ("prod/report-*".to_owned(), vec!["prod/report-1"]),
        _ => {
            let one = *dice.pick(&callers);
            (one.to_owned(), vec![one])
        }
    }
}

fn mesh_file(dice: &mut Dice, ports: &BTreeMap<&str, u16>) -> (String, Vec<Aim>, Vec<Aim>) {
    let mut text = String::from("version: 1\ntrust_domain: acme.internal\nbots:\n");
    for (name, host, uid, serves) in BOTS {
        let serve = if serves {
            format!(", serve: {{http: {}}}", ports[name])
        } else {
            String::new()
        };
        writeln!(
            text,
            "  {name}: {{owner: qa@acme.internal, hosts: [{host}], attest: {{uid: {uid}}}{serve}}}"
        )
        .expect("a String");
    }
    text.push_str("groups:\n  reporters: [prod/report-*, staging/load]\n");
    let callees: Vec<&str> = BOTS.iter().filter(|b| b.3).map(|b| b.0).collect();
    let (mut allows, mut denies) = (Vec::new(), Vec::new());
    for (section, count) in [("allow", 40), ("deny", 8)] {
        writeln!(text, "{section}:").expect("a String");
        for n in 0..count {
            let (from_text, from) = from_patterns(dice);
            let to = *dice.pick(&callees);
            let path = rule_path(dice);
            let method = if dice.roll(6) == 0 { "*" } else { *dice.pick(&METHODS) };
            let life = match (section, dice.roll(6)) {
                ("allow", 0) => ", until: 2021-01-01T00:00:00Z, reason: it ended",
                ("allow", 1) => ", until: 2099-01-01T00:00:00Z, reason: it lasts",
                ("deny", _) => ", reason: not for bots",
                _ => "",
            };
            writeln!(
                text,
                "  - {{id: {section}-{n}, from: {from_text}, to: {to}, http: [\"{method} {path}\"]{life}}}"
            )
            .expect("a String");
            let aims = if section == "allow" { &mut allows } else { &mut denies };
            aims.push(Aim {
                method: method.to_owned(),
                path,
                from,
                to,
            });
        }
    }
    text.push_str("audit_only:\n  - {to: staging/echo, until: 2099-01-01T00:00:00Z, reason: trying}\n");
    (text, allows, denies)
}

fn call(dice: &mut Dice, allows: &[Aim], denies: &[Aim]) -> (&'static str, &'static str, String, String) {
    let aims = match dice.roll(20) {
        0..=8 => allows,
        9..=14 => denies,
        _ => {
            let callers: Vec<&str> = BOTS.iter().filter(|b| !b.3).map(|b| b.0).collect();
            let callees: Vec<&str> = BOTS.iter().filter(|b| b.3).map(|b| b.0).collect();
            let path = rule_path(dice);
            return (
                *dice.pick(&callers),
                *dice.pick(&callees),
                (*dice.pick(&METHODS)).to_owned(),
                covered(dice, &path),
            );
        }
    };
    let aim = dice.pick(aims);
    let (from, to, pattern) = (&aim.from, aim.to, aim.path.clone());
    let method = if aim.method == "*" {
        (*dice.pick(&METHODS)).to_owned()
    } else {
        aim.method.clone()
    };
    (*dice.pick(from), to, method, covered(dice, &pattern))
}

/// The reason of a refusal, else the verdict.
fn kind(told: &Value) -> &str {
    told["reason"].as_str().or(told["verdict"].as_str()).expect("a verdict")
}

#[test]
#[expect(clippy::too_many_lines, reason = "one story, told from top to bottom")]
fn explain_and_the_live_proxies_agree_on_every_verdict_rule_and_nearest_rule() {
    if !root_or_skip("agreement of explain and the proxies") {
        return;
    }
    let seed = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .expect("after 1970")
        .as_nanos();
    let seed = u64::try_from(seed % u128::from(u64::MAX)).expect("fits") | 1;
    println!("seed {seed}");
    let mut dice = Dice(seed);
    let mut mesh = Mesh::start(&Setup {
        hosts: &["web-1", "web-2"],
        ..Setup::default()
    });
    let ports: BTreeMap<&str, u16> = BOTS.iter().filter(|b| b.3).map(|b| (b.0, free_port())).collect();
    for (name, _, uid, serves) in BOTS {
        if serves {
            mesh.callee(uid, &ports[name].to_string());
        }
    }
    let (text, allows, denies) = mesh_file(&mut dice, &ports);
    mesh.apply(&text);
    let calls: Vec<_> = (0..POOL).map(|_| call(&mut dice, &allows, &denies)).collect();

    // What explain says, all at once; then as many of each kind as a fair test needs.
    let batch = mesh.dir().join("calls.txt");
    let lines: String = calls
        .iter()
        .map(|(from, to, method, path)| format!("{from} {to} {method} {path}\n"))
        .collect();
    std::fs::write(&batch, lines).expect("written");
    let told = ok(botmesh()
        .args(["policy", "explain", "--batch"])
        .arg(&batch)
        .arg("--mesh")
        .arg(mesh.mesh_file())
        .args(["-o", "jsonl"]));
    let told: Vec<Value> = told.lines().map(|l| serde_json::from_str(l).expect("JSON")).collect();
    assert_eq!(told.len(), calls.len());
    let mut kinds: BTreeMap<String, usize> = BTreeMap::new();
    let (calls, told): (Vec<_>, Vec<_>) = calls
        .into_iter()
        .zip(told)
        .filter(|(_, told)| {
            let kind = kind(told);
            let seen = kinds.entry(kind.to_owned()).or_default();
            *seen += 1;
            *seen
                <= if matches!(kind, "rule_expired" | "audit") {
                    FEW
                } else {
                    PER_KIND
                }
        })
        .unzip();
    assert!(calls.len() >= PAIRS, "{kinds:?}");

    // What the proxies do.
    let mut callers: BTreeMap<&str, Caller> = BOTS
        .iter()
        .filter(|b| !b.3)
        .map(|(name, host, uid, _)| (*name, Caller::new(*uid, &mesh.host(host).bot_socket())))
        .collect();
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    let mut live = Vec::new();
    for (from, to, method, path) in &calls {
        let host: Vec<&str> = to.rsplit('/').collect();
        let answer = callers
            .get_mut(from)
            .expect("a caller")
            .call(method, &format!("{}.mesh", host.join(".")), path);
        live.push(answer);
    }
    let mut rules: BTreeMap<String, Value> = BTreeMap::new();
    for host in mesh.hosts.values() {
        for record in host.query("kind=call direction=out") {
            rules.insert(record["id"].as_str().expect("an id").to_owned(), record);
        }
    }
    for ((call, told), live) in calls.iter().zip(&told).zip(&live) {
        // What carries a call only its record says: its callee answers all alike.
        let verdict = match (live.status, told["verdict"] == "audit") {
            (200, true) => "audit",
            (200, false) => "allow",
            _ => "deny",
        };
        let id = live.header("botmesh-call").expect("a call id");
        // Above 50 refusals a second of one caller the ledger counts them together; what the caller was told stays.
        let counted = json!({"verdict": "deny", "rule": live.status.ne(&200).then(|| live.json()["rule"].clone())});
        let record = rules.get(id).unwrap_or(&counted);
        assert!(
            verdict == "deny" || rules.contains_key(id),
            "{call:?}: an allowed call has its record"
        );
        let what = format!(
            "{call:?}\nexplain {told}\nlive {} {}\nrecord {record}",
            live.status, live.body
        );
        assert_eq!(told["verdict"], verdict, "{what}");
        assert_eq!(record["verdict"], verdict, "{what}");
        assert_eq!(told["rule"], record["rule"], "{what}");
        if verdict == "audit" {
            assert_eq!(told["nearest"]["rule"], record["nearest"], "{what}");
        }
        if verdict == "deny" {
            let problem = live.json();
            assert_eq!(told["reason"], problem["reason"], "{what}");
            assert_eq!(told["nearest"]["rule"], problem["nearest"]["rule"], "{what}");
            assert_eq!(told["nearest"]["differs"], problem["nearest"]["differs"], "{what}");
        }
        *counts.entry(kind(told).to_owned()).or_default() += 1;
        *counts
            .entry(format!("hop {}", record["hop"].as_str().unwrap_or("none")))
            .or_default() += 1;
    }
    println!("{}", json!(counts));
    for kind in ["allow", "no_rule", "denied_by_rule"] {
        assert!(
            counts.get(kind).copied().unwrap_or(0) * 4 >= calls.len(),
            "a quarter is {kind}: {counts:?}"
        );
    }
    for kind in ["rule_expired", "audit", "hop mtls", "hop local"] {
        assert!(counts.contains_key(kind), "{kind} is present: {counts:?}");
    }
}
