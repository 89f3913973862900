//! A cursor that is read is written the same, and no bytes panic.

#![no_main]

use audit::Cursor;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Ok(cursor) = Cursor::parse(bytes) {
        assert_eq!(cursor.to_string().as_bytes(), bytes);
    }
});
