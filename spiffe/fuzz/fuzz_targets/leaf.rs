//! Any bytes are refused, or are a leaf or an authority, and never both.
#![no_main]

use libfuzzer_sys::fuzz_target;
use spiffe::svid::{Authority, Leaf, Serial};

fuzz_target!(|der: &[u8]| {
    let leaf = Leaf::parse(der);
    let authority = Authority::parse(der);
    assert!(leaf.is_err() || authority.is_err());
    if let Ok(leaf) = leaf {
        assert!(!leaf.id().path().is_empty());
        assert!(leaf.not_before() <= leaf.not_after());
        assert_eq!(leaf.serial().to_string().parse::<Serial>().as_ref(), Ok(leaf.serial()));
    }
    if let Ok(authority) = authority {
        assert_eq!(authority.der(), der);
        assert!(authority.id().is_none_or(|id| id.path().is_empty()));
    }
});
