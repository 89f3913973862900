//! Meshes and calls from a seed, as plain texts: nothing here knows how the crate reads them.

use std::fmt::Write as _;

use policy::{Call, CanonicalPath, HttpAsk, Method, Source, What};
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use spiffe::id::{BotName, SpiffeId};
use spiffe::time::Timestamp;

/// The time of all calls, and the moments around it at which rules end.
pub(crate) const NOW: &str = "2026-12-01T18:00:00.000Z";
const UNTIL: [&str; 4] = [
    "2026-12-01T17:59:59.999Z",
    "2026-12-01T18:00:00.000Z",
    "2026-12-01T18:00:00.001Z",
    "2027-01-01T00:00:00.000Z",
];

pub(crate) const HOSTS: [&str; 3] = ["web-1", "web-2", "db-1"];
/// Names, and the hosts that may claim them.
pub(crate) const BOTS: [(&str, &str); 9] = [
    ("orders", "web-1"),
    ("prod", "web-2"),
    ("prod/orders", "web-*"),
    ("prod/report-1", "web-1"),
    ("prod/report-2", "web-2"),
    ("prod/report-1/old", "db-1"),
    ("staging/orders", "db-*"),
    ("staging/x/y/z", "web-2"),
    ("lone", "*"),
];
const PATTERNS: [&str; 14] = [
    "**",
    "*",
    "prod/**",
    "prod/*",
    "prod/report-*",
    "*/orders",
    "staging/**",
    "prod/report-1/**",
    "*/*/*/*",
    "lon*",
    "prod/orders",
    "prod/report-1",
    "lone",
    "nobody/*",
];
const GROUPS: [&str; 2] = ["readers", "writers"];
const METHODS: [&str; 5] = ["GET", "HEAD", "POST", "DELETE", "PROPFIND"];
const SEGMENTS: [&str; 9] = ["a", "A", "b", "ab", "ab-1", "AB-2", "17", "%C3%A9", "a.b"];
const PATTERN_SEGMENTS: [&str; 12] = [
    "a", "A", "b", "ab", "*", "*", "ab*", "ab-*", "A*", "17", "%C3%A9", "%C3%A9*",
];

#[derive(Clone, Debug)]
pub(crate) struct Rule {
    pub(crate) id: String,
    pub(crate) deny: bool,
    pub(crate) from: Vec<String>,
    pub(crate) to: Vec<String>,
    /// Method and path.
    pub(crate) http: Vec<(String, String)>,
    pub(crate) until: Option<String>,
    pub(crate) browser: bool,
}

#[derive(Clone, Debug)]
pub(crate) struct Limit {
    pub(crate) id: String,
    pub(crate) from: Vec<String>,
    pub(crate) to: Vec<String>,
    pub(crate) rate: String,
    pub(crate) burst: u32,
}

#[derive(Clone, Debug)]
pub(crate) struct Mesh {
    pub(crate) rules: Vec<Rule>,
    pub(crate) groups: Vec<(String, Vec<String>)>,
    pub(crate) limits: Vec<Limit>,
    /// Callees and end.
    pub(crate) audit_only: Vec<(Vec<String>, String)>,
}

#[derive(Clone, Debug)]
pub(crate) struct Ask {
    pub(crate) from: String,
    pub(crate) to: String,
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) browser: bool,
}

impl Mesh {
    /// Writes the mesh, rules in the order given.
    pub(crate) fn text(&self) -> String {
        let mut text = String::from("version: 1\ntrust_domain: acme.internal\nbots:\n");
        for (uid, (name, hosts)) in BOTS.iter().enumerate() {
            writeln!(
                text,
                "  {name}: {{owner: o, hosts: [\"{hosts}\"], attest: {{uid: {uid}}}, serve: {{http: {}}}}}",
                uid + 80
            )
            .unwrap();
        }
        text.push_str("groups:\n");
        for (name, members) in &self.groups {
            writeln!(text, "  {name}: {}", list(members)).unwrap();
        }
        for (section, deny) in [("allow", false), ("deny", true)] {
            writeln!(text, "{section}: [").unwrap();
            for rule in self.rules.iter().filter(|rule| rule.deny == deny) {
                writeln!(text, "  {},", rule.text()).unwrap();
            }
            writeln!(text, "  ]").unwrap();
        }
        text.push_str("limits: [\n");
        for Limit {
            id,
            from,
            to,
            rate,
            burst,
        } in &self.limits
        {
            let (from, to) = (list(from), list(to));
            writeln!(
                text,
                "  {{id: {id}, from: {from}, to: {to}, rate: {rate}, burst: {burst}}},"
            )
            .unwrap();
        }
        text.push_str("  ]\naudit_only: [\n");
        for (to, until) in &self.audit_only {
            writeln!(text, "  {{to: {}, until: {until}, reason: trying}},", list(to)).unwrap();
        }
        text.push_str("  ]\n");
        text
    }

    pub(crate) fn load(&self) -> policy::Mesh {
        load(self.text())
    }
}

impl Rule {
    fn text(&self) -> String {
        let mut text = format!("{{id: {}, from: {}, to: {}", self.id, list(&self.from), list(&self.to));
        if !self.http.is_empty() {
            let items: Vec<String> = self
                .http
                .iter()
                .map(|(method, path)| format!("{method} {path}"))
                .collect();
            write!(text, ", http: {}", list(&items)).unwrap();
        }
        if let Some(until) = &self.until {
            write!(text, ", until: {until}").unwrap();
        }
        if self.until.is_some() || self.deny {
            write!(text, ", reason: because of {}", self.id).unwrap();
        }
        if self.browser {
            text.push_str(", browser: true");
        }
        text.push('}');
        text
    }
}

