//! Checks that the process behind a local port or socket is the bot that a call is for, after connecting and before the
//! first byte is sent. What is found holds for a second; [`round`] looks again before that, beside the calls.

mod round;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use spiffe::id::BotName;
use spiffe::selector::Facts;
use tokio::net::{TcpStream, UnixStream};
use tokio::time::Instant;

pub(super) use round::{CalleeHold, Round};

use super::caller::Held;
use super::diag::SocketFact;
use super::entries::Entries;
use super::error::{CalleeFound, CalleeMismatch, Unattested, Why};
use super::identify::{Identified, Patience};
use super::kernel::{Kernel, lock};
use super::pin::{Ask, Pin};
use super::scan::{Among, Holder};
use super::tcp::Ends;
use super::unix::peer;
use super::{Attestor, blocking};

/// How long what was found of a connection to a callee holds: a call that finds it older looks again itself.
const HOLDS_FOR: Duration = Duration::from_secs(1);
/// How long the holders of a listener are believed to be all. That those known still hold it, live and run the same
/// program is checked every time.
const HOLDERS_TTL: Duration = Duration::from_secs(1);
/// How many listeners are remembered.
const LISTENERS_MAX: usize = 256;
/// How often the holder of a connection is looked for: between accept(2) and its return nobody holds it yet.
const ACCEPT_TRIES: u32 = 3;

/// What was found in place of the bot, before it is known which bot was expected.
type Found = (CalleeFound, Option<Box<Facts>>);

/// The listeners whose holders were found to be a bot.
#[derive(Debug, Default)]
pub(super) struct Callees {
    known: Mutex<BTreeMap<ListenerId, Arc<Listener>>>,
    /// Held during a scan, so that connections which need the same answer wait for it.
    scanning: Mutex<()>,
}

/// Inode and cookie.
type ListenerId = (u64, u64);

/// The bot at the other end of a connection to it. As long as one is kept, [`Attestor::watch`] looks again who is there.
#[derive(Clone, Debug)]
pub struct Callee(Arc<CalleeHold>);

impl Callee {
    /// Tells whether the other end was found to be the bot within the last second.
    #[must_use]
    pub fn is_fresh(&self) -> bool {
        self.0.seen_at().elapsed() < HOLDS_FOR
    }
}

/// The other end of a connection to a callee.
#[derive(Debug)]
enum End {
    Tcp(Ends),
    Unix(Arc<Pin>),
}

/// The accepted socket, where it has been accepted.
#[derive(Clone, Copy, Debug)]
struct Accepted {
    inode: u64,
    uid: u32,
}

#[derive(Debug)]
struct Listener {
    bot: BotName,
    version: u64,
    inode: u64,
    held: Vec<Held>,
    at: Instant,
}

impl Listener {
    fn is_still(&self, kernel: &Kernel, bot: &BotName, version: u64) -> bool {
        let known = self.bot == *bot && self.version == version && self.at.elapsed() < HOLDERS_TTL;
        known
            && self
                .held
                .iter()
                .all(|held| held.holds(kernel, self.inode).unwrap_or(false) && held.pin.check().is_ok())
    }
}

impl Callees {
    fn know(&self, key: ListenerId, listener: Arc<Listener>) {
        let mut known = lock(&self.known);
        if known.len() >= LISTENERS_MAX && !known.contains_key(&key) {
            known.retain(|_, listener| listener.at.elapsed() < HOLDERS_TTL);
            if known.len() >= LISTENERS_MAX {
                known.pop_first();
            }
        }
        known.insert(key, listener);
    }
}

impl Attestor {
    /// Checks that the server at the other end of a loopback TCP connection, just opened, is the bot `expect`.
    ///
    /// Every listener that could have taken the connection must be held by that bot and by nobody else but root, and so
    /// must the accepted socket where it has been accepted. A connection that still waits to be accepted can only be
    /// accepted by a holder of the listener.
    ///
    /// # Errors
    /// When another process holds any of them, when none can be found, or when the connection has ended.
    pub async fn callee_tcp(&self, stream: &TcpStream, expect: &BotName) -> Result<Callee, CalleeMismatch> {
        let at = Instant::now();
        let mismatch = |(found, facts): Found| CalleeMismatch {
            expected: expect.clone(),
            found,
            facts,
        };
        let ends = Ends::of(stream).map_err(|why| mismatch(unknown(why.into())))?;
        let (attestor, bot) = (self.clone(), expect.clone());
        let checked = blocking(move || {
            let entries = attestor.0.current.get();
            let check = Check {
                kernel: &attestor.0.kernel,
                callees: &attestor.0.callees,
                entries: &entries,
                bot: &bot,
            };
            check.connection(&ends)
        });
        let accepted = checked
            .await
            .map_err(|why| mismatch(unknown(why.into())))?
            .map_err(mismatch)?;
        Ok(self.hold(expect, End::Tcp(ends), accepted, at))
    }

