//! Plain HTTP/1.1 for the proxy's own pages: metrics, health, and the questions of operators.
//!
//! The same strict reader as for calls; bodies are small and read whole.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use tokio::time::timeout;

use crate::ends::{ReadEnd, WriteEnd};
use crate::http1::Limits;
use crate::http1::answer::Answer;
use crate::http1::body::{Body, Left};
use crate::http1::date;
use crate::http1::head::RequestHead;
use crate::http1::read::Reader;
use crate::http1::target::Target;
use crate::http1::write::Writer;
use crate::proxy::Proxy;

/// The longest body of a question.
const BODY_BYTES_MAX: usize = 64 * 1024;

/// How long a question may take to be answered.
const ANSWER: Duration = Duration::from_secs(20);

/// The most connections of one of the proxy's own listeners.
pub(crate) const CONNECTIONS_MAX: usize = 64;

/// A question to the proxy itself.
#[derive(Debug)]
pub(crate) struct Question {
    pub(crate) method: Method,
    /// As it came, without the query.
    pub(crate) path: String,
    pub(crate) query: String,
    pub(crate) body: Bytes,
}

/// Its answer.
#[derive(Debug)]
pub(crate) struct Page {
    pub(crate) status: StatusCode,
    pub(crate) content_type: HeaderValue,
    pub(crate) body: Bytes,
}

impl Page {
    /// Makes a page of text.
    pub(crate) fn text(status: StatusCode, body: impl Into<Bytes>) -> Self {
        Self {
            status,
            content_type: HeaderValue::from_static("text/plain; charset=utf-8"),
            body: body.into(),
        }
    }
}

/// Answers questions on one connection until it ends.
pub(crate) async fn serve<A, F>(proxy: &Arc<Proxy>, read: ReadEnd, write: WriteEnd, answer: A)
where
    A: Fn(Question) -> F,
    F: Future<Output = Page>,
{
    let limits = Limits {
        idle: Duration::from_secs(30),
        ..proxy.limits
    };
    let mut reader = Reader::new(read, limits);
    let mut writer = Writer::new(write, limits.body_idle);
    loop {
        // Reading a head is cancel safe.
        let head = tokio::select! {
            head = reader.head() => Ok(head),
            // Whoever has just connected is answered.
            () = proxy.closing.cancelled() => timeout(proxy.bounds.late.1, reader.head()).await,
        };
        let Ok(Ok(Some(head))) = head else {
            return;
        };
        let Ok(head) = RequestHead::parse(&head) else {
            return;
        };
        let (body, away) = Body::new(reader, Left::from(head.framing));
        let body = match timeout(limits.body_idle, Limited::new(body, BODY_BYTES_MAX).collect()).await {
            Ok(Ok(body)) => body.to_bytes(),
            Ok(Err(_)) | Err(_) => return,
        };
        let page = timeout(ANSWER, answer(question(&head, body))).await;
        let page = page.unwrap_or_else(|_late| Page::text(StatusCode::GATEWAY_TIMEOUT, "no answer in time\n"));
        let Page {
            status,
            content_type,
            body,
        } = page;
        let now = u64::try_from(proxy.clock.now().unix_seconds()).unwrap_or_default();
        let headers = HeaderMap::from_iter([(header::CONTENT_TYPE, content_type), (header::DATE, date::header(now))]);
        let (version, method) = (head.version, &head.method);
        let persists = head.persists && !proxy.closing.is_cancelled();
        let answer = Answer {
            version,
            method,
            status,
            headers: &headers,
            persists,
        };
        let goes_on = answer.keeps_open();
        if writer
            .answer(answer, &mut Full::new(body), limits.body_idle)
            .await
            .is_err()
            || !goes_on
        {
            return;
        }
        match away.home.await {
            Ok(back) if back.left.is_done() => reader = back.reader,
            Ok(_) | Err(_) => return,
        }
    }
}

fn question(head: &RequestHead, body: Bytes) -> Question {
    let target = match &head.target {
        Target::Origin(target) | Target::Absolute(target) => String::from_utf8_lossy(target).into_owned(),
        Target::AbsoluteTls | Target::Authority | Target::Asterisk => String::new(),
    };
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    Question {
        method: head.method.clone(),
        path: path.to_owned(),
        query: query.to_owned(),
        body,
    }
}
