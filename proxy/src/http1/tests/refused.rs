//! The table of requests that are refused, each with the one word for it.

use super::{parse, read_all, refusal};
use crate::http1::{FIELDS_MAX, HEAD_BYTES_MAX};

const H: &str = "Host: orders.prod.mesh\r\n";

/// Checks a table of heads (without their last empty line) and words.
fn check(table: &[(&str, &str)]) {
    for (head, word) in table {
        let head = format!("{head}\r\n");
        assert_eq!(refusal(head.as_bytes()), Err((*word).to_owned()), "{head:?}");
    }
}

#[test]
fn request_lines_that_are_not_exactly_three_parts_are_refused() {
    check(&[
        ("GET /\r\nHost: a\r\n", "request_line"),
        ("GET  / HTTP/1.1\r\nHost: a\r\n", "request_line"),
        ("GET /  HTTP/1.1\r\nHost: a\r\n", "request_line"),
        ("GET /a b HTTP/1.1\r\nHost: a\r\n", "request_line"),
        ("GET / HTTP/1.1 \r\nHost: a\r\n", "request_line"),
        ("GET\t/ HTTP/1.1\r\nHost: a\r\n", "request_line"),
        (" GET / HTTP/1.1\r\nHost: a\r\n", "method"),
        ("\r\nGET / HTTP/1.1\r\nHost: a\r\n", "method"),
        ("get / HTTP/1.1\r\nHost: a\r\n", "method"),
        ("Get / HTTP/1.1\r\nHost: a\r\n", "method"),
        ("G3T / HTTP/1.1\r\nHost: a\r\n", "method"),
        ("GET\0 / HTTP/1.1\r\nHost: a\r\n", "method"),
        ("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA / HTTP/1.1\r\nHost: a\r\n", "method"),
        ("PRI * HTTP/2.0\r\n", "method"),
        ("GET / HTTP/1.2\r\nHost: a\r\n", "version"),
        ("GET / HTTP/2.0\r\nHost: a\r\n", "version"),
        ("GET / HTTP/0.9\r\nHost: a\r\n", "version"),
        ("GET / http/1.1\r\nHost: a\r\n", "version"),
        ("GET / HTTP/1.10\r\nHost: a\r\n", "version"),
        ("GET / HTTP/11\r\nHost: a\r\n", "version"),
    ]);
}

#[test]
fn targets_that_do_not_go_with_their_method_are_refused() {
    check(&[
        ("GET orders HTTP/1.1\r\nHost: a\r\n", "target"),
        ("GET * HTTP/1.1\r\nHost: a\r\n", "target"),
        ("OPTIONS ** HTTP/1.1\r\nHost: a\r\n", "target"),
        ("OPTIONS http://a HTTP/1.1\r\nHost: a\r\n", "target"),
        ("GET a:80 HTTP/1.1\r\nHost: a:80\r\n", "target"),
        ("CONNECT /x HTTP/1.1\r\nHost: a\r\n", "host"),
        ("CONNECT a HTTP/1.1\r\nHost: a\r\n", "target"),
        ("CONNECT http://a:80 HTTP/1.1\r\nHost: a:80\r\n", "host"),
        ("CONNECT a:0 HTTP/1.1\r\nHost: a:0\r\n", "host"),
        ("CONNECT a:99999 HTTP/1.1\r\nHost: a:99999\r\n", "host"),
        ("CONNECT a:80 HTTP/1.1\r\nHost: b:80\r\n", "host_differs"),
        ("CONNECT a:80 HTTP/1.1\r\nHost: a:81\r\n", "host_differs"),
        ("GET ftp://a/ HTTP/1.1\r\nHost: a\r\n", "target"),
        ("GET http:///x HTTP/1.1\r\nHost: a\r\n", "host"),
        ("GET http://u@a/ HTTP/1.1\r\nHost: a\r\n", "host"),
        ("GET http://u:p@a/ HTTP/1.1\r\nHost: a\r\n", "host"),
        ("GET http://a?x HTTP/1.1\r\nHost: a\r\n", "target"),
        ("GET http://a#x HTTP/1.1\r\nHost: a\r\n", "target"),
        ("GET http://a\\x HTTP/1.1\r\nHost: a\r\n", "target"),
        ("GET /\u{1}x HTTP/1.1\r\nHost: a\r\n", "target"),
        ("GET /\u{7f} HTTP/1.1\r\nHost: a\r\n", "target"),
        ("GET /\r HTTP/1.1\r\nHost: a\r\n", "target"),
        ("GET http://evil/secret HTTP/1.1\r\nHost: good\r\n", "host_differs"),
        ("GET http://good:8080/ HTTP/1.1\r\nHost: good\r\n", "host_differs"),
    ]);
}

