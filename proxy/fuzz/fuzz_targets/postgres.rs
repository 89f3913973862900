//! No bytes make the readers of PostgreSQL's first messages and of SCRAM's challenge panic, and what they read is what was
//! written.
#![no_main]

use libfuzzer_sys::fuzz_target;
use proxy::postgres::scram::Challenge;
use proxy::postgres::wire::{First, first, startup};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(First::Startup(parameters)) = first(bytes) {
        let pairs = parameters.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        assert_eq!(&startup(pairs)[4..], bytes);
    }
    let (own, message) = bytes.split_at(bytes.len().min(8));
    if let Ok(own) = std::str::from_utf8(own) {
        let _read = Challenge::read(message, own);
    }
});
