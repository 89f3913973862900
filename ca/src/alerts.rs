//! What an operator should look at: one identity in two hands.
//!
//! The CA cannot know which of two is the thief, so it cuts nobody off: the newest stream lives, and the alert carries
//! the command that would cut the host off.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use audit::EventKind;
use ca_api::admin::HostAlert;
use serde_json::json;
use spiffe::id::HostName;
use spiffe::time::Timestamp;
use tokio::time::Instant;

use crate::core::Core;
use crate::tally::WINDOW;

/// Addresses that are named in one alert.
const ADDRESSES_MAX: usize = 8;

/// Streams of one host that are remembered.
const STREAMS_MAX: usize = 16;

/// A stream whose host has gone ends within half a minute (the connection's pings); one that lives longer after
/// somebody else acted with its SVID is in use.
const ALIVE_AFTER: Duration = Duration::from_secs(35);

/// Streams from one address that were ended by newer ones in [`WINDOW`]. A proxy that finds its connection broken opens
/// another one, once; two of them behind one address end each other without end.
const REPLACED_MAX: usize = 6;

/// What there is to look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum AlertKind {
    /// The same node SVID from two addresses in turn.
    TwoAddresses,
    /// Streams with the same node SVID from one address end each other.
    TwoStreams,
    /// A key that the host acted with before a newer one.
    OldKey,
    /// A join token was claimed by a second key.
    TokenTwice,
    /// Its address is that of another host, which connects from there.
    AddressTaken,
    /// Its ledger is not the one that was cosigned.
    LedgerSetBack,
    /// Its ledger has begun a new epoch.
    LedgerBegunAnew,
    /// A witness outside says that it has cosigned another past of a ledger.
    LedgerNotAsWitnessed,
}

impl AlertKind {
    pub(crate) const ALL: [Self; 8] = [
        Self::TwoAddresses,
        Self::TwoStreams,
        Self::OldKey,
        Self::TokenTwice,
        Self::AddressTaken,
        Self::LedgerSetBack,
        Self::LedgerBegunAnew,
        Self::LedgerNotAsWitnessed,
    ];

    /// The word in ledger, metrics and lists.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::TwoAddresses => "svid_from_two_addresses",
            Self::TwoStreams => "svid_on_two_streams",
            Self::OldKey => "key_not_current",
            Self::TokenTwice => "token_other_key",
            Self::AddressTaken => "address_of_another",
            Self::LedgerSetBack => "ledger_set_back",
            Self::LedgerBegunAnew => "ledger_begun_anew",
            Self::LedgerNotAsWitnessed => "ledger_not_as_witnessed",
        }
    }

    /// What it means, and what to do.
    const fn hint(self) -> &'static str {
        match self {
            Self::TwoAddresses | Self::TwoStreams => {
                "two machines act with the key of this host: one of them is not it, or the disk was copied"
            }
            Self::OldKey => {
                "somebody acts with a key that this host replaced: a thief, or a copy of an older disk. Or the thief is \
                 the one who replaced it"
            }
            Self::TokenTwice => "two machines hold a join token of this host",
            Self::AddressTaken => "this host told an address at which another host lives",
            Self::LedgerSetBack => {
                "the ledger of this host is not the one that was cosigned: its disk was lost or set back, or somebody \
                 cut or changed it. The heads that were cosigned prove what was there"
            }
            Self::LedgerBegunAnew => {
                "the ledger of this host has begun a new epoch: what it had before is not all there any more. Its first \
                 record of that epoch says why"
            }
            Self::LedgerNotAsWitnessed => {
                "a witness says that it has cosigned more of the ledger of this host than there is, or something else: both \
                 the host and the CA were set back, or the witness is wrong. Nothing is begun anew by its word alone"
            }
        }
    }

    fn command(self, host: &HostName) -> String {
        match self {
            Self::TwoAddresses | Self::TwoStreams | Self::OldKey => {
                format!("botmesh quarantine --host {host} --reason {}", self.as_str())
            }
            Self::TokenTwice => format!("botmesh host evict {host}"),
            Self::AddressTaken => "botmesh host list".to_owned(),
            Self::LedgerSetBack | Self::LedgerBegunAnew | Self::LedgerNotAsWitnessed => {
                format!("botmesh audit heads {host}")
            }
        }
    }
}

/// One alert, as kept: bounded by hosts and kinds.
#[derive(Clone, Debug)]
struct Alert {
    first: Timestamp,
    last: Timestamp,
    count: u64,
    addresses: BTreeSet<IpAddr>,
    /// When it was last written into the ledger.
    written: Timestamp,
}

