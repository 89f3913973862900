//! Bounds, and what is told.

use std::collections::BTreeSet;
use std::time::Duration;

use ::policy::{CredentialName, Generation, Mesh};
use spiffe::id::BotName;

use super::policy::InForce;
use super::series::{OWN_MAX, SERIES_MAX};
use super::*;
use crate::call::Called;
use crate::control::CosignedHead;
use crate::credentials::{Counts, TokenState};
use crate::places::{Bound, Places};
use crate::upstream::Upstreams;

fn key(rule: &str) -> SeriesKey {
    SeriesKey {
        way: Way::Out,
        from: BotName::parse("prod/checkout").ok(),
        to: BotName::parse("prod/orders").ok().map(Called::Bot),
        rule: RuleId::parse(rule),
        denied: None,
        class: 2,
    }
}

#[test]
fn calls_are_told_to_the_ca_once_by_the_callers_host() {
    let metrics = Metrics::new("0").unwrap();
    for micros in [0, 1, 3, 3, 1 << 40] {
        metrics.series(&key("a")).observe(Duration::from_micros(micros));
    }
    metrics
        .series(&SeriesKey {
            way: Way::In,
            ..key("a")
        })
        .observe(Duration::from_micros(1));
    metrics
        .series(&SeriesKey { to: None, ..key("a") })
        .observe(Duration::from_micros(1));
    let edges = metrics.edges();
    let [edge] = edges.as_slice() else { panic!("{edges:?}") };
    assert_eq!(
        (edge.from.as_str(), edge.to.as_str(), edge.count),
        ("prod/checkout", "prod/orders", 5)
    );
    assert_eq!(
        (edge.rule.as_str(), edge.verdict.as_str(), edge.reason.as_str()),
        ("a", "allow", "")
    );
    assert_eq!(edge.latency_us_buckets.get(..4), Some([1, 1, 2, 0].as_slice()));
    assert_eq!(edge.latency_us_buckets.last(), Some(&1));
    assert!(metrics.edges().is_empty(), "told once");
}

#[test]
fn the_verdict_of_a_series_is_told_by_its_rule_and_its_refusal() {
    let audit = SeriesKey { rule: None, ..key("a") };
    let deny = SeriesKey {
        denied: Some(Reason::NoRule),
        ..audit.clone()
    };
    assert_eq!(
        [key("a").verdict(), audit.verdict(), deny.verdict()],
        ["allow", "audit", "deny"]
    );
}

#[test]
fn the_number_of_series_is_bounded_and_what_is_beyond_is_counted_together() {
    let metrics = Metrics::new("0").unwrap();
    for number in 0..OWN_MAX + 10 {
        metrics
            .series(&key(&format!("rule-{number}")))
            .observe(Duration::from_millis(1));
    }
    let text = metrics.encode();
    let counted = text
        .lines()
        .filter(|line| line.starts_with("botmesh_requests_total{"))
        .count();
    assert_eq!(counted, OWN_MAX + 1);
    let other = text.lines().find(|line| line.contains("from=\"__other__\"")).unwrap();
    assert!(other.ends_with(" 10"), "{other}");
    assert!(text.contains("botmesh_build_info{version=\"0\"} 1"));
    for reason in Reason::ALL {
        assert!(
            text.contains(&format!("botmesh_denied_total{{reason=\"{reason}\"}} 0")),
            "{reason}"
        );
    }
}

