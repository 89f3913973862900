use proptest::prelude::*;

use super::*;

fn canonical(raw: &str) -> String {
    CanonicalPath::parse(raw.as_bytes()).unwrap().as_str().to_owned()
}

fn refusal(raw: &[u8]) -> PathError {
    CanonicalPath::parse(raw).unwrap_err()
}

#[test]
fn plain_paths_stay_as_they_are() {
    for path in [
        "/",
        "/a",
        "/a/",
        "/a/b.c/d-e_f~g",
        "/!$&'()*+,=:@",
        "/...",
        "/.a",
        "/a..",
        "/%C3%A9",
        "/100%25",
        "/%25g",
    ] {
        assert_eq!(canonical(path), path);
    }
}

#[test]
fn unreserved_escapes_are_decoded_once_and_others_are_upper_cased() {
    for (raw, path) in [
        ("/%61%41%7a%5A%30%39", "/aAzZ09"),
        ("/%2d%2E%5f%7e", "/-._~"),
        ("/a%2eb", "/a.b"),
        ("/%c3%a9", "/%C3%A9"),
        ("/%20%3f%3B%23", "/%20%3F%3B%23"),
        ("/%3a%40%0a%c3%bf", "/%3A%40%0A%C3%BF"),
    ] {
        assert_eq!(canonical(raw), path, "{raw}");
    }
}

#[test]
fn a_path_starts_with_a_slash() {
    for raw in [&b""[..], b"a", b"*", b"http://a/", b"%2Fa"] {
        assert_eq!(refusal(raw), PathError::NoLeadingSlash);
    }
}

#[test]
fn a_path_has_at_most_8_kib() {
    let longest = format!("/{}", "a".repeat(PATH_BYTES_MAX - 1));
    assert_eq!(canonical(&longest), longest);
    assert_eq!(refusal(format!("{longest}a").as_bytes()), PathError::TooLong);
}

#[test]
fn delimiters_that_servers_read_differently_are_refused() {
    assert_eq!(refusal(b"/a?b"), PathError::Query);
    assert_eq!(refusal(b"/a#b"), PathError::Fragment);
    assert_eq!(refusal(b"/a\\b"), PathError::Backslash);
    assert_eq!(refusal(b"/a;b"), PathError::Semicolon);
}

#[test]
fn bytes_outside_visible_ascii_are_refused() {
    for byte in [0, 9, 10, 13, 0x1f, 0x20, 0x7f, 0x80, 0xc3, 0xff] {
        assert_eq!(refusal(&[b'/', byte]), PathError::Byte(byte));
    }
    assert_eq!(canonical("/!~"), "/!~", "0x21 and 0x7e are the edges");
}

#[test]
fn escapes_that_are_not_utf8_are_refused() {
    for raw in [
        &b"/%c0%ae%c0%ae/a"[..],
        b"/%e0%80%af",
        b"/%f0%80%80%af",
        b"/%ff",
        b"/%c3",
        b"/%c3x%a9",
        b"/%ed%a0%80",
        b"/%f4%90%80%80",
    ] {
        assert_eq!(refusal(raw), PathError::NotUtf8);
    }
    assert_eq!(
        canonical("/%c3%a9%E2%82%ac%f0%9f%98%80"),
        "/%C3%A9%E2%82%AC%F0%9F%98%80"
    );
}

#[test]
fn characters_outside_the_grammar_of_a_path_are_refused() {
    for character in ['"', '<', '>', '[', ']', '^', '`', '{', '|', '}'] {
        assert_eq!(
            refusal(format!("/{character}").as_bytes()),
            PathError::Character(character)
        );
    }
}

#[test]
fn empty_segments_are_refused_but_a_trailing_slash_is_not() {
    for raw in [&b"//"[..], b"//a", b"/a//b", b"/a//"] {
        assert_eq!(refusal(raw), PathError::EmptySegment);
    }
    assert_eq!(canonical("/a/"), "/a/");
}

#[test]
fn dot_segments_are_refused_in_every_form() {
    for raw in [
        "/.",
        "/..",
        "/./a",
        "/a/../b",
        "/a/..",
        "/%2e",
        "/%2E%2e/a",
        "/.%2e",
        "/a/%2e./b",
    ] {
        assert_eq!(refusal(raw.as_bytes()), PathError::DotSegment, "{raw}");
    }
}

