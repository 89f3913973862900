//! The fields that are ours, and those that are the connection's: neither is ever passed on.

use http::header::{self, HeaderMap, HeaderName, HeaderValue};

use super::id::TRACEPARENT;
use crate::http1::field;

/// The call's id, towards the caller on every answer and on the hop between two proxies.
pub(crate) const BOTMESH_CALL: HeaderName = HeaderName::from_static("botmesh-call");

/// On the hop between two proxies: what a request asks to switch to, and what its answer switches to.
pub(crate) const BOTMESH_UPGRADE: HeaderName = HeaderName::from_static("botmesh-upgrade");

/// On the hop between two proxies: the port of a connection of which nothing is read, in the request that opens it and in
/// the answer that says that it is open.
pub(crate) const BOTMESH_TCP: HeaderName = HeaderName::from_static("botmesh-tcp");

/// The call's id, on refusals.
pub(crate) const BOTMESH_DENIED: HeaderName = HeaderName::from_static("botmesh-denied");

/// The caller's SPIFFE ID, towards the callee.
pub(crate) const CALLER: HeaderName = HeaderName::from_static("x-botmesh-caller");

/// Envoy's form of the caller's certificate, towards the callee.
pub(crate) const CLIENT_CERT: HeaderName = HeaderName::from_static("x-forwarded-client-cert");

/// Tells whether a name is ours, or would be to a server that reads field names as variables: CGI and its heirs turn
/// `-` into `_`, some turn every sign into `_`, and all ignore case. So signs are all the same here.
pub(crate) fn is_ours(name: &str) -> bool {
    let folded_prefix = |prefix: &str| {
        let mut letters = name.bytes();
        prefix.bytes().all(|expected| {
            letters.next().is_some_and(|letter| {
                if expected == b'-' {
                    !letter.is_ascii_alphanumeric()
                } else {
                    letter.eq_ignore_ascii_case(&expected)
                }
            })
        })
    };
    match name.as_bytes().first() {
        Some(b'x' | b'X') => folded_prefix("x-botmesh-") || folded_prefix("x-forwarded-client-cert"),
        Some(b'b' | b'B') => folded_prefix("botmesh-"),
        Some(_) | None => false,
    }
}

/// Tells whether a field is for one connection only (RFC 9110 §7.6.1), for proxies (§11.7), or is written anew.
pub(crate) fn is_hop_by_hop(name: &HeaderName) -> bool {
    name == header::CONNECTION
        || name == header::TE
        || name == header::TRAILER
        || name == header::TRANSFER_ENCODING
        || name == header::UPGRADE
        || name == header::PROXY_AUTHENTICATE
        || name == header::PROXY_AUTHORIZATION
        || matches!(name.as_str(), "keep-alive" | "proxy-connection" | "http2-settings")
}

/// Removes all that must not be passed on, `Host` and `Expect` included: the one is written anew, the other was
/// answered.
pub(crate) fn strip_request(headers: &mut HeaderMap) {
    strip(headers, |name| name == header::HOST || name == header::EXPECT);
}

/// Removes what tells strangers more than the bot meant to tell them: from where it came to the request, which a library
/// writes by itself, and the trace of the mesh, unless it is the bot's own.
pub(crate) fn strip_for_outside(headers: &mut HeaderMap, own_trace: Option<&HeaderValue>) {
    headers.remove(header::REFERER);
    if headers.get(TRACEPARENT) != own_trace {
        headers.remove(TRACEPARENT);
    }
}

/// Removes all that must not be passed on.
pub(crate) fn strip_answer(headers: &mut HeaderMap) {
    strip(headers, |_| false);
}

/// Removes from trailers what must not be passed on: a callee may read them as it reads its fields.
pub(crate) fn strip_trailers(trailers: &mut HeaderMap) {
    strip(trailers, |name| {
        name == header::HOST || name == header::CONTENT_LENGTH || field::is_disguised(name)
    });
}

/// Joins the pieces of a cookie, as HTTP/2 lets them come, into the one field that HTTP/1.1 has (RFC 9113 §8.2.3).
pub(crate) fn join_cookies(headers: &mut HeaderMap) {
    let mut pieces = headers.get_all(header::COOKIE).iter();
    let (Some(first), Some(second)) = (pieces.next(), pieces.next()) else {
        return;
    };
    let mut whole = first.as_bytes().to_vec();
    for piece in std::iter::once(second).chain(pieces) {
        whole.extend_from_slice(b"; ");
        whole.extend_from_slice(piece.as_bytes());
    }
    // The pieces are valid values, and so is what joins them.
    if let Ok(whole) = HeaderValue::from_maybe_shared(bytes::Bytes::from(whole)) {
        headers.insert(header::COOKIE, whole);
    }
}

