//! Any bytes are refused, or are a bundle that comes back from what it writes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use spiffe::bundle::TrustBundle;
use spiffe::id::TrustDomain;

fuzz_target!(|jwks: &[u8]| {
    let Ok(acme) = TrustDomain::parse("acme") else { return };
    let Ok(bundle) = TrustBundle::parse(&acme, jwks) else {
        return;
    };
    assert!(bundle.authorities().len() <= 64);
    let written = bundle.to_jwks();
    let again = TrustBundle::parse(&acme, &written);
    assert_eq!(again.ok(), Some(bundle));
});
