//! The keys of sessions that go on. Whoever has one can end a statement of that session, and nobody but its bot may.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use policy::Outside;
use spiffe::id::BotName;

use super::wire::KEY_BYTES;

/// The keys, and where their sessions are.
#[derive(Debug, Default)]
pub(crate) struct Keys(Mutex<BTreeMap<Key, SocketAddr>>);

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
    pub(crate) fn give(self: &Arc<Self>, key: Key, address: SocketAddr) -> Given {
        self.all().insert(key.clone(), address);
        Given {
            keys: Arc::clone(self),
            key,
        }
    }

    /// Says where the session of a key is.
    pub(crate) fn find(&self, key: &Key) -> Option<SocketAddr> {
        self.all().get(key).copied()
    }

    /// A thread that panicked while it held the lock left whole entries.
    fn all(&self) -> MutexGuard<'_, BTreeMap<Key, SocketAddr>> {
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
        let given = keys.give(own.clone(), address);
        assert_eq!(keys.find(&own), Some(address));
        for other in [
            key("prod/b", "postgres://db.example.com", b"12345678"),
            key("prod/a", "postgres://db.example.com:6432", b"12345678"),
            key("prod/a", "postgres://db.example.com", b"12345679"),
        ] {
            assert_eq!(keys.find(&other), None, "{other:?}");
        }
        drop(given);
        assert_eq!(keys.find(&own), None);
    }
}