#[test]
fn hosts_that_could_be_read_in_two_ways_are_refused() {
    check(&[
        ("GET / HTTP/1.1\r\n", "no_host"),
        ("GET / HTTP/1.0\r\n", "no_host"),
        ("GET http://a/ HTTP/1.0\r\n", "no_host"),
        ("CONNECT a:80 HTTP/1.1\r\n", "no_host"),
        ("CONNECT a:80 HTTP/1.0\r\nHost: b:80\r\n", "host_differs"),
        ("GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n", "two_hosts"),
        ("GET / HTTP/1.1\r\nHost: a\r\nhOsT: b\r\n", "two_hosts"),
        ("GET / HTTP/1.1\r\nHost:\r\n", "host"),
        ("GET / HTTP/1.1\r\nHost: a, b\r\n", "host"),
        ("GET / HTTP/1.1\r\nHost: a b\r\n", "host"),
        ("GET / HTTP/1.1\r\nHost: a:\r\n", "host"),
        ("GET / HTTP/1.1\r\nHost: a:080\r\n", "host"),
        ("GET / HTTP/1.1\r\nHost: a:+80\r\n", "host"),
        ("GET / HTTP/1.1\r\nHost: a:80:80\r\n", "host"),
        ("GET / HTTP/1.1\r\nHost: a:65536\r\n", "host"),
        ("GET / HTTP/1.1\r\nHost: u@a\r\n", "host"),
        ("GET / HTTP/1.1\r\nHost: a/b\r\n", "host"),
        ("GET / HTTP/1.1\r\nHost: a%2eb\r\n", "host"),
        ("GET / HTTP/1.1\r\nHost: a.\r\n", "host"),
        ("GET / HTTP/1.1\r\nHost: .a\r\n", "host"),
        ("GET / HTTP/1.1\r\nHost: a..b\r\n", "host"),
        ("GET / HTTP/1.1\r\nHost: [::1\r\n", "host"),
        ("GET / HTTP/1.1\r\nHost: [1.2.3.4]\r\n", "host"),
        ("GET / HTTP/1.1\r\nHost: [::1]x\r\n", "host"),
        ("GET / HTTP/1.1\r\nHost: \u{e9}\r\n", "host"),
    ]);
}

#[test]
fn field_lines_that_rfc_9112_lets_be_repaired_are_refused() {
    let get = format!("GET / HTTP/1.1\r\n{H}");
    for (line, word) in [
        ("X : a\r\n", "space_before_colon"),
        ("X\t: a\r\n", "space_before_colon"),
        (" X: a\r\n", "fold"),
        ("X: a\r\n b\r\n", "fold"),
        ("X: a\r\n\tb\r\n", "fold"),
        ("X\r\n", "no_colon"),
        (": a\r\n", "field_name"),
        ("X(: a\r\n", "field_name"),
        ("X\u{0}: a\r\n", "field_name"),
        ("X\u{e9}: a\r\n", "field_name"),
        ("X: a\u{0}b\r\n", "field_value"),
        ("X: a\u{7}b\r\n", "field_value"),
        ("X: a\u{7f}\r\n", "field_value"),
        ("X: a\rb\r\n", "bare_cr"),
        ("X: a\r\r\n", "bare_cr"),
        ("X: a\n", "bare_lf"),
        ("X: a\n\r\n", "bare_lf"),
    ] {
        let head = format!("{get}{line}\r\n");
        assert_eq!(refusal(head.as_bytes()), Err(word.to_owned()), "{head:?}");
    }
    check(&[
        ("GET / HTTP/1.1\nHost: a\n", "bare_lf"),
        ("GET / HTTP/1.1\r\nHost: a\r\n\n", "bare_lf"),
        ("GET / HTTP/1.1\r\n Host: a\r\n", "fold"),
    ]);
}

