//! What takes the place of secrets in an environment.

mod database;
mod hook;
mod service;
mod url;

use std::collections::{BTreeMap, BTreeSet};

use spiffe::id::BotName;
use zeroize::Zeroizing;

use super::Variable;
use super::known::{PUBLIC, WORKED_WITH};
use crate::outside::Outside;
use crate::rule::RuleId;

/// The port of the first listener that is proposed.
const FIRST_PORT: u16 = 15_201;

/// What a client is given that insists on a key: the proxy drops it.
pub(super) const DUMMY: &str = "added-by-the-proxy";

/// Whose environment it is.
#[derive(Clone, Copy, Debug)]
pub struct About<'a> {
    /// The bot.
    pub bot: &'a BotName,
    /// Who owns what it is given.
    pub owner: &'a str,
}

/// What is proposed.
#[derive(Debug)]
pub struct Proposal {
    /// Whose environment it is.
    pub bot: BotName,
    /// Who owns what it is given.
    pub owner: String,
    /// Credentials.
    pub added: Vec<Added>,
    /// Where the bot may go, in the order of their listeners.
    pub leads: Vec<Leads>,
    /// What variables become; without a value they go. One without a name is what its client is told in another way.
    pub environment: Vec<(Option<String>, Option<String>)>,
    /// Variables that a person has to think about.
    pub undecided: Vec<Undecided>,
    /// Names of variables that stay as they are.
    pub kept: Vec<String>,
}

/// A credential.
#[derive(Debug)]
pub struct Added {
    /// Its name.
    pub name: String,
    /// How it is added, as the mesh file has it: `bearer: true`.
    pub how: String,
    /// The variables that its value is in.
    pub variables: Vec<String>,
    /// Its value, where the file has it.
    pub value: Option<Zeroizing<String>>,
}

/// A destination with its rule and its listener.
#[derive(Debug)]
pub struct Leads {
    /// Where it leads.
    pub to: Outside,
    /// The id of its rule.
    pub rule: String,
    /// What may be called there: requests, or the databases of a server.
    pub calls: Vec<String>,
    /// The credential that the rule adds; what leads to an address that is a secret adds none.
    pub inject: Option<String>,
    /// The port of its listener.
    pub port: u16,
}

/// A variable that nothing was found for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Undecided {
    /// Its name.
    pub name: String,
    /// Its line.
    pub line: usize,
    /// Why, and what can be done.
    pub why: String,
}

/// What a value is by its looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Looks {
    /// The kind of key.
    pub kind: &'static str,
    /// Whether the value is that key and nothing more.
    pub whole: bool,
}

/// Proposes what takes the place of the secrets among these variables; `looks` says what a value is by its looks.
pub fn propose(about: About<'_>, variables: &[Variable], looks: impl Fn(&str) -> Option<Looks>) -> Proposal {
    let mut work = Work {
        proposal: Proposal {
            bot: about.bot.clone(),
            owner: about.owner.to_owned(),
            added: Vec::new(),
            leads: Vec::new(),
            environment: Vec::new(),
            undecided: Vec::new(),
            kept: Vec::new(),
        },
        variables: variables
            .iter()
            .map(|variable| (variable.name.as_str(), variable))
            .collect(),
        looks: variables
            .iter()
            .filter_map(|variable| Some((variable.name.as_str(), looks(variable.text())?)))
            .collect(),
        done: BTreeSet::new(),
    };
    for (name, why) in WORKED_WITH {
        work.leave(name, why);
    }
    // First of all: such an address under the name of another variable would be taken for one without a key.
    work.hooks();
    work.services();
    work.aws();
    work.databases();
    work.addresses();
    for variable in variables {
        work.rest(variable);
    }
    let order: BTreeMap<_, _> = variables
        .iter()
        .zip(0..)
        .map(|(variable, at)| (&variable.name, at))
        .collect();
    work.proposal
        .undecided
        .sort_by_key(|undecided| order.get(&undecided.name).copied());
    work.proposal
}

/// What is being worked on.
struct Work<'v> {
    proposal: Proposal,
    variables: BTreeMap<&'v str, &'v Variable>,
    looks: BTreeMap<&'v str, Looks>,
    /// Names of what is dealt with.
    done: BTreeSet<&'v str>,
}

