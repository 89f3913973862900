//! Any text is refused, or is a token whose claims come back from what they write.
#![no_main]

use libfuzzer_sys::fuzz_target;
use spiffe::jwt::{JWT_BYTES_MAX, JwtSvid, UnsignedJwt};

fuzz_target!(|text: &str| {
    let Ok(svid) = JwtSvid::parse(text) else { return };
    assert!(text.len() <= JWT_BYTES_MAX);
    assert!(!svid.id().path().is_empty());
    assert!(JwtSvid::signed(text).is_ok());
    let written = UnsignedJwt::new(svid.key_id(), svid.claims()).sign(svid.signature());
    // What is written can be longer: it says `typ`, and JSON has shorter ways to write some texts.
    if written.len() <= JWT_BYTES_MAX {
        assert_eq!(JwtSvid::parse(&written).ok(), Some(svid));
    }
});