    /// Checks that the server at the other end of a Unix socket connection, just opened, is the bot `expect`.
    ///
    /// The kernel notes who called listen(2). That process must live and be the bot; a socket that a service manager
    /// listened on in its name is not supported.
    ///
    /// # Errors
    /// When it is not.
    pub async fn callee_unix(&self, stream: &UnixStream, expect: &BotName) -> Result<Callee, CalleeMismatch> {
        let at = Instant::now();
        let mismatch = |(found, facts): Found| CalleeMismatch {
            expected: expect.clone(),
            found,
            facts,
        };
        let pin = peer(&self.0.kernel, stream, &self.0.current.get());
        let pin = pin.map_err(|why| mismatch(unknown(why.into())))?;
        let (attestor, bot, end) = (self.clone(), expect.clone(), End::Unix(Arc::clone(&pin)));
        let checked = blocking(move || {
            let entries = attestor.0.current.get();
            let check = Check {
                kernel: &attestor.0.kernel,
                callees: &attestor.0.callees,
                entries: &entries,
                bot: &bot,
            };
            check.judge(
                pin.pid,
                pin.uid,
                attestor.0.kernel.identify(&pin, None, &entries, Patience::Anything),
            )
        });
        checked
            .await
            .map_err(|why| mismatch(unknown(why.into())))?
            .map_err(mismatch)?;
        Ok(self.hold(expect, end, None, at))
    }

    fn hold(&self, bot: &BotName, end: End, accepted: Option<Accepted>, at: Instant) -> Callee {
        let hold = Arc::new(CalleeHold::new(bot.clone(), end, accepted, at));
        self.0.live.add_callee(&hold);
        Callee(hold)
    }
}

fn unknown(refused: Unattested) -> Found {
    if matches!(*refused.why, Why::SocketGone) {
        return (CalleeFound::SocketGone, None);
    }
    (CalleeFound::Unknown(Box::new(refused)), None)
}

fn unknown_why(why: Why) -> Found {
    unknown(why.into())
}

/// One check of one callee.
struct Check<'a> {
    kernel: &'a Kernel,
    callees: &'a Callees,
    entries: &'a Entries,
    bot: &'a BotName,
}

