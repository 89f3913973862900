//! Settings that the design names and this version does not enforce.
//!
//! A setting that is read and then ignored is a promise broken in silence, so
//! each of these is refused where it stands in the file.

use serde::de::{Deserializer, Error as _};

/// The value of a setting that cannot be set: no value of it exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotEnforced {}

pub(super) fn workload_api<'de, D: Deserializer<'de>>(_input: D) -> Result<Option<NotEnforced>, D::Error> {
    Err(D::Error::custom(
        "BM0190: `workload_api` is not enforced by this version",
    ))
}
