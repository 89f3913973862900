//! What this writes and reads, and what the program `age` (Debian) writes and reads, each by the other.

use std::io::Write as _;
use std::process::{Command, Stdio};

use proptest::prelude::*;

use super::*;

#[test]
fn what_is_sealed_is_opened_by_its_key_and_no_other() {
    let (one, other) = (Identity::generate().unwrap(), Identity::generate().unwrap());
    for value in [&b""[..], b"sk-ant-0123456789", &[7; PIECE_BYTES_MAX]] {
        let file = one.seal(value).unwrap();
        assert_eq!(&**one.open(&file).unwrap(), value);
        assert_eq!(other.open(&file).unwrap_err(), NotOpened::OtherKey);
        assert_ne!(file, one.seal(value).unwrap(), "no two files are alike");
    }
    assert_eq!(one.seal(&[7; PIECE_BYTES_MAX + 1]), Err(Failed));
}

#[test]
fn a_key_is_read_as_it_was_written_and_in_no_other_spelling() {
    let key = Identity::generate().unwrap();
    let text = key.text().unwrap();
    assert!(text.starts_with("AGE-SECRET-KEY-1") && key.recipient().unwrap().starts_with("age1"));
    let again = Identity::parse(&text).unwrap();
    assert_eq!(again.recipient(), key.recipient());
    let mut changed = text.to_string();
    let last = changed.pop().unwrap();
    changed.push(if last == 'Q' { 'P' } else { 'Q' });
    for text in [
        "",
        "AGE-SECRET-KEY-1",
        &text.to_ascii_lowercase(),
        &changed,
        &key.recipient().unwrap(),
    ] {
        assert!(Identity::parse(text).is_none(), "{text}");
    }
}

#[test]
fn a_value_is_sealed_to_a_host_by_what_it_tells_alone() {
    let host = Identity::generate().unwrap();
    let told = host.recipient().unwrap();
    let file = Recipient::parse(&told).unwrap().seal(b"sk-ant-0123456789").unwrap();
    assert_eq!(&**host.open(&file).unwrap(), b"sk-ant-0123456789");
    let mut changed = told.clone();
    let last = changed.pop().unwrap();
    changed.push(if last == 'q' { 'p' } else { 'q' });
    for text in ["", "age1", &told.to_ascii_uppercase(), &changed, &host.text().unwrap()] {
        assert_eq!(Recipient::parse(text), None, "{text}");
    }
    // A point of small order: whoever knows it opens everything that is sealed to it.
    assert_eq!(Recipient([0; KEY_BYTES]).seal(b"sk-ant-0123456789"), Err(Failed));
}

#[test]
fn every_changed_byte_of_a_file_is_noticed() {
    let key = Identity::generate().unwrap();
    let file = key.seal(b"sk-ant-0123456789").unwrap();
    for at in 0..file.len() {
        let mut changed = file.clone();
        changed[at] ^= 1;
        assert!(key.open(&changed).is_err(), "byte {at}");
        assert!(key.open(&file[..at]).is_err(), "cut at {at}");
    }
    assert!(key.open(&[&file[..], b"x"].concat()).is_err());
}

#[test]
fn stanzas_of_other_keys_and_kinds_are_passed_over() {
    let (key, other) = (Identity::generate().unwrap(), Identity::generate().unwrap());
    let text = String::from_utf8_lossy(&key.seal(b"value").unwrap()).into_owned();
    let header = text.split("---").next().unwrap();
    let lines = header.strip_prefix("age-encryption.org/v1\n").unwrap();
    // Enough to be read; the signature is another matter.
    let read = |text: &str| Header::read(text.as_bytes()).map(|header| header.stanzas.len());
    assert_eq!(read(&format!("{lines}--- AAAA\n")), Some(1));
    assert_eq!(read(&format!("-> grease a b\n\n{lines}--- AAAA\n")), Some(2));
    let full = "A".repeat(64);
    assert_eq!(read(&format!("-> long\n{full}\n{full}\n\n{lines}--- AAAA\n")), Some(2));
    for wrong in [
        "--- AAAA\n".to_owned(),
        format!("{lines}--- AAA A\n"),
        format!("{lines}---AAAA\n"),
        format!("->  X25519\n\n{lines}--- AAAA\n"),
        format!("-> a\n{full}A\n{lines}--- AAAA\n"),
        format!("-> a\nA=\n{lines}--- AAAA\n"),
        lines.to_owned(),
        String::new(),
    ] {
        assert_eq!(read(&wrong), None, "{wrong}");
    }
    assert!(other.open(text.as_bytes()).is_err());
}

proptest! {
    #[test]
    fn no_bytes_are_more_than_refused(bytes: Vec<u8>, begin in any::<bool>()) {
        let key = Identity::generate().unwrap();
        let file = if begin { [VERSION, &bytes].concat() } else { bytes };
        prop_assert!(key.open(&file).is_err());
    }

    #[test]
    fn lines_that_look_like_a_header_are_more_than_refused_never(lines in "(-> [!-~ ]{0,20}\n[A-Za-z0-9+/]{0,70}\n){0,4}--- [A-Za-z0-9+/]{0,50}\n") {
        if let Some(header) = Header::read(lines.as_bytes()) {
            prop_assert!(header.signed < header.length && header.length == lines.len());
        }
    }
}

/// Runs a program of age with input, and gives its output; nothing where it is not there.
fn program(name: &str, arguments: &[&str], input: &[u8]) -> Option<(bool, Vec<u8>)> {
    let mut child = Command::new(name)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .ok()?;
    child.stdin.take().unwrap().write_all(input).unwrap();
    let out = child.wait_with_output().unwrap();
    Some((out.status.success(), out.stdout))
}

#[test]
fn the_program_age_reads_what_is_written_here_and_the_other_way_round() {
    let folder = tempfile::tempdir().unwrap();
    let key = Identity::generate().unwrap();
    let file = folder.path().join("key");
    std::fs::write(&file, &**key.text().unwrap()).unwrap();
    let (path, recipient) = (file.display().to_string(), key.recipient().unwrap());
    let value = b"sk-ant-0123456789";
    let Some((done, read)) = program("age", &["-d", "-i", &path], &key.seal(value).unwrap()) else {
        println!("skipped: the program age is not here");
        return;
    };
    assert!(done);
    assert_eq!(read, value);
    let other = Identity::generate().unwrap().recipient().unwrap();
    for armour in [&[][..], &["-a"]] {
        let arguments = [&["-r", &other, "-r", &recipient], armour].concat();
        let (_, sealed) = program("age", &arguments, value).unwrap();
        assert_eq!(&**key.open(&sealed).unwrap(), value, "{armour:?}");
    }
}
