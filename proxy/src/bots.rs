//! The bot side: local processes call here, over TCP on loopback and over Unix sockets.
//!
//! Each connection is attested once, when it opens, and held to that; each of its requests is a call of its own.

mod destination;
mod listen;
mod own;

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Method};
use policy::{Protocol, Scheme, Serve, Target as Place};

use crate::call::{
    self, Answer, Asked, Door, Opening, OutsideRoute, Refusal, RequestBody, Route, Routes, To, is_browser_shaped,
};
use crate::connection::{Reply, Wanted};
use crate::http1::head::RequestHead;
use crate::http1::target::{Authority, Target};
use crate::proxy::Proxy;
use crate::reason::Reason;
use crate::tcp::Leads;
use crate::whoami;
use destination::Destination;

pub(crate) use destination::WayIn;
pub(crate) use listen::{Listeners, Source, Ways, serve};
pub(crate) use own::serve_own;

/// What answers the requests of one local process.
#[derive(Debug)]
pub(crate) struct BotSide {
    door: Door,
    way: Arc<WayIn>,
    routes: Routes,
    /// Where the connection leads since its CONNECT.
    opened: Option<To>,
    /// Whether the connection, or the tunnel in it, has carried nothing yet.
    begins: bool,
}

/// A request, whatever protocol it came by, of which only one reading is possible.
#[derive(Debug)]
pub(crate) struct Wish {
    /// Who is asked.
    pub(crate) authority: Authority,
    /// What for; not [`Target::Authority`], which is no call.
    pub(crate) target: Target,
    pub(crate) method: Method,
    pub(crate) headers: HeaderMap,
    pub(crate) body: RequestBody,
    /// The protocol that it would switch to; by HTTP/2 there is none.
    pub(crate) upgrade: Option<Protocol>,
    /// Whether its caller reads answers as a client of gRPC does; by HTTP/1.1 none does.
    pub(crate) grpc: bool,
}

impl BotSide {
    pub(crate) fn new(door: Door, way: Arc<WayIn>) -> Self {
        Self {
            door,
            way,
            routes: Routes::default(),
            opened: None,
            begins: true,
        }
    }

    /// Tells, once, that the connection or the tunnel in it has carried nothing yet.
    pub(crate) const fn begins(&mut self) -> bool {
        std::mem::replace(&mut self.begins, false)
    }

    pub(crate) const fn door(&self) -> &Door {
        &self.door
    }

    /// Says which call a request that came by HTTP/1.1 is; or answers it, where it is none.
    pub(crate) fn asked(
        &mut self,
        proxy: &Arc<Proxy>,
        head: RequestHead,
        body: RequestBody,
    ) -> Result<Wanted, Box<Reply>> {
        if matches!(head.target, Target::Authority) {
            return self.open(proxy, head, body);
        }
        let wish = Wish {
            authority: head.authority,
            target: head.target,
            method: head.method,
            headers: head.headers,
            body,
            upgrade: head.upgrade,
            grpc: false,
        };
        let asked = self
            .ask(proxy, wish)
            .map_err(|answer| Box::new(Reply::Answer(*answer)))?;
        Ok(Wanted::Call(asked))
    }

    /// Says whom a request is for; or answers it, where it is for the proxy itself.
    pub(crate) fn ask(&self, proxy: &Arc<Proxy>, wish: Wish) -> Result<Asked, Box<Answer>> {
        let to = match self.destination(&wish) {
            Ok(Destination::Own) => return Err(Box::new(self.own(proxy, &wish))),
            Ok(Destination::Called(To::Bot(route))) => {
                check_port(proxy, &wish.authority, &self.way, route).map(To::Bot)
            }
            Ok(Destination::Called(to)) => Ok(to),
            Ok(Destination::Elsewhere) => self.outside(proxy, &wish.authority, &REQUESTS).map(To::Outside),
            Ok(Destination::Secret) => self.outside(proxy, &wish.authority, &[Scheme::Secret]).map(To::Outside),
            Err(refusal) => Err(refusal),
        };
        let target = match wish.target {
            Target::Origin(target) | Target::Absolute(target) => target,
            Target::Asterisk => Bytes::from_static(b"*"),
            // Where TLS is wanted, `destination` has refused.
            Target::AbsoluteTls | Target::Authority => Bytes::new(),
        };
        Ok(Asked {
            to,
            method: wish.method,
            target,
            headers: wish.headers,
            body: wish.body,
            upgrade: wish.upgrade,
            grpc: wish.grpc,
        })
    }