#[test]
fn escapes_of_separators_and_nul_are_refused() {
    assert_eq!(refusal(b"/a%2fb"), PathError::EncodedSlash);
    assert_eq!(refusal(b"/a%2Fb"), PathError::EncodedSlash);
    assert_eq!(refusal(b"/a%5cb"), PathError::EncodedBackslash);
    assert_eq!(refusal(b"/a%5Cb"), PathError::EncodedBackslash);
    assert_eq!(refusal(b"/a%00b"), PathError::EncodedNul);
}

#[test]
fn double_encoding_is_refused_even_if_it_appears_by_decoding() {
    for raw in ["/%252f", "/%25a", "/%25%32%66", "/%2541", "/%25F", "/x%25%41"] {
        assert_eq!(refusal(raw.as_bytes()), PathError::DoubleEncoding, "{raw}");
    }
    for raw in ["/%25", "/%25/a", "/%25%25", "/%25g", "/a%25-"] {
        assert_eq!(canonical(raw), raw);
    }
}

#[test]
fn broken_escapes_are_refused() {
    for raw in [
        "/%", "/%4", "/%zz", "/%4g", "/%g4", "/%%41", "/a%", "/%2/", "/% 1", "/%+1",
    ] {
        assert_eq!(refusal(raw.as_bytes()), PathError::BrokenEscape, "{raw}");
    }
}

#[test]
fn each_refusal_has_a_word_and_a_text_of_its_own() {
    let all = [
        PathError::NoLeadingSlash,
        PathError::TooLong,
        PathError::Query,
        PathError::Fragment,
        PathError::Backslash,
        PathError::Semicolon,
        PathError::Byte(0),
        PathError::Character('|'),
        PathError::EmptySegment,
        PathError::DotSegment,
        PathError::EncodedSlash,
        PathError::EncodedBackslash,
        PathError::EncodedNul,
        PathError::DoubleEncoding,
        PathError::BrokenEscape,
    ];
    let words: std::collections::BTreeSet<_> = all.iter().map(|error| error.reason()).collect();
    let texts: std::collections::BTreeSet<_> = all.iter().map(ToString::to_string).collect();
    assert_eq!((words.len(), texts.len()), (all.len(), all.len()));
    assert!(words.iter().all(|word| word.starts_with("path_")));
}

/// Paths near the edges: pieces that matter, in any order.
fn any_path() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        Just("/".to_owned()),
        Just(".".to_owned()),
        Just("%".to_owned()),
        "%[0-9a-fA-F]{2}",
        "%2[0-9a-fA-F]",
        "[ -~]",
        "[a-z0-9]{1,3}",
        "\\PC",
    ];
    proptest::collection::vec(piece, 0..12).prop_map(|pieces| format!("/{}", pieces.concat()))
}

proptest! {
    #[test]
    fn reading_a_canonical_path_again_changes_nothing(raw in any_path()) {
        if let Ok(path) = CanonicalPath::parse(raw.as_bytes()) {
            prop_assert_eq!(CanonicalPath::parse(path.as_str().as_bytes()), Ok(path));
        }
    }

    #[test]
    fn no_bytes_make_the_reader_panic(raw in proptest::collection::vec(any::<u8>(), 0..64)) {
        if let Ok(path) = CanonicalPath::parse(&raw) {
            prop_assert!(path.as_str().is_ascii() && path.as_str().starts_with('/'));
        }
    }

    /// A lenient server decodes everything, merges slashes and resolves dots: it finds the same segments.
    #[test]
    fn a_lenient_reader_finds_the_same_segments(raw in any_path()) {
        if let Ok(path) = CanonicalPath::parse(raw.as_bytes()) {
            let mut segments: Vec<Vec<u8>> = Vec::new();
            for segment in decoded(raw.as_bytes()).split(|byte| matches!(byte, b'/' | b'\\')) {
                match segment {
                    b"" | b"." => {}
                    b".." => drop(segments.pop()),
                    other => segments.push(other.to_vec()),
                }
            }
            let ours: Vec<Vec<u8>> = path.as_str().split('/').filter(|s| !s.is_empty()).map(|s| decoded(s.as_bytes())).collect();
            prop_assert_eq!(segments, ours);
        }
    }
}

/// Decodes every escape once, as a server without rules does.
fn decoded(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = text;
    while let Some((&byte, tail)) = rest.split_first() {
        let digits = tail.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
        match digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(value) if byte == b'%' => {
                out.push(value);
                rest = &tail[2..];
            }
            _ => {
                out.push(byte);
                rest = tail;
            }
        }
    }
    out
}