#[test]
fn every_framing_that_smuggles_is_refused() {
    let post = |fields: &str| format!("POST / HTTP/1.1\r\n{H}{fields}\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\n{H}\r\n");
    for (fields, word) in [
        (
            "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
            "length_and_coding",
        ),
        (
            "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
            "length_and_coding",
        ),
        ("Content-Length: 5\r\nContent-Length: 5\r\n", "two_lengths"),
        ("Content-Length: 5\r\nContent-Length: 6\r\n", "two_lengths"),
        ("Content-Length: 5, 5\r\n", "length"),
        ("Content-Length: +5\r\n", "length"),
        ("Content-Length: -5\r\n", "length"),
        ("Content-Length: 0x5\r\n", "length"),
        ("Content-Length: 5 5\r\n", "length"),
        ("Content-Length: 5;\r\n", "length"),
        ("Content-Length:\r\n", "length"),
        ("Content-Length: 9223372036854775809\r\n", "length"),
        ("Content-Length: 99999999999999999999\r\n", "length"),
        ("Transfer-Encoding: xchunked\r\n", "coding"),
        ("Transfer-Encoding: gzip, chunked\r\n", "coding"),
        ("Transfer-Encoding: chunked, chunked\r\n", "coding"),
        ("Transfer-Encoding: identity\r\n", "coding"),
        ("Transfer-Encoding: chunked;q=1\r\n", "coding"),
        ("Transfer-Encoding: \"chunked\"\r\n", "coding"),
        ("Transfer-Encoding: \u{b}chunked\r\n", "field_value"),
        ("Transfer-Encoding:\r\n", "coding"),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", "coding"),
        ("Transfer-Encoding : chunked\r\n", "space_before_colon"),
        ("Content-Length: 5\r\n : x\r\n", "fold"),
        ("Connection: content-length\r\nContent-Length: 5\r\n", "connection"),
        (
            "Connection: close, Transfer-Encoding\r\nTransfer-Encoding: chunked\r\n",
            "connection",
        ),
        ("Connection: host\r\n", "connection"),
        ("Connection: a b\r\n", "connection"),
        ("Upgrade: websocket\r\nContent-Length: 5\r\n", "upgrade_with_body"),
        ("Upgrade: h2c\r\nTransfer-Encoding: chunked\r\n", "upgrade_with_body"),
        ("Upgrade: h2c\r\nUpgrade: websocket\r\n", "upgrade"),
        ("Expect: 200-ok\r\n", "expect"),
        ("Expect: 100-continue, x\r\n", "expect"),
        ("Expect: 100-continue\r\nExpect: 100-continue\r\n", "expect"),
    ] {
        let text = post(fields);
        assert_eq!(refusal(text.as_bytes()), Err(word.to_owned()), "{text:?}");
        assert_eq!(
            read_all(super::at_once(text.as_bytes())).len(),
            1,
            "nothing is read after it: {text:?}"
        );
    }
    check(&[(
        "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n",
        "coding_on_http10",
    )]);
}

#[test]
fn an_upgrade_that_could_be_read_in_two_ways_is_refused() {
    for fields in [
        "Upgrade: websocket\r\n",
        "Upgrade: websocket\r\nConnection: x-upgrade\r\n",
        "Upgrade: websocket, x-1\r\nConnection: upgrade\r\n",
        "Upgrade: websocket/13\r\nConnection: upgrade\r\n",
        "Upgrade: tls\r\nConnection: upgrade\r\n",
        "Upgrade:\r\nConnection: upgrade\r\n",
    ] {
        let text = format!("GET / HTTP/1.1\r\n{H}{fields}\r\n");
        assert_eq!(refusal(text.as_bytes()), Err("upgrade".to_owned()), "{text:?}");
    }
    let old = "GET / HTTP/1.0\r\nHost: a\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n";
    assert_eq!(refusal(old.as_bytes()), Err("upgrade".to_owned()));
    let tunnel = "CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n";
    assert_eq!(refusal(tunnel.as_bytes()), Err("upgrade".to_owned()));
}

