//! Whom a request is for: by the listener it came in by, by its tunnel, or by its host.

use std::net::SocketAddr;

use policy::{Outside, Scheme};
use spiffe::id::TrustDomain;

use crate::call::{Refusal, Routes, To};
use crate::http1::target::Authority;
use crate::reason::Reason;

/// The host of the proxy itself.
const OWN: &str = "botmesh.mesh";

/// What stands behind the name of a credential that holds an address: no bot has a name below the proxy's own.
const BELOW_OWN: &str = ".botmesh.mesh";

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
        to: To,
        /// Where it listens; `None` for a Unix socket.
        own: Option<SocketAddr>,
    },
}

/// Whom a request is for.
#[derive(Debug)]
pub(super) enum Destination {
    /// Somebody who is called.
    Called(To),
    /// The proxy itself.
    Own,
    /// An address that is a secret, by the name of its credential, where a rule leads to it.
    Secret,
    /// A host that is no name of the mesh: a destination outside, where a rule names it.
    Elsewhere,
}

/// Finds out whom a request is for. Everything that is not plainly one of the ways of calling is refused: a name that
/// somebody else's DNS sends to this address must not become a call (DNS rebinding).
pub(super) fn find(
    way: &WayIn,
    opened: Option<&To>,
    authority: &Authority,
    routes: &Routes,
) -> Result<Destination, Box<Refusal>> {
    let host = authority.host();
    if let Some(to) = opened {
        if is_named(to, authority) {
            return Ok(Destination::Called(to.clone()));
        }
        let refusal = Refusal::boxed(Reason::BadRequest, format!("this tunnel leads to {}", shown(to)));
        return Err(refusal.to(to));
    }
    if (host == OWN || host == OWN_SHORT) && matches!(authority.port(), None | Some(80)) {
        return Ok(Destination::Own);
    }
    match way {
        WayIn::Fixed { to, own } => fixed(to, *own, authority),
        WayIn::Shared { trust_domain, own } => shared(trust_domain, *own, authority, routes),
    }
}

fn fixed(to: &To, own: Option<SocketAddr>, authority: &Authority) -> Result<Destination, Box<Refusal>> {
    if is_named(to, authority) || is_own(own, authority) {
        return Ok(Destination::Called(to.clone()));
    }
    let reason = if authority.host().ends_with(".mesh") {
        Reason::BadRequest
    } else {
        Reason::OutsideForbidden
    };
    Err(Refusal::boxed(reason, format!("this listener leads to {}", shown(to))).host(authority.host()))
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
        return Ok(Destination::Elsewhere);
    }
    if candidate(authority, Scheme::Secret).is_some() {
        return Ok(Destination::Secret);
    }
    // A name that no bot can have is as one that no rule speaks of.
    let nobody = || Refusal::boxed(Reason::NoRule, "no rule speaks of that name").host(host);
    let route = routes.find(trust_domain, host).ok_or_else(nobody)?;
    Ok(Destination::Called(To::Bot(route)))
}

/// Tells whether an authority names the one that a listener or a tunnel leads to. Of a bot's port the caller asks itself.
fn is_named(to: &To, authority: &Authority) -> bool {
    match to {
        To::Bot(route) => route.host == authority.host(),
        To::Outside(route) => candidate(authority, route.outside.scheme()).as_ref() == Some(&route.outside),
    }
}

/// Gives the destination outside that an authority stands for where it is spoken to by this scheme; nothing for an address,
/// and for what else no destination is named by.
///
/// `http://api.example.com` is what a bot says, whether or not the proxy opens TLS: no port, or that of the bot's own
/// scheme, means the port of the destination's. `http://slack-hook.botmesh.mesh` is how it says `secret://slack-hook`.
pub(super) fn candidate(authority: &Authority, scheme: Scheme) -> Option<Outside> {
    let host = match scheme {
        Scheme::Secret => authority.host().strip_suffix(BELOW_OWN)?,
        Scheme::Https | Scheme::Http | Scheme::Tls | Scheme::Postgres => authority.host(),
    };
    let port = match (authority.port(), scheme) {
        (None, _) | (Some(80), Scheme::Https | Scheme::Secret) => scheme.default_port(),
        (Some(port), _) => port,
    };
    Outside::new(scheme, host, port).ok()
}

