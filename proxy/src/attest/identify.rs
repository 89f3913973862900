//! From a pinned process to its facts, and from the facts to the bot.

use std::os::fd::AsFd;

use spiffe::entry::{Pick, pick};
use spiffe::id::BotName;
use spiffe::selector::{Facts, SelectorSet, unit_of};

use super::entries::Entries;
use super::error::{NearestEntry, Unattested, Why};
use super::exe::Suspect;
use super::kernel::Kernel;
use super::names::Names;
use super::pin::Pin;
use super::procfs::{self, Credentials};
use super::sight::{Candidates, Wanted};

/// How many groups of a process are kept in its facts, which go into the ledger. Choosing the bot looks at all of them.
const GIDS_MAX: usize = 64;

/// How long finding a fact may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Patience {
    /// Only what the kernel answers at once: the caller is on a thread that serves others too.
    None,
    /// A user's name may be looked up.
    Names,
    /// A program may be hashed.
    Anything,
}

/// A process's bot, unless finding out takes longer than the caller would wait.
#[derive(Debug)]
pub(super) enum Identified {
    Bot(BotName, Box<Facts>),
    /// The facts need more [`Patience`].
    Later,
}

/// Facts about a process, with all that is needed to choose among the entries.
#[derive(Debug)]
pub(super) struct Evidence {
    /// The facts, without `exe`.
    pub(super) facts: Facts,
    /// Every configured program path that is this process's program.
    pub(super) programs: Vec<String>,
    /// Why another configured path that is its program was not believed.
    pub(super) note: Option<String>,
}

impl Kernel {
    /// Finds out which bot a pinned process is; `over` is the bot over whose own socket it connected.
    ///
    /// The pin is checked again at the end, so that all facts belong to the program that was pinned.
    pub(super) fn identify(
        &self,
        pin: &Pin,
        over: Option<&BotName>,
        entries: &Entries,
        patience: Patience,
    ) -> Result<Identified, Unattested> {
        let Some(evidence) = self.evidence(pin, over, entries, patience)? else {
            return Ok(Identified::Later);
        };
        pin.check_whole()
            .map_err(|why| Unattested::new(why, Some(&evidence.facts)))?;
        let (bot, facts) = evidence.choose(entries)?;
        Ok(Identified::Bot(bot, Box::new(facts)))
    }

    /// Gathers the facts that the entries ask for; `None` when that takes more patience.
    pub(super) fn evidence(
        &self,
        pin: &Pin,
        over: Option<&BotName>,
        entries: &Entries,
        patience: Patience,
    ) -> Result<Option<Evidence>, Unattested> {
        let credentials = self.credentials(pin)?;
        let user = match (self.names.known(pin.uid), patience) {
            (Some(user), _) => user,
            (None, Patience::None) => return Ok(None),
            (None, Patience::Names | Patience::Anything) => self.names.find(pin.uid)?,
        };
        let run = self.runs.bot_of(self.proc_folder(), pin)?;
        let mut facts = Facts {
            user: user.clone(),
            exe_seen: pin.program().path.clone(),
            run: run.clone(),
            socket: over.cloned(),
            ..Facts::new(pin.pid, pin.uid, pin.gid)
        };
        let candidates: Vec<&SelectorSet> = entries.candidates(pin.uid, user.as_deref(), run.as_ref()).collect();
        if !self.add_groups(&mut facts, pin, &credentials, &candidates, patience)? {
            return Ok(None);
        }
        if candidates.iter().any(|set| set.unit.is_some() || set.cgroup.is_some()) {
            self.add_cgroup(&mut facts, pin)?;
        }
        if candidates.iter().any(|set| set.exe_sha256.is_some()) {
            facts.exe_sha256 = self.eyes.digest(pin.pid, patience == Patience::Anything)?;
            if facts.exe_sha256.is_none() {
                return Ok(None);
            }
        }
        let wanted = candidates.iter().filter_map(|set| set.exe.as_deref());
        let (programs, note) = self.programs(pin, &credentials, wanted)?;
        Ok(Some(Evidence { facts, programs, note }))
    }

    /// Reads the credentials and checks that there is one user only: in a set-user-ID program another user chose the
    /// environment, the arguments and the open files.
    fn credentials(&self, pin: &Pin) -> Result<Credentials, Why> {
        let credentials = pin.credentials()?;
        if credentials.uids != [pin.uid; 4] {
            return Err(Why::MixedCredentials(pin.pid));
        }
        Ok(credentials)
    }

    /// Adds the groups that the entries ask for; false when that takes more patience.
    ///
    /// Each group that is asked for by name is looked up by that name, so that what the name service is asked depends on
    /// the entries and never on the process.
    fn add_groups(
        &self,
        facts: &mut Facts,
        pin: &Pin,
        credentials: &Credentials,
        candidates: &[&SelectorSet],
        patience: Patience,
    ) -> Result<bool, Why> {
        if !candidates.iter().any(|set| set.group.is_some() || set.gid.is_some()) {
            return Ok(true);
        }
        let all = credentials.all_groups();
        pin.note_groups(&all)?;
        let mut names: Vec<&str> = candidates.iter().filter_map(|set| set.group.as_deref()).collect();
        names.sort_unstable();
        names.dedup();
        for name in names {
            let gid = match (self.names.known_group(name), patience) {
                (Some(gid), _) => gid,
                (None, Patience::None) => return Ok(false),
                (None, Patience::Names | Patience::Anything) => self.names.find_group(name)?,
            };
            if gid.is_some_and(|gid| all.contains(&gid)) {
                facts.groups.push(name.to_owned());
            }
        }
        facts.gids = all;
        Ok(true)
    }

