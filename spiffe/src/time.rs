//! Timestamps, and the one clock of the program.
//!
//! Nothing else may call `SystemTime::now`: everything below floor 2 takes a [`Timestamp`], everything above holds a
//! [`Clock`], and a test can therefore move time.

mod clock;
#[cfg(feature = "test-clock")]
mod follow;
mod ratchet;
mod timestamp;

pub use clock::{Clock, ClockHand};
#[cfg(feature = "test-clock")]
pub use follow::FollowError;
pub use ratchet::Ratchet;
pub use timestamp::{TimeError, Timestamp};

#[cfg(test)]
mod tests;
