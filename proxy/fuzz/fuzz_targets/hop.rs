//! What stands before a payload on the hop is refused, or is written again as it came; and what a frame's length says is
//! within the bounds of its kind.
#![no_main]

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use proxy::hop::frame::{HEADER_BYTES, Header, PAYLOAD_BYTES_MAX};

fuzz_target!(|bytes: &[u8]| {
    let mut rest = bytes;
    while let Some((bytes, after)) = rest.split_first_chunk::<HEADER_BYTES>() {
        let Ok(header) = Header::read(*bytes) else { return };
        assert!(header.length <= PAYLOAD_BYTES_MAX);
        let mut out = BytesMut::new();
        header.put(&mut out);
        assert_eq!(out, bytes[..]);
        let Some((_payload, after)) = after.split_at_checked(header.length) else {
            return;
        };
        rest = after;
    }
});
