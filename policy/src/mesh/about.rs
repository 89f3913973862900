//! The rules that speak of one bot.

use spiffe::id::BotName;
use spiffe::time::Timestamp;

use super::Mesh;
use crate::bits::Bits;
use crate::explain::Verdict;
use crate::rule::{Effect, RuleId, Subject};

/// A rule as one of its ends sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleAbout {
    /// Its id.
    pub rule: RuleId,
    /// What it does.
    pub verdict: Verdict,
    /// The bots at its other end, by name. The bot itself is among them where the rule lets it call itself.
    pub bots: Vec<BotName>,
    /// The destinations outside that it speaks of, as written.
    pub outside: Vec<String>,
    /// The calls, as `GET /orders/*`; empty for a deny rule that covers every call.
    pub calls: Vec<String>,
    /// When it ends.
    pub until: Option<Timestamp>,
}

/// Every rule that speaks of a bot, by id.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RulesAbout {
    /// Those about calls to it.
    pub to_it: Vec<RuleAbout>,
    /// Those about calls by it.
    pub by_it: Vec<RuleAbout>,
}

impl Mesh {
    /// Gives the rules that speak of a bot, ended or not; none for a bot that the mesh does not have.
    ///
    /// Deny rules are among them: what may really be called is what an allow rule names and no deny rule does.
    pub fn rules_about(&self, bot: &BotName) -> RulesAbout {
        let mut roster = self.roster();
        let mut about = RulesAbout::default();
        let Some(number) = roster.number(bot) else {
            return about;
        };
        for (id, rule) in &self.rules {
            let (from, to) = (roster.expand(&rule.from), self.callees_of(&mut roster, rule));
            let named = |bits: &Bits| bits.iter().filter_map(|number| roster.name(number).cloned()).collect();
            let seen = |bots| RuleAbout {
                rule: id.clone(),
                verdict: match rule.effect {
                    Effect::Allow => Verdict::Allow,
                    Effect::Deny => Verdict::Deny,
                },
                bots,
                outside: rule
                    .to
                    .iter()
                    .filter_map(Subject::outside)
                    .map(ToString::to_string)
                    .collect(),
                calls: rule.calls(),
                until: rule.until,
            };
            if to.contains(number) {
                about.to_it.push(seen(named(&from)));
            }
            if from.contains(number) {
                about.by_it.push(seen(named(&to)));
            }
        }
        about
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::Source;

    const MESH: &str = r#"version: 1
trust_domain: acme.internal
bots:
  prod/a: {owner: a@b.c, hosts: [h], attest: {uid: 1}}
  prod/b: {owner: a@b.c, hosts: [h], attest: {uid: 2}, serve: {http: 8080}}
  prod/c: {owner: a@b.c, hosts: [h], attest: {uid: 3}, serve: {http: 8081}}
groups:
  callers: [prod/a, prod/c]
allow:
  - {id: read, from: group:callers, to: prod/b, http: [GET /x/*, POST /y]}
  - {id: once, from: prod/a, to: prod/c, http: [GET /z], until: 2020-01-01T00:00:00Z, reason: over}
deny:
  - {id: never, from: "**", to: prod/b, reason: no}
"#;

    fn about(bot: &str) -> RulesAbout {
        let source = Source {
            name: "mesh.yaml".to_owned(),
            text: MESH.to_owned(),
        };
        crate::load(&[source])
            .unwrap()
            .rules_about(&BotName::parse(bot).unwrap())
    }

    fn told(rules: &[RuleAbout]) -> Vec<String> {
        let line = |rule: &RuleAbout| {
            let bots: Vec<&str> = rule.bots.iter().map(BotName::as_str).collect();
            format!(
                "{} {} {} {}",
                rule.verdict,
                rule.rule,
                bots.join(","),
                rule.calls.join(",")
            )
        };
        rules.iter().map(line).collect()
    }

    #[test]
    fn both_ends_of_a_rule_see_it_with_groups_and_patterns_replaced_by_names() {
        let b = about("prod/b");
        assert_eq!(
            told(&b.to_it),
            [
                "DENY never prod/a,prod/b,prod/c ",
                "ALLOW read prod/a,prod/c GET /x/*,POST /y"
            ]
        );
        assert_eq!(told(&b.by_it), ["DENY never prod/b "]);
        let a = about("prod/a");
        assert!(a.to_it.is_empty());
        assert_eq!(
            told(&a.by_it),
            [
                "DENY never prod/b ",
                "ALLOW once prod/c GET /z",
                "ALLOW read prod/b GET /x/*,POST /y"
            ]
        );
        assert!(a.by_it[1].until.is_some());
    }

    #[test]
    fn a_bot_that_is_not_there_is_in_no_rule_not_even_in_one_about_all() {
        assert_eq!(about("prod/d"), RulesAbout::default());
    }
}