    fn destination(&self, wish: &Wish) -> Result<Destination, Box<Refusal>> {
        if matches!(wish.target, Target::AbsoluteTls) {
            let detail = "the proxy opens TLS by itself: call http:// and not https://";
            return Err(Refusal::boxed(Reason::OutsideForbidden, detail).host(wish.authority.host()));
        }
        destination::find(&self.way, self.opened.as_ref(), &wish.authority, &self.routes)
    }

    /// Finds the destination outside that a rule lets this bot call by one of these schemes. Anything else is refused: a name
    /// that no rule speaks of is not even looked up.
    fn outside(
        &self,
        proxy: &Proxy,
        authority: &Authority,
        schemes: &[Scheme],
    ) -> Result<Arc<OutsideRoute>, Box<Refusal>> {
        let host = authority.host();
        let snapshot = proxy.control.snapshot();
        let linked = |scheme: &Scheme| {
            let Door::Bot { who, .. } = &self.door else {
                return None;
            };
            let outside = destination::candidate(authority, *scheme)?;
            if !snapshot.policy.links_outside(&who.id, &outside) {
                return None;
            }
            let named = snapshot.policy.outside_name(&outside)?;
            OutsideRoute::new(outside, &named)
        };
        schemes.iter().find_map(linked).ok_or_else(|| {
            let detail = "no rule lets this bot call that host outside of the mesh; a bot prod/orders has the host orders.prod.mesh";
            Refusal::boxed(Reason::OutsideForbidden, detail).host(host)
        })
    }

    /// Opens a tunnel. To a bot that serves HTTP, and to `http://` outside, what comes through it is read by the same reader
    /// and decided call by call; to a bot that serves TCP, and to `tls://`, the tunnel is the call.
    fn open(&mut self, proxy: &Arc<Proxy>, head: RequestHead, body: RequestBody) -> Result<Wanted, Box<Reply>> {
        match self.may_open(proxy, &head) {
            Ok(Leads { to, tcp: Some(port) }) => Ok(Wanted::Line(Box::new(Opening {
                to: Ok(to),
                port,
                headers: head.headers,
                body,
            }))),
            Ok(Leads { to, tcp: None }) => {
                self.opened = Some(to);
                self.begins = true;
                Err(Box::new(Reply::Opened(HeaderMap::new())))
            }
            Err(refusal) => {
                let answer = call::refuse(proxy, &self.door, &Method::CONNECT, refusal);
                // What follows is meant for another end, so it must not be read as requests to this one.
                Err(Box::new(Reply::Answer(Answer { last: true, ..answer })))
            }
        }
    }

    fn may_open(&self, proxy: &Arc<Proxy>, head: &RequestHead) -> Result<Leads, Box<Refusal>> {
        if is_browser_shaped(&head.headers) {
            return Err(Refusal::boxed(
                Reason::BrowserRefused,
                "a tunnel carries no calls of a browser",
            ));
        }
        if self.opened.is_some() {
            return Err(Refusal::boxed(
                Reason::BadRequest,
                "a tunnel inside a tunnel is not opened",
            ));
        }
        if head.framing != crate::http1::framing::Framing::None {
            return Err(Refusal::boxed(Reason::BadRequest, "CONNECT has no body"));
        }
        let route = match destination::find(&self.way, None, &head.authority, &self.routes)? {
            Destination::Called(To::Bot(route)) if serves_tcp(proxy, &route) => {
                return tcp_port(&head.authority, route);
            }
            Destination::Called(To::Bot(route)) => check_port(proxy, &head.authority, &self.way, route)?,
            Destination::Called(To::Outside(route)) => return may_open_outside(&head.authority, route),
            Destination::Elsewhere => {
                // The bot's own TLS passes where a rule says so; else the proxy's, to which requests come in the clear.
                let found = self.outside(proxy, &head.authority, &[Scheme::Tls]);
                let found = found.or_else(|_none| self.outside(proxy, &head.authority, &REQUESTS))?;
                return may_open_outside(&head.authority, found);
            }
            Destination::Secret => {
                let found = self.outside(proxy, &head.authority, &[Scheme::Secret])?;
                return may_open_outside(&head.authority, found);
            }
            Destination::Own => return Err(Refusal::boxed(Reason::BadRequest, "there is nothing to open here")),
        };
        let Door::Bot { who, .. } = &self.door else {
            // Whoever is nobody is refused as such; this word is not used.
            return Err(Refusal::boxed(Reason::UnknownCaller, ""));
        };
        let snapshot = proxy.control.snapshot();
        if !snapshot.policy.links(&who.id, &route.bot) {
            return Err(Refusal::boxed(Reason::NoRule, "no rule lets this bot call that one at all").to(&route));
        }
        match snapshot.mesh.bots().get(&route.bot).map(|bot| &bot.serve) {
            None => Err(Refusal::boxed(Reason::NoSuchBot, format!("no bot is named {}", route.bot)).to(&route)),
            Some(None) => Err(Refusal::boxed(Reason::NoRule, "that bot serves nothing").to(&route)),
            Some(Some(_)) => Ok(Leads {
                to: To::Bot(route),
                tcp: None,
            }),
        }
    }

