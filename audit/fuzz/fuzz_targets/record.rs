//! A record that is read is written as one that reads back the same.

#![no_main]

use audit::Record;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Ok(record) = Record::decode(bytes) else { return };
    // Escapes can make the line that we write longer than the one we read.
    let Ok(line) = record.encode() else { return };
    assert!(!line.contains(&b'\n'));
    let again = Record::decode(&line).expect("what is written reads back");
    assert_eq!(again.encode().expect("it fits again"), line);
});
