//! Explains to an operator who a process is, and how the mesh file would make it a bot.

use serde::{Deserialize, Serialize};
use spiffe::id::BotName;
use spiffe::selector::Facts;

use super::error::{NearestEntry, Unattested, Why};
use super::identify::Patience;
use super::pin::Ask;
use super::{Attestor, blocking};

/// What `botmesh whois PID` shows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WhoisReport {
    /// What the kernel says about the process.
    pub facts: Facts,
    /// Which bot it is, or what came closest.
    pub outcome: WhoisOutcome,
    /// Why its program cannot be, or was not, matched by path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub program_note: Option<String>,
    /// The operator who bound this very process, where one did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bound_by: Option<String>,
    /// Whether identities among processes of this user are no boundary: the proxy runs as the same user.
    pub same_user: bool,
    /// An entry for the mesh file that this process would match, in YAML, ready to paste below `bots:`.
    pub entry: String,
}

/// Which bot a process is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "is", deny_unknown_fields)]
pub enum WhoisOutcome {
    /// This bot.
    Bot {
        /// Its name.
        bot: BotName,
    },
    /// None; this entry came closest.
    Nearest {
        /// The entry and what differs.
        nearest: NearestEntry,
    },
    /// None, and there is no entry to compare with.
    Nobody,
    /// More than one, so it is refused.
    Two {
        /// The first.
        one: BotName,
        /// The second.
        two: BotName,
    },
}

impl Attestor {
    /// Reports who the process `pid` is.
    ///
    /// # Errors
    /// When there is no such process, or it may not be looked at, or exits or executes a program meanwhile.
    pub async fn whois(&self, pid: u32) -> Result<WhoisReport, Unattested> {
        let attestor = self.clone();
        blocking(move || attestor.report(pid)).await?
    }

    fn report(&self, pid: u32) -> Result<WhoisReport, Unattested> {
        let kernel = &self.0.kernel;
        let entries = self.0.current.get();
        let pin = kernel.pin(pid, Ask::of(&entries))?;
        let evidence = kernel
            .evidence(&pin, None, &entries, Patience::Anything)?
            .ok_or(Why::Exited(pid))?;
        let mut evidence = evidence;
        kernel.describe(&mut evidence.facts, &pin)?;
        let (believed, doubt) = kernel.believed_program(&pin)?;
        pin.check_whole()?;
        let facts = Facts {
            exe: evidence.programs.first().cloned().or_else(|| believed.clone()),
            ..evidence.facts.clone()
        };
        let (outcome, facts, note) = match evidence.choose(&entries) {
            Ok((bot, chosen)) => (
                WhoisOutcome::Bot { bot },
                Facts {
                    exe: chosen.exe.or(facts.exe),
                    ..facts
                },
                None,
            ),
            Err(refused) => {
                let (outcome, note) = outcome(refused)?;
                (outcome, facts, note)
            }
        };
        Ok(WhoisReport {
            entry: suggest(&facts, believed.as_deref()),
            program_note: note.or(doubt),
            bound_by: kernel.runs.operator_of(pid),
            same_user: facts.uid == kernel.own_uid,
            facts,
            outcome,
        })
    }
}

/// Turns a refusal that is about the entries into an outcome.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "any other cause means that the process was not looked at"
)]
fn outcome(refused: Unattested) -> Result<(WhoisOutcome, Option<String>), Unattested> {
    let Unattested { why, facts } = refused;
    match *why {
        Why::NoEntry {
            nearest: Some(nearest),
            note,
        } => Ok((WhoisOutcome::Nearest { nearest }, note)),
        Why::NoEntry { nearest: None, note } => Ok((WhoisOutcome::Nobody, note)),
        Why::TwoEntries(one, two) => Ok((WhoisOutcome::Two { one, two }, None)),
        why => Err(Unattested {
            why: Box::new(why),
            facts,
        }),
    }
}

/// Writes an entry that the process would match. The name and the owner are for the operator to change; the path of the
/// program is in it only where it would be believed.
fn suggest(facts: &Facts, program: Option<&str>) -> String {
    let mut boundary = match &facts.user {
        Some(user) => format!("user: {}", scalar(user)),
        None => format!("uid: {}", facts.uid),
    };
    if let Some(unit) = &facts.unit {
        boundary = format!("unit: {}, {boundary}", scalar(unit));
    }
    let narrowed = program.map_or_else(String::new, |path| format!(", exe: {}", scalar(path)));
    let name = bot_name(facts, program);
    format!("  {name}:\n    owner: CHANGE-ME\n    hosts: [CHANGE-ME]\n    attest: {{{boundary}{narrowed}}}\n")
}

fn bot_name(facts: &Facts, program: Option<&str>) -> String {
    let file = program.and_then(|path| path.rsplit('/').next());
    let wanted = facts
        .user
        .as_deref()
        .filter(|user| *user != "root")
        .or(file)
        .unwrap_or("bot");
    let mut segment: String = wanted
        .chars()
        .map(|char| char.to_ascii_lowercase())
        .map(|char| {
            if char.is_ascii_lowercase() || char.is_ascii_digit() {
                char
            } else {
                '-'
            }
        })
        .take(40)
        .collect();
    segment = segment.trim_matches('-').to_owned();
    BotName::parse(&format!("local/{segment}")).map_or_else(|_| "local/bot".to_owned(), |name| name.as_str().to_owned())
}

/// Writes a YAML scalar: plain where no reader could take it for anything but this text, else as a JSON string, which
/// YAML reads too (YAML 1.2 §1.3).
fn scalar(text: &str) -> String {
    let plain = text.starts_with(|char: char| char == '/' || char.is_ascii_alphabetic() || char == '_')
        && text
            .chars()
            .all(|char| char.is_ascii_alphanumeric() || "/._-".contains(char))
        && !["true", "false", "null", "yes", "no", "on", "off", "y", "n"].contains(&text.to_ascii_lowercase().as_str());
    if plain {
        text.to_owned()
    } else {
        serde_json::Value::from(text).to_string()
    }
}

#[cfg(test)]
mod tests;