/// Where one host has come from.
#[derive(Debug, Default)]
struct Sources {
    /// The newest stream's.
    current: Option<IpAddr>,
    /// Those of the streams before it, and when they were left.
    left: VecDeque<(IpAddr, Timestamp)>,
    /// When streams were ended by newer ones from the same address.
    replaced: VecDeque<Timestamp>,
    /// Somebody acted from elsewhere while this stream was up.
    elsewhere: Option<Elsewhere>,
}

#[derive(Clone, Copy, Debug)]
struct Elsewhere {
    session: u64,
    source: IpAddr,
    since: Instant,
}

/// Alerts by host.
#[derive(Debug, Default)]
pub(crate) struct Alerts(Mutex<BTreeMap<HostName, OfHost>>);

#[derive(Debug, Default)]
struct OfHost {
    alerts: BTreeMap<AlertKind, Alert>,
    sources: Sources,
}

/// A stream that was taken in.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Opened {
    pub(crate) source: IpAddr,
    /// It ended an older one that was up.
    pub(crate) replaced: bool,
}

impl Sources {
    /// Takes in a new stream; says what is wrong with it.
    fn opened(&mut self, now: Timestamp, opened: Opened) -> Option<(AlertKind, Vec<IpAddr>)> {
        let recent = |when: &Timestamp| now.duration_since(*when) < WINDOW;
        self.elsewhere = None;
        self.left.retain(|(_, when)| recent(when));
        self.replaced.retain(recent);
        let source = opened.source.to_canonical();
        let before = self.current.replace(source);
        let Some(before) = before.filter(|before| network(*before) != network(source)) else {
            if opened.replaced {
                push(&mut self.replaced, now);
            }
            let too_often = self.replaced.len() >= REPLACED_MAX;
            return too_often.then(|| (AlertKind::TwoStreams, vec![source]));
        };
        let was_here = self.left.iter().any(|(known, _)| network(*known) == network(source));
        push(&mut self.left, (before, now));
        was_here.then(|| (AlertKind::TwoAddresses, vec![before, source]))
    }
}

fn push<T>(queue: &mut VecDeque<T>, item: T) {
    if queue.len() >= STREAMS_MAX {
        queue.pop_front();
    }
    queue.push_back(item);
}

/// What one machine has: an IPv4 address, or a /64 of IPv6 (RFC 4291 §2.5.4), within which addresses change by
/// themselves (RFC 8981).
pub(crate) fn network(source: IpAddr) -> IpAddr {
    match source.to_canonical() {
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
        v4 @ IpAddr::V4(_) => v4,
    }
}

impl Alerts {
    fn with<T>(&self, host: &HostName, act: impl FnOnce(&mut OfHost) -> T) -> T {
        let mut hosts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        act(hosts.entry(host.clone()).or_default())
    }

    /// Forgets a host that was evicted: whoever comes back with a new token is another one.
    pub(crate) fn forget(&self, host: &HostName) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(host);
    }

    /// The alerts of a host, by kind.
    pub(crate) fn of(&self, host: &HostName) -> Vec<HostAlert> {
        let hosts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let alerts = hosts.get(host).into_iter().flat_map(|known| &known.alerts);
        alerts
            .map(|(kind, alert)| HostAlert {
                kind: kind.as_str().to_owned(),
                first: alert.first,
                last: alert.last,
                count: alert.count,
                addresses: alert.addresses.iter().copied().collect(),
                hint: kind.hint().to_owned(),
                command: kind.command(host),
            })
            .collect()
    }
}

impl Core {
    /// Takes in a new stream of a host.
    pub(crate) fn stream_opened(&self, host: &HostName, opened: Opened) {
        let wrong = self.alerts.with(host, |known| known.sources.opened(self.now(), opened));
        if let Some((kind, addresses)) = wrong {
            self.alert(host, kind, addresses);
        }
    }

    /// Takes in that somebody proved to be a host otherwise than on its stream.
    pub(crate) fn acted(&self, host: &HostName, source: IpAddr) {
        let Some((session, at)) = self.world.stream_of(host) else {
            return;
        };
        if network(at) != network(source) {
            self.alerts.with(host, |known| {
                let same = known.sources.elsewhere.is_some_and(|known| known.session == session);
                if !same {
                    known.sources.elsewhere = Some(Elsewhere {
                        session,
                        source,
                        since: Instant::now(),
                    });
                }
            });
        }
    }

    /// Takes in a sign of life of a stream. A host that moves to another address leaves a stream behind, which gives none;
    /// so does `spoke: false` after a while.
    pub(crate) fn stream_lives(&self, host: &HostName, session: u64, source: IpAddr, spoke: bool) {
        let elsewhere = self.alerts.with(host, |known| {
            known.sources.elsewhere.take_if(|elsewhere| {
                elsewhere.session == session && (spoke || elsewhere.since.elapsed() >= ALIVE_AFTER)
            })
        });
        if let Some(elsewhere) = elsewhere {
            self.alert(host, AlertKind::TwoAddresses, vec![source, elsewhere.source]);
        }
    }