/// The most series of each metric, all of them counted: a metric without a line here has no bound.
const BOUNDS: [(&str, usize); 46] = [
    ("botmesh_attestations_total", 2 * 20),
    // By callee, never by caller, and only those that were called.
    ("botmesh_breaker_opened_total", BOTS),
    ("botmesh_breakers_open", BOTS),
    ("botmesh_build_info", 1),
    ("botmesh_bytes_total", 2),
    ("botmesh_calls_in_flight", 1),
    ("botmesh_grpc_calls_total", 36),
    ("botmesh_clock_skew_seconds", 1),
    ("botmesh_connections", 8),
    ("botmesh_credential_available", crate::config::CREDENTIALS_MAX),
    ("botmesh_credential_exchanges_total", 2 * crate::config::CREDENTIALS_MAX),
    ("botmesh_credential_leases", crate::config::CREDENTIALS_MAX),
    ("botmesh_credential_masked_total", crate::config::CREDENTIALS_MAX),
    ("botmesh_credential_reads_total", 2 * crate::config::CREDENTIALS_MAX),
    ("botmesh_denied_total", Reason::ALL.len()),
    ("botmesh_ejected_endpoints", BOTS),
    ("botmesh_ejections_total", BOTS),
    ("botmesh_handshakes_refused_total", 32),
    ("botmesh_hops_broken_total", 2),
    ("botmesh_ledger_bytes", 8),
    ("botmesh_ledger_cosigned_records", 1),
    ("botmesh_ledger_cosigned_timestamp_seconds", 1),
    ("botmesh_ledger_dropped", 8),
    ("botmesh_database_cancels_total", 3),
    ("botmesh_ledger_epoch", 1),
    ("botmesh_ledger_held", 1),
    ("botmesh_ledger_pruned", 1),
    ("botmesh_ledger_records", 1),
    ("botmesh_ledger_share_bytes", 8),
    // As many as a CA may name.
    ("botmesh_ledger_witnessed_records", 16),
    ("botmesh_ledger_witnessed_timestamp_seconds", 16),
    ("botmesh_policy_decision_duration_seconds", 1),
    ("botmesh_policy_info", 1),
    ("botmesh_policy_rejected_revision", 1),
    ("botmesh_policy_reloads_total", 2),
    ("botmesh_quarantined", 3),
    ("botmesh_reproofs_total", 32),
    // By callee and direction, never by caller.
    ("botmesh_request_duration_seconds", 2 * (BOTS + 1)),
    ("botmesh_requests_total", SERIES_MAX),
    ("botmesh_retries_total", 2 * BOTS),
    ("botmesh_rule_last_used_timestamp_seconds", RULES),
    ("botmesh_rule_not_after_timestamp_seconds", RULES),
    ("botmesh_shed_total", Bound::ALL.len()),
    ("botmesh_streams_cut_total", Reason::ALL.len()),
    ("botmesh_svid_not_after_timestamp_seconds", crate::control::BOTS_MAX),
    ("botmesh_svid_rotations_total", 2),
];

const BOTS: usize = 1_000;
const RULES: usize = 50;

fn bot(number: usize) -> BotName {
    BotName::parse(&format!("prod/bot-{number}")).unwrap()
}

/// A mesh of these rules, of which each may be called by everybody; those with an even number end.
fn mesh(rules: usize) -> Mesh {
    let bots: Vec<_> = (0..BOTS)
        .map(|n| {
            format!(
                "  prod/bot-{n}: {{owner: a@b.c, hosts: [h], attest: {{uid: {}}}, serve: {{http: {}}}}}\n",
                n + 1000,
                n + 8000
            )
        })
        .collect();
    let rule = |n: usize| {
        let end = if n.is_multiple_of(2) {
            ", until: '1970-01-01T00:01:00Z', reason: r"
        } else {
            ""
        };
        format!(
            "  - {{id: rule-{n}, from: prod/bot-{n}, to: prod/bot-{}, http: GET /{end}}}\n",
            n + 1
        )
    };
    let rules: Vec<_> = (0..rules).map(rule).collect();
    let text = format!(
        "version: 1\ntrust_domain: acme.internal\nbots:\n{}allow:\n{}",
        bots.concat(),
        rules.concat()
    );
    let name = "mesh.yaml".to_owned();
    ::policy::load(&[::policy::Source { name, text }]).unwrap_or_else(|d| panic!("{}", d.render(false)))
}

fn in_force(mesh: &Mesh, revision: u64) -> InForce<'_> {
    InForce {
        generation: Generation { epoch: 3, revision },
        sha256: Some([0xab; 32]),
        mesh,
    }
}

/// A credential that was read and exchanged, well and badly.
fn exchanged(number: usize) -> crate::credentials::State {
    crate::credentials::State {
        name: CredentialName::parse(&format!("key-{number}")).unwrap(),
        kind: "file",
        class: "dynamic",
        leases: 1,
        fingerprint: Some(String::new()),
        age: None,
        error: None,
        masked: 1,
        reads_ok: 1,
        reads_failed: 1,
        token: Some(TokenState {
            fingerprint: None,
            left: None,
            error: None,
            counts: Counts { ok: 1, failed: 1 },
        }),
        bots: Vec::new(),
        exchanges: Counts { ok: 1, failed: 1 },
    }
}

