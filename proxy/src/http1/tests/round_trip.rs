//! What is written is read as it was meant, and reading does not depend on how bytes arrive.

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use http_body_util::{BodyExt, Full, StreamBody};
use proptest::prelude::*;
use tokio::io::AsyncReadExt;

use super::{at_once, byte_by_byte, cut, read_all};
use crate::http1::Limits;
use crate::http1::answer::Answer;
use crate::http1::body::{Body, Left};
use crate::http1::encode::{self, Form};
use crate::http1::framing::{Framing, Version};
use crate::http1::head::RequestHead;
use crate::http1::read::Reader;
use crate::http1::status::AnswerHead;
use crate::http1::target::Target;
use crate::http1::write::{WriteError, Writer};

fn name() -> impl Strategy<Value = String> {
    "x-[a-z0-9_!#$%&'*+.^`|~-]{1,12}"
}

fn value() -> impl Strategy<Value = String> {
    "([!-~]([ -~\t]{0,20}[!-~])?)?"
}

fn headers() -> impl Strategy<Value = HeaderMap> {
    prop::collection::vec((name(), value()), 0..20).prop_map(|fields| {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(
                HeaderName::from_bytes(name.as_bytes()).unwrap(),
                HeaderValue::from_str(&value).unwrap(),
            );
        }
        headers
    })
}

fn form() -> impl Strategy<Value = Form> {
    prop_oneof![
        Just(Form::None),
        any::<u32>().prop_map(|length| Form::Length(length.into())),
        Just(Form::Chunked)
    ]
}

fn messages() -> impl Strategy<Value = Vec<u8>> {
    let pieces = prop_oneof![
        Just("GET / HTTP/1.1\r\n"),
        Just("POST /a HTTP/1.1\r\n"),
        Just("Host: a\r\n"),
        Just("Content-Length: 3\r\n"),
        Just("Transfer-Encoding: chunked\r\n"),
        Just("\r\n"),
        Just("\n"),
        Just("\r"),
        Just("abc"),
        Just("3\r\nabc\r\n"),
        Just("0\r\n\r\n"),
        Just("X: y"),
        Just(" "),
    ];
    prop::collection::vec(pieces, 0..24).prop_map(|pieces| pieces.concat().into_bytes())
}

proptest! {
    #[test]
    fn a_request_head_that_is_written_is_read_back(headers in headers(), form in form(), path in "/[!-~]{0,40}") {
        let mut with_host = headers;
        with_host.insert("host", HeaderValue::from_static("orders.prod.mesh"));
        let mut out = BytesMut::new();
        encode::request_head(&mut out, &Method::POST, path.as_bytes(), &with_host, form);
        let read = RequestHead::parse(&out.freeze()).unwrap();
        prop_assert_eq!(read.target, Target::Origin(Bytes::from(path)));
        let framing = match form {
            Form::Length(length) => Framing::Length(length),
            Form::Chunked => Framing::Chunked,
            Form::None | Form::Close => Framing::None,
        };
        prop_assert_eq!(read.framing, framing);
        let mut fields = read.headers;
        fields.remove("content-length");
        fields.remove("transfer-encoding");
        prop_assert_eq!(fields, with_host);
    }

    #[test]
    fn what_is_read_does_not_depend_on_how_it_arrives(
        bytes in messages(),
        lengths in prop::collection::vec(1_usize..9, 1..8),
    ) {
        let whole = read_all(at_once(&bytes));
        prop_assert_eq!(&whole, &read_all(byte_by_byte(&bytes)));
        prop_assert_eq!(&whole, &read_all(cut(&bytes, &lengths)));
    }

    #[test]
    fn any_bytes_are_read_or_refused_the_same_however_they_arrive(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        prop_assert_eq!(read_all(at_once(&bytes)), read_all(byte_by_byte(&bytes)));
    }

    #[test]
    fn an_answer_that_is_written_is_read_back(
        headers in headers(),
        frames in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..5),
        tell_length in any::<bool>(),
    ) {
        let body = frames.concat();
        let mut headers = headers;
        if tell_length {
            headers.insert("content-length", HeaderValue::from(body.len()));
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let (status, read) = runtime.block_on(write_and_read(&headers, frames));
        prop_assert_eq!(status, StatusCode::OK);
        prop_assert_eq!(read, body);
    }
}

