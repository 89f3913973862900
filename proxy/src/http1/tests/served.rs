//! What is read, and as what.

use std::time::Duration;

use bytes::Bytes;
use http::Method;
use http_body_util::BodyExt;

use super::{at_once, byte_by_byte, parse, read_all};
use crate::http1::Limits;
use crate::http1::body::{Body, Left};
use crate::http1::framing::{Framing, Version};
use crate::http1::head::{HeadError, RequestHead};
use crate::http1::read::{ReadError, Reader};
use crate::http1::status::{AnswerFraming, AnswerHead};
use crate::http1::target::Target;

#[test]
fn pipelined_requests_are_read_in_their_order_with_their_own_bodies() {
    let text = "POST /1 HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello\
                GET /2 HTTP/1.1\r\nHost: b:81\r\n\r\n\
                POST /3 HTTP/1.1\r\nHost: c\r\nTransfer-Encoding: chunked\r\n\r\n\
                5;x=y\r\nhello\r\n0006\r\n world\r\n0\r\nX-Sum: 1\r\nContent-Length: 3\r\n\r\n\
                HEAD http://D.mesh/4?a=b HTTP/1.1\r\nHost: d.mesh:80\r\n\r\n";
    let told = read_all(at_once(text.as_bytes()));
    assert_eq!(
        told,
        [
            "POST Origin(b\"/1\") aNone \"hello\"",
            "GET Origin(b\"/2\") bSome(81) \"\"",
            "POST Origin(b\"/3\") cNone \"hello world\" +{\"x-sum\": \"1\"}",
            "HEAD Absolute(b\"/4?a=b\") d.meshNone \"\"",
        ]
    );
    assert_eq!(read_all(byte_by_byte(text.as_bytes())), told);
}

#[test]
fn the_forms_of_a_target_are_told_apart() {
    let target = |line: &str, host: &str| parse(&format!("{line} HTTP/1.1\r\nHost: {host}\r\n\r\n")).map(|h| h.target);
    let bytes = |text: &'static str| Bytes::from_static(text.as_bytes());
    assert_eq!(target("GET /a?b#c", "h"), Ok(Target::Origin(bytes("/a?b#c"))));
    assert_eq!(target("GET http://h", "h"), Ok(Target::Absolute(bytes("/"))));
    assert_eq!(target("GET HTTP://H:80/x", "h"), Ok(Target::Absolute(bytes("/x"))));
    assert_eq!(target("GET https://h/x", "h"), Ok(Target::AbsoluteTls));
    assert_eq!(target("OPTIONS *", "h"), Ok(Target::Asterisk));
    assert_eq!(target("CONNECT h:443", "h:443"), Ok(Target::Authority));
    assert_eq!(target("CONNECT h:443", "h"), Ok(Target::Authority));
    assert_eq!(
        parse("CONNECT h:443 HTTP/1.0\r\n\r\n").map(|h| h.target),
        Ok(Target::Authority)
    );
    assert_eq!(target("GET /", "[::1]:80"), Ok(Target::Origin(bytes("/"))));
}

#[test]
fn a_connection_goes_on_as_its_version_and_its_options_say() {
    let persists = |version: &str, option: &str| {
        parse(&format!(
            "GET / HTTP/{version}\r\nHost: a\r\nConnection: {option}\r\n\r\n"
        ))
        .unwrap()
        .persists
    };
    assert!(persists("1.1", "keep-alive"));
    assert!(!persists("1.1", "close"));
    assert!(!persists("1.1", "keep-alive, Close"));
    assert!(persists("1.0", "Keep-Alive"));
    assert!(!persists("1.0", "x"));
}

#[test]
fn a_body_is_only_waited_for_where_one_may_come() {
    let expects = |version: &str, fields: &str| {
        let head = format!("POST / HTTP/{version}\r\nHost: a\r\nExpect: 100-Continue\r\n{fields}\r\n");
        parse(&head).unwrap().expects_continue
    };
    assert!(expects("1.1", "Content-Length: 1\r\n"));
    assert!(!expects("1.1", "Content-Length: 0\r\n"));
    assert!(!expects("1.1", ""));
    assert!(!expects("1.0", "Content-Length: 1\r\n"), "RFC 9110 §10.1.1");
}

#[test]
fn a_body_that_nobody_wants_sends_its_reader_home_with_the_rest() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    runtime.block_on(async {
        let reader = Reader::new(at_once(b"hello"), Limits::default());
        let (body, away) = Body::new(reader, Left::from(Framing::Length(5)));
        drop(body);
        let home = away.home.await.unwrap();
        assert!(matches!(home.left, Left::Length(5)), "{:?}", home.left);
        let (mut body, away) = Body::new(home.reader, home.left);
        assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "hello");
        assert!(
            away.home.await.unwrap().left.is_done(),
            "before anybody asks for another frame"
        );
        assert!(away.wanted.await.is_ok());
    });
}

