//! Both ends with their tasks, over a pipe.

use std::time::Duration;

use http::StatusCode;
use tokio::io::{AsyncWriteExt, DuplexStream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::super::{Body, Call, Called, Caller, Ended, NotCalled, PROOFS_MAX, Proofs, Reset, Unneeded, begin, serve};
use crate::call::{AnswerBody, RequestBody};
use crate::http1::encode;
use crate::windows::{Window, Windows};

pub(super) struct Ends {
    pub(super) caller: Caller,
    unneeded: Option<Unneeded>,
    calling: JoinHandle<Ended>,
    called: JoinHandle<Ended>,
    proofs: (Proofs, mpsc::Receiver<bytes::Bytes>),
    pub(super) tasks: TaskTracker,
    closing: CancellationToken,
}

pub(super) async fn read(mut body: Body) -> Result<Vec<u8>, Ended> {
    let mut read = Vec::new();
    while let Some(frame) = std::future::poll_fn(|cx| body.poll_frame(cx)).await {
        read.extend(frame?.into_data().unwrap());
    }
    Ok(read)
}

fn window() -> Window {
    Windows::new(u64::MAX).take()
}

fn spawn<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> JoinHandle<T> {
    TaskTracker::new().spawn(work)
}

/// What the called end does with a call, by the first letter of its head.
async fn answer(call: Call) {
    let Call { head, body, reply } = call;
    match head.first() {
        // Says the body again, many times.
        Some(b'E') => {
            let said = read(body).await.unwrap().repeat(50);
            let write =
                |out: &mut bytes::BytesMut| encode::hop_answer_head(out, StatusCode::OK, &http::HeaderMap::new());
            reply.send(write, AnswerBody::whole(said.into())).await;
        }
        // Never answers.
        Some(b'W') => std::future::pending().await,
        // Breaks off.
        _ => {}
    }
}

fn ends<F>(here: DuplexStream, there: DuplexStream, answer: impl Fn(Call) -> F + Send + Sync + 'static) -> Ends
where
    F: Future<Output = ()> + Send + 'static,
{
    let (tasks, closing) = (TaskTracker::new(), CancellationToken::new());
    let (to_called, from_calling) = mpsc::channel(PROOFS_MAX);
    let called = Called {
        tasks: tasks.clone(),
        closing: closing.clone(),
        said: Duration::ZERO,
        proofs: to_called,
        window: window(),
    };
    let called = spawn(serve(there, called, |_proofs| {}, answer));
    let (caller, proofs, unneeded, driving) = begin(here, mpsc::channel(1).0, window());
    Ends {
        caller,
        unneeded: Some(unneeded),
        calling: spawn(driving),
        called,
        proofs: (proofs, from_calling),
        tasks,
        closing,
    }
}

impl Ends {
    fn new() -> Self {
        // Less than a frame: writes and reads are cut everywhere.
        Self::answered_by(answer, 1000)
    }

    /// Two ends that are joined by a pipe of so many bytes.
    pub(super) fn answered_by<F>(answer: impl Fn(Call) -> F + Send + Sync + 'static, bytes: usize) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let (here, there) = tokio::io::duplex(bytes);
        ends(here, there, answer)
    }

    async fn call(&self, head: &'static [u8], body: RequestBody) -> Result<Vec<u8>, NotCalled> {
        let write = |out: &mut bytes::BytesMut| out.extend_from_slice(head);
        let (head, body) = self.caller.call(&self.tasks, write, body).await?;
        assert!(head.starts_with(b"HTTP/1.1 200 "), "{head:?}");
        read(body).await.map_err(|ended| NotCalled { ended, body: None })
    }
}

#[tokio::test]
async fn many_calls_at_once_get_their_own_answers_whole() {
    let ends = Ends::new();
    let calls = (0..20u8).map(|number| {
        let said = vec![number; 1 + usize::from(number) * 3000];
        let ends = &ends;
        async move {
            let answer = ends.call(b"E", RequestBody::whole(said.clone().into())).await.unwrap();
            assert!(answer == said.repeat(50), "call {number}");
        }
    });
    let calls: Vec<_> = calls.collect();
    for call in calls {
        call.await;
    }
    let (first, second) = tokio::join!(
        ends.call(b"E", RequestBody::whole(vec![1; 100_000].into())),
        ends.call(b"E", RequestBody::whole(vec![2; 100_000].into()))
    );
    assert!(first.unwrap() == vec![1; 5_000_000] && second.unwrap() == vec![2; 5_000_000]);
}

#[tokio::test]
async fn a_connection_that_nobody_needs_ends_after_its_last_call() {
    let mut ends = Ends::new();
    ends.call(b"E", RequestBody::whole("a".into())).await.unwrap();
    drop(ends.unneeded.take());
    assert_eq!(ends.calling.await.unwrap(), Ended::Closed);
    assert_eq!(ends.called.await.unwrap(), Ended::Closed);
}

#[tokio::test]
async fn a_call_without_an_answer_is_told_and_the_next_goes_on() {
    let ends = Ends::new();
    let broken = ends.call(b"X", RequestBody::empty()).await.unwrap_err();
    assert_eq!(broken.ended, Ended::Reset(Reset::Failed));
    ends.call(b"E", RequestBody::whole("a".into())).await.unwrap();
}

#[tokio::test]
async fn a_caller_that_leaves_has_its_call_end_at_the_other_end() {
    let ends = Ends::new();
    let waiting = tokio::time::timeout(Duration::from_millis(20), ends.call(b"W", RequestBody::empty())).await;
    assert!(waiting.is_err());
    // Its task ends: the tracker has no other.
    ends.tasks.close();
    ends.tasks.wait().await;
}

#[tokio::test]
async fn a_proxy_that_ends_refuses_what_it_does_not_begin_and_waits_for_the_rest() {
    let mut ends = Ends::new();
    let waiting = {
        let (caller, tasks) = (ends.caller.clone(), ends.tasks.clone());
        spawn(async move {
            caller
                .call(&tasks, |out| out.extend_from_slice(b"W"), RequestBody::empty())
                .await
                .map(drop)
        })
    };
    tokio::task::yield_now().await;
    ends.closing.cancel();
    while !ends.caller.is_closed() {
        tokio::task::yield_now().await;
    }
    let refused = ends.call(b"E", RequestBody::whole("a".into())).await.unwrap_err();
    assert_eq!(refused.ended, Ended::Reset(Reset::Refused));
    assert_eq!(refused.body.unwrap().as_whole().unwrap(), "a");
    assert!(!waiting.is_finished() && !ends.called.is_finished());
    waiting.abort();
    drop(ends.unneeded.take());
    assert_eq!(ends.called.await.unwrap(), Ended::Closed);
}

#[tokio::test]
async fn proofs_come_through_as_they_were_said() {
    let mut ends = Ends::new();
    let proof: Vec<u8> = (0..40_000u32).map(|byte| u8::try_from(byte % 251).unwrap()).collect();
    ends.proofs.0.say(&proof);
    let mut came = Vec::new();
    while came.len() < proof.len() {
        came.extend(ends.proofs.1.recv().await.unwrap());
    }
    assert!(came == proof);
}

#[tokio::test]
async fn what_is_no_frame_ends_the_connection() {
    let (mut here, there) = tokio::io::duplex(1000);
    let (tasks, closing) = (TaskTracker::new(), CancellationToken::new());
    let called = Called {
        tasks,
        closing,
        said: Duration::ZERO,
        proofs: mpsc::channel(1).0,
        window: window(),
    };
    let called = spawn(serve(there, called, |_proofs| {}, answer));
    here.write_all(b"PRI * HTTP/2.0\r\n\r\n").await.unwrap();
    assert_eq!(called.await.unwrap(), Ended::Protocol);
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_says_nothing_is_left_after_it_was_asked() {
    let (_here, there) = tokio::io::duplex(1000);
    let called = Called {
        tasks: TaskTracker::new(),
        closing: CancellationToken::new(),
        said: Duration::ZERO,
        proofs: mpsc::channel(1).0,
        window: window(),
    };
    let called = serve(there, called, |_proofs| {}, answer);
    let ended = tokio::time::timeout(Duration::from_secs(61), called).await;
    assert_eq!(ended.unwrap(), Ended::Silent);
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_lives_is_not_left() {
    let ends = Ends::new();
    tokio::time::sleep(Duration::from_secs(600)).await;
    ends.call(b"E", RequestBody::whole("a".into())).await.unwrap();
}

/// A caller whose body comes in pieces, and does not end.
fn half(first: &'static [u8]) -> (RequestBody, mpsc::Sender<bytes::Bytes>) {
    let (say, said) = mpsc::channel(4);
    say.try_send(bytes::Bytes::from_static(first)).unwrap();
    (RequestBody::control(said), say)
}

#[tokio::test]
async fn a_body_that_waits_for_its_caller_is_let_go_when_its_call_has_ended() {
    let ends = Ends::new();
    let (body, say) = half(b"a");
    let broken = ends.call(b"X", body).await.unwrap_err();
    assert_eq!(broken.ended, Ended::Reset(Reset::Failed));
    // Nothing more comes of it, and yet nobody holds it.
    say.closed().await;
    let (body, say) = half(b"a");
    let waiting = tokio::time::timeout(Duration::from_millis(20), ends.call(b"W", body)).await;
    assert!(waiting.is_err());
    say.closed().await;
    let (body, say) = half(b"a");
    let connection_ends = async {
        tokio::task::yield_now().await;
        ends.called.abort();
    };
    let (broken, ()) = tokio::join!(ends.call(b"W", body), connection_ends);
    assert!(matches!(broken.unwrap_err().ended, Ended::Closed | Ended::Broken));
    say.closed().await;
}

#[tokio::test]
async fn a_body_is_as_long_as_its_head_says() {
    let ends = Ends::new();
    let mut lengths = Vec::new();
    for length in [100, 99, 101] {
        let write = |out: &mut bytes::BytesMut| out.extend_from_slice(b"E");
        let body = RequestBody::whole("ab".into());
        let (_, body) = ends.caller.call(&ends.tasks, write, body).await.unwrap();
        let body = body.of_length(Some(length)).unwrap();
        lengths.push(read(body).await.map(|said| said.len()));
    }
    assert_eq!(lengths, [Ok(100), Err(Ended::Length), Err(Ended::Length)]);
}
