//! Who else listens on the ports of bots, on which form of which address, and who reaches them from outside.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ca_api::proxy_admin::BotsResponse;

use super::Looks;

const PART: &str = "bots";

/// More sockets than are looked at: `/proc/net/tcp` is read as text.
const LINES_MAX: usize = 65_536;

/// A listener as the kernel lists it: where, and the user who made it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Listener {
    at: SocketAddr,
    uid: u32,
}

/// Looks at each loopback port of a bot.
pub(super) fn look(bots: &BotsResponse, looks: &mut Looks) {
    let ports: Vec<_> = bots
        .bots
        .iter()
        .flat_map(|bot| bot.open_ports.iter().map(|port| (&bot.bot, *port)))
        .collect();
    if ports.is_empty() {
        return;
    }
    let mut listeners = BTreeSet::new();
    for table in ["/proc/net/tcp", "/proc/net/tcp6"] {
        match std::fs::read_to_string(table) {
            Ok(text) => listeners.extend(text.lines().skip(1).take(LINES_MAX).filter_map(listener)),
            // A kernel without IPv6 has no second table.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => looks.untried(PART, "who else listens", format!("{table}: {error}")),
        }
    }
    for (bot, port) in ports {
        judge(bot.as_str(), port, &listeners, looks);
    }
}

fn judge(bot: &str, port: u16, listeners: &BTreeSet<Listener>, looks: &mut Looks) {
    let of_port = || listeners.iter().filter(|listener| listener.at.port() == port);
    // Where the proxy's connection to 127.0.0.1 ends; whether that is the bot is looked at by the proxy.
    let own = of_port()
        .find(|listener| takes_loopback(listener.at.ip()))
        .map(|own| own.uid);
    for Listener { at, uid } in of_port() {
        if own.is_some_and(|own| own != *uid) {
            looks.finding(
                PART,
                format!("another listener on the port of {bot}"),
                format!("{at}, of uid {uid}: who calls that address by mistake calls that user; the proxy never does"),
                format!("end it (ss -ltnp sport = :{port}), or serve on unix:PATH"),
            );
        } else if !at.ip().to_canonical().is_loopback() {
            looks.finding(
                PART,
                format!("{bot} from the network"),
                format!("it listens on {at}: other machines reach it without the proxy, and no guard of this host closes that"),
                format!("have it listen on 127.0.0.1:{port} alone, or on unix:PATH"),
            );
        }
    }
}

/// Whether a connection to 127.0.0.1 can end at a listener on this address.
fn takes_loopback(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(ip) => ip == Ipv4Addr::LOCALHOST || ip.is_unspecified(),
        // It may be for IPv6 alone; the table does not say.
        IpAddr::V6(ip) => ip.is_unspecified(),
    }
}

/// Reads a line of `/proc/net/tcp` or `tcp6` (proc(5)) that is a listener: words of an address as the machine stores
/// them, in hexadecimal, a port, and later the state and the user.
fn listener(line: &str) -> Option<Listener> {
    const LISTEN: &str = "0A";
    let mut words = line.split_whitespace();
    let (ip, port) = words.nth(1)?.split_once(':')?;
    if words.nth(1)? != LISTEN {
        return None;
    }
    let uid = words.nth(3)?.parse().ok()?;
    let word = |at: usize| {
        Some(
            u32::from_str_radix(ip.get(at..at.checked_add(8)?)?, 16)
                .ok()?
                .to_ne_bytes(),
        )
    };
    let ip = match ip.len() {
        8 => IpAddr::from(word(0)?),
        32 => {
            let mut bytes = [0; 16];
            for (to, from) in bytes
                .iter_mut()
                .zip([word(0)?, word(8)?, word(16)?, word(24)?].concat())
            {
                *to = from;
            }
            IpAddr::V6(Ipv6Addr::from(bytes))
        }
        _ => return None,
    };
    let port = u16::from_str_radix(port, 16).ok()?;
    Some(Listener {
        at: SocketAddr::new(ip, port),
        uid,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_kernel_is_read_and_another_is_none() {
        let rest = "00000000:00000000 00:00000000 00000000";
        let four = format!("   0: 0100007F:2329 00000000:0000 0A {rest} 61003        0 123 1 x 100 0 0 10 0");
        let six = format!(
            "   1: 00000000000000000000000001000000:2329 00000000000000000000000000000000:0000 0A {rest} 7 0 124 1 x"
        );
        let read = |line: &str| listener(line).map(|found| (found.at.to_string(), found.uid));
        assert_eq!(read(&four), Some(("127.0.0.1:9001".to_owned(), 61003)));
        assert_eq!(read(&six), Some(("[::1]:9001".to_owned(), 7)));
        let open = four.replace(" 0A ", " 01 ");
        for line in [
            "",
            "x",
            &open,
            "0: 0100007F:2329 00000000:0000",
            &four.replace("0100007F", "éé"),
            &four.replace("61003", "-"),
        ] {
            assert_eq!(read(line), None, "{line:?}");
        }
    }

    #[test]
    fn another_user_on_the_port_and_a_port_open_to_the_network_are_findings() {
        let findings = |listeners: &[(&str, u32)]| {
            let listeners = listeners.iter().map(|(at, uid)| Listener {
                at: at.parse().unwrap(),
                uid: *uid,
            });
            let mut looks = Looks::default();
            judge("prod/quotes", 9001, &listeners.collect(), &mut looks);
            looks.0.into_iter().map(|look| look.what).collect::<Vec<_>>()
        };
        assert!(findings(&[]).is_empty());
        assert!(findings(&[("127.0.0.1:9001", 5), ("[::1]:9001", 5), ("[::]:9002", 7)]).is_empty());
        assert_eq!(
            findings(&[("127.0.0.1:9001", 5), ("[::1]:9001", 7)]),
            ["another listener on the port of prod/quotes"]
        );
        for open in ["0.0.0.0:9001", "[::]:9001", "10.0.0.5:9001"] {
            assert_eq!(findings(&[(open, 5)]), ["prod/quotes from the network"], "{open}");
        }
        // A squatter that the proxy refuses is found by the proxy; here the bot is down.
        assert!(findings(&[("[::1]:9001", 7)]).is_empty());
    }

    #[test]
    fn the_listener_of_this_test_is_found_in_the_tables_of_this_machine() {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let at = socket.local_addr().unwrap();
        let text = std::fs::read_to_string("/proc/net/tcp").unwrap();
        let mut found = text.lines().filter_map(listener).filter(|listener| listener.at == at);
        assert_eq!(found.next().unwrap().uid, nix::unistd::geteuid().as_raw());
    }
}
