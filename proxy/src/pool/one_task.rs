//! Has the frames of a connection be read by the very task that begins its calls.
//!
//! hyper reads frames in a task of its own. A GOAWAY that this one read between the two steps by which the other begins a
//! call (the stream is opened, and then the connection is asked whether it is still there) ended the call with the same
//! error as a stream above the GOAWAY's last one, though its request went out and may be carried (RFC 9113 §6.8). In one
//! task nothing comes between the two steps, so that error means that nobody began the call, whatever its method.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;

use crate::mesh::Tasks;

type Work = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Takes hyper's tasks for one connection.
#[derive(Clone)]
pub(super) struct OneTask<E = Tasks> {
    others: E,
    frames: Arc<Mutex<Frames>>,
}

/// The task that reads and writes frames: the first that hyper starts.
enum Frames {
    ToCome,
    Here(Work),
    Taken,
}

impl<E> OneTask<E> {
    pub(super) fn new(others: E) -> Self {
        Self {
            others,
            frames: Arc::new(Mutex::new(Frames::ToCome)),
        }
    }

    /// Runs the calls of a connection and its frames to the end of both. Dropped, both end.
    pub(super) async fn run<T>(self, calls: impl Future<Output = T>) -> Option<T> {
        let mut frames = match std::mem::replace(&mut *self.frames(), Frames::Taken) {
            Frames::Here(work) => Some(work),
            Frames::ToCome | Frames::Taken => None,
        };
        let (mut calls, mut ended) = (std::pin::pin!(Some(calls)), None);
        std::future::poll_fn(|cx| {
            if let Some(running) = calls.as_mut().as_pin_mut()
                && let Poll::Ready(done) = running.poll(cx)
            {
                ended = Some(done);
                // As long as this is kept the frames wait for more calls.
                calls.set(None);
            }
            // What was begun goes out in the same turn; and what is under way goes on when no more can begin.
            if let Some(work) = &mut frames
                && work.as_mut().poll(cx).is_ready()
            {
                frames = None;
            }
            if frames.is_none() && calls.is_none() {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        })
        .await;
        ended
    }

    /// A thread that panicked while it held the lock left a whole value.
    fn frames(&self) -> MutexGuard<'_, Frames> {
        self.frames.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<E, F> hyper::rt::Executor<F> for OneTask<E>
where
    E: hyper::rt::Executor<F>,
    F: Future + Send + 'static,
{
    fn execute(&self, work: F) {
        let mut frames = self.frames();
        match *frames {
            Frames::ToCome => {
                *frames = Frames::Here(Box::pin(async move {
                    drop(work.await);
                }));
            }
            Frames::Here(_) | Frames::Taken => {
                drop(frames);
                self.others.execute(work);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::time::Duration;

    use bytes::Bytes;
    use http::{Method, Request};
    use hyper::client::conn::http2;
    use hyper_util::rt::{TokioExecutor, TokioIo};
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
    use tokio::task::JoinSet;

    use super::super::again::{Chance, chance};
    use super::*;
    use crate::call::RequestBody;

    /// No stream is above this one (RFC 9113 §6.8): calls that are on their way may be carried.
    const GO_AWAY: [u8; 17] = [0, 0, 8, 7, 0, 0, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 0];

    /// Reads frames to the end, says GOAWAY after so many heads, and gives the streams whose head came.
    async fn peer(mut io: DuplexStream, heads: usize) -> BTreeSet<u32> {
        io.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).await.unwrap();
        io.read_exact(&mut [0; 24]).await.unwrap();
        let (mut came, mut head) = (BTreeSet::new(), [0; 9]);
        while io.read_exact(&mut head).await.is_ok() {
            let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
            if io.read_exact(&mut vec![0; length]).await.is_err() {
                break;
            }
            if head[3] == 1 {
                came.insert(u32::from_be_bytes([head[5], head[6], head[7], head[8]]));
                if came.len() == heads && io.write_all(&GO_AWAY).await.is_err() {
                    break;
                }
            }
        }
        came
    }

    /// Makes calls without a break until none can begin; how many were said not to have begun, of all, and how many came.
    async fn calls(heads: usize) -> (usize, usize, usize) {
        let (near, far) = tokio::io::duplex(1 << 20);
        let (mut peers, mut connections) = (JoinSet::new(), JoinSet::new());
        peers.spawn(peer(far, heads));
        let tasks = OneTask::new(TokioExecutor::new());
        let (send, connection) = http2::handshake(tasks.clone(), TokioIo::new(near)).await.unwrap();
        connections.spawn(tasks.run(connection));
        let mut made = JoinSet::new();
        for _ in 0..heads * 3 {
            let mut send = send.clone();
            made.spawn(async move {
                let mut request = Request::new(RequestBody::whole(Bytes::from_static(b"hi")));
                *request.method_mut() = Method::POST;
                *request.uri_mut() = "https://orders.prod.mesh/".parse().unwrap();
                let sent = tokio::time::timeout(Duration::from_millis(200), send.try_send_request(request));
                match sent.await {
                    // It waits for its answer: it was begun.
                    Err(_late) => false,
                    Ok(answer) => {
                        let mut failed = answer.unwrap_err();
                        failed.take_message().is_some()
                            || chance(failed.error(), &Method::POST) == Some(Chance::NotBegun)
                    }
                }
            });
            tokio::task::yield_now().await;
        }
        let all = made.len();
        let not_begun = made.join_all().await.into_iter().filter(|not_begun| *not_begun).count();
        drop(send);
        connections.shutdown().await;
        (not_begun, all, peers.join_all().await.iter().map(BTreeSet::len).sum())
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn a_call_that_is_said_not_to_have_begun_at_a_goaway_never_went_out() {
        let (mut turned_away, mut rounds) = (0, 0);
        // Which call meets the GOAWAY is the machine's to say: as many rounds as it takes, and some in any case.
        while rounds < 20 || turned_away == 0 {
            let (not_begun, all, came) = calls(8 + rounds % 20).await;
            assert!(
                not_begun + came <= all,
                "{not_begun} not begun and {came} came of {all}"
            );
            turned_away += not_begun;
            rounds += 1;
            assert!(rounds < 500, "none met a GOAWAY");
        }
    }
}
