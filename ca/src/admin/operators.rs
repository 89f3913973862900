//! Who may operate: user names and numbers, looked up once.

use std::collections::BTreeMap;
use std::fmt;

use nix::unistd::{Uid, User};

use crate::config::Operator;

/// The operators by uid.
#[derive(Clone, Debug)]
pub(crate) struct Operators(BTreeMap<u32, Actor>);

/// One operator, as records name him.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Actor {
    name: String,
}

/// A configured operator whom this machine does not know.
#[derive(Debug, thiserror::Error)]
pub enum UnknownUser {
    /// No user has the name.
    #[error("admin.operators: this machine has no user {name:?}")]
    None {
        /// The name.
        name: String,
    },
    /// The users could not be read.
    #[error("admin.operators: look up user {name:?}")]
    LookUp {
        /// The name.
        name: String,
        /// Why.
        #[source]
        source: nix::Error,
    },
}

impl Operators {
    /// Looks the names up. An unknown one is an error: a misspelt operator who gets
    /// created later must not become one by surprise.
    pub(crate) fn resolve(configured: &[Operator]) -> Result<Self, UnknownUser> {
        let mut by_uid = BTreeMap::new();
        for operator in configured {
            let (uid, name) = match operator {
                Operator::Uid(uid) => (*uid, user_name(*uid)),
                Operator::Name(name) => match User::from_name(name) {
                    Ok(Some(user)) => (user.uid.as_raw(), name.clone()),
                    Ok(None) => return Err(UnknownUser::None { name: name.clone() }),
                    Err(source) => {
                        return Err(UnknownUser::LookUp {
                            name: name.clone(),
                            source,
                        });
                    }
                },
            };
            by_uid.insert(uid, Actor { name });
        }
        Ok(Self(by_uid))
    }

    /// Finds the operator with this uid.
    pub(crate) fn find(&self, uid: u32) -> Option<Actor> {
        self.0.get(&uid).cloned()
    }

    /// Whether an operator needs more than the permissions of the socket's owner.
    pub(crate) fn need_others(&self) -> bool {
        let own = Uid::effective().as_raw();
        self.0.keys().any(|uid| *uid != 0 && *uid != own)
    }
}

impl Actor {
    /// The name without its kind: a user name or `uid:N`.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }
}

impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "operator:{}", self.name)
    }
}

fn user_name(uid: u32) -> String {
    match User::from_uid(Uid::from_raw(uid)) {
        Ok(Some(user)) => user.name,
        Ok(None) | Err(_) => format!("uid:{uid}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_configured_users_are_found() {
        let operators = Operators::resolve(&[Operator::Name("root".into()), Operator::Uid(54321)]).unwrap();
        assert_eq!(operators.find(0).unwrap().to_string(), "operator:root");
        assert_eq!(operators.find(54321).unwrap().to_string(), "operator:uid:54321");
        assert_eq!(operators.find(1), None);
        assert!(operators.need_others());
    }

    #[test]
    fn an_unknown_user_name_is_an_error() {
        let unknown = Operators::resolve(&[Operator::Name("nobody-of-that-name".into())]);
        assert!(matches!(unknown, Err(UnknownUser::None { .. })));
    }
}