fn strip(headers: &mut HeaderMap, also: impl Fn(&HeaderName) -> bool) {
    let mut found: Vec<HeaderName> = Vec::new();
    for name in headers.keys() {
        if is_hop_by_hop(name) || is_ours(name.as_str()) || also(name) {
            found.push(name.clone());
        }
    }
    for value in headers.get_all(header::CONNECTION) {
        let options = value.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
        // What frames the message is not removed on anybody's word; the reader of heads refuses such a field anyway.
        let names = options.filter_map(|option| HeaderName::from_bytes(option).ok());
        found.extend(names.filter(|name| *name != header::CONTENT_LENGTH));
    }
    for name in found {
        headers.remove(name);
    }
}

/// Tells whether a request looks like one that a browser made: for what a page can make a browser send, the page's
/// author and not the bot would be the caller (Fetch Metadata §2; Fetch §3.2).
///
/// `Sec-Fetch-Mode` alone is no sign: a browser that sends it sends `Sec-Fetch-Site` too (Fetch Metadata §3, both are
/// set for the same requests), and the `fetch` of Node, which bots use, sends it and nothing else.
pub(crate) fn is_browser_shaped(headers: &HeaderMap) -> bool {
    let is_sign = |name: &HeaderName| name.as_str().starts_with("sec-fetch-") && name.as_str() != "sec-fetch-mode";
    headers.contains_key(header::ORIGIN) || headers.keys().any(is_sign)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_of_our_names_is_ours_and_no_other_name_is() {
        for name in [
            "x-botmesh-caller",
            "X-BotMesh-Caller",
            "x_botmesh_caller",
            "x-botmesh_anything",
            "x.botmesh.caller",
            "x~botmesh|caller",
            "botmesh-call",
            "BOTMESH_DENIED",
            "x-forwarded-client-cert",
            "x_forwarded_client_cert",
            "X-Forwarded_Client-Cert",
            "x-forwarded-client-cert-chain",
        ] {
            assert!(is_ours(name), "{name}");
        }
        for name in [
            "x-forwarded-for",
            "x-botmeshx",
            "xbotmesh-caller",
            "bot-mesh",
            "host",
            "",
            "x",
            "botmesh",
        ] {
            assert!(!is_ours(name), "{name}");
        }
    }

    #[test]
    fn only_what_is_for_the_callee_is_left() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("host", "a"),
            ("expect", "100-continue"),
            ("connection", "keep-alive, x-named, x-botmesh-caller, content-length"),
            ("x-named", "1"),
            ("keep-alive", "5"),
            ("proxy-connection", "x"),
            ("proxy-authorization", "secret"),
            ("te", "trailers"),
            ("trailer", "x"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "h2c"),
            ("http2-settings", "x"),
            ("x_botmesh_caller", "forged"),
            ("botmesh-call", "forged"),
            ("x-forwarded-client-cert", "forged"),
            ("content-length", "3"),
            ("authorization", "theirs"),
            ("accept", "*/*"),
        ] {
            headers.append(name, HeaderValue::from_static(value));
        }
        let mut answer = headers.clone();
        strip_request(&mut headers);
        let mut left: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["accept", "authorization", "content-length"]);
        strip_answer(&mut answer);
        assert!(answer.contains_key("expect") && !answer.contains_key("botmesh-call"));
    }

    #[test]
    fn trailers_carry_no_name_of_ours_and_nothing_that_frames() {
        let named = [
            "x-botmesh-caller",
            "x_forwarded_client_cert",
            "content-length",
            "content_length",
            "transfer.encoding",
            "host",
            "te",
            "grpc-status",
        ];
        let mut trailers =
            HeaderMap::from_iter(named.map(|name| (HeaderName::from_static(name), HeaderValue::from_static("0"))));
        strip_trailers(&mut trailers);
        assert_eq!(
            trailers.keys().map(HeaderName::as_str).collect::<Vec<_>>(),
            ["grpc-status"]
        );
    }

    #[test]
    fn the_pieces_of_a_cookie_are_one_field_for_the_callee() {
        let mut headers = HeaderMap::new();
        for piece in ["a=b", "c=d", "e=f"] {
            headers.append(header::COOKIE, HeaderValue::from_static(piece));
        }
        join_cookies(&mut headers);
        assert_eq!(
            headers.get_all(header::COOKIE).iter().collect::<Vec<_>>(),
            ["a=b; c=d; e=f"]
        );
    }

    #[test]
    fn what_a_page_can_make_a_browser_send_is_told_apart() {
        let shaped = |name: &'static str| {
            is_browser_shaped(&HeaderMap::from_iter([(
                HeaderName::from_static(name),
                HeaderValue::from_static("x"),
            )]))
        };
        assert!(shaped("origin") && shaped("sec-fetch-site") && shaped("sec-fetch-dest") && shaped("sec-fetch-user"));
        assert!(!shaped("referer") && !shaped("user-agent"));
        assert!(!shaped("sec-fetch-mode"), "the fetch of Node sends this one alone");
    }
}
