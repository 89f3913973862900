//! One request and its answer, against a callee that says what the test tells it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method};
use http_body::Body as _;
use policy::Target;
use spiffe::id::BotName;
use spiffe::time::Clock;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use super::exchange::exchange;
use super::{CalleeBody, CalleeFault, CalleeRequest, Callees, Connection, IDLE_MAX, OfBot, Whose};
use crate::call::RequestBody;
use crate::ends;
use crate::http1::Limits;
use crate::http1::body::{Body, Left};
use crate::http1::framing::Framing;
use crate::http1::read::Reader;
use crate::http1::status::AnswerHead;
use crate::http1::write::Writer;
use crate::outside::WayOut;

fn bot() -> BotName {
    BotName::parse("prod/orders").unwrap()
}

fn callees() -> Arc<Callees> {
    Arc::new(Callees::new(
        Limits::default(),
        WayOut::new(None, Clock::system(), TaskTracker::new()),
    ))
}

/// A connection, and the callee's end of it.
fn connected() -> (Box<Connection>, UnixStream) {
    let (near, far) = UnixStream::pair().unwrap();
    let (read, write) = ends::unix(near);
    let (now, limits) = (Instant::now(), Limits::default());
    let connection = Connection {
        reader: Reader::new(read, limits),
        writer: Writer::new(write, limits.body_idle),
        whose: Whose::Bot(OfBot {
            bot: bot(),
            target: Target::Port(1),
            end: None,
        }),
        used: now,
    };
    (Box::new(connection), far)
}

fn request(method: Method) -> CalleeRequest {
    let headers = HeaderMap::from_iter([(http::header::HOST, HeaderValue::from_static("orders.prod.mesh"))]);
    CalleeRequest {
        method,
        target: Bytes::from_static(b"/orders/17?a=b"),
        headers,
        patience: Duration::from_secs(30),
        connect: None,
    }
}

/// Has a callee that answers `answer` at once, and reads what it gives.
async fn asked(answer: &str, method: Method) -> Result<(AnswerHead, String, usize), CalleeFault> {
    let (callees, (connection, mut far)) = (callees(), connected());
    far.write_all(answer.as_bytes()).await.unwrap();
    far.shutdown().await.unwrap();
    let (head, body) = exchange(&callees, connection, &request(method), RequestBody::empty()).await?;
    let text = collected(body).await.map_err(|()| CalleeFault::Gone { begun: true })?;
    let kept = callees.idle().get(&bot()).map_or(0, Vec::len);
    Ok((head, text, kept))
}

async fn collected(mut body: CalleeBody) -> Result<String, ()> {
    let mut text = Vec::new();
    while let Some(frame) = std::future::poll_fn(|cx| body.poll_frame(cx)).await {
        if let Ok(data) = frame.map_err(|_error| ())?.into_data() {
            text.extend_from_slice(&data);
        }
    }
    Ok(String::from_utf8(text).unwrap())
}

#[tokio::test]
async fn an_answer_is_read_whole_and_its_connection_kept_where_it_can_be() {
    for (answer, text, kept) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", "hello", 1),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
            "hello",
            1,
        ),
        ("HTTP/1.1 204 No Content\r\n\r\n", "", 1),
        (
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
            "",
            1,
        ),
        (
            "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello",
            "hello",
            0,
        ),
        ("HTTP/1.1 200 OK\r\n\r\nhello", "hello", 0),
        ("HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello", "hello", 0),
    ] {
        let (_, told, left) = asked(answer, Method::GET).await.unwrap();
        assert_eq!((told.as_str(), left), (text, kept), "{answer:?}");
    }
    let (_, told, left) = asked("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", Method::HEAD)
        .await
        .unwrap();
    assert_eq!((told.as_str(), left), ("", 1));
}

#[tokio::test]
async fn an_answer_that_could_be_read_in_two_ways_is_the_callees_fault() {
    for answer in [
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
        "HTTP/1.1 200 OK\nContent-Length: 0\n\n",
        "SSH-2.0-OpenSSH\r\n\r\n",
        "hello",
    ] {
        let fault = asked(answer, Method::GET).await.unwrap_err();
        assert!(matches!(fault, CalleeFault::NotHttp { .. }), "{answer:?} {fault:?}");
    }
    let switched = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n";
    assert!(matches!(asked(switched, Method::GET).await, Err(CalleeFault::Interim)));
    let endless = "HTTP/1.1 100 Continue\r\n\r\n".repeat(20);
    assert!(matches!(asked(&endless, Method::GET).await, Err(CalleeFault::Interim)));
}

#[tokio::test]
async fn an_answer_that_breaks_off_never_looks_whole() {
    for answer in [
        "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhelloX",
    ] {
        let fault = asked(answer, Method::GET).await.unwrap_err();
        assert!(
            matches!(fault, CalleeFault::Gone { begun: true }),
            "{answer:?} {fault:?}"
        );
    }
    assert!(matches!(
        asked("", Method::GET).await,
        Err(CalleeFault::Gone { begun: false })
    ));
    assert!(matches!(
        asked("HTTP/1.1 2", Method::GET).await,
        Err(CalleeFault::Gone { begun: true })
    ));
}

