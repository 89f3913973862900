//! No bytes make the reader of heads panic; what it accepts can be written and is read again as the same.
#![no_main]

use bytes::{Bytes, BytesMut};
use libfuzzer_sys::fuzz_target;
use proxy::http1::encode::{self, Form};
use proxy::http1::framing::Framing;
use proxy::http1::head::RequestHead;
use proxy::http1::scan::Scanner;
use proxy::http1::status::AnswerHead;
use proxy::http1::target::Target;

fuzz_target!(|bytes: &[u8]| {
    // However the bytes arrive, the end of the head is found at the same place, or refused for the same reason.
    let whole = Scanner::default().scan(bytes);
    let mut piecewise = Scanner::default();
    let mut last = Ok(None);
    for end in 1..=bytes.len() {
        last = piecewise.scan(&bytes[..end]);
        if last != Ok(None) {
            break;
        }
    }
    assert_eq!(whole, last);

    let Ok(Some(length)) = whole else { return };
    let head = Bytes::copy_from_slice(&bytes[..length]);
    let _answer = AnswerHead::parse(&head, &http::Method::GET);
    let Ok(read) = RequestHead::parse(&head) else { return };
    let Target::Origin(target) = &read.target else { return };
    let form = match read.framing {
        Framing::None => Form::None,
        Framing::Length(length) => Form::Length(length),
        Framing::Chunked => Form::Chunked,
    };
    let mut headers = read.headers.clone();
    headers.remove("transfer-encoding");
    let mut out = BytesMut::new();
    encode::request_head(&mut out, &read.method, target, &headers, form);
    let again = RequestHead::parse(&out.freeze()).expect("a written head is read");
    assert_eq!(again.method, read.method);
    assert_eq!(again.target, read.target);
    assert_eq!(again.authority, read.authority);
    assert_eq!(again.framing, read.framing);
});
