//! No bytes make the readers of PostgreSQL's first messages and of SCRAM's challenge panic, and what they read is what was
//! written.
#![no_main]

use libfuzzer_sys::fuzz_target;
use proxy::postgres::scram::Challenge;
use proxy::postgres::wire::{First, first, first_length, startup};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(First::Startup(asked)) = first(bytes) {
        let pairs = asked.parameters.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let written = startup(pairs);
        assert_eq!(&written[4..6], &bytes[..2]);
        assert_eq!(asked.minor.to_be_bytes(), bytes[2..4]);
        assert_eq!(&written[8..], &bytes[4..]);
    }
    if let Some((length, _)) = bytes.split_first_chunk() {
        let _length = first_length(*length);
    }
    let (own, message) = bytes.split_at(bytes.len().min(8));
    if let Ok(own) = std::str::from_utf8(own) {
        let _read = Challenge::read(message, own);
    }
});