/// Calls of every bot to every third one, by every rule, with every result, and one of everything else.
fn simulate(metrics: &Metrics, mesh: &Mesh) {
    for from in 0..BOTS {
        for (to, class) in [(from % 7, 2), (from % 11, 4), ((from + 1) % BOTS, 5)] {
            for (way, denied) in [(Way::Out, None), (Way::In, None), (Way::Out, Some(Reason::NoRule))] {
                let (from, to) = (Some(bot(from)), Some(bot(to)));
                let rule = RuleId::parse(&format!("rule-{}", class * 10));
                let key = SeriesKey {
                    way,
                    from,
                    to: to.map(Called::Bot),
                    rule,
                    denied,
                    class,
                };
                metrics.series(&key).observe(Duration::from_millis(1));
                metrics.carried(way, 10);
            }
        }
    }
    for word in ["protocol", "flood"] {
        metrics.hop_broken(word);
    }
    for word in ["ok", "no_entry", "two_entries"] {
        metrics.attested("tcp", Some(word));
        metrics.attested("unix", None);
        metrics.handshake_refused(word);
        metrics.reproof(word);
        metrics.connections(word).inc();
    }
    for word in ["sent", "failed", "refused"] {
        metrics.database_cancel(word);
    }
    metrics.timed(|| ());
    metrics
        .host
        .set_svids((0..BOTS).map(|n| (bot(n), Timestamp::from_unix_seconds(9))));
    let cut = BTreeMap::from([(Reason::Quarantined, 2)]);
    let counted = crate::control::Counted {
        skew_ms: -1500,
        ..Default::default()
    };
    metrics.host.set(&counted, [("bot", 1), ("host", 2), ("svid", 3)], &cut);
    metrics.note_uses(mesh, Timestamp::from_unix_seconds(77));
    metrics.tell_policy(in_force(mesh, 5), 0);
    metrics.ledger.set(&audit::Stats::default(), CosignedHead::default());
    let witnessed = [("w.example".to_owned(), CosignedHead::default())];
    metrics.ledger.set_witnessed(&witnessed.into());
    let upstreams = Upstreams::new(7);
    for number in 0..BOTS {
        upstreams.of(Way::Out, &bot(number).into());
    }
    metrics.calls.set(&Places::new(8), &upstreams);
    let states: Vec<_> = (0..crate::config::CREDENTIALS_MAX).map(exchanged).collect();
    metrics.credentials.set(&states);
}

#[test]
fn a_thousand_bots_make_no_more_series_than_the_bounds() {
    let (metrics, mesh) = (Metrics::new("0").unwrap(), mesh(RULES));
    simulate(&metrics, &mesh);
    let bounds = BTreeMap::from(BOUNDS);
    let mut seen = BTreeSet::new();
    for family in metrics.registry.gather() {
        let bound = bounds
            .get(family.name())
            .unwrap_or_else(|| panic!("{} has no bound", family.name()));
        let series = family.get_metric().len();
        assert!(series <= *bound, "{}: {series} series, at most {bound}", family.name());
        seen.insert(family.name().to_owned());
    }
    let bounded: BTreeSet<_> = bounds.keys().map(|name| (*name).to_owned()).collect();
    assert_eq!(seen, bounded, "each of them was there");
}

#[test]
fn the_readme_tells_of_each_metric_and_its_labels_and_of_no_other() {
    let (metrics, mesh) = (Metrics::new("0").unwrap(), mesh(RULES));
    simulate(&metrics, &mesh);
    let told = |family: &prometheus::proto::MetricFamily| {
        let [metric, ..] = family.get_metric() else {
            panic!("{}", family.name())
        };
        let labels: BTreeSet<_> = metric.get_label().iter().map(|label| label.name().to_owned()).collect();
        (family.name().to_owned(), labels)
    };
    let there: BTreeMap<_, _> = metrics.registry.gather().iter().map(told).collect();
    let readme = include_str!("../../../README.md");
    let row = |line: &str| {
        let mut cells = line.strip_prefix("| `botmesh_")?.split(" | ");
        let name = format!("botmesh_{}", cells.next()?.trim_end_matches('`'));
        let labels: BTreeSet<_> = cells
            .next()?
            .split('`')
            .skip(1)
            .step_by(2)
            .map(ToOwned::to_owned)
            .collect();
        Some((name, labels))
    };
    let table: BTreeMap<_, _> = readme.lines().filter_map(row).collect();
    assert_eq!(table, there);
}

