//! What holds for every mesh and every call.

use policy::{Allowance, Audit, Call, Denial, Generation, Nearest, Policy, RuleId, Verdict};
use proptest::prelude::*;
use spiffe::id::{HostName, HostPattern};

use crate::brute::{self, Answer};
use crate::generate::{Ask, BOTS, HOSTS, ask, load, mesh, now};

/// What carries a call: the rule, or the end of `audit_only` with the nearest rule.
type Carried = (Option<RuleId>, Option<Audit>);

fn decide(policy: &Policy, ask: &Ask) -> Result<Carried, Denial> {
    let call = ask.call();
    policy.decide(now(), call.clone()).map(|permit| {
        assert_eq!(permit.call(), &call, "the permit owns the very call");
        let carried = (permit.rule().cloned(), permit.audit().cloned());
        let verdict = if carried.0.is_some() {
            Verdict::Allow
        } else {
            Verdict::Audit
        };
        assert_eq!(permit.verdict(), verdict);
        assert_ne!(carried.0.is_some(), carried.1.is_some(), "a permit has one ground");
        assert_eq!(permit.into_call(), call);
        carried
    })
}

type Told = (String, Vec<brute::Differs>);

fn told(nearest: Nearest) -> Told {
    let differs = nearest
        .differs
        .into_iter()
        .map(|d| (d.attribute.to_string(), d.rule_has, d.call_has));
    (nearest.rule.to_string(), differs.collect())
}

fn answer(decision: Result<Carried, Denial>) -> Answer {
    match decision {
        Ok((Some(rule), _)) => Answer {
            verdict: "allow",
            reason: None,
            rule: Some(rule.to_string()),
            nearest: None,
        },
        Ok((None, audit)) => Answer {
            verdict: "audit",
            reason: None,
            rule: None,
            nearest: audit.and_then(|audit| audit.nearest).map(told),
        },
        Err(denial) => Answer {
            verdict: "deny",
            reason: Some(denial.reason.as_str()),
            rule: denial.rule.map(|rule| rule.to_string()),
            nearest: denial.nearest.map(|nearest| told(*nearest)),
        },
    }
}

fn limits(policy: &Policy, call: &Call) -> Vec<(String, String, u32)> {
    let told = |(id, allowance): (&RuleId, Allowance)| (id.to_string(), allowance.rate.to_string(), allowance.burst);
    let limits: Vec<_> = policy.limits_of(call).map(told).collect();
    let id = |(id, ..): &(String, String, u32)| policy.has_limit(&RuleId::parse(id).unwrap());
    assert!(limits.iter().all(id) && !policy.has_limit(&RuleId::parse("none").unwrap()));
    limits
}