    /// Adds the cgroup and the unit.
    fn add_cgroup(&self, facts: &mut Facts, pin: &Pin) -> Result<(), Why> {
        let place = self.cgroups.place(&pin.cgroup_path()?);
        pin.note_place(&place)?;
        if place.of_root {
            facts.unit = unit_of(&place.path).map(str::to_owned);
            facts.cgroup = Some(place.path);
        }
        Ok(())
    }

    /// Adds what an operator may want to ask for although no entry does.
    pub(super) fn describe(&self, facts: &mut Facts, pin: &Pin) -> Result<(), Why> {
        self.add_cgroup(facts, pin)?;
        facts.gids = self.credentials(pin)?.all_groups();
        facts.gids.truncate(GIDS_MAX);
        facts.groups = Names::of_groups(&facts.gids)?;
        Ok(())
    }

    /// Returns which of the `wanted` paths are the program that the process runs: the same device and inode as this
    /// process's own mount namespace sees there, with nothing on the way that the bot can write.
    ///
    /// Root, and in same-user mode the proxy's own user, could write it in any case, so there it is not asked.
    pub(super) fn programs<'a>(
        &self,
        pin: &Pin,
        credentials: &Credentials,
        wanted: impl Iterator<Item = &'a str>,
    ) -> Result<(Vec<String>, Option<String>), Why> {
        let Some(wanted) = self.wanted(pin.uid, credentials, wanted) else {
            return Ok((Vec::new(), None));
        };
        let file = pin.program().file.ok_or(Why::Exited(pin.pid))?;
        let programs = match pin.judged(&wanted) {
            Some(programs) => programs,
            None => {
                let candidates = Candidates { file, wanted };
                let programs = self.eyes.programs(candidates.clone())?;
                pin.note_judged(candidates.wanted, programs.clone());
                programs
            }
        };
        Ok((programs.paths, programs.note))
    }

    /// Guesses, before a process is pinned, which programs the entries will ask about, so that they are asked about along
    /// with it. Where the guess is wrong they are asked about later.
    pub(super) fn wanted_of(&self, folder: impl AsFd, uid: u32, entries: &Entries) -> Option<Wanted> {
        let user = self.names.known(uid)?;
        let credentials = procfs::parse_credentials(&procfs::read(folder, c"status").ok()?)?;
        let candidates = entries.candidates(uid, user.as_deref(), None);
        self.wanted(uid, &credentials, candidates.filter_map(|set| set.exe.as_deref()))
    }

    /// Puts paths of programs in order; nothing where there are none.
    fn wanted<'a>(&self, uid: u32, credentials: &Credentials, paths: impl Iterator<Item = &'a str>) -> Option<Wanted> {
        let mut paths: Vec<&str> = paths.collect();
        paths.sort_unstable();
        paths.dedup();
        let suspect = (!self.trusts(uid)).then(|| Suspect::new(uid, credentials));
        (!paths.is_empty()).then(|| Wanted {
            paths: paths.into_iter().map(str::to_owned).collect(),
            suspect,
        })
    }

    /// Finds what `whois` shows of a program: the path that the kernel shows, when it is the program and is believed.
    pub(super) fn believed_program(&self, pin: &Pin) -> Result<(Option<String>, Option<String>), Why> {
        let Some(seen) = &pin.program().path else {
            return Ok((None, None));
        };
        let credentials = self.credentials(pin)?;
        let (programs, note) = self.programs(pin, &credentials, std::iter::once(seen.as_str()))?;
        Ok((programs.into_iter().next(), note))
    }
}

impl Evidence {
    /// Chooses the bot.
    ///
    /// One program can have several configured paths (symbolic links). The entries are asked with each of them, and if
    /// the answers differ then two entries match.
    pub(super) fn choose(self, entries: &Entries) -> Result<(BotName, Facts), Unattested> {
        let Self { facts, programs, note } = self;
        let mut names: Vec<Option<String>> = programs.into_iter().map(Some).collect();
        if names.is_empty() {
            names.push(None);
        }
        let refuse = |one: &BotName, other: &BotName, facts: Facts| {
            Unattested::new(Why::TwoEntries(one.clone(), other.clone()), Some(&few_groups(facts)))
        };
        let mut chosen: Option<(BotName, Facts)> = None;
        let mut nearest: Option<NearestEntry> = None;
        for exe in names {
            let facts = Facts { exe, ..facts.clone() };
            let bot = match pick(&entries.list, &facts) {
                Pick::One(entry, _) => entry.bot.clone(),
                Pick::Two(one, two) => {
                    return Err(refuse(&one.bot, &two.bot, facts));
                }
                Pick::None { nearest: near } => {
                    nearest = nearest.or_else(|| near.as_ref().map(NearestEntry::from));
                    continue;
                }
            };
            match &chosen {
                Some((other, _)) if *other != bot => {
                    return Err(refuse(other, &bot, facts));
                }
                Some(_) => {}
                None => chosen = Some((bot, facts)),
            }
        }
        match chosen {
            Some((bot, facts)) => Ok((bot, few_groups(facts))),
            None => Err(Unattested::new(
                Why::NoEntry { nearest, note },
                Some(&few_groups(facts)),
            )),
        }
    }
}

fn few_groups(mut facts: Facts) -> Facts {
    facts.gids.truncate(GIDS_MAX);
    facts
}
