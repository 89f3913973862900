//! Whatever a token endpoint answers, it is a token that can be sent or it is refused.
#![no_main]

use libfuzzer_sys::fuzz_target;
use proxy::credentials::exchange::answer::{granted, installed};
use spiffe::time::Timestamp;

fuzz_target!(|bytes: &[u8]| {
    drop(granted(bytes));
    drop(installed(bytes, Timestamp::from_unix_seconds(0)));
    // The way past the outer form.
    if let Ok(text) = std::str::from_utf8(bytes) {
        let (life, token) = (
            format!(r#"{{"token_type":"Bearer","access_token":"0123456789","expires_in":{text}}}"#),
            format!(r#"{{"token_type":"Bearer","access_token":"{text}"}}"#),
        );
        drop(granted(life.as_bytes()));
        drop(granted(token.as_bytes()));
    }
});