#[test]
fn chunks_that_are_not_exactly_the_grammar_are_refused() {
    let extension = format!("5;{}\r\nhello\r\n0\r\n\r\n", "x".repeat(256));
    let endless = format!("5;{}", "x".repeat(1000));
    let trailers = format!("0\r\n{}\r\n", "X: y\r\n".repeat(33));
    let long_trailers = format!("0\r\nX: {}\r\n\r\n", "y".repeat(9000));
    for (body, word) in [
        ("5\nhello\r\n0\r\n\r\n", "ChunkSize"),
        ("\r\nhello\r\n0\r\n\r\n", "ChunkSize"),
        ("+5\r\nhello\r\n0\r\n\r\n", "ChunkSize"),
        ("0x5\r\nhello\r\n0\r\n\r\n", "ChunkExtension"),
        (" 5\r\nhello\r\n0\r\n\r\n", "ChunkSize"),
        ("5 \r\nhello\r\n0\r\n\r\n", "ChunkExtension"),
        ("5 ;x\r\nhello\r\n0\r\n\r\n", "ChunkExtension"),
        ("g\r\nhello\r\n0\r\n\r\n", "ChunkSize"),
        ("00000000000000005\r\nhello\r\n0\r\n\r\n", "ChunkSize"),
        ("ffffffffffffffff1\r\nhello\r\n0\r\n\r\n", "ChunkSize"),
        ("5\r\nhelloX\r\n0\r\n\r\n", "ChunkEnd"),
        ("5\r\nhello\n0\r\n\r\n", "ChunkEnd"),
        ("4\r\nhello\r\n0\r\n\r\n", "ChunkEnd"),
        ("5;\u{1}\r\nhello\r\n0\r\n\r\n", "ChunkExtension"),
        ("5;a\rb\r\nhello\r\n0\r\n\r\n", "ChunkExtension"),
        ("5;\r\nhello\r\n0\r\n\r\n", "ChunkExtension"),
        ("5;a=\r\nhello\r\n0\r\n\r\n", "ChunkExtension"),
        ("5;a b\r\nhello\r\n0\r\n\r\n", "ChunkExtension"),
        ("5;a=\"b\r\nhello\r\n0\r\n\r\n", "ChunkExtension"),
        ("5;a=\"b\\\r\nhello\r\n0\r\n\r\n", "ChunkExtension"),
        ("0\r\nContent_Length: 5\r\n\r\n", "Trailers { source: Disguised }"),
        (extension.as_str(), "ChunkExtension"),
        (endless.as_str(), "ChunkSize"),
        ("5\r\nhel", "Cut"),
        ("5\r\nhello\r\n", "Cut"),
        ("0\r\nX: y\r\n", "Cut"),
        ("0\r\nX : y\r\n\r\n", "Trailers { source: SpaceBeforeColon }"),
        ("0\r\nX: y\n\r\n", "Trailers { source: BareLineFeed }"),
        ("0\r\n\n", "Trailers { source: BareLineFeed }"),
        (trailers.as_str(), "Trailers { source: TooManyFields }"),
        (long_trailers.as_str(), "TrailersTooLong"),
    ] {
        let text = format!("POST / HTTP/1.1\r\n{H}Transfer-Encoding: chunked\r\n\r\n{body}");
        let whole = read_all(super::at_once(text.as_bytes()));
        assert_eq!(whole, [word], "{text:?}");
        assert_eq!(read_all(super::byte_by_byte(text.as_bytes())), whole, "{text:?}");
    }
}

#[test]
fn a_body_cut_off_by_the_end_of_the_connection_is_no_body() {
    let text = format!("POST / HTTP/1.1\r\n{H}Content-Length: 5\r\n\r\nhel");
    assert_eq!(read_all(super::at_once(text.as_bytes())), ["Cut"]);
}

#[test]
fn a_head_beyond_its_bounds_is_refused_at_the_bound() {
    let fields = |count: usize| format!("GET / HTTP/1.1\r\n{H}{}\r\n", "A: b\r\n".repeat(count - 1));
    assert_eq!(refusal(fields(FIELDS_MAX).as_bytes()), Ok(()));
    assert_eq!(
        refusal(fields(FIELDS_MAX + 1).as_bytes()),
        Err("too_many_fields".to_owned())
    );
    let long = |bytes: usize| {
        let start = format!("GET / HTTP/1.1\r\n{H}X: ");
        format!("{start}{}\r\n\r\n", "x".repeat(bytes - start.len() - 4))
    };
    assert_eq!(refusal(long(HEAD_BYTES_MAX).as_bytes()), Ok(()));
    assert_eq!(
        refusal(long(HEAD_BYTES_MAX + 1).as_bytes()),
        Err("head_too_long".to_owned())
    );
    assert_eq!(
        refusal("G".repeat(HEAD_BYTES_MAX).as_bytes()),
        Err("head_too_long".to_owned())
    );
}

#[test]
fn tls_where_a_head_should_be_is_told_apart() {
    assert_eq!(refusal(b"\x16\x03\x01\x02\x00\x01"), Err("tls".to_owned()));
}

#[test]
fn identity_headers_named_by_connection_are_no_framing() {
    parse(&format!(
        "GET / HTTP/1.1\r\n{H}Connection: x-botmesh-caller, keep-alive\r\n\r\n"
    ))
    .unwrap();
}
