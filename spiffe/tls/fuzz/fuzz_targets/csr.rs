//! Any bytes are refused, or are a request whose key is P-256 and stands in them.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|der: &[u8]| {
    if let Ok(spki) = spiffe_tls::csr_public_key(der) {
        assert_eq!(spki.len(), 91);
        assert!(der.windows(spki.len()).any(|window| window == spki));
    }
});
