//! Call ids and trace context.

use std::cell::RefCell;

use audit::CallId;
use http::{HeaderMap, HeaderName, HeaderValue};
use spiffe::time::Timestamp;

/// W3C Trace Context §3.2.
pub(crate) const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// W3C Trace Context §3.3.
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// How much randomness is fetched at once.
const POOL_BYTES: usize = 512;

thread_local! {
    /// Random bytes of this thread, and how many of them are used up.
    static POOL: RefCell<([u8; POOL_BYTES], usize)> = const { RefCell::new(([0; POOL_BYTES], POOL_BYTES)) };
}

/// The generator of random numbers failed: nothing can be named.
#[derive(Debug)]
pub(crate) struct NoRandomness;

fn random<const N: usize>() -> Result<[u8; N], NoRandomness> {
    POOL.with_borrow_mut(|(pool, used)| {
        if POOL_BYTES - *used < N {
            aws_lc_rs::rand::fill(pool).map_err(|_unspecified| NoRandomness)?;
            *used = 0;
        }
        let mut bytes = [0; N];
        for (to, from) in bytes.iter_mut().zip(pool.iter_mut().skip(*used)) {
            *to = std::mem::take(from);
        }
        *used += N;
        Ok(bytes)
    })
}

/// Makes the id of a call that begins at `now`: a UUID of version 7 (RFC 9562 §5.7).
pub(crate) fn mint(now: Timestamp) -> Result<CallId, NoRandomness> {
    let mut bytes: [u8; 16] = random()?;
    let millis = now.unix_millis().to_be_bytes();
    for (to, from) in bytes.iter_mut().zip(millis.iter().skip(2)) {
        *to = *from;
    }
    let [.., version, _, variant, _, _, _, _, _, _, _] = &mut bytes;
    *version = 0x70 | (*version & 0x0f);
    *variant = 0x80 | (*variant & 0x3f);
    Ok(CallId::from_bytes(bytes))
}

/// Returns the trace id of a call whose context is in `headers`; makes a context where there is none, or none that is
/// well-formed.
pub(crate) fn trace(headers: &mut HeaderMap) -> Result<String, NoRandomness> {
    let mut values = headers.get_all(TRACEPARENT).iter();
    if let (Some(value), None) = (values.next(), values.next())
        && let Some(id) = trace_id(value.as_bytes())
    {
        return Ok(id);
    }
    let random: [u8; 24] = random()?;
    let mut text = String::with_capacity(55);
    text.push_str("00-");
    for (at, byte) in random.iter().enumerate() {
        if at == 16 {
            text.push('-');
        }
        push_hex(&mut text, *byte);
    }
    text.push_str("-00");
    let id = text.get(3..35).unwrap_or_default().to_owned();
    headers.remove(TRACESTATE);
    if let Ok(value) = HeaderValue::from_maybe_shared(bytes::Bytes::from(text)) {
        headers.insert(TRACEPARENT, value);
    }
    Ok(id)
}

/// Reads a `traceparent` of version 00 (W3C Trace Context §3.2.2) and returns its trace id.
fn trace_id(text: &[u8]) -> Option<String> {
    let lower_hex = |part: &[u8], length: usize| {
        part.len() == length && part.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    };
    let zero = |part: &[u8]| part.iter().all(|byte| *byte == b'0');
    let mut parts = text.split(|byte| *byte == b'-');
    let (version, trace, parent, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let formed = version == b"00" && lower_hex(trace, 32) && lower_hex(parent, 16) && lower_hex(flags, 2);
    if !formed || zero(trace) || zero(parent) || parts.next().is_some() {
        return None;
    }
    std::str::from_utf8(trace).ok().map(str::to_owned)
}

/// Appends a byte as two lower-case hexadecimal digits.
pub(crate) fn push_hex(text: &mut String, byte: u8) {
    for half in [byte >> 4, byte & 0xf] {
        text.push(char::from_digit(half.into(), 16).unwrap_or('0'));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_id_is_a_version_7_uuid_of_its_time() {
        let id = mint(Timestamp::from_unix_millis(0x017f_22e2_79b0)).unwrap();
        let text = id.to_string();
        assert_eq!(text.get(..15), Some("017f22e2-79b0-7"));
        assert!(matches!(text.as_bytes()[19], b'8' | b'9' | b'a' | b'b'), "{text}");
        let mut ids: Vec<_> = (0..1000)
            .map(|_| mint(Timestamp::from_unix_millis(5)).unwrap())
            .collect();
        ids.sort();
        ids.dedup();
        assert_eq!(ids.len(), 1000);
    }

    #[test]
    fn a_well_formed_trace_context_is_passed_on_and_any_other_is_replaced() {
        let given = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let mut headers = HeaderMap::from_iter([(TRACEPARENT, HeaderValue::from_static(given))]);
        assert_eq!(trace(&mut headers).unwrap(), "0af7651916cd43dd8448eb211c80319c");
        assert_eq!(headers[TRACEPARENT], given);
        for bad in [
            "01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0AF7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-x",
            "junk",
        ] {
            let mut headers = HeaderMap::from_iter([
                (TRACEPARENT, HeaderValue::from_static(bad)),
                (TRACESTATE, HeaderValue::from_static("a=b")),
            ]);
            let id = trace(&mut headers).unwrap();
            let made = headers[TRACEPARENT].to_str().unwrap();
            assert_eq!(trace_id(made.as_bytes()), Some(id), "{made}");
            assert!(!headers.contains_key(TRACESTATE));
        }
    }
}
