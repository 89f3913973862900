//! Plain TCP between bots: what a rule's `tcp:` allows.
//!
//! A connection is one call. It is decided and recorded at both ends before a byte of it is read, and its two directions
//! go their own ways to their own ends: whoever says FIN is heard as one that says no more, and the other direction goes
//! on. What breaks off ends by a reset, so that nobody takes the half of something for the whole.
//!
//! A connection to `tls://` goes the same way, but out of the mesh.
//!
//! A caller comes by a listener of its own (here) or by CONNECT ([`crate::bots`]). Between two proxies a connection is a
//! request and an answer whose bodies are its directions ([`crate::mesh`]); at the callee it is [`crate::callee`]'s.

mod proxy_v2;

use std::sync::Arc;

use http::{HeaderMap, StatusCode};

use crate::call::{self, Door, Opening, RequestBody, To};
use crate::connection::tunnel::Line;
use crate::ends::{ReadEnd, WriteEnd};
use crate::http1::deadline::Deadline;
use crate::http1::read::Reader;
use crate::http1::write::Writer;
use crate::proxy::Proxy;
use crate::seldom::Seldom;

pub(crate) use proxy_v2::{Addresses, header as proxy_v2_header};

/// A caller that tries again and again must not fill the log; the ledger has every refusal.
static REFUSED: Seldom = Seldom::new();

/// Where a listener, or a tunnel, leads.
#[derive(Clone, Debug)]
pub(crate) struct Leads {
    /// To whom.
    pub(crate) to: To,
    /// To which port there, where nothing is read; else HTTP is.
    pub(crate) tcp: Option<u16>,
}

/// Serves a connection of a listener to its end. One that is refused is reset at once: there is no way to say why in a
/// protocol that is not known.
pub(crate) async fn serve(proxy: &Arc<Proxy>, read: ReadEnd, write: WriteEnd, door: &Door, leads: &Leads) {
    let (body, later) = RequestBody::later();
    let count = body.count();
    let opening = Opening {
        to: Ok(leads.to.clone()),
        port: leads.tcp.unwrap_or_default(),
        headers: HeaderMap::new(),
        body,
    };
    let answer = call::open(proxy, door, opening, &mut Deadline::default()).await;
    let mut writer = Writer::new(write, proxy.limits.body_idle);
    if answer.status != StatusCode::OK {
        if let Some(left_out) = REFUSED.due() {
            let call = answer.headers.get("botmesh-call").and_then(|id| id.to_str().ok());
            tracing::info!(to = %leads.to, port = leads.tcp, call, left_out, "refused a connection of a listener");
        }
        return writer.io().reset();
    }
    let reader = Box::new(Reader::new(read, proxy.limits));
    let line = Line {
        door,
        writer: &mut writer,
        silence: None,
    };
    line.carry(reader, answer.body, later, &count).await;
}
