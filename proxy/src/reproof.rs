//! The control stream of a connection between two proxies: on it each end shows the SVIDs that follow the one of the
//! handshake, and judges those of the other.
//!
//! It is one HTTP/2 request that the calling proxy opens, and whose two bodies carry proofs ([`spiffe_tls::Reproof`])
//! each their way. Only a connection whose ends chose [`ALPN`] has one, so no foreign peer ever sees it; its authority
//! is no bot's. It is no call: no rule is asked, and no call is recorded.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, Uri, Version};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::client::conn::http2::SendRequest;
use spiffe::id::{BotName, SpiffeId};
use spiffe::svid::Leaf;
use spiffe_tls::{EXPORTER_BYTES, Exporter, Reproof, ReproofReader, Role, Session, reproof_label};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::call::{AnswerBody, RequestBody};
use crate::hop;
use crate::proven::{Proven, Shown};
use crate::proxy::Proxy;

/// What two proxies choose when they shake hands: HTTP/2, and a control stream on it.
pub(crate) const ALPN: &[u8] = b"botmesh-h2";

/// Where a control stream goes. No bot has this authority: mesh hosts end in `.mesh`.
const AUTHORITY: &str = "botmesh.invalid";
const PATH: &str = "/reproof/1";

/// Proofs that may come at once, and how long one more takes to be allowed. Renewals are minutes apart.
const BURST: u32 = 16;
const REFILL: Duration = Duration::from_secs(4);

/// How long it takes until a proof that may pass later is looked at again, where nothing else calls for it.
const AGAIN: Duration = Duration::from_secs(5);

/// Proofs of this end that wait for the peer to take them.
const UNSENT_MAX: usize = 4;

/// One end of a control stream.
#[derive(Debug)]
pub(crate) struct Control {
    proxy: Arc<Proxy>,
    proven: Arc<Proven>,
    exporter: Exporter,
    /// The bot of this end.
    bot: BotName,
    /// Where the peer is, for the record of a refusal.
    peer: IpAddr,
    taken: AtomicBool,
}

/// Takes from a session what its proofs sign. Nothing where the session cannot export, which one of TLS 1.3 can.
pub(crate) fn exporter<Data>(session: &rustls::ConnectionCommon<Data>) -> Option<Exporter> {
    let label = reproof_label().as_bytes();
    let value = session.export_keying_material([0; EXPORTER_BYTES], label, Some(&[]));
    value.ok().map(Exporter::new)
}

impl Control {
    pub(crate) fn new(
        proxy: &Arc<Proxy>,
        proven: &Arc<Proven>,
        exporter: Exporter,
        bot: BotName,
        peer: IpAddr,
    ) -> Arc<Self> {
        Arc::new(Self {
            proxy: Arc::clone(proxy),
            proven: Arc::clone(proven),
            exporter,
            bot,
            peer,
            taken: AtomicBool::new(false),
        })
    }

    /// Shows and judges proofs on a connection that has a kind of frame for them, until it ends.
    pub(crate) async fn serve_hop(self: Arc<Self>, from: mpsc::Receiver<Bytes>, to: hop::Proofs) {
        self.serve(From::Hop(from), To::Hop(to)).await;
    }

    /// Opens the stream and serves it, until the connection ends or nobody needs it any more.
    pub(crate) async fn open(self: Arc<Self>, mut send: SendRequest<RequestBody>, unneeded: CancellationToken) {
        let (out, body) = mpsc::channel(UNSENT_MAX);
        let mut request = Request::new(RequestBody::control(body));
        *request.method_mut() = Method::POST;
        *request.version_mut() = Version::HTTP_2;
        let uri = Uri::builder().scheme("https").authority(AUTHORITY).path_and_query(PATH);
        let Ok(uri) = uri.build() else { return };
        *request.uri_mut() = uri;
        let opening = async {
            let answer = send.send_request(request).await?;
            // Held no longer than it must be: the connection ends with those who call on it.
            drop(send);
            Ok::<_, hyper::Error>(answer)
        };
        // A stream that is lost takes nothing along but proofs that nobody needs.
        tokio::select! {
            opened = opening => match opened {
                Ok(answer) if answer.status().is_success() => {
                    tokio::select! {
                        () = self.serve(From::Http2(answer.into_body()), To::Http2(out)) => {}
                        () = unneeded.cancelled() => {}
                    }
                }
                Ok(answer) => tracing::warn!(status = %answer.status(), peer = %self.peer, "the other proxy takes no proofs"),
                Err(error) => tracing::debug!(%error, peer = %self.peer, "a control stream was not opened"),
            },
            () = unneeded.cancelled() => {}
        }
    }

