//! The forms in which a value could leave: as it is, in Base64, in hexadecimal, percent-encoded, and as JSON writes it.

use std::collections::BTreeSet;

use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use zeroize::Zeroizing;

/// Forms of less bytes are not looked for: they are found by chance.
const FORM_BYTES_MIN: usize = 8;

/// Gives every form of a value.
///
/// Base64 of a text depends on where in the text the value begins, so there are three of each alphabet; the characters at
/// their ends that depend on what stands around the value are left out. Cases of hexadecimal digits are not mixed.
pub(super) fn of(value: &[u8]) -> Vec<Zeroizing<Vec<u8>>> {
    let mut forms: BTreeSet<Vec<u8>> = BTreeSet::from([value.to_vec()]);
    for engine in [&STANDARD_NO_PAD, &URL_SAFE_NO_PAD] {
        for before in 0..3 {
            forms.insert(base64_inside(engine, value, before));
        }
    }
    for upper in [false, true] {
        forms.insert(hex(value, upper));
        forms.insert(percent(value, upper, false));
        forms.insert(percent(value, upper, true));
    }
    for slash in [false, true] {
        forms.insert(json(value, slash));
    }
    let long = forms.into_iter().filter(|form| form.len() >= FORM_BYTES_MIN);
    long.map(Zeroizing::new).collect()
}

/// Base64 of a text in which `before` bytes, modulo 3, stand before the value.
fn base64_inside(engine: &impl base64::Engine, value: &[u8], before: usize) -> Vec<u8> {
    let mut text = Zeroizing::new(vec![0; before]);
    text.extend_from_slice(value);
    let encoded = engine.encode(&text).into_bytes();
    // A character holds six bits. Those that hold a bit of what stands before or after the value are no part of the form.
    let first = (before * 8).div_ceil(6);
    let last = text.len() * 8 / 6;
    encoded.get(first..last).unwrap_or_default().to_vec()
}

fn hex(value: &[u8], upper: bool) -> Vec<u8> {
    let digits: &[u8; 16] = if upper {
        b"0123456789ABCDEF"
    } else {
        b"0123456789abcdef"
    };
    let digit = |number: u8| digits.get(usize::from(number)).copied().unwrap_or_default();
    value
        .iter()
        .flat_map(|byte| [digit(byte >> 4), digit(byte & 15)])
        .collect()
}

/// Everything but the unreserved characters of RFC 3986 §2.3 as `%XX`; a space as `+`, if forms write it so.
fn percent(value: &[u8], upper: bool, plus: bool) -> Vec<u8> {
    let mut out = Vec::with_capacity(value.len());
    for byte in value {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(*byte),
            b' ' if plus => out.push(b'+'),
            _ => {
                out.push(b'%');
                out.extend(hex(&[*byte], upper));
            }
        }
    }
    out
}

/// As a JSON string has it, with or without the escape that some writers put before `/`.
fn json(value: &[u8], slash: bool) -> Vec<u8> {
    let mut out = Vec::with_capacity(value.len());
    for byte in value {
        if matches!(byte, b'"' | b'\\') || (slash && *byte == b'/') {
            out.push(b'\\');
        }
        out.push(*byte);
    }
    out
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::{STANDARD, URL_SAFE};
    use proptest::prelude::*;

    use super::*;

    fn found(value: &[u8], text: &[u8]) -> bool {
        of(value).iter().any(|form| memchr::memmem::find(text, form).is_some())
    }

    proptest! {
        #[test]
        fn a_value_is_found_in_any_text_however_it_is_written(
            value in "[ -~]{12,60}",
            before in prop::collection::vec(any::<u8>(), 0..8),
            after in prop::collection::vec(any::<u8>(), 0..8),
        ) {
            let value = value.as_bytes();
            let text = [&before[..], value, &after[..]].concat();
            prop_assert!(found(value, &text));
            prop_assert!(found(value, STANDARD.encode(&text).as_bytes()));
            prop_assert!(found(value, URL_SAFE.encode(&text).as_bytes()));
            prop_assert!(found(value, STANDARD_NO_PAD.encode(&text).as_bytes()));
            for upper in [false, true] {
                prop_assert!(found(value, &hex(&text, upper)));
                for plus in [false, true] {
                    prop_assert!(found(value, &percent(&text, upper, plus)));
                }
            }
            let written = serde_json::to_string(std::str::from_utf8(value).unwrap()).unwrap();
            prop_assert!(found(value, written.as_bytes()));
            prop_assert!(found(value, written.replace('/', "\\/").as_bytes()));
        }
    }

    #[test]
    fn a_form_that_chance_would_find_is_none() {
        assert!(of(b"12345678").iter().all(|form| form.len() >= FORM_BYTES_MIN));
        assert!(!found(b"sk-ant-0123456789", b"sk-ant-0123456780 and its like"));
    }
}
