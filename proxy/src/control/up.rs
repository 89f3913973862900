//! What goes up to the CA besides receipts: observations, bounded, with exact
//! counts of what did not fit.

use std::sync::atomic::{AtomicU64, Ordering};

use ca_api::node::{EDGES_MAX, Edge, Edges, Event, HostMessage, host_message, up};
use spiffe::time::Timestamp;
use tokio::sync::mpsc;
use tokio::time::Instant;

/// How many messages wait while the CA is away. Calls go on without it, so the
/// queue must not grow with them.
const QUEUE_MAX: usize = 256;

/// The longest kind and JSON of an event that the CA takes; it ends the stream of a
/// host that sends more.
const KIND_BYTES_MAX: usize = 64;
const EVENT_BYTES_MAX: usize = 8 * 1024;

/// The end that the data path writes to; never waits.
#[derive(Debug)]
pub(super) struct UpQueue {
    sender: mpsc::Sender<Waiting>,
    edges_dropped: AtomicU64,
    events_dropped: AtomicU64,
}

/// What was queued, and when.
#[derive(Debug)]
pub(super) struct Waiting {
    message: host_message::Message,
    since: Instant,
}

/// The end that the stream to the CA reads from.
#[derive(Debug)]
pub(super) struct UpReader(mpsc::Receiver<Waiting>);

pub(super) fn queue() -> (UpQueue, UpReader) {
    let (sender, receiver) = mpsc::channel(QUEUE_MAX);
    let queue = UpQueue {
        sender,
        edges_dropped: AtomicU64::new(0),
        events_dropped: AtomicU64::new(0),
    };
    (queue, UpReader(receiver))
}

impl UpQueue {
    /// Queues edges, or counts them as dropped.
    pub(super) fn edges(&self, edges: Vec<Edge>) {
        let mut edges = edges.into_iter().peekable();
        while edges.peek().is_some() {
            let part: Vec<Edge> = edges.by_ref().take(EDGES_MAX).collect();
            let count = u64::try_from(part.len()).unwrap_or(u64::MAX);
            let edges = Edges {
                edges: part,
                ..Edges::default()
            };
            if !self.queue(host_message::Message::Edges(edges)) {
                self.edges_dropped.fetch_add(count, Ordering::Relaxed);
            }
        }
    }

    /// Queues an event, or counts it as dropped.
    pub(super) fn event(&self, kind: String, json: String, time: Timestamp) {
        let fits = kind.len() <= KIND_BYTES_MAX && json.len() <= EVENT_BYTES_MAX;
        let event = Event {
            kind,
            json,
            unix_ms: time.unix_millis(),
        };
        if !fits || !self.queue(host_message::Message::Event(event)) {
            self.events_dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Says whether there was room.
    fn queue(&self, message: host_message::Message) -> bool {
        let since = Instant::now();
        self.sender.try_send(Waiting { message, since }).is_ok()
    }

    /// Counts an event as dropped.
    pub(super) fn leave_out_event(&self) {
        self.events_dropped.fetch_add(1, Ordering::Relaxed);
    }

    /// How many edges and events were dropped and not yet reported.
    pub(super) fn dropped(&self) -> (u64, u64) {
        (
            self.edges_dropped.load(Ordering::Relaxed),
            self.events_dropped.load(Ordering::Relaxed),
        )
    }

    /// Makes the message to send of one that was queued: the count of what was
    /// dropped travels with the next edges, and with all edges how long they waited.
    pub(super) fn stamp(&self, waiting: Waiting) -> HostMessage {
        let Waiting { mut message, since } = waiting;
        if let host_message::Message::Edges(edges) = &mut message {
            edges.dropped = self.edges_dropped.swap(0, Ordering::Relaxed);
            edges.waited_ms = u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX);
        }
        up(message)
    }

    /// Makes the event that reports dropped events, if there were any.
    pub(super) fn report_dropped_events(&self, now: Timestamp) -> Option<HostMessage> {
        match self.events_dropped.swap(0, Ordering::Relaxed) {
            0 => None,
            count => Some(up(host_message::Message::Event(Event {
                kind: "events_dropped".to_owned(),
                json: format!("{{\"count\":{count}}}"),
                unix_ms: now.unix_millis(),
            }))),
        }
    }
}

impl UpReader {
    /// Waits for the next message. Losing the wait midway loses no message.
    pub(super) async fn next(&mut self) -> Option<Waiting> {
        self.0.recv().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edge(count: u64) -> Edge {
        Edge {
            count,
            ..Edge::default()
        }
    }

    const NOW: Timestamp = Timestamp::from_unix_millis(5);

    #[tokio::test]
    async fn what_does_not_fit_is_counted_exactly_and_reported_once() {
        let (queue, mut reader) = queue();
        for _ in 0..QUEUE_MAX {
            queue.edges(vec![edge(1)]);
        }
        queue.edges(vec![edge(1), edge(2), edge(3)]);
        queue.event("denied".into(), "{}".into(), NOW);
        assert_eq!(queue.dropped(), (3, 1));
        let first = reader.next().await.unwrap();
        let Some(host_message::Message::Edges(edges)) = queue.stamp(first).message else {
            panic!("edges first")
        };
        assert_eq!(edges.dropped, 3);
        let second = reader.next().await.unwrap();
        let Some(host_message::Message::Edges(edges)) = queue.stamp(second).message else {
            panic!("edges second")
        };
        assert_eq!(edges.dropped, 0);
        let report = queue.report_dropped_events(NOW).unwrap();
        assert!(format!("{report:?}").contains("events_dropped"));
        assert!(queue.report_dropped_events(NOW).is_none());
    }

    #[tokio::test]
    async fn many_edges_travel_in_messages_of_a_bounded_size() {
        let (queue, mut reader) = queue();
        queue.edges(vec![edge(1); EDGES_MAX + 1]);
        for expected in [EDGES_MAX, 1] {
            let Some(Waiting {
                message: host_message::Message::Edges(edges),
                ..
            }) = reader.next().await
            else {
                panic!("edges")
            };
            assert_eq!(edges.edges.len(), expected);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn edges_say_how_long_they_waited() {
        let (queue, mut reader) = queue();
        queue.edges(vec![edge(1)]);
        tokio::time::advance(std::time::Duration::from_secs(90)).await;
        let waiting = reader.next().await.unwrap();
        let Some(host_message::Message::Edges(edges)) = queue.stamp(waiting).message else {
            panic!("edges")
        };
        assert_eq!(edges.waited_ms, 90_000);
    }

    #[test]
    fn an_event_that_is_too_long_is_dropped_and_counted() {
        let (queue, _reader) = queue();
        queue.event("x".into(), "y".repeat(EVENT_BYTES_MAX + 1), NOW);
        queue.event("x".repeat(KIND_BYTES_MAX + 1), "{}".into(), NOW);
        assert_eq!(queue.dropped(), (0, 2));
        queue.event("x".repeat(KIND_BYTES_MAX), "y".repeat(EVENT_BYTES_MAX), NOW);
        assert_eq!(queue.dropped(), (0, 2));
    }
}
