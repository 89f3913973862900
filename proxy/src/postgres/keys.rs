//! The keys of sessions that go on. Whoever has one can end a statement of that session, and nobody but its bot may.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use audit::CallId;
use policy::Outside;
use spiffe::id::BotName;

use super::wire::KEY_BYTES;

/// The keys, and their sessions.
#[derive(Debug, Default)]
pub(crate) struct Keys(Mutex<BTreeMap<Key, Arc<Session>>>);

/// A session that goes on.
#[derive(Debug)]
pub(crate) struct Session {
    /// Where it is.
    pub(crate) address: SocketAddr,
    /// By which call it was begun.
    pub(crate) call: CallId,
    /// Held by whoever ends a statement of it.
    pub(crate) cancelling: tokio::sync::Mutex<()>,
}

/// A key, with whose and at whom it is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key {
    pub(crate) from: BotName,
    pub(crate) to: Outside,
    pub(crate) key: [u8; KEY_BYTES],
}

/// A key that was given out; dropped, it is none any more.
#[derive(Debug)]
pub(crate) struct Given {
    keys: Arc<Keys>,
    key: Key,
}

impl Keys {
    /// Notes a key for as long as its session goes on.
    pub(crate) fn give(self: &Arc<Self>, key: Key, (address, call): (SocketAddr, CallId)) -> Given {
        let cancelling = tokio::sync::Mutex::default();
        let session = Arc::new(Session {
            address,
            call,
            cancelling,
        });
        self.all().insert(key.clone(), session);
        Given {
            keys: Arc::clone(self),
            key,
        }
    }

    /// Gives the session of a key.
    pub(crate) fn find(&self, key: &Key) -> Option<Arc<Session>> {
        self.all().get(key).cloned()
    }

    /// A thread that panicked while it held the lock left whole entries.
    fn all(&self) -> MutexGuard<'_, BTreeMap<Key, Arc<Session>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Given {
    fn drop(&mut self) {
        self.keys.all().remove(&self.key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(from: &str, to: &str, key: &[u8; KEY_BYTES]) -> Key {
        Key {
            from: BotName::parse(from).unwrap(),
            to: Outside::parse(to).unwrap(),
            key: *key,
        }
    }

    #[test]
    fn a_key_is_of_one_bot_at_one_server_while_its_session_goes_on() {
        let (keys, address) = (Arc::new(Keys::default()), "192.0.2.1:5432".parse().unwrap());
        let own = key("prod/a", "postgres://db.example.com", b"12345678");
        let call = CallId::parse("0190163d-8694-739b-aea5-966c26f8ad91").unwrap();
        let given = keys.give(own.clone(), (address, call));
        let found = |key: &Key| keys.find(key).map(|session| session.address);
        assert_eq!(found(&own), Some(address));
        for other in [
            key("prod/b", "postgres://db.example.com", b"12345678"),
            key("prod/a", "postgres://db.example.com:6432", b"12345678"),
            key("prod/a", "postgres://db.example.com", b"12345679"),
        ] {
            assert_eq!(found(&other), None, "{other:?}");
        }
        drop(given);
        assert_eq!(found(&own), None);
    }
}