#[test]
fn a_policy_that_is_gone_has_no_series_and_neither_have_its_rules() {
    let metrics = Metrics::new("0").unwrap();
    let (before, after) = (mesh(4), mesh(2));
    for rule in ["rule-1", "rule-3"] {
        metrics.series(&key(rule)).observe(Duration::from_millis(1));
    }
    metrics.note_uses(&before, Timestamp::from_unix_seconds(50));
    metrics.tell_policy(in_force(&before, 5), 0);
    let text = metrics.encode();
    let sha256 = "ab".repeat(32);
    for line in [
        format!("botmesh_policy_info{{epoch=\"3\",revision=\"5\",sha256=\"{sha256}\"}} 1"),
        "botmesh_rule_last_used_timestamp_seconds{rule=\"rule-1\"} 50".to_owned(),
        "botmesh_rule_last_used_timestamp_seconds{rule=\"rule-3\"} 50".to_owned(),
        "botmesh_rule_not_after_timestamp_seconds{rule=\"rule-2\"} 60".to_owned(),
    ] {
        assert!(text.contains(&line), "{line}\n{text}");
    }
    metrics.note_uses(&after, Timestamp::from_unix_seconds(55));
    metrics.tell_policy(in_force(&after, 6), 7);
    let text = metrics.encode();
    assert_eq!(text.matches("botmesh_policy_info{").count(), 1, "{text}");
    assert!(text.contains("revision=\"6\""), "{text}");
    assert!(text.contains("botmesh_policy_rejected_revision 7\n"), "{text}");
    assert!(!text.contains("rule=\"rule-2\"}"), "{text}");
    assert!(!text.contains("last_used_timestamp_seconds{rule=\"rule-3\"}"), "{text}");
    assert!(
        text.contains("last_used_timestamp_seconds{rule=\"rule-1\"} 50"),
        "no call came meanwhile: {text}"
    );
    metrics.series(&key("rule-1")).observe(Duration::from_millis(1));
    metrics.note_uses(&after, Timestamp::from_unix_seconds(58));
    metrics.tell_policy(in_force(&after, 6), 0);
    assert!(
        metrics
            .encode()
            .contains("last_used_timestamp_seconds{rule=\"rule-1\"} 58")
    );
}

#[test]
fn what_is_counted_elsewhere_is_told_once_however_often_it_is_read() {
    let metrics = Metrics::new("0").unwrap();
    let counted = crate::control::Counted {
        slices_applied: 4,
        slices_refused: 1,
        svids_ok: 6,
        svids_failed: 2,
        skew_ms: -1500,
        ..Default::default()
    };
    for _ in 0..3 {
        let cut = BTreeMap::from([(Reason::Quarantined, 2)]);
        metrics.host.set(&counted, [("bot", 1), ("host", 0), ("svid", 3)], &cut);
    }
    let text = metrics.encode();
    for line in [
        "botmesh_policy_reloads_total{result=\"ok\"} 4",
        "botmesh_policy_reloads_total{result=\"refused\"} 1",
        "botmesh_svid_rotations_total{result=\"ok\"} 6",
        "botmesh_svid_rotations_total{result=\"failed\"} 2",
        "botmesh_clock_skew_seconds -1.5",
        "botmesh_quarantined{kind=\"svid\"} 3",
        "botmesh_streams_cut_total{reason=\"quarantined\"} 2",
        "botmesh_streams_cut_total{reason=\"no_rule\"} 0",
    ] {
        assert!(text.contains(line), "{line}\n{text}");
    }
}

#[test]
fn one_decision_in_sixty_four_is_timed() {
    let metrics = Metrics::new("0").unwrap();
    for number in 0..129 {
        assert_eq!(metrics.timed(|| number), number);
    }
    assert_eq!(metrics.policy.decisions.get_sample_count(), 3);
}