impl Ask {
    pub(crate) fn call(&self) -> Call {
        Call {
            from: SpiffeId::parse(&self.from).unwrap(),
            to: BotName::parse(&self.to).unwrap().into(),
            what: What::Http(HttpAsk {
                browser: self.browser,
                ..HttpAsk::new(
                    Method::parse(&self.method).unwrap(),
                    CanonicalPath::parse(self.path.as_bytes()).unwrap(),
                )
            }),
        }
    }
}

pub(crate) fn now() -> Timestamp {
    Timestamp::from_rfc3339(NOW).unwrap()
}

/// Reads one text that must be valid.
pub(crate) fn load(text: String) -> policy::Mesh {
    match policy::load(&[Source {
        name: "mesh.yaml".to_owned(),
        text,
    }]) {
        Ok(mesh) => mesh,
        Err(errors) => panic!("{errors}"),
    }
}

/// A YAML list of quoted texts.
fn list(items: &[String]) -> String {
    let quoted: Vec<String> = items.iter().map(|item| format!("\"{item}\"")).collect();
    format!("[{}]", quoted.join(", "))
}

fn owned(items: Vec<&str>) -> Vec<String> {
    items.into_iter().map(str::to_owned).collect()
}

fn subjects() -> impl Strategy<Value = Vec<String>> {
    let groups: Vec<String> = GROUPS.iter().map(|group| format!("group:{group}")).collect();
    let all: Vec<String> = PATTERNS
        .iter()
        .map(|pattern| (*pattern).to_owned())
        .chain(groups)
        .collect();
    subsequence(all, 1..=3).prop_shuffle()
}

fn pattern_path() -> impl Strategy<Value = String> {
    let segments = proptest::collection::vec(select(&PATTERN_SEGMENTS[..]), 0..4);
    (segments, select(&["", "", "/", "/**"][..])).prop_map(|(segments, end)| {
        let head: String = segments.iter().map(|segment| format!("/{segment}")).collect();
        if head.is_empty() && end.is_empty() {
            "/".to_owned()
        } else {
            format!("{head}{end}")
        }
    })
}

fn http(least: usize) -> impl Strategy<Value = Vec<(String, String)>> {
    let method = prop_oneof![1 => Just("*"), 4 => select(&METHODS[..])].prop_map(str::to_owned);
    proptest::collection::vec((method, pattern_path()), least..4)
}

fn rule(number: usize) -> impl Strategy<Value = Rule> {
    let until = prop_oneof![3 => Just(None), 2 => select(&UNTIL[..]).prop_map(|until| Some(until.to_owned()))];
    (
        any::<u8>(),
        prop::bool::weighted(0.3),
        subjects(),
        subjects(),
        until,
        any::<bool>(),
    )
        .prop_flat_map(move |(letters, deny, from, to, until, browser)| {
            http(usize::from(!deny)).prop_map(move |http| Rule {
                // Ids in an order that is not that of the file.
                id: format!("r{letters}-{number}"),
                deny,
                from: from.clone(),
                to: to.clone(),
                http,
                until: until.clone(),
                browser: browser && !deny,
            })
        })
}

fn limit(number: usize) -> impl Strategy<Value = Limit> {
    let rate = (1..1_000_000_u32, select(&["s", "m", "h"][..])).prop_map(|(calls, per)| format!("{calls}/{per}"));
    (any::<u8>(), subjects(), subjects(), rate, 1..100_u32).prop_map(move |(letters, from, to, rate, burst)| Limit {
        id: format!("l{letters}-{number}"),
        from,
        to,
        rate,
        burst,
    })
}

pub(crate) fn mesh() -> impl Strategy<Value = Mesh> {
    let rules = (0..12_usize).prop_flat_map(|count| (0..count).map(rule).collect::<Vec<_>>());
    let members = || subsequence(&PATTERNS[..], 1..=2).prop_map(owned);
    let audit = (subjects(), select(&UNTIL[..]).prop_map(str::to_owned));
    let audit_only = prop_oneof![1 => Just(Vec::new()), 1 => proptest::collection::vec(audit, 1..3)];
    let limits = (0..4_usize).prop_flat_map(|count| (0..count).map(limit).collect::<Vec<_>>());
    (rules, members(), members(), limits, audit_only).prop_map(|(rules, readers, writers, limits, audit_only)| Mesh {
        rules,
        limits,
        groups: vec![("readers".to_owned(), readers), ("writers".to_owned(), writers)],
        audit_only,
    })
}

/// Any call: mostly of bots of the mesh, now and then of a stranger.
pub(crate) fn ask() -> impl Strategy<Value = Ask> {
    let name = || select(&BOTS[..]).prop_map(|(name, _)| name.to_owned());
    let from = prop_oneof![
        20 => name().prop_map(|name| format!("spiffe://acme.internal/{name}")),
        1 => Just("spiffe://other.example/prod/orders".to_owned()),
        1 => Just("spiffe://acme.internal/prod/unknown".to_owned()),
        1 => Just("spiffe://acme.internal/botmesh/host/web-1".to_owned()),
        1 => Just("spiffe://acme.internal".to_owned()),
    ];
    let to = prop_oneof![20 => name(), 1 => Just("prod/unknown".to_owned())];
    let path = (proptest::collection::vec(select(&SEGMENTS[..]), 0..5), any::<bool>()).prop_map(|(segments, slash)| {
        let head: String = segments.iter().map(|segment| format!("/{segment}")).collect();
        if slash || head.is_empty() {
            format!("{head}/")
        } else {
            head
        }
    });
    (from, to, select(&METHODS[..]), path, prop::bool::weighted(0.25)).prop_map(|(from, to, method, path, browser)| {
        Ask {
            from,
            to,
            method: method.to_owned(),
            path,
            browser,
        }
    })
}
