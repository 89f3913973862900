//! A caller that was attested, and the checks that it still is who it was.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use spiffe::id::BotName;
use spiffe::selector::Facts;

use super::blocking;
use super::entries::Current;
use super::error::{Unattested, Why};
use super::identify::{Identified, Patience};
use super::kernel::Kernel;
use super::pin::{Ask, Pin};
use super::scan::{Among, Holder};

/// A bot at the other end of a connection, held to the process and program that were attested.
///
/// Cheap to clone. Being attested once is not being attested for ever: [`Caller::recheck`] is called before each
/// request, each second on tunnels, and at each renewal.
#[derive(Clone, Debug)]
pub struct Caller {
    /// Which bot it is.
    pub bot: BotName,
    /// What the kernel says about its process; of the lowest number where several processes hold a TCP socket.
    pub facts: Arc<Facts>,
    pub(super) hold: Arc<Hold>,
}

impl Caller {
    pub(super) fn new(bot: BotName, facts: Facts, hold: Hold) -> Self {
        Self {
            bot,
            facts: Arc::new(facts),
            hold: Arc::new(hold),
        }
    }

    /// Checks that the caller is still the one that was attested; takes some three microseconds over a Unix socket, some
    /// six over TCP, and does not block.
    ///
    /// - Unix socket: the process that connected lives, runs the program that was attested, with the same credentials.
    /// - TCP: so do all processes that were found to hold the socket and still do, and there is at least one.
    /// - Bound by an operator: the chain of parents is unbroken.
    /// - The entries have not changed, or still name the same bot.
    /// - No sweep ([`super::Attestor::watch`]) has found another bot, or nobody, holding the TCP socket.
    ///
    /// # Errors
    /// When any of these does not hold; the connection is then to be ended.
    pub fn recheck(&self) -> Result<(), Unattested> {
        self.hold.check().map_err(|why| Unattested::new(why, Some(&self.facts)))
    }

    /// The process that calls; where several hold a TCP socket, the first of them that lives.
    pub(crate) fn process(&self) -> Option<Process> {
        let alive = |held: &&Held| held.pin.check_whole().is_ok();
        self.hold
            .held
            .iter()
            .find(alive)
            .map(|held| Process(Arc::clone(&held.pin)))
    }

    /// Does all that [`Caller::recheck`] does and, for TCP, looks through all processes of the host for other holders
    /// of the socket. Takes milliseconds, on a thread of its own.
    ///
    /// # Errors
    /// Like [`Caller::recheck`].
    pub async fn deep_recheck(&self) -> Result<(), Unattested> {
        let hold = Arc::clone(&self.hold);
        let checked = blocking(move || hold.look_around()).await;
        checked
            .and_then(|checked| checked)
            .map_err(|why| Unattested::new(why, Some(&self.facts)))?;
        self.recheck()
    }
}

/// A process that called, held as long as anybody wants to know whether it still is who it was.
#[derive(Clone, Debug)]
pub(crate) struct Process(Arc<Pin>);

impl Process {
    /// Whether it has exited, executed another program, or became another user; or whether nobody can say.
    pub(crate) fn ended(&self) -> bool {
        self.0.check_whole().is_err()
    }

    #[cfg(test)]
    pub(super) const fn of(pin: Arc<Pin>) -> Self {
        Self(pin)
    }

    /// Tells living processes apart, also two that had one number.
    pub(crate) fn key(&self) -> usize {
        Arc::as_ptr(&self.0).addr()
    }
}

/// One process that holds the connection.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) pin: Arc<Pin>,
    fd: AtomicU32,
}

impl Held {
    pub(super) fn new(pin: Arc<Pin>, fd: u32) -> Self {
        Self {
            pin,
            fd: AtomicU32::new(fd),
        }
    }

    /// Tells whether the process still holds the socket, under the number known or, after `dup(2)`, under another.
    pub(super) fn holds(&self, kernel: &Kernel, inode: u64) -> Result<bool, Why> {
        if self.pin.holds(kernel, self.fd.load(Ordering::Relaxed), inode) {
            return Ok(true);
        }
        if self.pin.exited()? {
            return Ok(false);
        }
        let found = kernel.holders(&Among::One(self.pin.pid), &[inode].into())?;
        let Some(holder) = found
            .into_iter()
            .find(|holder| self.pin.holds(kernel, holder.fd, inode))
        else {
            return Ok(false);
        };
        self.fd.store(holder.fd, Ordering::Relaxed);
        Ok(true)
    }
}

/// What keeps a caller to what was attested.
#[derive(Debug)]
pub(super) struct Hold {
    pub(super) kernel: Arc<Kernel>,
    pub(super) current: Arc<Current>,
    pub(super) bot: BotName,
    /// The version of the entries by which the bot was chosen last.
    pub(super) version: AtomicU64,
    /// Whether an operator's binding made it this bot.
    pub(super) run: bool,
    /// At least one.
    pub(super) held: Vec<Held>,
    /// The caller's end, for TCP.
    pub(super) inode: Option<u64>,
    /// The bot over whose own socket it connected.
    pub(super) over: Option<BotName>,
    /// What a sweep found against it.
    pub(super) lost: OnceLock<Lost>,
}

