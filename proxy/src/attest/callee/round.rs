//! Looks again, beside the calls, who is at the other end of the connections to callees that are kept.
//!
//! A round asks the same as the check after connecting: every listener of the port that could have taken the connection,
//! and the accepted socket, are held by the bot and by nobody else but root. It looks through all processes once for all
//! connections together, in the sweep that looks after callers anyway. It refuses nothing: a connection of which it is not
//! sure is left to grow old, and the next call looks for itself and is told why.
//!
//! That a connection is still joined to the socket that was accepted is not asked again: the kernel parts the two only by
//! ending both, and a connection whose end was read is not used.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use spiffe::id::BotName;
use tokio::time::Instant;

use super::{Accepted, Callees, End, Held, Listener, accepted, could_take};
use crate::attest::diag::SocketFact;
use crate::attest::entries::Entries;
use crate::attest::error::Why;
use crate::attest::identify::{Identified, Patience};
use crate::attest::kernel::{Kernel, lock};
use crate::attest::pin::{Ask, Pin};
use crate::attest::scan::Holder;
use crate::attest::tcp::Ends;

/// What is known of one connection to a callee.
#[derive(Debug)]
pub(in crate::attest) struct CalleeHold {
    bot: BotName,
    end: End,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    accepted: Option<Accepted>,
    /// When the look that last found the bot began.
    at: Instant,
}

impl CalleeHold {
    pub(super) fn new(bot: BotName, end: End, accepted: Option<Accepted>, at: Instant) -> Self {
        Self {
            bot,
            end,
            state: Mutex::new(State { accepted, at }),
        }
    }

    pub(super) fn seen_at(&self) -> Instant {
        lock(&self.state).at
    }

    /// The accepted socket: asked for until it has been accepted.
    fn accepted(&self, kernel: &Kernel, ends: &Ends) -> Result<Option<Accepted>, Why> {
        let known = lock(&self.state).accepted;
        if known.is_some() {
            return Ok(known);
        }
        let server = ends.peer(kernel)?;
        ends.still_joined(kernel, &server)?;
        let found = accepted(&server);
        lock(&self.state).accepted = found;
        Ok(found)
    }
}

/// One look at all connections to callees.
pub(in crate::attest) struct Round<'a> {
    kernel: &'a Kernel,
    callees: &'a Callees,
    entries: &'a Entries,
    at: Instant,
    looks: Vec<Look<'a>>,
    who: BTreeMap<u32, Who>,
}

/// One connection, and the sockets to look at for it.
struct Look<'a> {
    hold: &'a CalleeHold,
    listeners: Vec<SocketFact>,
    accepted: Option<Accepted>,
}

/// Who a process is, found once in a round.
#[derive(Clone, Debug)]
enum Who {
    Bot(BotName, Arc<Pin>),
    Root,
    Gone,
    /// Anything else, and who was not known before the round: what was found under its number may be another's.
    Unsure,
}

impl<'a> Round<'a> {
    /// Begins: finds the sockets.
    pub(in crate::attest) fn begin(
        kernel: &'a Kernel,
        callees: &'a Callees,
        entries: &'a Entries,
        holds: &'a [Arc<CalleeHold>],
    ) -> Self {
        let mut round = Self {
            kernel,
            callees,
            entries,
            at: Instant::now(),
            looks: Vec::new(),
            who: BTreeMap::new(),
        };
        let mut ports: BTreeMap<u16, Option<Vec<SocketFact>>> = BTreeMap::new();
        for hold in holds {
            match &hold.end {
                End::Unix(pin) => round.look_at_socket(hold, pin),
                End::Tcp(ends) => {
                    let listening = ports.entry(ends.other.port());
                    let listening = listening.or_insert_with(|| kernel.diag.listeners(ends.other.port()).ok());
                    round.looks.extend(look(kernel, hold, ends, listening.as_deref()));
                }
            }
        }
        round
    }

