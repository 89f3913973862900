//! No bytes make the reader of a ClientHello panic, and what it says of some bytes more bytes do not change.
#![no_main]

use libfuzzer_sys::fuzz_target;
use proxy::outside::hello::server_name;

fuzz_target!(|bytes: &[u8]| {
    let whole = server_name(bytes);
    for end in 0..bytes.len() {
        match server_name(&bytes[..end]) {
            Ok(None) => {}
            settled => {
                assert_eq!(settled.is_ok(), whole.is_ok());
                if settled.is_ok() {
                    assert_eq!(settled, whole);
                }
                break;
            }
        }
    }
});