/// What a sweep found against a connection.
#[derive(Clone, Debug)]
pub(super) enum Lost {
    Foreign {
        pid: u32,
        what: String,
    },
    /// None of the processes that were attested holds it any more.
    Left,
    Unswept(&'static str),
}

impl Hold {
    fn check(&self) -> Result<(), Why> {
        match self.lost.get() {
            None => {}
            Some(Lost::Unswept(bound)) => return Err(Why::ScanBound(bound)),
            Some(Lost::Left) => return Err(self.no_holder()),
            Some(Lost::Foreign { pid, what }) => {
                return Err(Why::ForeignHolder {
                    bot: self.bot.clone(),
                    pid: *pid,
                    what: what.clone(),
                });
            }
        }
        // Read first: entries that change during the check are noticed by the next one.
        let version = self.current.version();
        let changed = version != self.version.load(Ordering::Relaxed);
        let mut gone = None;
        let mut holding = 0usize;
        for held in &self.held {
            let checked = held.pin.check();
            if self.has_left(held, checked.is_ok())? {
                gone = gone.or(checked.err());
                continue;
            }
            checked?;
            if self.run {
                self.check_run(&held.pin)?;
            }
            if changed {
                self.choose_again(&held.pin)?;
            }
            holding += 1;
        }
        if holding == 0 {
            return Err(gone.unwrap_or_else(|| self.no_holder()));
        }
        if changed {
            self.version.store(version, Ordering::Relaxed);
        }
        Ok(())
    }

    /// A process that gave its TCP socket up (a child that executed another program, say) has no more part in it. Over
    /// a Unix socket the process that connected is the caller, whoever holds the socket.
    ///
    /// To ask the helper takes longer than all else that a request takes. So it is asked about a process that is no
    /// longer what it was, and about the others by the sweep, each second: a bot that hands its socket on can keep it as
    /// well, and until the sweep that looks the same.
    fn has_left(&self, held: &Held, unchanged: bool) -> Result<bool, Why> {
        match self.inode {
            None => Ok(false),
            Some(_) if unchanged && self.kernel.eyes.are_far() => Ok(false),
            Some(inode) => held.holds(&self.kernel, inode).map(|holds| !holds),
        }
    }

    fn no_holder(&self) -> Why {
        let uid = self.held.first().map_or(u32::MAX, |held| held.pin.uid);
        Why::NoHolder { uid }
    }

    fn check_run(&self, pin: &Pin) -> Result<(), Why> {
        if self.kernel.runs.bot_of(self.kernel.proc_folder(), pin)?.as_ref() == Some(&self.bot) {
            return Ok(());
        }
        Err(Why::RunBroken(pin.pid))
    }

    fn choose_again(&self, pin: &Pin) -> Result<(), Why> {
        let entries = self.current.get();
        match self
            .kernel
            .identify(pin, self.over.as_ref(), &entries, Patience::Names)
            .map_err(|refused| *refused.why)?
        {
            Identified::Bot(bot, _) if bot == self.bot => Ok(()),
            Identified::Bot(..) | Identified::Later => Err(Why::EntriesChanged),
        }
    }

    /// Looks through the whole host for other holders of this TCP socket.
    fn look_around(&self) -> Result<(), Why> {
        let Some(inode) = self.inode else { return Ok(()) };
        let found = self.kernel.sweep(&[inode].into())?;
        self.judge(&found);
        Ok(())
    }

    /// Judges the holders that a sweep found: each must be pinned already, be this bot, be root, or have given the
    /// socket up by now. Root is passed over because nothing on this host is kept from it.
    pub(super) fn judge(&self, found: &[Holder]) {
        let Some(inode) = self.inode else { return };
        let mut known = false;
        for holder in found.iter().filter(|holder| holder.inode == inode) {
            if self.held.iter().any(|held| held.pin.pid == holder.pid) {
                known = true;
                continue;
            }
            let what = match self.stranger(holder, inode) {
                Ok(None) => continue,
                Ok(Some(what)) => what,
                Err(Why::Exited(_)) => continue,
                Err(why) => why.to_string(),
            };
            // The first finding stands.
            let _first = self.lost.set(Lost::Foreign { pid: holder.pid, what });
            return;
        }
        // A descriptor that moves to another number while a process is looked through can be overlooked: look again.
        let holds = |held: &Held| held.holds(&self.kernel, inode).unwrap_or(false);
        if !known && !self.held.iter().any(holds) {
            let _first = self.lost.set(Lost::Left);
        }
    }

    fn stranger(&self, holder: &Holder, inode: u64) -> Result<Option<String>, Why> {
        let entries = self.current.get();
        let pin = self.kernel.pin(holder.pid, Ask::of(&entries).and(holder))?;
        let is_root = pin.uid == 0 && self.held.iter().all(|held| held.pin.uid != 0);
        if is_root || !pin.holds(&self.kernel, holder.fd, inode) {
            return Ok(None);
        }
        let what = match self.kernel.identify(&pin, None, &entries, Patience::Anything) {
            Ok(Identified::Bot(bot, _)) if bot == self.bot => return Ok(None),
            Ok(Identified::Bot(bot, _)) => bot.to_string(),
            Ok(Identified::Later) => "not known".to_owned(),
            Err(refused) => refused.to_string(),
        };
        Ok(pin.holds(&self.kernel, holder.fd, inode).then_some(what))
    }
}

#[cfg(test)]
mod tests;
