//! Messages as bytes: heads, chunks, and the end of a body.

use bytes::{BufMut, Bytes, BytesMut};
use http::header::{self, HeaderMap};
use http::{Method, StatusCode};

use super::framing::Version;
use super::write::Tail;

/// How a body that is written is delimited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// There is none, and the head does not speak of one (or keeps a `Content-Length` that means another answer).
    None,
    /// By its length.
    Length(u64),
    /// By chunks.
    Chunked,
    /// By the end of the connection.
    Close,
}

/// Appends the head of an answer. `headers` holds no field of this connection; `Content-Length` in it counts only with
/// [`Form::None`].
pub fn answer_head(
    out: &mut BytesMut,
    version: Version,
    status: StatusCode,
    headers: &HeaderMap,
    form: Form,
    persists: bool,
) {
    out.put_slice(b"HTTP/1.1 ");
    out.put_slice(status.as_str().as_bytes());
    out.put_u8(b' ');
    out.put_slice(status.canonical_reason().unwrap_or_default().as_bytes());
    out.put_slice(b"\r\n");
    fields(out, headers, form, form == Form::None);
    if !persists {
        out.put_slice(b"connection: close\r\n");
    } else if version == Version::Http10 {
        out.put_slice(b"connection: keep-alive\r\n");
    }
    out.put_slice(b"\r\n");
}

/// Appends the head that switches to another protocol (RFC 9110 §15.2.2). `headers` holds no field of this connection.
pub fn switch_head(out: &mut BytesMut, headers: &HeaderMap, protocol: &str) {
    out.put_slice(b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: ");
    out.put_slice(protocol.as_bytes());
    out.put_slice(b"\r\n");
    for (name, value) in headers {
        line(out, name, value);
    }
    out.put_slice(b"\r\n");
}

/// Appends the head of a request; `target` is written as it is. `form` alone says how long the body is: a length that came
/// by HTTP/2 frames nothing there, and must not begin to here.
pub fn request_head(out: &mut BytesMut, method: &Method, target: &[u8], headers: &HeaderMap, form: Form) {
    out.put_slice(method.as_str().as_bytes());
    out.put_u8(b' ');
    out.put_slice(target);
    out.put_slice(b" HTTP/1.1\r\n");
    fields(out, headers, form, false);
    out.put_slice(b"\r\n");
}

fn fields(out: &mut BytesMut, headers: &HeaderMap, form: Form, keeps_length: bool) {
    for (name, value) in headers {
        if name == header::CONTENT_LENGTH && !keeps_length {
            continue;
        }
        line(out, name, value);
    }
    match form {
        Form::None | Form::Close => {}
        Form::Length(length) => {
            out.put_slice(b"content-length: ");
            decimal(out, length);
            out.put_slice(b"\r\n");
        }
        Form::Chunked => out.put_slice(b"transfer-encoding: chunked\r\n"),
    }
}

/// Appends the head of a request as one proxy writes it to another; `headers` holds no field of a connection, and what it
/// says of a length is kept.
pub fn hop_request_head(out: &mut BytesMut, method: &Method, target: &[u8], host: &[u8], headers: &HeaderMap) {
    out.put_slice(method.as_str().as_bytes());
    out.put_u8(b' ');
    out.put_slice(target);
    out.put_slice(b" HTTP/1.1\r\nhost: ");
    out.put_slice(host);
    out.put_slice(b"\r\n");
    lines(out, headers);
}

/// Appends the head of an answer as one proxy writes it to another.
pub fn hop_answer_head(out: &mut BytesMut, status: StatusCode, headers: &HeaderMap) {
    out.put_slice(b"HTTP/1.1 ");
    out.put_slice(status.as_str().as_bytes());
    out.put_slice(b" \r\n");
    lines(out, headers);
}

/// Appends field lines and the empty line after them.
pub fn lines(out: &mut BytesMut, headers: &HeaderMap) {
    for (name, value) in headers {
        line(out, name, value);
    }
    out.put_slice(b"\r\n");
}

fn line(out: &mut BytesMut, name: &header::HeaderName, value: &http::HeaderValue) {
    out.put_slice(name.as_str().as_bytes());
    out.put_slice(b": ");
    out.put_slice(value.as_bytes());
    out.put_slice(b"\r\n");
}

fn decimal(out: &mut BytesMut, number: u64) {
    let mut digits = [0; 20];
    let mut left = number;
    let mut count = 0;
    for place in digits.iter_mut().rev() {
        *place = b'0' + u8::try_from(left % 10).unwrap_or_default();
        left /= 10;
        count += 1;
        if left == 0 {
            break;
        }
    }
    out.put_slice(digits.get(digits.len() - count..).unwrap_or_default());
}

/// Appends the line that opens a chunk.
fn chunk_size(out: &mut BytesMut, size: usize) {
    for shift in (0..usize::BITS / 4).rev().map(|digit| digit * 4) {
        let rest = size >> shift;
        if rest > 0 {
            let digit = u8::try_from(rest & 0xf).unwrap_or_default();
            out.put_u8(if digit < 10 { b'0' + digit } else { b'a' + digit - 10 });
        }
    }
    out.put_slice(b"\r\n");
}

/// Prepares a frame of a body for [`Writer::poll_send`](super::write::Writer::poll_send): opens and closes its chunk where `form` has chunks.
pub fn frame(out: &mut BytesMut, data: Bytes, form: Form) -> Tail {
    if form != Form::Chunked || data.is_empty() {
        return Tail::new(data);
    }
    chunk_size(out, data.len());
    Tail::chunk(data)
}

/// Appends the end of a body, with its trailers if `form` has a place for them.
pub fn end(out: &mut BytesMut, trailers: &HeaderMap, form: Form) {
    if form == Form::Chunked {
        out.put_slice(b"0\r\n");
        for (name, value) in trailers {
            line(out, name, value);
        }
        out.put_slice(b"\r\n");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_requests_length_is_its_bodys_and_never_what_a_field_says() {
        let length = |value| (header::CONTENT_LENGTH, http::HeaderValue::from_static(value));
        let headers = HeaderMap::from_iter([length("57")]);
        for (form, expected) in [
            (Form::None, ""),
            (Form::Length(3), "content-length: 3\r\n"),
            (Form::Chunked, "transfer-encoding: chunked\r\n"),
        ] {
            let mut out = BytesMut::new();
            request_head(&mut out, &Method::GET, b"/", &headers, form);
            assert_eq!(out, format!("GET / HTTP/1.1\r\n{expected}\r\n"));
        }
    }
}