    /// Tells whether a request opens the stream: the first that does.
    pub(crate) fn is_for(&self, request: &Request<Incoming>) -> bool {
        let uri = request.uri();
        let asks = request.method() == Method::POST
            && uri.authority().is_some_and(|authority| authority == AUTHORITY)
            && uri.path_and_query().is_some_and(|path| path == PATH);
        asks && !self.taken.swap(true, Ordering::Relaxed)
    }

    /// Answers the request that opens the stream, and serves the stream.
    pub(crate) fn answer(self: Arc<Self>, request: Request<Incoming>) -> Response<AnswerBody> {
        let (out, body) = mpsc::channel(UNSENT_MAX);
        let tasks = self.proxy.tasks.clone();
        drop(tasks.spawn(async move { self.serve(From::Http2(request.into_body()), To::Http2(out)).await }));
        Response::new(AnswerBody::control(body))
    }

    /// Shows the SVIDs of this end as they follow each other, and judges those of the other.
    async fn serve(&self, mut from: From, out: To) {
        let (mut svids, mut moments) = (self.proxy.control.svids_changed(), self.proxy.control.changed());
        let (mut reader, mut rate) = (ReproofReader::default(), Rate::new(Instant::now()));
        // A proof whose authority this end has not heard of yet, or whose time has not come.
        let mut early: Option<Reproof> = None;
        loop {
            if self.show(&out).is_err() {
                return;
            }
            // Waiting for a frame loses none when another arm is taken; the others only wait.
            let piece = tokio::select! {
                () = self.proxy.closing.cancelled() => return,
                () = out.closed() => return,
                changed = svids.changed() => match changed {
                    Ok(()) => continue,
                    Err(_gone) => return,
                },
                changed = moments.changed(), if early.is_some() => match changed {
                    Ok(()) => None,
                    Err(_gone) => return,
                },
                () = self.proxy.clock.sleep(AGAIN), if early.is_some() => None,
                piece = from.piece() => match piece {
                    Some(piece) => Some(piece),
                    None => return,
                },
            };
            match piece {
                None => early = early.take().filter(|proof| self.judge_again(proof)),
                Some(piece) => {
                    reader.push(&piece);
                    loop {
                        let proof = match reader.next_proof() {
                            Ok(Some(proof)) => proof,
                            Ok(None) => break,
                            Err(_unreadable) => return self.refuse("unreadable"),
                        };
                        if !rate.allows(Instant::now()) {
                            return self.refuse("too_many");
                        }
                        early = self.judge(&proof).then_some(proof);
                    }
                }
            }
        }
    }

    /// Shows the SVID of this end if it ends later than the one shown last. `Err` when the peer takes no proofs.
    fn show(&self, out: &To) -> Result<(), ()> {
        let Some(svid) = self.proxy.control.svid(&self.bot) else {
            return Ok(());
        };
        if svid.leaf().not_after() <= self.proven.own().not_after {
            return Ok(());
        }
        let proof = Reproof::make(&svid, self.proven.role(), &self.exporter).map_err(|error| {
            tracing::error!(error = &error as &dyn std::error::Error, "a proof could not be signed");
        })?;
        out.say(proof.encode())?;
        self.proven.own_shown(Shown::of(svid.leaf()));
        Ok(())
    }

    /// Judges a proof; says whether it may pass later.
    fn judge(&self, proof: &Reproof) -> bool {
        let snapshot = self.proxy.control.snapshot();
        match proof.verify(self.session(), &snapshot.bundle, self.proxy.control.now()) {
            Ok(leaf) => {
                self.accept(&leaf);
                false
            }
            Err(refusal) => {
                tracing::warn!(peer = %self.peer, id = %self.proven.id(), error = &refusal as &dyn std::error::Error, "refused a proof in band");
                self.refuse(refusal.reason());
                refusal.may_pass_later()
            }
        }
    }

    /// Judges a proof that was refused, with what is known since. It is not recorded a second time.
    fn judge_again(&self, proof: &Reproof) -> bool {
        let snapshot = self.proxy.control.snapshot();
        match proof.verify(self.session(), &snapshot.bundle, self.proxy.control.now()) {
            Ok(leaf) => {
                self.accept(&leaf);
                false
            }
            Err(refusal) => refusal.may_pass_later(),
        }
    }

