//! Who may operate the proxy.

use std::fmt;

use serde::Deserialize;
use serde::de::{self, Deserializer, Visitor};

/// The longest user name; Linux itself stops at 256 (`LOGIN_NAME_MAX`).
const NAME_BYTES_MAX: usize = 256;

/// A local user who may operate the proxy, by name or by number.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Operator {
    /// A user name, looked up when the proxy starts.
    Name(String),
    /// A user id.
    Uid(u32),
}

impl<'de> Deserialize<'de> for Operator {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        input.deserialize_any(OperatorVisitor)
    }
}

struct OperatorVisitor;

impl Visitor<'_> for OperatorVisitor {
    type Value = Operator;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a user name or a uid")
    }

    fn visit_u64<E: de::Error>(self, uid: u64) -> Result<Operator, E> {
        match u32::try_from(uid) {
            Ok(uid) => Ok(Operator::Uid(uid)),
            Err(error) => Err(E::custom(format_args!("uid {uid}: {error}"))),
        }
    }

    fn visit_i64<E: de::Error>(self, uid: i64) -> Result<Operator, E> {
        match u32::try_from(uid) {
            Ok(uid) => Ok(Operator::Uid(uid)),
            Err(error) => Err(E::custom(format_args!("uid {uid}: {error}"))),
        }
    }

    fn visit_str<E: de::Error>(self, name: &str) -> Result<Operator, E> {
        if name.is_empty() || name.len() > NAME_BYTES_MAX || name.contains(char::is_control) {
            return Err(E::custom(
                "a user name has 1 to 256 characters, none of them a control character",
            ));
        }
        Ok(Operator::Name(name.to_owned()))
    }
}
