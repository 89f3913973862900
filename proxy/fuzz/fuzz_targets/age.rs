//! A file that claims to be encrypted to a host's key is opened or refused, whatever it is; and what was sealed is opened.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use proxy::credentials::age::Identity;

/// One key for all inputs, so that the fuzzer finds the way past the header.
static KEY: LazyLock<Identity> = LazyLock::new(|| Identity::parse(TEXT).expect("a key"));

/// Made for this and used for nothing else.
const TEXT: &str = "AGE-SECRET-KEY-1D5YD40FQ6C5G2H3ZW2GXL2W8NWKTR0WZ56ZLS9WTFACQLUMDQLVS35M40L";

fuzz_target!(|bytes: &[u8]| {
    drop(KEY.open(bytes));
    drop(KEY.open(&[b"age-encryption.org/v1\n", bytes].concat()));
    if let Ok(text) = std::str::from_utf8(bytes)
        && let Some(key) = Identity::parse(text)
    {
        assert_eq!(**key.text().expect("it was read"), *text);
    }
    if let Ok(file) = KEY.seal(bytes) {
        assert_eq!(&**KEY.open(&file).expect("it was sealed to this key"), bytes);
    }
});