    fn session(&self) -> Session<'_> {
        Session {
            peer: match self.proven.role() {
                Role::Client => Role::Server,
                Role::Server => Role::Client,
            },
            id: self.proven.id(),
            not_after: self.proven.peer().not_after,
            exporter: &self.exporter,
        }
    }

    /// Takes the SVID as the peer's. One that is worth nothing ends the connection: its host is cut off.
    fn accept(&self, leaf: &Leaf) {
        let shown = match self.proven.role() {
            Role::Client => Shown::of(leaf),
            Role::Server => Shown::of_caller(leaf, &SpiffeId::for_bot(&self.proxy.trust_domain, &self.bot)),
        };
        // Noted first and looked at afterwards: a list that comes after the look finds the new serial with every call.
        self.proven.peer_proved(shown);
        if self.proxy.control.snapshot().revokes(leaf.serial()) {
            self.refuse("revoked");
            return self.proven.finish();
        }
        self.proxy.metrics.reproof("accepted");
        tracing::debug!(peer = %self.peer, id = %self.proven.id(), serial = %leaf.serial(), "a peer proved its next SVID");
    }

    /// Counts and records a proof that was not taken; `reason` is a word of ours.
    fn refuse(&self, reason: &str) {
        self.proxy.metrics.reproof(reason);
        self.proxy.ledger.stranger(self.peer, &format!("reproof_{reason}"));
    }
}

/// Where a peer's proofs come from.
#[derive(Debug)]
enum From {
    /// A control stream.
    Http2(Incoming),
    /// Frames of their own.
    Hop(mpsc::Receiver<Bytes>),
}

impl From {
    /// Takes the next piece; nothing once no more comes. Cancel safe.
    async fn piece(&mut self) -> Option<Bytes> {
        match self {
            Self::Hop(pieces) => pieces.recv().await,
            Self::Http2(body) => loop {
                match body.frame().await?.map(hyper::body::Frame::into_data) {
                    Ok(Ok(piece)) => return Some(piece),
                    Ok(Err(_trailers)) => {}
                    Err(_broken) => return None,
                }
            },
        }
    }
}

/// Where this end's proofs go.
#[derive(Debug)]
enum To {
    /// A control stream.
    Http2(mpsc::Sender<Bytes>),
    /// Frames of their own.
    Hop(hop::Proofs),
}

impl To {
    /// Says a proof. `Err` when the peer takes none.
    fn say(&self, proof: Vec<u8>) -> Result<(), ()> {
        match self {
            Self::Http2(out) => out.try_send(Bytes::from(proof)).map_err(|_full_or_gone| ()),
            Self::Hop(out) => {
                out.say(&proof);
                Ok(())
            }
        }
    }

    /// Waits until nobody takes proofs any more; where the connection has ended, [`From::piece`] says so.
    async fn closed(&self) {
        match self {
            Self::Http2(out) => out.closed().await,
            Self::Hop(_) => std::future::pending().await,
        }
    }
}

/// How many proofs may come: what each costs to judge is a peer's to spend.
#[derive(Debug)]
struct Rate {
    left: u32,
    since: Instant,
}

impl Rate {
    const fn new(now: Instant) -> Self {
        Self {
            left: BURST,
            since: now,
        }
    }

    fn allows(&mut self, now: Instant) -> bool {
        while self.left < BURST && now.duration_since(self.since) >= REFILL {
            self.left += 1;
            self.since += REFILL;
        }
        if self.left == BURST {
            self.since = now;
        }
        match self.left.checked_sub(1) {
            Some(left) => {
                self.left = left;
                true
            }
            None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proofs_have_a_rate() {
        let start = Instant::now();
        let mut rate = Rate::new(start);
        let allowed = |rate: &mut Rate, now| (0..100).take_while(|_| rate.allows(now)).count();
        assert_eq!(allowed(&mut rate, start), 16);
        assert_eq!(allowed(&mut rate, start + Duration::from_secs(3)), 0);
        assert_eq!(allowed(&mut rate, start + Duration::from_secs(9)), 2);
        assert_eq!(allowed(&mut rate, start + Duration::from_hours(1)), 16);
    }

    #[test]
    fn no_bot_has_the_authority_of_a_control_stream() {
        assert!(BotName::from_mesh_host(AUTHORITY).is_none());
    }
}