fn shown(to: &To) -> String {
    match to {
        To::Bot(route) => route.authority.to_string(),
        To::Outside(route) => route.outside.to_string(),
    }
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
    use crate::call::{OutsideRoute, Route};

    fn route(bot: &str) -> To {
        To::Bot(Route::new(&domain(), BotName::parse(bot).unwrap()).unwrap())
    }

    fn outside(text: &str) -> To {
        To::Outside(OutsideRoute::new(Outside::parse(text).unwrap(), text).unwrap())
    }

    fn domain() -> TrustDomain {
        TrustDomain::parse("acme.internal").unwrap()
    }

    fn told(way: &WayIn, opened: Option<&To>, host: &str) -> String {
        let authority = Authority::parse(&Bytes::copy_from_slice(host.as_bytes())).unwrap();
        match find(way, opened, &authority, &Routes::default()) {
            Ok(Destination::Called(to)) => to.to_string(),
            Ok(Destination::Own) => "own".to_owned(),
            Ok(Destination::Secret) => "secret".to_owned(),
            Ok(Destination::Elsewhere) => "elsewhere".to_owned(),
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
            ("127.0.0.1", "elsewhere"),
            ("127.0.0.1:15081", "elsewhere"),
            ("localhost", "elsewhere"),
            ("evil.example", "elsewhere"),
            ("orders.prod.mesh.evil.example", "elsewhere"),
            ("mesh", "elsewhere"),
            ("-.mesh", "no_rule"),
            ("a.botmesh.mesh", "secret"),
            ("A.botmesh.mesh:80", "secret"),
            ("a.botmesh.mesh:443", "no_rule"),
            ("a.b.botmesh.mesh", "no_rule"),
            ("-a.botmesh.mesh", "no_rule"),
            ("abotmesh.mesh", "abotmesh"),
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

    #[test]
    fn a_listener_or_a_tunnel_to_the_outside_takes_the_name_of_where_it_leads() {
        let way = |to| WayIn::Fixed {
            to,
            own: "127.0.0.1:15101".parse().ok(),
        };
        let shared = WayIn::Shared {
            trust_domain: domain(),
            own: None,
        };
        for (to, hosts, others) in [
            (
                "https://api.example.com",
                &["api.example.com", "API.example.com:80", "api.example.com:443"][..],
                &["api.example.com:8443", "www.example.com"][..],
            ),
            (
                "https://api.example.com:8443",
                &["api.example.com:8443"],
                &["api.example.com", "api.example.com:443"],
            ),
            (
                "http://api.example.com",
                &["api.example.com", "api.example.com:80"],
                &["api.example.com:443"],
            ),
            (
                "secret://slack-hook",
                &["slack-hook.botmesh.mesh", "slack-hook.botmesh.mesh:80"],
                &[],
            ),
        ] {
            let (leads, opened) = (way(outside(to)), outside(to));
            assert_eq!(told(&leads, None, "127.0.0.1:15101"), to);
            for host in hosts {
                assert_eq!(told(&leads, None, host), to, "{host}");
                assert_eq!(told(&shared, Some(&opened), host), to, "{host}");
            }
            for host in others {
                assert_eq!(told(&leads, None, host), "outside_forbidden", "{host}");
                assert_eq!(told(&shared, Some(&opened), host), "bad_request", "{host}");
            }
        }
    }

    #[test]
    fn an_authority_stands_for_one_destination_of_each_scheme() {
        let stands = |host: &'static str| {
            let authority = Authority::parse(&Bytes::from_static(host.as_bytes())).unwrap();
            [Scheme::Https, Scheme::Http, Scheme::Tls].map(|scheme| {
                candidate(&authority, scheme)
                    .map(|found| found.to_string())
                    .unwrap_or_default()
            })
        };
        assert_eq!(stands("a.b"), ["https://a.b", "http://a.b", "tls://a.b"]);
        assert_eq!(stands("a.b:80"), ["https://a.b", "http://a.b", "tls://a.b:80"]);
        assert_eq!(stands("a.b:443"), ["https://a.b", "http://a.b:443", "tls://a.b"]);
        assert_eq!(
            stands("a.b:8443"),
            ["https://a.b:8443", "http://a.b:8443", "tls://a.b:8443"]
        );
        for none in [
            "10.0.0.1",
            "[::1]",
            "[::ffff:10.0.0.1]:443",
            "a",
            "a.mesh",
            "a.localhost",
            "1.2",
            "0x7f.1",
        ] {
            assert_eq!(stands(none), ["", "", ""], "{none}");
        }
    }
}