#[test]
fn a_broken_body_never_sends_its_reader_home() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    runtime.block_on(async {
        let reader = Reader::new(at_once(b"zz\r\n"), Limits::default());
        let (mut body, away) = Body::new(reader, Left::from(Framing::Chunked));
        assert!(body.frame().await.unwrap().is_err());
        assert!(body.frame().await.is_none());
        assert!(away.home.await.is_err());
    });
}

#[test]
fn a_body_longer_than_its_bound_is_refused() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    runtime.block_on(async {
        let limits = Limits {
            body_bytes_max: 4,
            ..Limits::default()
        };
        for framing in [Framing::Length(5), Framing::Chunked] {
            let reader = Reader::new(at_once(b"5\r\nhello\r\n0\r\n\r\n"), limits);
            let (body, _away) = Body::new(reader, Left::from(framing));
            let error = body.collect().await.unwrap_err();
            assert_eq!(format!("{error:?}"), "TooLong");
        }
    });
}

#[tokio::test(start_paused = true)]
async fn a_head_begun_must_end_within_its_deadline_and_an_idle_connection_ends_quietly() {
    let (near, mut far) = tokio::io::duplex(64);
    let mut reader = Reader::new(near, Limits::default());
    let started = tokio::time::Instant::now();
    tokio::io::AsyncWriteExt::write_all(&mut far, b"GET / HT")
        .await
        .unwrap();
    assert!(matches!(reader.head().await, Err(ReadError::Slow)));
    assert_eq!(started.elapsed().as_secs(), 10);

    let (near, _far) = tokio::io::duplex(64);
    let mut reader = Reader::new(near, Limits::default());
    let started = tokio::time::Instant::now();
    assert!(matches!(reader.head().await, Ok(None)));
    assert_eq!(started.elapsed().as_secs(), 75);
}

#[tokio::test(start_paused = true)]
async fn a_body_that_stands_still_is_given_up() {
    let (near, _far) = tokio::io::duplex(64);
    let (body, _away) = Body::new(Reader::new(near, Limits::default()), Left::Length(5));
    let started = tokio::time::Instant::now();
    assert_eq!(format!("{:?}", body.collect().await.unwrap_err()), "Slow");
    assert_eq!(started.elapsed(), Duration::from_secs(30));
}

#[test]
fn answers_are_framed_as_rfc_9112_6_3_has_it() {
    let framing = |method: Method, head: &str| {
        AnswerHead::parse(&Bytes::copy_from_slice(head.as_bytes()), &method)
            .map(|answer| (answer.body, answer.persists))
    };
    use AnswerFraming::{Chunked, Close, Length, None};
    for (head, expected) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", (Length(5), true)),
        ("HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n", (None, true)),
        ("HTTP/1.1 200 \r\nTransfer-Encoding: chunked\r\n\r\n", (Chunked, true)),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n",
            (Chunked, false),
        ),
        ("HTTP/1.1 200 OK\r\n\r\n", (Close, false)),
        ("HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\n", (Length(5), false)),
        ("HTTP/1.1 204 No Content\r\n\r\n", (None, true)),
        ("HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", (None, true)),
        ("HTTP/1.1 100 Continue\r\n\r\n", (None, true)),
    ] {
        assert_eq!(framing(Method::GET, head), Ok(expected), "{head:?}");
    }
    assert_eq!(
        framing(Method::HEAD, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"),
        Ok((None, true))
    );
    for (head, refused) in [
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
            HeadError::LengthAndCoding,
        ),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n",
            HeadError::TwoLengths,
        ),
        ("HTTP/1.1 200 OK\r\nContent-Length: five\r\n\r\n", HeadError::Length),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n", HeadError::Coding),
        (
            "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            HeadError::CodingOnHttp10,
        ),
        ("HTTP/1.1 200 OK\r\nX: a\r\n b\r\n\r\n", HeadError::Fold),
        ("HTTP/1.1 99 X\r\n\r\n", HeadError::StatusLine),
        ("HTTP/1.1 600 X\r\n\r\n", HeadError::StatusLine),
        ("HTTP/1.1 20x OK\r\n\r\n", HeadError::StatusLine),
        ("HTTP/1.1 200OK\r\n\r\n", HeadError::StatusLine),
        ("HTTP/2 200 OK\r\n\r\n", HeadError::StatusLine),
        ("ICY 200 OK\r\n\r\n", HeadError::StatusLine),
    ] {
        assert_eq!(framing(Method::GET, head), Err(refused), "{head:?}");
    }
}

#[test]
fn one_reading_of_a_head_shares_its_memory_and_keeps_every_field() {
    let head: RequestHead = parse("GET / HTTP/1.1\r\nHost: a\r\nX: 1\r\nx: 2\r\nY:\t z \t\r\n\r\n").unwrap();
    assert_eq!(head.version, Version::Http11);
    assert_eq!(head.headers.get_all("x").iter().collect::<Vec<_>>(), ["1", "2"]);
    assert_eq!(head.headers["y"], "z");
}