    /// Raises an alert: kept, counted, and in the ledger when it is new or [`WINDOW`] after it was there last.
    pub(crate) fn alert(&self, host: &HostName, kind: AlertKind, addresses: Vec<IpAddr>) {
        self.metrics.alerts.with_label_values(&[kind.as_str()]).inc();
        let now = self.now();
        let write = self.alerts.with(host, |known| {
            let is_new = !known.alerts.contains_key(&kind);
            let alert = known.alerts.entry(kind).or_insert_with(|| Alert {
                first: now,
                last: now,
                count: 0,
                addresses: BTreeSet::new(),
                written: now,
            });
            alert.last = now;
            alert.count = alert.count.saturating_add(1);
            for address in addresses {
                if alert.addresses.len() < ADDRESSES_MAX {
                    alert.addresses.insert(address.to_canonical());
                }
            }
            let due = is_new || now.duration_since(alert.written) >= WINDOW;
            if due {
                alert.written = now;
            }
            due.then(|| alert.clone())
        });
        if let Some(alert) = write {
            let (hint, command) = (kind.hint(), kind.command(host));
            tracing::error!(%host, kind = kind.as_str(), addresses = ?alert.addresses, command, "{hint}");
            let detail = [
                ("reason", json!(kind.as_str())),
                ("addresses", json!(alert.addresses)),
                ("count", json!(alert.count)),
                ("hint", json!(hint)),
                ("command", json!(command)),
            ];
            self.journal
                .note(EventKind::Alert, "ca", &format!("host:{host}"), detail);
            let told = json!({
                "kind": kind.as_str(),
                "host": host,
                "time": alert.last,
                "addresses": alert.addresses,
                "count": alert.count,
                "message": hint,
                "command": command,
            });
            self.post_alert(&format!("{}: {host}: {hint}. {command}", kind.as_str()), &told);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "10.0.0.1";
    const B: &str = "10.0.0.2";

    fn open(sources: &mut Sources, seconds: i64, source: &str, replaced: bool) -> Option<AlertKind> {
        let opened = Opened {
            source: source.parse().unwrap(),
            replaced,
        };
        let now = Timestamp::from_unix_millis(seconds * 1000);
        sources.opened(now, opened).map(|(kind, _)| kind)
    }

    #[test]
    fn a_host_that_moves_is_none_of_two_but_one_that_comes_back_is() {
        let mut sources = Sources::default();
        assert_eq!(open(&mut sources, 0, A, false), None);
        assert_eq!(open(&mut sources, 1, B, true), None, "it moved");
        assert_eq!(open(&mut sources, 2, B, false), None);
        assert_eq!(open(&mut sources, 3, A, true), Some(AlertKind::TwoAddresses));
        assert_eq!(open(&mut sources, 4, B, true), Some(AlertKind::TwoAddresses));
    }

    #[test]
    fn a_host_that_comes_back_after_the_window_has_moved_twice() {
        let mut sources = Sources::default();
        for (seconds, source) in [(0, A), (1, B), (601, A), (1201, B)] {
            assert_eq!(open(&mut sources, seconds, source, false), None, "{seconds}");
        }
    }

    #[test]
    fn addresses_of_one_network_and_forms_of_one_address_are_one() {
        let mut sources = Sources::default();
        for (seconds, source) in [(0, "2001:db8::1"), (1, "2001:db8::2"), (2, "2001:db8::1")] {
            assert_eq!(open(&mut sources, seconds, source, true), None, "{source}");
        }
        let mut sources = Sources::default();
        for (seconds, source) in [(0, A), (1, "::ffff:10.0.0.1"), (2, A)] {
            assert_eq!(open(&mut sources, seconds, source, false), None, "{source}");
        }
    }

    #[test]
    fn streams_from_one_address_that_end_each_other_without_end_are_two_hands() {
        let mut sources = Sources::default();
        let kinds: Vec<_> = (0..7).map(|n| open(&mut sources, n, A, n > 0)).collect();
        assert_eq!(kinds[..6], [None; 6]);
        assert_eq!(kinds[6], Some(AlertKind::TwoStreams));
        let mut sources = Sources::default();
        assert!(
            (0..50).all(|n| open(&mut sources, n, A, false).is_none()),
            "it restarts"
        );
        assert!(
            (50..100).all(|n| open(&mut sources, n * 130, A, true).is_none()),
            "its network breaks now and then"
        );
    }
}