impl Check<'_> {
    /// Checks the listeners and the accepted socket, and returns that one where there is one.
    fn connection(&self, ends: &Ends) -> Result<Option<Accepted>, Found> {
        let mut listeners = self
            .kernel
            .diag
            .listeners(ends.other.port())
            .map_err(|error| unknown_why(error.into()))?;
        listeners.retain(|listener| could_take(listener, ends.other.ip()));
        let mut processes = BTreeSet::new();
        for listener in &listeners {
            let known = self.listener(listener)?;
            processes.extend(known.held.iter().map(|held| (held.pin.pid, held.pin.uid)));
        }
        // A connection that still waits is in the queue of a listener that was there when the listeners were listed: had
        // that one been closed, the connection would be gone.
        for _ in 0..ACCEPT_TRIES {
            let server = ends.peer(self.kernel).map_err(unknown_why)?;
            if server.inode != 0 {
                self.accepted(&server, &processes)?;
            } else if listeners.is_empty() {
                return Err((CalleeFound::NoHolder, None));
            }
            match ends.still_joined(self.kernel, &server) {
                Ok(()) => return Ok(accepted(&server)),
                // It may have been accepted meanwhile, and by whom is then to be looked at.
                Err(Why::SocketGone) if server.inode == 0 => {}
                Err(why) => return Err(unknown_why(why)),
            }
        }
        Err((CalleeFound::SocketGone, None))
    }

    /// The socket was accepted: by a user who is the bot, and it is held by the bot only.
    fn accepted(&self, server: &SocketFact, processes: &BTreeSet<(u32, u32)>) -> Result<(), Found> {
        if !processes.is_empty() && !processes.iter().any(|(_, uid)| *uid == server.uid) {
            return Err((CalleeFound::OtherUser { uid: server.uid }, None));
        }
        let inodes = [server.inode].into();
        for _ in 0..ACCEPT_TRIES {
            // The processes that hold the listener were just found to be the bot; one of them is likely to hold this.
            for (pid, _) in processes {
                match self.kernel.holders(&Among::One(*pid), &inodes) {
                    Ok(found) if !found.is_empty() => return Ok(()),
                    Ok(_) | Err(Why::Exited(_)) => {}
                    Err(why) => return Err(unknown_why(why)),
                }
            }
            let at = Instant::now();
            let found = self.kernel.sweep(&inodes).map_err(unknown_why)?;
            match self.holders(&found, at) {
                Err((CalleeFound::NoHolder, _)) => {}
                Err(found) => return Err(found),
                Ok(_) => return Ok(()),
            }
        }
        Err((CalleeFound::NoHolder, None))
    }

    fn listener(&self, socket: &SocketFact) -> Result<Arc<Listener>, Found> {
        let key = (socket.inode, socket.cookie);
        let known = || lock(&self.callees.known).get(&key).cloned();
        let is_still = |known: &Arc<Listener>| known.is_still(self.kernel, self.bot, self.entries.version);
        if let Some(known) = known().filter(is_still) {
            return Ok(known);
        }
        let _turn = lock(&self.callees.scanning);
        if let Some(known) = known().filter(is_still) {
            return Ok(known);
        }
        let at = Instant::now();
        let found = self.kernel.sweep(&[socket.inode].into()).map_err(unknown_why)?;
        let held = self.holders(&found, at)?;
        let (bot, version, inode) = (self.bot.clone(), self.entries.version, socket.inode);
        let listener = Arc::new(Listener {
            bot,
            version,
            inode,
            held,
            at,
        });
        self.callees.know(key, Arc::clone(&listener));
        Ok(listener)
    }

    /// Pins those that a scan after `since` found to hold a socket and checks that each is the bot. Root is passed over, since nothing on this host
    /// is kept from it (a service manager keeps the sockets that it passes), but it is not the bot either.
    fn holders(&self, found: &[Holder], since: Instant) -> Result<Vec<Held>, Found> {
        let mut held: Vec<Held> = Vec::new();
        for holder in found {
            if held.iter().any(|held| held.pin.pid == holder.pid) {
                continue;
            }
            let pin = match self.kernel.pin(holder.pid, Ask::of(self.entries).and(holder)) {
                Ok(pin) if pin.is_holder(self.kernel, holder, since) => pin,
                Ok(_) | Err(Why::Exited(_)) => continue,
                Err(why) => return Err(unknown_why(why)),
            };
            let identified = self.kernel.identify(&pin, None, self.entries, Patience::Anything);
            match self.judge(pin.pid, pin.uid, identified) {
                Ok(()) => held.push(Held::new(pin, holder.fd)),
                Err(_) if pin.uid == 0 || !pin.holds(self.kernel, holder.fd, holder.inode) => {}
                Err(found) => return Err(found),
            }
        }
        if held.is_empty() {
            return Err((CalleeFound::NoHolder, None));
        }
        Ok(held)
    }

    fn judge(&self, pid: u32, uid: u32, identified: Result<Identified, Unattested>) -> Result<(), Found> {
        match identified {
            Ok(Identified::Bot(bot, _)) if bot == *self.bot => Ok(()),
            Ok(Identified::Bot(bot, facts)) => Err((CalleeFound::OtherBot { bot, pid }, Some(facts))),
            Ok(Identified::Later) => Err((CalleeFound::NoHolder, None)),
            Err(refused) => {
                let facts = refused.facts.clone();
                Err((
                    CalleeFound::Nobody {
                        pid,
                        uid,
                        source: Box::new(refused),
                    },
                    facts,
                ))
            }
        }
    }
}

fn accepted(server: &SocketFact) -> Option<Accepted> {
    let (inode, uid) = (server.inode, server.uid);
    (inode != 0).then_some(Accepted { inode, uid })
}

/// Tells whether a listener could take a connection to `ip`: it listens on that address or on any of its family.
fn could_take(listener: &SocketFact, ip: IpAddr) -> bool {
    let on = listener.own.ip();
    on == ip || on.is_unspecified() && (on.is_ipv4() == ip.is_ipv4() || on.is_ipv6() && !listener.v6_only)
}

#[cfg(test)]
mod tests;