    /// Answers a question to the proxy itself.
    fn own(&self, proxy: &Arc<Proxy>, wish: &Wish) -> Answer {
        let path = match &wish.target {
            Target::Origin(path) | Target::Absolute(path) => path.as_ref(),
            Target::AbsoluteTls | Target::Authority | Target::Asterisk => b"",
        };
        if is_browser_shaped(&wish.headers) {
            let refusal = Refusal::boxed(Reason::BrowserRefused, "the proxy answers no browser");
            return call::refuse(proxy, &self.door, &wish.method, refusal);
        }
        let is_whoami = path == b"/whoami" || path == ca_api::proxy_admin::path::WHOAMI.as_bytes();
        if wish.method == Method::GET && is_whoami {
            return whoami::answer(proxy, &self.door)
                .unwrap_or_else(|refusal| call::refuse(proxy, &self.door, &wish.method, refusal));
        }
        let detail =
            "this is the proxy itself, which answers GET /whoami; to call a bot, say its host: orders.prod.mesh";
        call::refuse(
            proxy,
            &self.door,
            &wish.method,
            Refusal::boxed(Reason::BadRequest, detail),
        )
    }
}

/// How requests to the outside are sent, the safer way first: of two destinations that a bot writes alike, `https://` is
/// meant.
const REQUESTS: [Scheme; 2] = [Scheme::Https, Scheme::Http];

/// Says what a tunnel to the outside carries.
fn may_open_outside(authority: &Authority, route: Arc<OutsideRoute>) -> Result<Leads, Box<Refusal>> {
    let (scheme, port) = (route.outside.scheme(), route.outside.port());
    match scheme {
        // A client that asks for the port of HTTP will speak HTTP.
        Scheme::Https if authority.port() != Some(80) => {
            let detail = format!(
                "the proxy opens TLS with {} by itself: call http://{}/ and not https://, or have a rule to tls:// let the \
                 bot's own TLS pass",
                route.outside,
                authority.host(),
            );
            Err(Refusal::boxed(Reason::OutsideForbidden, detail).to(&route))
        }
        Scheme::Https | Scheme::Http => Ok(Leads {
            to: To::Outside(route),
            tcp: None,
        }),
        Scheme::Postgres => {
            let detail = "a database is called by a listener of its own, and not by CONNECT";
            Err(Refusal::boxed(Reason::OutsideForbidden, detail).to(&route))
        }
        Scheme::Secret => {
            let detail = "an address that is a secret takes requests, and is not opened by CONNECT";
            Err(Refusal::boxed(Reason::OutsideForbidden, detail).to(&route))
        }
        Scheme::Tls => Ok(Leads {
            to: To::Outside(route),
            tcp: Some(port),
        }),
    }
}

fn serves_tcp(proxy: &Proxy, route: &Route) -> bool {
    let snapshot = proxy.control.snapshot();
    let bot = snapshot.mesh.bots().get(&route.bot);
    matches!(bot.and_then(|bot| bot.serve.as_ref()), Some(Serve::Tcp(_)))
}

/// Which port of a bot that serves TCP is meant; whether it may be, the policy says.
fn tcp_port(authority: &Authority, to: Arc<Route>) -> Result<Leads, Box<Refusal>> {
    match authority.port() {
        Some(port) => Ok(Leads {
            to: To::Bot(to),
            tcp: Some(port),
        }),
        None => Err(Refusal::boxed(Reason::BadRequest, "say the port: that bot serves TCP").to(&to)),
    }
}

/// Port 80 or none is the callee's http port; any other must be the one where it serves, as far as this host knows.
fn check_port(
    proxy: &Proxy,
    authority: &Authority,
    way: &WayIn,
    route: Arc<Route>,
) -> Result<Arc<Route>, Box<Refusal>> {
    let named = matches!(way, WayIn::Fixed { .. }) && route.host != authority.host();
    let port = match authority.port() {
        None | Some(80) => return Ok(route),
        // The listener's own address was compared whole.
        Some(_) if named => return Ok(route),
        Some(port) => port,
    };
    let snapshot = proxy.control.snapshot();
    let serves = snapshot.mesh.bots().get(&route.bot).and_then(|bot| bot.serve.clone());
    match serves {
        Some(Serve::Http(Place::Port(own)) | Serve::Grpc(Place::Port(own))) if own == port => Ok(route),
        _ => Err(Refusal::boxed(Reason::BadRequest, "that bot serves on port 80 of its mesh host").to(&route)),
    }
}
