use std::time::Duration;

use bytes::Bytes;
use h2::server::{self, SendResponse};
use http::HeaderValue;
use tokio::net::UnixStream;

use super::super::lines::tests::lease;
use super::*;

/// The callee's end of a connection.
type Far = server::Connection<UnixStream, Bytes>;

async fn connected() -> (Lease, Far, TaskTracker) {
    let (near, far) = UnixStream::pair().unwrap();
    let tasks = TaskTracker::new();
    let (lease, far) = tokio::join!(lease(near, &tasks), server::handshake(far));
    (lease, far.unwrap(), tasks)
}

fn asked() -> StreamRequest {
    StreamRequest {
        request: CalleeRequest {
            method: http::Method::POST,
            target: Bytes::from_static(b"/a.B/C"),
            headers: HeaderMap::from_iter([(http::header::TE, HeaderValue::from_static("trailers"))]),
            patience: Duration::from_secs(30),
            connect: None,
        },
        authority: http::uri::Authority::from_static("orders.prod.mesh"),
    }
}

async fn next(far: &mut Far) -> (Request<RecvStream>, SendResponse<Bytes>) {
    far.accept().await.unwrap().unwrap()
}

/// Serves the connection until the call has come to something.
async fn with<T>(far: &mut Far, call: impl Future<Output = T>) -> T {
    let mut call = std::pin::pin!(call);
    std::future::poll_fn(|cx| {
        drop(far.poll_closed(cx));
        call.as_mut().poll(cx)
    })
    .await
}

#[tokio::test]
async fn a_call_is_the_request_that_was_decided_on_and_its_answer_ends_with_trailers() {
    let (lease, mut far, tasks) = connected().await;
    let body = RequestBody::whole(Bytes::from_static(b"hello"));
    let asked = asked();
    let callee = async {
        let (request, mut answer) = next(&mut far).await;
        let uri = request.uri().to_string();
        assert_eq!(
            (request.method().as_str(), uri.as_str()),
            ("POST", "http://orders.prod.mesh/a.B/C")
        );
        assert_eq!(request.headers()["te"], "trailers");
        let mut send = answer.send_response(Response::new(()), false).unwrap();
        send.send_data(Bytes::from_static(b"hi"), false).unwrap();
        send.send_trailers(HeaderMap::from_iter([(
            http::HeaderName::from_static("grpc-status"),
            HeaderValue::from_static("0"),
        )]))
        .unwrap();
        std::future::poll_fn(|cx| far.poll_closed(cx)).await.unwrap();
    };
    let call = async {
        let (status, _, mut body) = exchange(lease, &asked, body, &tasks).await.map_err(|(f, _)| f).unwrap();
        assert_eq!(status, StatusCode::OK);
        let mut frames = Vec::new();
        while let Some(frame) = std::future::poll_fn(|cx| body.poll_frame(cx)).await {
            frames.push(frame.unwrap());
        }
        assert!(body.is_end_stream());
        assert_eq!(frames[0].data_ref().unwrap(), "hi");
        assert_eq!(frames[1].trailers_ref().unwrap()["grpc-status"], "0");
    };
    tokio::join!(callee, call);
}

/// Has the callee do something with the first call, and tells whether the caller has its body back.
async fn unbegun(body: RequestBody, callee: impl FnOnce(&mut Far, SendResponse<Bytes>)) -> bool {
    let (lease, mut far, tasks) = connected().await;
    let asked = asked();
    let mut call = std::pin::pin!(exchange(lease, &asked, body, &tasks));
    let answer = tokio::select! {
        (_, answer) = next(&mut far) => answer,
        _ = call.as_mut() => panic!("answered by nobody"),
    };
    callee(&mut far, answer);
    let (_, body) = with(&mut far, call).await.unwrap_err();
    body.is_some()
}

#[tokio::test]
async fn only_a_call_that_the_callee_has_not_begun_is_given_back_to_be_sent_again() {
    let refused = |_: &mut Far, mut answer: SendResponse<Bytes>| answer.send_reset(Reason::REFUSED_STREAM);
    let reset = |_: &mut Far, mut answer: SendResponse<Bytes>| answer.send_reset(Reason::CANCEL);
    assert!(unbegun(RequestBody::empty(), refused).await);
    assert!(
        !unbegun(RequestBody::empty(), reset).await,
        "CANCEL says nothing about what was done"
    );
    let whole = RequestBody::whole(Bytes::from_static(b"hi"));
    assert!(
        !unbegun(whole, refused).await,
        "of a body that was taken nothing is left to send"
    );
    let gone = |far: &mut Far, _| far.abrupt_shutdown(Reason::INTERNAL_ERROR);
    assert!(
        !unbegun(RequestBody::empty(), gone).await,
        "it was begun, and then the connection failed"
    );
}

#[tokio::test]
async fn a_connection_that_is_over_sends_nothing() {
    let (lease, far, tasks) = connected().await;
    drop(far);
    // The end of the connection is seen by its own task.
    tasks.close();
    tasks.wait().await;
    let whole = RequestBody::whole(Bytes::from_static(b"hi"));
    let (_, body) = exchange(lease, &asked(), whole, &tasks).await.unwrap_err();
    assert!(body.is_some(), "what was not sent is sent again");
}

#[tokio::test]
async fn an_answer_that_nobody_wants_is_cancelled_at_the_callee() {
    let (lease, mut far, tasks) = connected().await;
    let asked = asked();
    let (waits, later) = RequestBody::later();
    let callee = async {
        let (_, mut answer) = next(&mut far).await;
        let mut send = answer.send_response(Response::new(()), false).unwrap();
        let mut reset = std::pin::pin!(std::future::poll_fn(|cx| send.poll_reset(cx)));
        std::future::poll_fn(|cx| {
            drop(far.poll_closed(cx));
            reset.as_mut().poll(cx)
        })
        .await
    };
    let call = async {
        let (_, _, body) = exchange(lease, &asked, waits, &tasks)
            .await
            .map_err(|(f, _)| f)
            .unwrap();
        drop(body);
    };
    let (reset, ()) = tokio::join!(callee, call);
    assert_eq!(reset.unwrap(), Reason::CANCEL, "although the request has not ended");
    drop(later);
    tasks.close();
    tasks.wait().await;
}

#[tokio::test(start_paused = true)]
async fn a_callee_that_does_not_answer_is_given_up_after_the_callers_patience() {
    let (lease, mut far, tasks) = connected().await;
    let asked = asked();
    let started = tokio::time::Instant::now();
    let call = exchange(lease, &asked, RequestBody::empty(), &tasks);
    let (fault, _) = with(&mut far, call).await.unwrap_err();
    assert!(matches!(fault, CalleeFault::Slow), "{fault:?}");
    assert_eq!(started.elapsed(), Duration::from_secs(30));
}
