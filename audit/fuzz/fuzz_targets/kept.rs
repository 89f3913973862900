//! No bytes on disk are kept records that harm who reads them, and what they are is written again as it was read.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    // As they are, and behind a head that is one, or the lines would hardly ever be reached.
    let head = br#"{"first":3,"end":900,"began":"2026-11-05T10:00:00Z","newest":null,"freed":[1,2,3]}"#;
    for bytes in [bytes.to_vec(), [head, &b"\n"[..], bytes].concat()] {
        if let Some(again) = audit::kept_again(&bytes) {
            assert_eq!(audit::kept_again(&again), Some(again.clone()));
        }
    }
});