    /// The sockets whose holders it needs to know.
    pub(in crate::attest) fn inodes(&self) -> impl Iterator<Item = u64> {
        self.looks.iter().flat_map(|look| {
            let accepted = look.accepted.map(|accepted| accepted.inode);
            look.listeners.iter().map(|listener| listener.inode).chain(accepted)
        })
    }

    /// Ends, with all holders of those sockets, sorted.
    pub(in crate::attest) fn end(mut self, found: &[Holder]) {
        for look in std::mem::take(&mut self.looks) {
            if self.is_the_bot(&look, found) {
                lock(&look.hold.state).at = self.at;
            }
        }
    }

    /// The kernel noted who listened; it must be the bot still.
    fn look_at_socket(&mut self, hold: &CalleeHold, pin: &Arc<Pin>) {
        if matches!(self.name(pin), Who::Bot(bot, _) if bot == hold.bot) {
            lock(&hold.state).at = self.at;
        }
    }

    fn is_the_bot(&mut self, look: &Look<'_>, found: &[Holder]) -> bool {
        let bot = &look.hold.bot;
        let mut uids = BTreeSet::new();
        for socket in &look.listeners {
            let Some(held) = self.holders(found, socket.inode, bot) else {
                return false;
            };
            uids.extend(held.iter().map(|held| held.pin.uid));
            let listener = Listener {
                bot: bot.clone(),
                version: self.entries.version,
                inode: socket.inode,
                held,
                at: self.at,
            };
            self.callees.know((socket.inode, socket.cookie), Arc::new(listener));
        }
        let Some(accepted) = look.accepted else {
            // It waits, and can only be accepted by a holder of a listener.
            return !look.listeners.is_empty();
        };
        (uids.is_empty() || uids.contains(&accepted.uid)) && self.holders(found, accepted.inode, bot).is_some()
    }

    /// The holders of a socket, if each is the bot, or root, and there is one.
    fn holders(&mut self, found: &[Holder], inode: u64, bot: &BotName) -> Option<Vec<Held>> {
        let from = found.partition_point(|holder| holder.inode < inode);
        let to = found.partition_point(|holder| holder.inode <= inode);
        let mut held = Vec::new();
        for holder in found.get(from..to).unwrap_or_default() {
            match self.who(holder.pid) {
                Who::Bot(found, pin) if found == *bot => held.push(Held::new(pin, holder.fd)),
                Who::Root | Who::Gone => {}
                Who::Bot(..) | Who::Unsure => return None,
            }
        }
        (!held.is_empty()).then_some(held)
    }

    fn who(&mut self, pid: u32) -> Who {
        if let Some(known) = self.who.get(&pid) {
            return known.clone();
        }
        let who = match self.kernel.pin(pid, Ask::of(self.entries)) {
            // What was found under the number was found of this process.
            Ok(pin) if pin.since < self.at => self.name(&pin),
            Ok(_) => Who::Unsure,
            Err(Why::Exited(_)) => Who::Gone,
            Err(_) => Who::Unsure,
        };
        self.who.insert(pid, who.clone());
        who
    }

    fn name(&self, pin: &Arc<Pin>) -> Who {
        match self.kernel.identify(pin, None, self.entries, Patience::Anything) {
            Ok(Identified::Bot(bot, _)) => Who::Bot(bot, Arc::clone(pin)),
            Ok(Identified::Later) => Who::Unsure,
            Err(_) if pin.uid == 0 => Who::Root,
            Err(_) => Who::Unsure,
        }
    }
}

/// Finds the sockets to look at for one connection; none where the kernel does not tell.
fn look<'a>(kernel: &Kernel, hold: &'a CalleeHold, ends: &Ends, listening: Option<&[SocketFact]>) -> Option<Look<'a>> {
    let could = |listener: &&SocketFact| could_take(listener, ends.other.ip());
    let listeners = listening?.iter().filter(could).cloned().collect();
    let accepted = hold.accepted(kernel, ends).ok()?;
    Some(Look {
        hold,
        listeners,
        accepted,
    })
}