fn lives_on(id: &str, host: &HostName) -> bool {
    let name = id.strip_prefix("spiffe://acme.internal/").unwrap_or(id);
    let hosts = BOTS
        .iter()
        .find(|(bot, _)| *bot == name)
        .map(|(_, hosts)| HostPattern::parse(hosts).unwrap());
    hosts.is_some_and(|hosts| hosts.matches(host))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn the_compiled_policy_decides_as_brute_force_reads(mesh in mesh(), asks in proptest::collection::vec(ask(), 24)) {
        let policy = mesh.load().compile(Generation { epoch: 3, revision: 4 });
        prop_assert_eq!(policy.generation(), Generation { epoch: 3, revision: 4 });
        for ask in asks {
            prop_assert_eq!(answer(decide(&policy, &ask)), brute::decide(&mesh, &ask), "{:?}\n{}", ask, mesh.text());
            let call = ask.call();
            prop_assert_eq!(policy.links(&call.from, call.bot().unwrap()), brute::links(&mesh, &ask), "{:?}\n{}", ask, mesh.text());
            prop_assert_eq!(limits(&policy, &call), brute::limits(&mesh, &ask), "{:?}\n{}", ask, mesh.text());
        }
    }

    #[test]
    fn the_slice_of_a_host_decides_the_calls_of_its_bots_as_the_whole(
        mesh in mesh(),
        asks in proptest::collection::vec(ask(), 24),
    ) {
        let whole = mesh.load();
        let policy = whole.compile(Generation::default());
        for host in HOSTS {
            let host = HostName::parse(host).unwrap();
            let slice = load(whole.slice(&host));
            prop_assert_eq!(slice.slice_host(), Some(&host));
            prop_assert_eq!(slice.entries_for(&host), whole.entries_for(&host));
            prop_assert_eq!(slice.slice(&host), whole.slice(&host), "a slice holds all that is cut out of it");
            let sliced = slice.compile(Generation::default());
            for ask in &asks {
                let (from, to) = (lives_on(&ask.from, &host), lives_on(&ask.to, &host));
                if from || to {
                    prop_assert_eq!(decide(&sliced, ask), decide(&policy, ask), "{} {:?}\n{}", host, ask, mesh.text());
                }
                if to {
                    let call = ask.call();
                    // Only of a caller that a rule lets call it must the callee's host know: others are refused.
                    if decide(&policy, ask).is_ok() {
                        prop_assert_eq!(limits(&sliced, &call), limits(&policy, &call), "{} {:?}", host, ask);
                    }
                }
                if from {
                    let call = ask.call();
                    prop_assert_eq!(sliced.links(&call.from, call.bot().unwrap()), policy.links(&call.from, call.bot().unwrap()), "{:?}", ask);
                }
            }
        }
    }

    #[test]
    fn a_mesh_that_is_written_reads_back_equal(mesh in mesh()) {
        let whole = mesh.load();
        let json = whole.canonical_json();
        let again = load(json.clone());
        prop_assert_eq!(&again, &whole);
        prop_assert_eq!(again.canonical_json(), json);
    }

    #[test]
    fn the_order_of_rules_never_matters(mesh in mesh(), seed in any::<usize>()) {
        let mut turned = mesh.clone();
        turned.rules.rotate_left(seed % mesh.rules.len().max(1));
        turned.groups.reverse();
        turned.limits.reverse();
        turned.audit_only.reverse();
        let (turned, mesh) = (turned.load(), mesh.load());
        prop_assert_eq!(turned.canonical_json(), mesh.canonical_json());
        prop_assert_eq!(turned, mesh);
    }

    #[test]
    fn explain_tells_what_the_policy_decides(mesh in mesh(), asks in proptest::collection::vec(ask(), 4)) {
        let whole = mesh.load();
        let policy = whole.compile(Generation::default());
        for ask in asks.into_iter().map(|ask| Ask { browser: false, ..ask }) {
            let call = ask.call();
            let told = whole.explain(now(), &call.from, &call.to, &call.what);
            match decide(&policy, &ask) {
                Ok((Some(rule), _)) => {
                    prop_assert_eq!((told.verdict, &told.rule), (Verdict::Allow, &Some(rule)));
                    prop_assert!(told.candidates[0].ticks.iter().all(|tick| tick.matches));
                }
                Ok((None, audit)) => {
                    let audit = audit.unwrap();
                    prop_assert_eq!((told.verdict, &told.rule, told.reason), (Verdict::Audit, &None, None));
                    prop_assert_eq!((told.audit_until, &told.why), (Some(audit.until), &Some(audit.why)));
                    prop_assert_eq!(&told.nearest, &audit.nearest);
                }
                Err(denial) => {
                    prop_assert_eq!((told.verdict, told.reason), (Verdict::Deny, Some(denial.reason)));
                    prop_assert_eq!((&told.rule, &told.why), (&denial.rule, &denial.why));
                    prop_assert_eq!(&told.nearest, &denial.nearest.map(|nearest| *nearest));
                }
            }
            prop_assert!(told.candidates.len() <= 5);
            prop_assert_eq!(told.limits.len(), limits(&policy, &call).len());
            prop_assert_eq!(told.rule_at.is_some(), told.rule.is_some());
        }
    }

    #[test]
    fn no_text_makes_the_reader_panic(text in "\\PC{0,200}") {
        drop(policy::load(&[policy::Source { name: "x".to_owned(), text }]));
    }

    /// Damage to a valid file is either seen or harmless, and never a panic.
    #[test]
    fn no_damaged_file_makes_the_reader_panic(mesh in mesh(), at in any::<prop::sample::Index>(), put in "\\PC{0,3}", drop_bytes in 0..9_usize) {
        let text = mesh.text();
        let at = at.index(text.len());
        let text = format!("{}{put}{}", &text[..at], text.get(at + drop_bytes..).unwrap_or_default());
        if let Err(errors) = policy::load(&[policy::Source { name: "x".to_owned(), text }]) {
            prop_assert!(!errors.is_empty() && !errors.render(true).is_empty());
        }
    }
}
