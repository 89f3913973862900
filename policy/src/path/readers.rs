//! Whatever path is let through, other readers read as the same text: browsers and Node (the WHATWG URL standard, by the
//! `url` crate), nginx, and Go, the last two by decoders written here after their documented rules.

use proptest::prelude::*;

use super::CanonicalPath;

/// Replaces each escape by its byte, once; nothing for one without two hex digits.
fn decoded(raw: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut rest = raw.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        if byte == b'%' {
            let digits = std::str::from_utf8(tail.get(..2)?).ok()?;
            if !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
                return None;
            }
            bytes.push(u8::from_str_radix(digits, 16).ok()?);
            rest = &tail[2..];
        } else {
            bytes.push(byte);
            rest = tail;
        }
    }
    Some(bytes)
}

/// Resolves `.` and `..` and merges slashes, as RFC 3986 §5.2.4 and more; nothing for a path that climbs out.
fn resolved(path: &[u8]) -> Option<Vec<u8>> {
    let mut segments: Vec<&[u8]> = Vec::new();
    let mut ends_in_slash = false;
    for segment in path.split(|byte| *byte == b'/') {
        ends_in_slash = matches!(segment, b"" | b"." | b"..");
        match segment {
            b"" | b"." => {}
            b".." => drop(segments.pop()?),
            other => segments.push(other),
        }
    }
    let mut whole = vec![b'/'];
    whole.extend(segments.join(&b'/'));
    if ends_in_slash && whole.len() > 1 {
        whole.push(b'/');
    }
    Some(whole)
}

/// nginx, `location`: "after decoding the text encoded in the %XX form, resolving references to relative path components
/// . and .., and possible compression of two or more adjacent slashes into a single slash". A query begins at `?`, a
/// fragment at `#`; `%00` is refused.
fn nginx(raw: &str) -> Option<Vec<u8>> {
    let bytes = decoded(raw.split(['?', '#']).next()?)?;
    let plain = bytes.first() == Some(&b'/') && !bytes.contains(&0);
    plain.then(|| resolved(&bytes)).flatten()
}

/// Go, `url.ParseRequestURI` and `http.ServeMux`: the path up to `?` is unescaped, control characters and spaces in it are
/// refused before; the mux cleans it as `path.Clean` does, which keeps no `..` above the root.
fn go(raw: &str) -> Option<Vec<u8>> {
    if raw.bytes().any(|byte| byte <= b' ' || byte == 0x7f) {
        return None;
    }
    let bytes = decoded(raw.split('?').next()?)?;
    let rooted = bytes.first() == Some(&b'/');
    rooted.then(|| resolved(&bytes)).flatten()
}

/// The WHATWG URL standard.
fn whatwg(raw: &str) -> Option<Vec<u8>> {
    let url = url::Url::parse(&format!("http://a{raw}")).ok()?;
    decoded(url.path())
}

/// Pieces that readers are known to differ in, and plain ones.
const PIECES: [&str; 48] = [
    "/",
    "/",
    "/",
    "/",
    "//",
    ".",
    "..",
    "...",
    "%2e",
    "%2E",
    "%2e%2e",
    ".%2E",
    "%2f",
    "%2F",
    "%5c",
    "\\",
    "%25",
    "%252e",
    "%252f",
    "%",
    "%2",
    "%zz",
    "%00",
    "%0a",
    "%20",
    "%7f",
    "%3f",
    "%23",
    "%3b",
    ";",
    "?",
    "#",
    "+",
    "~",
    ":",
    "@",
    "*",
    "&=",
    "%c3%a9",
    "%c0%ae",
    "%e0%80%af",
    "%ff",
    "%u002e",
    "\u{e9}",
    "\t",
    "a",
    "Z9",
    "%41",
];

fn paths() -> impl Strategy<Value = String> {
    let pieces = prop::collection::vec(prop::sample::select(&PIECES[..]), 0..12);
    let tricky = pieces.prop_map(|pieces| format!("/{}", pieces.concat()));
    prop_oneof![4 => tricky, 1 => "/[ -~]{0,24}", 1 => "/([a-z.]{0,3}/|%[0-9a-fA-F]{2}|[.]{1,3}){0,8}"]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 20_000, ..ProptestConfig::default() })]

    #[test]
    fn every_reader_reads_an_accepted_path_as_the_same_text(raw in paths()) {
        let Ok(path) = CanonicalPath::parse(raw.as_bytes()) else {
            return Ok(());
        };
        let ours = decoded(path.as_str());
        prop_assert!(ours.is_some());
        for read in [raw.as_str(), path.as_str()] {
            prop_assert_eq!(&whatwg(read), &ours, "WHATWG: {}", read);
            prop_assert_eq!(&nginx(read), &ours, "nginx: {}", read);
            prop_assert_eq!(&go(read), &ours, "Go: {}", read);
        }
        // As text too: nobody puts another character in the place of a byte.
        prop_assert!(String::from_utf8(ours.unwrap_or_default()).is_ok());
    }
}

#[test]
fn the_readers_differ_in_what_is_refused() {
    let differ = |raw: &str| {
        let read = [whatwg(raw), nginx(raw), go(raw)];
        assert!(CanonicalPath::parse(raw.as_bytes()).is_err(), "{raw}");
        read.windows(2).any(|two| two[0] != two[1])
    };
    for raw in [
        "/a%2f..%2fb",
        "/a\\..\\b",
        "//a",
        "/a#b",
        "/a/%00",
        "/a/%2e%2e%2fb",
        "/../a",
    ] {
        assert!(differ(raw), "{raw}: {:?} {:?} {:?}", whatwg(raw), nginx(raw), go(raw));
    }
}
