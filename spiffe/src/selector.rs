//! What the kernel says about a process, and what a bot demands of it.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::id::BotName;

/// Facts about one process, from the kernel and from root-owned state only.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Facts {
    /// The process id, in the proxy's own PID namespace.
    pub pid: u32,
    /// The effective user id.
    pub uid: u32,
    /// The effective group id.
    pub gid: u32,
    /// The name of the user `uid`, where it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// A configured program path that was verified: the same device and inode as the proxy's own mount namespace sees
    /// at that path, and not writable by the bot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exe: Option<String>,
    /// The path that the kernel shows, which the process can influence: for diagnosis, never matched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exe_seen: Option<String>,
    /// SHA-256 of the program, in lower-case hex.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exe_sha256: Option<String>,
    /// The bot that an operator bound this process to with `botmesh run`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<BotName>,
    /// The effective group id and the supplementary groups, ascending, each once.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gids: Vec<u32>,
    /// The names of those groups that were asked for, ascending, each once.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<String>,
    /// The service of the system's service manager that the process belongs to, such as `orders.service`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<String>,
    /// The path of the process's cgroup below the root of cgroups of version 2, such as `/system.slice/orders.service`.
    ///
    /// Absent where anybody but root owns that folder or one above it, since then its owner chooses who is in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cgroup: Option<String>,
    /// The bot over whose own socket the process connected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub socket: Option<BotName>,
}

impl Facts {
    /// Makes the facts of a process of which nothing is known but its number, its user and its group.
    pub const fn new(pid: u32, uid: u32, gid: u32) -> Self {
        Self {
            pid,
            uid,
            gid,
            user: None,
            exe: None,
            exe_seen: None,
            exe_sha256: None,
            run: None,
            gids: Vec::new(),
            groups: Vec::new(),
            unit: None,
            cgroup: None,
            socket: None,
        }
    }
}

/// Demands of one way to be a bot. All that are there must hold.
///
/// An empty set, or one with no boundary (see [`SelectorSet::is_bounded`]), matches no process at all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SelectorSet {
    /// The user's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// The user id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
    /// The program, by its absolute path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exe: Option<String>,
    /// SHA-256 of the program, in lower-case hex.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exe_sha256: Option<String>,
    /// The operators who may start a process as this bot; when there is one, the process must be bound to the bot.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub run_by: Vec<String>,
    /// The service of the system's service manager, such as `orders.service`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<String>,
    /// The path of the cgroup, below the root of cgroups of version 2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cgroup: Option<String>,
    /// The name of the effective or of a supplementary group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// The number of the effective or of a supplementary group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gid: Option<u32>,
    /// Whether the process must connect over the bot's own socket.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub socket: bool,
}

/// Tells the first demand that a process does not meet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Error)]
#[error("{selector}: wanted {wanted}, found {found}")]
pub struct Mismatch {
    /// The selector's key in the mesh file, or `boundary` for a set without one.
    pub selector: &'static str,
    /// What the mesh file asks for.
    pub wanted: String,
    /// What the process is.
    pub found: String,
}

impl SelectorSet {
    /// Tells whether the set holds a boundary that one user's process cannot cross by itself: `user`, `uid`, `unit` or
    /// `run_by`. The others only narrow.
    pub fn is_bounded(&self) -> bool {
        self.user.is_some() || self.uid.is_some() || self.unit.is_some() || !self.run_by.is_empty()
    }

    /// Checks whether a process with these `facts` may be `bot` by this set.
    ///
    /// # Errors
    /// With the first demand that does not hold, in the order `user`, `uid`, `unit`, `group`, `gid`, `cgroup`, `exe`,
    /// `exe_sha256`, `run_by`, `socket`.
    pub fn matches(&self, bot: &BotName, facts: &Facts) -> Result<(), Mismatch> {
        self.compare(bot, facts).verdict
    }

