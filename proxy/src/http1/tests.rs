//! What is read, what is refused and with which word, and that none of it depends on how the bytes arrive.

mod refused;
mod round_trip;
mod served;

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use tokio::io::{AsyncRead, ReadBuf};

use super::Limits;
use super::body::{Body, BodyError, Left};
use super::head::{HeadError, RequestHead};
use super::read::{ReadError, Reader};

/// A connection whose bytes come in these pieces, one per read, and then its end.
#[derive(Debug)]
struct Pieces(VecDeque<Bytes>);

impl AsyncRead for Pieces {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, to: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        let this = self.get_mut();
        if let Some(mut piece) = this.0.pop_front() {
            to.put_slice(&piece.split_to(piece.len().min(to.remaining())));
            if !piece.is_empty() {
                this.0.push_front(piece);
            }
        }
        Poll::Ready(Ok(()))
    }
}

fn at_once(bytes: &[u8]) -> Pieces {
    Pieces([Bytes::copy_from_slice(bytes)].into())
}

fn byte_by_byte(bytes: &[u8]) -> Pieces {
    Pieces(bytes.chunks(1).map(Bytes::copy_from_slice).collect())
}

fn cut(bytes: &[u8], lengths: &[usize]) -> Pieces {
    let mut rest = BytesMut::from(bytes);
    let mut pieces = VecDeque::new();
    for length in lengths.iter().cycle().take(bytes.len()) {
        if !rest.is_empty() {
            pieces.push_back(rest.split_to((*length).clamp(1, rest.len())).freeze());
        }
    }
    pieces.push_back(rest.freeze());
    Pieces(pieces.into_iter().filter(|piece| !piece.is_empty()).collect())
}

/// Reads request after request and tells of each what was read, and at last why there is no more.
fn read_all(connection: Pieces) -> Vec<String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    runtime.block_on(async {
        let mut reader = Reader::new(connection, Limits::default());
        let mut told = Vec::new();
        loop {
            let head = match reader.head().await {
                Ok(None) => return told,
                Ok(Some(head)) => head,
                Err(error) => {
                    told.push(read_word(&error));
                    return told;
                }
            };
            let head = match RequestHead::parse(&head) {
                Ok(head) => head,
                Err(error) => {
                    told.push(error.as_str().to_owned());
                    return told;
                }
            };
            let (body, away) = Body::new(reader, Left::from(head.framing));
            match body.collect().await {
                Ok(body) => {
                    let trailers = body.trailers().cloned();
                    told.push(tell(&head, &body.to_bytes(), trailers));
                }
                Err(error) => {
                    told.push(body_word(&error));
                    return told;
                }
            }
            reader = away.home.await.unwrap().reader;
        }
    })
}

fn tell(head: &RequestHead, body: &Bytes, trailers: Option<http::HeaderMap>) -> String {
    let body = String::from_utf8_lossy(body);
    let trailers = trailers.map(|trailers| format!(" +{trailers:?}")).unwrap_or_default();
    format!(
        "{} {:?} {}{:?} {body:?}{trailers}",
        head.method,
        head.target,
        head.authority.host(),
        head.authority.port()
    )
}

fn read_word(error: &ReadError) -> String {
    match error {
        ReadError::Head(error) => error.as_str().to_owned(),
        ReadError::Ended | ReadError::Cut | ReadError::Slow | ReadError::Io { .. } => format!("{error:?}"),
    }
}

fn body_word(error: &BodyError) -> String {
    format!("{error:?}")
}

/// Tells the one word with which `head` is refused, however it arrives.
fn refusal(head: &[u8]) -> Result<(), String> {
    let whole = read_all(at_once(head));
    assert_eq!(
        whole,
        read_all(byte_by_byte(head)),
        "{:?}",
        String::from_utf8_lossy(head)
    );
    match whole.last() {
        Some(word) if !word.contains(' ') => Err(word.clone()),
        _ => Ok(()),
    }
}

fn parse(head: &str) -> Result<RequestHead, HeadError> {
    RequestHead::parse(&Bytes::copy_from_slice(head.as_bytes()))
}
