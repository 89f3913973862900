//! No text makes the parser panic, and what it accepts is what it writes.
#![no_main]

use ca_api::JoinToken;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(token) = JoinToken::parse(text) {
        let again = JoinToken::parse(&token.to_string()).expect("a written token is read");
        assert_eq!(again.to_string(), token.to_string());
        assert_eq!(again.secret().expose(), token.secret().expose());
    }
});