    /// Checks every demand and counts how many hold, so that the nearest of several sets can be found.
    pub(crate) fn compare(&self, bot: &BotName, facts: &Facts) -> Comparison {
        let mut comparison = Comparison {
            held: 0,
            failed: 0,
            verdict: Ok(()),
        };
        if !self.is_bounded() {
            comparison.fail("boundary", || {
                ("user, uid, unit or run_by".to_owned(), "none of them".to_owned())
            });
        }
        comparison.text("user", self.user.as_deref(), facts.user.as_deref());
        if let Some(uid) = self.uid {
            comparison.check("uid", uid == facts.uid, || (uid.to_string(), facts.uid.to_string()));
        }
        comparison.text("unit", self.unit.as_deref(), facts.unit.as_deref());
        if let Some(group) = &self.group {
            comparison.check("group", facts.groups.contains(group), || {
                (group.clone(), known(&facts.groups))
            });
        }
        if let Some(gid) = self.gid {
            comparison.check("gid", facts.gids.contains(&gid), || {
                let gids: Vec<String> = facts.gids.iter().map(u32::to_string).collect();
                (gid.to_string(), known(&gids))
            });
        }
        comparison.text("cgroup", self.cgroup.as_deref(), facts.cgroup.as_deref());
        comparison.text("exe", self.exe.as_deref(), facts.exe.as_deref());
        comparison.text("exe_sha256", self.exe_sha256.as_deref(), facts.exe_sha256.as_deref());
        self.compare_origin(bot, facts, &mut comparison);
        comparison
    }

    /// Checks how the process came to be the bot: who started it, and over which socket it connected.
    fn compare_origin(&self, bot: &BotName, facts: &Facts, comparison: &mut Comparison) {
        if !self.run_by.is_empty() {
            comparison.check("run_by", facts.run.as_ref() == Some(bot), || {
                let wanted = format!("a process started as {bot} by {}", self.run_by.join(", "));
                let found = facts
                    .run
                    .as_ref()
                    .map_or("none of that kind".to_owned(), |run| format!("one run as {run}"));
                (wanted, found)
            });
        }
        if self.socket {
            comparison.check("socket", facts.socket.as_ref() == Some(bot), || {
                let found = match &facts.socket {
                    Some(other) => format!("one over the socket of {other}"),
                    None => "one over no bot's socket".to_owned(),
                };
                (format!("a connection over the socket of {bot}"), found)
            });
        }
    }
}

/// Gives the service of the system's service manager whose own cgroup has this path.
///
/// That is the last part, which ends in `.service`, below `system.slice` and only slices. What a manager of one user
/// names so (`user.slice/…/user@1000.service/…`), folders below a service, and scopes are no unit of the system.
/// systemd puts `_` before a name that the kernel could take for a file of its own.
pub fn unit_of(cgroup: &str) -> Option<&str> {
    let mut parts = cgroup.strip_prefix("/system.slice/")?.split('/');
    let service = parts.next_back()?;
    if !parts.all(|part| part.strip_suffix(".slice").is_some_and(|stem| !stem.is_empty())) {
        return None;
    }
    let unit = service.strip_prefix('_').unwrap_or(service);
    unit.strip_suffix(".service")
        .is_some_and(|stem| !stem.is_empty())
        .then_some(unit)
}

/// Lists what was found, of which there may be nothing.
fn known(found: &[String]) -> String {
    if found.is_empty() {
        "unknown".to_owned()
    } else {
        found.join(", ")
    }
}

/// The result of comparing one set with one process.
#[derive(Debug)]
pub(crate) struct Comparison {
    pub(crate) held: usize,
    pub(crate) failed: usize,
    pub(crate) verdict: Result<(), Mismatch>,
}

impl Comparison {
    fn text(&mut self, selector: &'static str, wanted: Option<&str>, found: Option<&str>) {
        if let Some(wanted) = wanted {
            self.check(selector, found == Some(wanted), || {
                (wanted.to_owned(), found.unwrap_or("unknown").to_owned())
            });
        }
    }

    fn check(&mut self, selector: &'static str, holds: bool, texts: impl FnOnce() -> (String, String)) {
        if holds {
            self.held += 1;
        } else {
            self.fail(selector, texts);
        }
    }

    fn fail(&mut self, selector: &'static str, texts: impl FnOnce() -> (String, String)) {
        self.failed += 1;
        if self.verdict.is_ok() {
            let (wanted, found) = texts();
            self.verdict = Err(Mismatch {
                selector,
                wanted,
                found,
            });
        }
    }
}

#[cfg(test)]
mod tests;