async fn write_and_read(headers: &HeaderMap, frames: Vec<Vec<u8>>) -> (StatusCode, Vec<u8>) {
    let (near, far) = tokio::io::duplex(64);
    let frames = frames
        .into_iter()
        .map(|data| Ok::<_, std::io::Error>(http_body::Frame::data(Bytes::from(data))));
    let mut body = StreamBody::new(tokio_stream::iter(frames));
    let write = async {
        let mut writer = Writer::new(near, Limits::default().body_idle);
        let answer = ok(headers);
        writer
            .answer(answer, &mut body, Limits::default().body_idle)
            .await
            .unwrap();
    };
    let read = async {
        let mut reader = Reader::new(far, Limits::default());
        let head = reader.answer_head(Limits::default().idle).await.unwrap();
        let head = AnswerHead::parse(&head, &Method::GET).unwrap();
        let (body, away) = Body::new(reader, Left::from(head.body));
        let body = body.collect().await.unwrap().to_bytes().to_vec();
        assert!(away.home.await.unwrap().reader.buffered().is_empty(), "nothing follows");
        (head.status, body)
    };
    tokio::join!(write, read).1
}

fn ok(headers: &HeaderMap) -> Answer<'_> {
    Answer {
        version: Version::Http11,
        method: &Method::GET,
        status: StatusCode::OK,
        headers,
        persists: true,
    }
}

async fn written(answer: Answer<'_>, body: &'static str) -> (Result<(), WriteError>, String) {
    let (near, mut far) = tokio::io::duplex(4096);
    let mut writer = Writer::new(near, Limits::default().body_idle);
    let done = writer
        .answer(
            answer,
            &mut Full::new(Bytes::from_static(body.as_bytes())),
            Limits::default().idle,
        )
        .await;
    drop(writer);
    let mut text = String::new();
    far.read_to_string(&mut text).await.unwrap();
    (done, text)
}

#[tokio::test]
async fn a_small_answer_is_one_write_with_its_length() {
    let headers = HeaderMap::new();
    let (done, text) = written(ok(&headers), "hello").await;
    done.unwrap();
    assert_eq!(text, "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello");
}

#[tokio::test]
async fn answers_without_a_body_have_none_on_the_wire() {
    let headers = HeaderMap::from_iter([("content-length".parse().unwrap(), HeaderValue::from_static("5"))]);
    let (done, text) = written(
        Answer {
            method: &Method::HEAD,
            ..ok(&headers)
        },
        "",
    )
    .await;
    done.unwrap();
    assert_eq!(text, "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n");
    let headers = HeaderMap::new();
    for (status, line) in [
        (StatusCode::NO_CONTENT, "204 No Content"),
        (StatusCode::NOT_MODIFIED, "304 Not Modified"),
    ] {
        let (done, text) = written(Answer { status, ..ok(&headers) }, "hello").await;
        done.unwrap();
        assert_eq!(text, format!("HTTP/1.1 {line}\r\n\r\n"));
    }
    let (done, text) = written(
        Answer {
            persists: false,
            ..ok(&headers)
        },
        "",
    )
    .await;
    done.unwrap();
    assert_eq!(
        text,
        "HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
    );
}

#[tokio::test]
async fn a_body_is_never_longer_or_shorter_than_its_head_says() {
    for (length, body) in [("4", "hello"), ("6", "hello"), ("1", "")] {
        let headers = HeaderMap::from_iter([("content-length".parse().unwrap(), HeaderValue::from_static(length))]);
        let (done, text) = written(ok(&headers), body).await;
        assert!(matches!(done, Err(WriteError::Length)), "{length} {done:?}");
        assert!(!text.contains("hello") || length == "6", "no byte too many: {text:?}");
    }
}

#[tokio::test]
async fn http_1_0_clients_get_no_chunks() {
    let (near, mut far) = tokio::io::duplex(4096);
    let mut writer = Writer::new(near, Limits::default().body_idle);
    let frames =
        ["a", "b"].map(|data| Ok::<_, std::io::Error>(http_body::Frame::data(Bytes::from_static(data.as_bytes()))));
    let headers = HeaderMap::new();
    let answer = Answer {
        version: Version::Http10,
        ..ok(&headers)
    };
    assert!(!answer.keeps_open());
    writer
        .answer(
            answer,
            &mut StreamBody::new(tokio_stream::iter(frames)),
            Limits::default().idle,
        )
        .await
        .unwrap();
    drop(writer);
    let mut text = String::new();
    far.read_to_string(&mut text).await.unwrap();
    assert_eq!(text, "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nab");
}

#[tokio::test]
async fn a_body_that_breaks_off_never_looks_whole() {
    let frames = [
        Ok(http_body::Frame::data(Bytes::from_static(b"a"))),
        Err(std::io::Error::other("gone")),
    ];
    let (near, mut far) = tokio::io::duplex(4096);
    let mut writer = Writer::new(near, Limits::default().body_idle);
    let headers = HeaderMap::new();
    let done = writer
        .answer(
            ok(&headers),
            &mut StreamBody::new(tokio_stream::iter(frames)),
            Limits::default().idle,
        )
        .await;
    assert!(matches!(done, Err(WriteError::Body)), "{done:?}");
    drop(writer);
    let mut text = String::new();
    far.read_to_string(&mut text).await.unwrap();
    assert!(text.ends_with("1\r\na\r\n"), "{text:?}");
}