#[tokio::test]
async fn what_is_written_is_the_request_and_nothing_more() {
    let post = "POST /orders/17?a=b HTTP/1.1\r\nhost: orders.prod.mesh\r\n";
    let whole = RequestBody::whole(Bytes::from_static(b"hello"));
    for (method, body, text) in [
        (
            Method::GET,
            RequestBody::empty(),
            "GET /orders/17?a=b HTTP/1.1\r\nhost: orders.prod.mesh\r\n\r\n".to_owned(),
        ),
        (
            Method::POST,
            RequestBody::empty(),
            format!("{post}content-length: 0\r\n\r\n"),
        ),
        (Method::POST, whole, format!("{post}content-length: 5\r\n\r\nhello")),
    ] {
        let (callees, (connection, mut far)) = (callees(), connected());
        far.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.unwrap();
        exchange(&callees, connection, &request(method), body).await.unwrap();
        callees.idle().clear();
        let mut written = String::new();
        far.read_to_string(&mut written).await.unwrap();
        assert_eq!(written, text);
    }
}

/// A body that comes over a connection of its own, and the end to write it to.
fn streamed(framing: Framing) -> (RequestBody, UnixStream) {
    let (near, far) = UnixStream::pair().unwrap();
    let (read, _) = ends::unix(near);
    let (body, _away) = Body::new(Reader::new(read, Limits::default()), Left::from(framing));
    (RequestBody::http1(body), far)
}

#[tokio::test]
async fn a_body_and_its_answer_pass_each_other() {
    let (callees, (connection, mut far)) = (callees(), connected());
    let (body, mut caller) = streamed(Framing::Chunked);
    assert_eq!(body.size_hint().exact(), None);
    let callee = async {
        let mut written = vec![0; 4096];
        let count = far.read(&mut written).await.unwrap();
        assert!(
            written
                .get(..count)
                .unwrap()
                .ends_with(b"transfer-encoding: chunked\r\n\r\n")
        );
        far.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            .await
            .unwrap();
        for word in ["one", "two"] {
            // Each word of the answer waits for one of the request: neither direction waits for the other's end.
            caller.write_all(format!("3\r\n{word}\r\n").as_bytes()).await.unwrap();
            let mut echoed = vec![0; 8];
            far.read_exact(&mut echoed).await.unwrap();
            far.write_all(&echoed).await.unwrap();
        }
        caller.write_all(b"0\r\n\r\n").await.unwrap();
        let mut end = vec![0; 5];
        far.read_exact(&mut end).await.unwrap();
        far.write_all(&end).await.unwrap();
    };
    let call = async {
        let (_, body) = exchange(&callees, connection, &request(Method::POST), body)
            .await
            .unwrap();
        collected(body).await.unwrap()
    };
    let (told, ()) = tokio::join!(call, callee);
    assert_eq!(told, "onetwo");
    assert_eq!(
        callees.idle()[&bot()].len(),
        1,
        "both directions ended, so the connection is kept"
    );
}

#[tokio::test]
async fn a_callers_body_that_breaks_is_not_the_callees_fault_and_ends_the_connection() {
    for (framing, sent) in [(Framing::Chunked, "zz\r\n"), (Framing::Length(5), "hel")] {
        let (callees, (connection, _far)) = (callees(), connected());
        let (body, mut caller) = streamed(framing);
        caller.write_all(sent.as_bytes()).await.unwrap();
        drop(caller);
        let fault = exchange(&callees, connection, &request(Method::POST), body)
            .await
            .unwrap_err();
        assert!(matches!(fault, CalleeFault::Caller { .. }), "{fault:?}");
        assert!(callees.idle().is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn a_callee_that_does_not_answer_is_given_up_after_the_callers_patience() {
    let (callees, (connection, _far)) = (callees(), connected());
    let started = Instant::now();
    let fault = exchange(&callees, connection, &request(Method::GET), RequestBody::empty())
        .await
        .unwrap_err();
    assert!(matches!(fault, CalleeFault::Slow), "{fault:?}");
    assert_eq!(started.elapsed(), Duration::from_secs(30));
}

#[tokio::test]
async fn only_so_many_idle_connections_are_kept_and_none_for_long() {
    let callees = callees();
    let mut others = Vec::new();
    for _ in 0..IDLE_MAX + 3 {
        let (connection, far) = connected();
        callees.keep(connection);
        others.push(far);
    }
    assert_eq!(callees.idle()[&bot()].len(), IDLE_MAX);
    for kept in callees.idle().get_mut(&bot()).unwrap() {
        kept.used = Instant::now() - super::IDLE;
    }
    callees.sweep();
    assert!(callees.idle().is_empty());
}