impl<'v> Work<'v> {
    /// Gives a variable that is set, or taken from elsewhere, and not dealt with yet.
    fn of(&self, name: &str) -> Option<&'v Variable> {
        let variable = *self.variables.get(name)?;
        let empty = variable.value.as_ref().is_some_and(|value| value.is_empty());
        (!empty && !self.done.contains(name)).then_some(variable)
    }

    /// Leaves a variable to a person.
    fn leave(&mut self, name: &str, why: &str) {
        let Some(variable) = self.of(name) else { return };
        self.done.insert(&variable.name);
        self.proposal.undecided.push(Undecided {
            name: variable.name.clone(),
            line: variable.line,
            why: why.to_owned(),
        });
    }

    /// Says what a variable becomes; without a value it goes.
    fn becomes(&mut self, variable: &'v Variable, value: Option<String>) {
        self.done.insert(&variable.name);
        self.proposal.environment.push((Some(variable.name.clone()), value));
    }

    /// Says what a variable is set to, whether it was there or not; not where a person is to decide on it.
    fn sets(&mut self, name: &str, value: String) {
        if self.done.contains(name) {
            return;
        }
        if let Some((name, _)) = self.variables.get_key_value(name) {
            self.done.insert(name);
        }
        self.proposal.environment.push((Some(name.to_owned()), Some(value)));
    }

    /// Adds a credential. Its name is one that no other has.
    fn add(&mut self, wanted: &str, how: String, from: &[&'v Variable], value: Option<Zeroizing<String>>) -> String {
        let name = unique(wanted, |name| {
            self.proposal.added.iter().any(|added| added.name == name)
        });
        self.proposal.added.push(Added {
            name: name.clone(),
            how,
            variables: from.iter().map(|variable| variable.name.clone()).collect(),
            value,
        });
        name
    }

    /// Adds a destination, or calls to one, and gives the port of its listener.
    fn lead(&mut self, to: Outside, calls: Vec<String>, inject: Option<String>) -> u16 {
        let found = self.proposal.leads.iter_mut().find(|leads| leads.to == to);
        if let Some(leads) = found.filter(|leads| inject.is_none() || leads.inject == inject) {
            // A rule that adds a key is not widened by an address that somebody wrote down.
            if leads.inject == inject {
                leads.calls.extend(calls);
                leads.calls.sort();
                leads.calls.dedup();
            }
            return leads.port;
        }
        let bot = self.proposal.bot.to_string().replace('/', "-");
        let what = inject.as_deref().unwrap_or(to.host()).replace('.', "-");
        let (bot, what) = (head(&bot, 24), head(&what, 32));
        let rules = &self.proposal.leads;
        let rule = unique(&format!("{bot}-{what}"), |id| {
            rules.iter().any(|leads| leads.rule == id)
        });
        let number = u16::try_from(rules.len()).unwrap_or_default();
        let port = FIRST_PORT.saturating_add(number);
        self.proposal.leads.push(Leads {
            to,
            rule,
            calls,
            inject,
            port,
        });
        port
    }

    /// What nothing was found for.
    fn rest(&mut self, variable: &'v Variable) {
        if self.done.contains(variable.name.as_str()) {
            return;
        }
        match self.suspicion(variable) {
            Some(why) => self.leave(&variable.name, &why),
            None => self.proposal.kept.push(variable.name.clone()),
        }
    }

    /// Says why a variable looks like a secret, if it does.
    fn suspicion(&self, variable: &Variable) -> Option<String> {
        let value = variable.text();
        if PUBLIC.contains(&variable.name.as_str()) || variable.value.as_ref().is_some_and(|value| value.is_empty()) {
            return None;
        }
        if let Some(looks) = self.looks.get(variable.name.as_str()) {
            return Some(format!(
                "it looks like this: {}; no service is known that takes it",
                looks.kind
            ));
        }
        if url::has_password(value) {
            return Some("a password is in its address, and the proxy authenticates at PostgreSQL alone".to_owned());
        }
        if named_like_a_secret(&variable.name) && !is_plain(value) {
            let from = if variable.value.is_some() {
                "it is named like a secret"
            } else {
                "it is named like a secret, and its value comes from elsewhere"
            };
            return Some(format!(
                "{from}: write a credential and a rule for whoever takes it, or leave it where the bot works with it itself"
            ));
        }
        is_random(value).then(|| "its value looks random, as keys are".to_owned())
    }
}

/// The most of a text that a name has, whose grammar it keeps.
fn head(text: &str, most: usize) -> &str {
    text.get(..most).unwrap_or(text).trim_end_matches('-')
}

/// The name, or one with a number after it.
fn unique(wanted: &str, taken: impl Fn(&str) -> bool) -> String {
    let numbered = (2_u32..).map(|number| format!("{wanted}-{number}"));
    let all = std::iter::once(wanted.to_owned()).chain(numbered);
    all.into_iter()
        .find(|name| !taken(name) && RuleId::parse(name).is_some())
        .unwrap_or_else(|| wanted.to_owned())
}

/// Words of names that stand for secrets.
const WORDS: [&str; 18] = [
    "KEY",
    "APIKEY",
    "TOKEN",
    "SECRET",
    "SECRETS",
    "PASSWORD",
    "PASSWD",
    "PASS",
    "PWD",
    "PASSPHRASE",
    "CREDENTIAL",
    "CREDENTIALS",
    "PRIVATE",
    "AUTH",
    "DSN",
    "SALT",
    "COOKIE",
    "SIGNING",
];

fn named_like_a_secret(name: &str) -> bool {
    let upper = name.to_ascii_uppercase();
    let mut words = upper.split(['_', '-', '.']);
    words.any(|word| WORDS.contains(&word) || word.ends_with("PASSWORD") || word.ends_with("APIKEY"))
}

/// Says whether a value is a switch or a number, as no secret is.
fn is_plain(value: &str) -> bool {
    let switch = ["true", "false", "yes", "no", "on", "off", "none"].contains(&value.to_ascii_lowercase().as_str());
    let number = !value.is_empty() && value.len() <= 6 && value.bytes().all(|byte| byte.is_ascii_digit());
    switch || number
}

/// Says whether a value could only be remembered by a machine.
fn is_random(value: &str) -> bool {
    let known = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'+' | b'/' | b'=');
    let distinct: BTreeSet<u8> = value.bytes().collect();
    let digits = value.bytes().filter(u8::is_ascii_digit).count();
    let letters = value.bytes().filter(u8::is_ascii_alphabetic).count();
    value.len() >= 24
        && !value.starts_with('/')
        && value.bytes().all(known)
        && distinct.len() >= 10
        && digits >= 3
        && letters >= 3
}

#[cfg(test)]
mod tests;
