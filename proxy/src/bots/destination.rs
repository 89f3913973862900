//! Which bot a request is for: by the listener it came in by, by its tunnel, or by its host.

use std::net::SocketAddr;
use std::sync::Arc;

use spiffe::id::TrustDomain;

use crate::call::{Refusal, Route, Routes};
use crate::http1::target::Authority;
use crate::reason::Reason;

/// The host of the proxy itself.
const OWN: &str = "botmesh.mesh";

/// The same, as the command line says it.
const OWN_SHORT: &str = "botmesh";

/// How a connection came in.
#[derive(Debug)]
pub(crate) enum WayIn {
    /// By the listener for all destinations.
    Shared {
        /// Of the names.
        trust_domain: TrustDomain,
        /// Where it listens; `None` for a Unix socket.
        own: Option<SocketAddr>,
    },
    /// By a listener of one destination.
    Fixed {
        /// That destination.
        to: Arc<Route>,
        /// Where it listens; `None` for a Unix socket.
        own: Option<SocketAddr>,
    },
}

/// Whom a request is for.
#[derive(Debug)]
pub(super) enum Destination {
    /// A bot.
    Bot(Arc<Route>),
    /// The proxy itself.
    Own,
}

/// Finds out whom a request is for. Everything that is not plainly one of the ways of calling is refused: a name that
/// somebody else's DNS sends to this address must not become a call (DNS rebinding).
pub(super) fn find(
    way: &WayIn,
    opened: Option<&Arc<Route>>,
    authority: &Authority,
    routes: &Routes,
) -> Result<Destination, Box<Refusal>> {
    let host = authority.host();
    if let Some(route) = opened {
        if route.host == host {
            return Ok(Destination::Bot(Arc::clone(route)));
        }
        let refusal = Refusal::boxed(Reason::BadRequest, format!("this tunnel leads to {}", route.authority));
        return Err(refusal.to(route));
    }
    if (host == OWN || host == OWN_SHORT) && matches!(authority.port(), None | Some(80)) {
        return Ok(Destination::Own);
    }
    match way {
        WayIn::Fixed { to, own } => fixed(to, *own, authority),
        WayIn::Shared { trust_domain, own } => shared(trust_domain, *own, authority, routes),
    }
}

fn fixed(to: &Arc<Route>, own: Option<SocketAddr>, authority: &Authority) -> Result<Destination, Box<Refusal>> {
    if to.host == authority.host() || is_own(own, authority) {
        return Ok(Destination::Bot(Arc::clone(to)));
    }
    let reason = if authority.host().ends_with(".mesh") {
        Reason::BadRequest
    } else {
        Reason::OutsideForbidden
    };
    Err(Refusal::boxed(reason, format!("this listener leads to {}", to.authority)).host(authority.host()))
}

fn shared(
    trust_domain: &TrustDomain,
    own: Option<SocketAddr>,
    authority: &Authority,
    routes: &Routes,
) -> Result<Destination, Box<Refusal>> {
    let host = authority.host();
    if is_own(own, authority) {
        return Ok(Destination::Own);
    }
    if !host.ends_with(".mesh") {
        let detail = "this version calls bots only; a bot prod/orders has the host orders.prod.mesh";
        return Err(Refusal::boxed(Reason::OutsideForbidden, detail).host(host));
    }
    // A name that no bot can have is as one that no rule speaks of.
    let nobody = || Refusal::boxed(Reason::NoRule, "no rule speaks of that name").host(host);
    routes.find(trust_domain, host).map(Destination::Bot).ok_or_else(nobody)
}

/// Tells whether an authority is the listener's own address, by number or as `localhost`.
fn is_own(own: Option<SocketAddr>, authority: &Authority) -> bool {
    let is_localhost = authority.host() == "localhost";
    match own {
        // Clients of a Unix socket have to say some host.
        None => is_localhost && authority.port().is_none(),
        Some(own) => {
            let same_host = is_localhost || authority.ip() == Some(own.ip());
            same_host && authority.port().unwrap_or(80) == own.port()
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use spiffe::id::BotName;

    use super::*;

    fn route(bot: &str) -> Arc<Route> {
        Route::new(&domain(), BotName::parse(bot).unwrap()).unwrap()
    }

    fn domain() -> TrustDomain {
        TrustDomain::parse("acme.internal").unwrap()
    }

    fn told(way: &WayIn, opened: Option<&Arc<Route>>, host: &str) -> String {
        let authority = Authority::parse(&Bytes::copy_from_slice(host.as_bytes())).unwrap();
        match find(way, opened, &authority, &Routes::default()) {
            Ok(Destination::Bot(route)) => route.bot.as_str().to_owned(),
            Ok(Destination::Own) => "own".to_owned(),
            Err(refusal) => refusal.reason.as_str().to_owned(),
        }
    }

    #[test]
    fn the_shared_listener_goes_by_the_mesh_host_and_takes_no_other() {
        let way = WayIn::Shared {
            trust_domain: domain(),
            own: "127.0.0.1:15080".parse().ok(),
        };
        for (host, expected) in [
            ("orders.prod.mesh", "prod/orders"),
            ("ORDERS.prod.mesh:80", "prod/orders"),
            ("orders.mesh", "orders"),
            ("botmesh.mesh", "own"),
            ("botmesh", "own"),
            ("127.0.0.1:15080", "own"),
            ("localhost:15080", "own"),
            ("127.0.0.1", "outside_forbidden"),
            ("127.0.0.1:15081", "outside_forbidden"),
            ("localhost", "outside_forbidden"),
            ("evil.example", "outside_forbidden"),
            ("orders.prod.mesh.evil.example", "outside_forbidden"),
            ("mesh", "outside_forbidden"),
            ("-.mesh", "no_rule"),
            ("a.botmesh.mesh", "no_rule"),
            ("a.b.c.d.e.f.g.mesh", "no_rule"),
        ] {
            assert_eq!(told(&way, None, host), expected, "{host}");
        }
    }

    #[test]
    fn a_listener_of_one_destination_takes_its_own_address_and_that_bots_name() {
        let way = WayIn::Fixed {
            to: route("prod/orders"),
            own: "127.0.0.1:15101".parse().ok(),
        };
        for (host, expected) in [
            ("127.0.0.1:15101", "prod/orders"),
            ("localhost:15101", "prod/orders"),
            ("orders.prod.mesh", "prod/orders"),
            ("botmesh.mesh", "own"),
            ("stock.prod.mesh", "bad_request"),
            ("evil.example", "outside_forbidden"),
            ("evil.example:15101", "outside_forbidden"),
            ("127.0.0.1:15102", "outside_forbidden"),
            ("127.0.0.1", "outside_forbidden"),
        ] {
            assert_eq!(told(&way, None, host), expected, "{host}");
        }
        let socket = WayIn::Fixed {
            to: route("prod/orders"),
            own: None,
        };
        assert_eq!(told(&socket, None, "localhost"), "prod/orders");
        assert_eq!(told(&socket, None, "localhost:80"), "outside_forbidden");
        assert_eq!(told(&socket, None, "127.0.0.1"), "outside_forbidden");
    }

    #[test]
    fn a_tunnel_leads_where_it_was_opened_to_and_nowhere_else() {
        let way = WayIn::Shared {
            trust_domain: domain(),
            own: None,
        };
        let opened = route("prod/orders");
        assert_eq!(told(&way, Some(&opened), "orders.prod.mesh"), "prod/orders");
        for host in ["stock.prod.mesh", "botmesh.mesh", "localhost", "evil.example"] {
            assert_eq!(told(&way, Some(&opened), host), "bad_request", "{host}");
        }
    }
}
