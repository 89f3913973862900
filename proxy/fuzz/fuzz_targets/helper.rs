//! No bytes between proxy and attest helper make a reader panic; what is read as a frame, a question or an answer is
//! written and read again as the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use proxy::attest::helper::{frame, reads_back};

fuzz_target!(|bytes: &[u8]| {
    assert!(reads_back(bytes));
    let Ok(Some(body)) = frame::body(bytes) else { return };
    assert_eq!(frame::encode(body).expect("it was one"), bytes);
    assert!(reads_back(body));
    // However the bytes arrive, no part of a frame is taken for one.
    for end in 0..bytes.len().min(64) {
        assert_eq!(frame::body(&bytes[..end]), Ok(None));
    }
});
