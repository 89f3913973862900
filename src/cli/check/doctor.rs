//! What the proxy found when it looked for us, and who is cut off on this host.

use ca_api::proxy_admin::{Alike, CalleeFound, CalleeLook, Doctor, LocalQuarantines, Replayed, ShareLook, TokenLook};

use super::Looks;

/// From how full a share for calls is on, in hundredths, somebody should look.
const FULL_PERCENT: u64 = 80;

pub(super) fn judge(told: &Doctor, looks: &mut Looks) {
    if let Some(token) = &told.token {
        judge_token(token, looks);
    }
    if let Some(calls) = told.ledger.iter().find(|share| share.share == "calls") {
        judge_ledger(calls, looks);
    }
    for callee in &told.callees {
        judge_callee(callee, looks);
    }
    judge_alike(&told.alike, looks);
    looks.note(
        "bots",
        "ways round the proxy",
        "a bot can open connections of its own, to open ports of this host and to the network; the proxies of other bots refuse it there",
        "keep the network from users of bots that need none of their own: nft, meta skuid",
    );
}

fn judge_token(token: &TokenLook, looks: &mut Looks) {
    let what = "used join token, with another key";
    match &token.replayed {
        Replayed::Refused => looks.ok("tries", what, "refused by the CA (there is a record of it)"),
        Replayed::Accepted => looks.finding(
            "tries",
            what,
            "the CA took it: whoever has the file is this host",
            "botmesh host evict HOST on the CA's host, join again, and tell the maintainers",
        ),
        Replayed::Untried(why) => looks.untried("tries", what, why),
    }
    looks.finding(
        "proxy",
        "join token",
        format!("{} is still there, and is of no more use", token.file),
        format!("rm {}", token.file),
    );
}

fn judge_ledger(calls: &ShareLook, looks: &mut Looks) {
    let percent = calls.spent.saturating_mul(100) / calls.most.max(1);
    let seen = format!(
        "{percent} % of its share for calls, {} of {} bytes",
        calls.spent, calls.most
    );
    if percent < FULL_PERCENT {
        return looks.ok("proxy", "ledger", seen);
    }
    looks.finding(
        "proxy",
        "ledger",
        seen,
        "raise ledger.max_bytes and restart: when it is full, calls are refused (ledger_unavailable)",
    );
}

fn judge_callee(callee: &CalleeLook, looks: &mut Looks) {
    let what = format!("who listens for {}, {}", callee.bot, callee.at);
    match &callee.found {
        CalleeFound::Bot => looks.ok("bots", what, "the bot"),
        CalleeFound::Nobody(why) => looks.note("bots", what, why, format!("start it: calls of {} fail", callee.bot)),
        CalleeFound::Other(why) => looks.finding(
            "bots",
            what,
            why,
            "end that process, or mend the bot's attest: calls are refused (callee_mismatch), and it hears none of them",
        ),
    }
}

fn judge_alike(alike: &[Alike], looks: &mut Looks) {
    if alike.is_empty() {
        return looks.ok("bots", "entries", "this host can tell its bots apart");
    }
    for Alike {
        one,
        other,
        same_process,
    } in alike
    {
        let (seen, todo) = if *same_process {
            (
                "one process can be both, and is refused then",
                "give one of them a user, unit or socket that the other has not",
            )
        } else {
            (
                "they share a user or a unit: a process of one can become the other",
                "give each a user of its own",
            )
        };
        looks.finding("bots", format!("{one} and {other}"), seen, todo);
    }
}

/// Who is cut off here: an operator's deed, and no weakness of the host.
pub(super) fn quarantines(told: &LocalQuarantines, looks: &mut Looks) {
    for local in &told.local {
        let until = local.until.map_or_else(String::new, |until| format!(" until {until}"));
        looks.note(
            "proxy",
            format!("quarantine of {}", local.whom),
            format!(
                "set on this host at {}{until} by {}: {}",
                local.since, local.actor, local.reason
            ),
            "botmesh release … --local on this host ends it",
        );
    }
    for whom in &told.mesh {
        looks.note(
            "proxy",
            format!("quarantine of {whom}"),
            "set at the CA, in force here",
            "botmesh quarantine on the CA's host says why; botmesh release ends it",
        );
    }
}

#[cfg(test)]
mod tests {
    use spiffe::id::BotName;

    use super::super::State;
    use super::*;

    fn bot(name: &str) -> BotName {
        BotName::parse(name).unwrap()
    }

    /// The findings, as `part: what`.
    fn findings(change: impl FnOnce(&mut Doctor)) -> Vec<String> {
        let mut told = Doctor {
            ledger: vec![ShareLook {
                share: "calls".to_owned(),
                spent: 79,
                most: 100,
            }],
            ..Doctor::default()
        };
        change(&mut told);
        let mut looks = Looks::default();
        judge(&told, &mut looks);
        let found = looks.0.into_iter().filter(|look| look.state == State::Finding);
        found.map(|look| format!("{}: {}", look.part, look.what)).collect()
    }

    fn token(replayed: Replayed) -> Option<TokenLook> {
        Some(TokenLook {
            file: "/run/botmesh/join-token".to_owned(),
            replayed,
        })
    }

    #[test]
    fn a_token_on_disk_is_a_finding_and_one_that_is_taken_twice_another() {
        assert!(findings(|_| ()).is_empty());
        assert_eq!(
            findings(|told| told.token = token(Replayed::Refused)),
            ["proxy: join token"]
        );
        assert_eq!(
            findings(|told| told.token = token(Replayed::Accepted)),
            ["tries: used join token, with another key", "proxy: join token"]
        );
        assert_eq!(
            findings(|told| told.token = token(Replayed::Untried("away".to_owned()))),
            ["proxy: join token"]
        );
    }

    #[test]
    fn a_squatter_and_a_ledger_that_is_nearly_full_are_findings_and_a_bot_that_is_down_is_not() {
        let look = |found| CalleeLook {
            bot: bot("prod/orders"),
            at: "127.0.0.1:8080".to_owned(),
            found,
        };
        assert!(findings(|told| told.callees.push(look(CalleeFound::Bot))).is_empty());
        assert!(findings(|told| told.callees.push(look(CalleeFound::Nobody("down".to_owned())))).is_empty());
        assert_eq!(
            findings(|told| told.callees.push(look(CalleeFound::Other("uid 7".to_owned())))),
            ["bots: who listens for prod/orders, 127.0.0.1:8080"]
        );
        assert_eq!(findings(|told| told.ledger[0].spent = 80), ["proxy: ledger"]);
    }

    #[test]
    fn bots_that_cannot_be_told_apart_are_a_finding_each_pair() {
        for same_process in [true, false] {
            let pair = Alike {
                one: bot("a"),
                other: bot("b"),
                same_process,
            };
            assert_eq!(findings(|told| told.alike.push(pair)), ["bots: a and b"]);
        }
    }
}
