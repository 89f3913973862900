//! No filter and no record panics: the first line is the filter, the rest a record.

#![no_main]

use spiffe::time::Timestamp;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let (filter, record) = text.split_once('\n').unwrap_or((text, ""));
    if let Ok(filter) = audit::query::parse(filter, Timestamp::from_unix_millis(0)) {
        std::hint::black_box(filter.matches(record.as_bytes()));
    }
});
