//! The PROXY protocol, version 2, as it is sent to a callee that asks for it.
//!
//! <https://www.haproxy.org/download/3.2/doc/proxy-protocol.txt>, §2.2. It is only written here: a header that comes in,
//! from whomever, is bytes like any others, for who calls is known from the kernel or from an SVID.

use std::net::{IpAddr, SocketAddr};

use bytes::{BufMut as _, BytesMut};
use spiffe::id::SpiffeId;

/// §2.2: with what every header begins.
const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";

/// §2.2: version 2, and a connection that was made in somebody's name.
const VERSION_2_PROXY: u8 = 0x21;

/// §2.2: no addresses, TCP over IPv4, TCP over IPv6.
const UNSPECIFIED: u8 = 0x00;
const TCP_4: u8 = 0x11;
const TCP_6: u8 = 0x21;

/// The type of the field that holds the caller's SPIFFE ID.
///
/// No standard names one. This is what Istio's ztunnel writes for its waypoints, with the same value in it, and what
/// Envoy there and agentgateway read; nginx and HAProxy read whichever type they are told.
const CALLER: u8 = 0xD0;

/// Where a connection came from and where to, as this host saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Addresses {
    pub(crate) from: SocketAddr,
    pub(crate) to: SocketAddr,
}

/// Writes the header of a connection of `caller`.
pub(crate) fn header(addresses: Option<Addresses>, caller: &SpiffeId) -> BytesMut {
    let mut rest = BytesMut::new();
    let family = put_addresses(addresses, &mut rest);
    let id = caller.as_str().as_bytes();
    rest.put_u8(CALLER);
    // A SPIFFE ID has at most 2048 bytes (SPIFFE-ID §2.3), so both lengths fit.
    rest.put_u16(u16::try_from(id.len()).unwrap_or(u16::MAX));
    rest.put_slice(id);
    let mut header = BytesMut::with_capacity(SIGNATURE.len() + 4 + rest.len());
    header.put_slice(&SIGNATURE);
    header.put_u8(VERSION_2_PROXY);
    header.put_u8(family);
    header.put_u16(u16::try_from(rest.len()).unwrap_or(u16::MAX));
    header.put_slice(&rest);
    header
}

/// Writes the addresses, if there are any, and says of which family they are.
fn put_addresses(addresses: Option<Addresses>, out: &mut BytesMut) -> u8 {
    let Some(Addresses { from, to }) = addresses else {
        return UNSPECIFIED;
    };
    let family = match (from.ip().to_canonical(), to.ip().to_canonical()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            out.put_slice(&from.octets());
            out.put_slice(&to.octets());
            TCP_4
        }
        // One header has one family; an address of the other is mapped into it.
        (from, to) => {
            out.put_slice(&six(from));
            out.put_slice(&six(to));
            TCP_6
        }
    };
    out.put_u16(from.port());
    out.put_u16(to.port());
    family
}

fn six(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        IpAddr::V6(address) => address.octets(),
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use proptest::prelude::*;

    use super::*;

    /// What a strict reader of the specification makes of a header: family, addresses, fields.
    #[derive(Debug, PartialEq)]
    struct Read {
        addresses: Option<Addresses>,
        fields: Vec<(u8, Vec<u8>)>,
    }

    fn take<'a>(bytes: &mut &'a [u8], count: usize) -> &'a [u8] {
        let (taken, rest) = bytes.split_at(count);
        *bytes = rest;
        taken
    }

    fn take_u16(bytes: &mut &[u8]) -> u16 {
        u16::from_be_bytes(take(bytes, 2).try_into().unwrap())
    }

    fn read(mut bytes: &[u8]) -> Read {
        assert_eq!(
            take(&mut bytes, 12),
            [0x0D, 0x0A, 0x0D, 0x0A, 0x00, 0x0D, 0x0A, 0x51, 0x55, 0x49, 0x54, 0x0A]
        );
        assert_eq!(take(&mut bytes, 1), [0x21]);
        let family = take(&mut bytes, 1)[0];
        assert_eq!(
            usize::from(take_u16(&mut bytes)),
            bytes.len(),
            "the length is of the rest"
        );
        let addresses = match family {
            0x00 => None,
            0x11 => {
                let mut ip = || IpAddr::from(<[u8; 4]>::try_from(take(&mut bytes, 4)).unwrap());
                let (from, to) = (ip(), ip());
                Some((from, to))
            }
            0x21 => {
                let mut ip = || IpAddr::from(<[u8; 16]>::try_from(take(&mut bytes, 16)).unwrap());
                let (from, to) = (ip(), ip());
                Some((from, to))
            }
            other => panic!("family {other:#x}"),
        };
        let addresses = addresses.map(|(from, to)| Addresses {
            from: SocketAddr::new(from, take_u16(&mut bytes)),
            to: SocketAddr::new(to, take_u16(&mut bytes)),
        });
        let mut fields = Vec::new();
        while !bytes.is_empty() {
            let kind = take(&mut bytes, 1)[0];
            let length = usize::from(take_u16(&mut bytes));
            fields.push((kind, take(&mut bytes, length).to_vec()));
        }
        Read { addresses, fields }
    }

    fn id(text: &str) -> SpiffeId {
        SpiffeId::parse(text).unwrap()
    }

    #[test]
    fn a_header_is_the_bytes_that_the_specification_gives() {
        let addresses = Addresses {
            from: "10.0.0.5:40000".parse().unwrap(),
            to: "10.0.0.9:15443".parse().unwrap(),
        };
        let written = header(Some(addresses), &id("spiffe://a.b/c"));
        let mut expected =
            b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x1d\x0a\x00\x00\x05\x0a\x00\x00\x09\x9c\x40\x3c\x53\xd0\x00\x0e"
                .to_vec();
        expected.extend_from_slice(b"spiffe://a.b/c");
        assert_eq!(written, expected);
        let written = header(None, &id("spiffe://a.b/c"));
        assert_eq!(&written[12..19], b"\x21\x00\x00\x11\xd0\x00\x0e");
    }

    #[test]
    fn the_longest_id_fits() {
        let longest = format!("spiffe://a/{}", "b".repeat(2048 - "spiffe://a/".len()));
        let both = SocketAddr::new(Ipv6Addr::LOCALHOST.into(), 1);
        let written = header(Some(Addresses { from: both, to: both }), &id(&longest));
        assert_eq!(read(&written).fields, [(0xD0, longest.into_bytes())]);
    }

    fn address() -> impl Strategy<Value = SocketAddr> {
        let ip = prop_oneof![
            any::<u32>().prop_map(|ip| IpAddr::from(Ipv4Addr::from(ip))),
            any::<u128>().prop_map(|ip| IpAddr::from(Ipv6Addr::from(ip))),
            any::<u32>().prop_map(|ip| IpAddr::from(Ipv4Addr::from(ip).to_ipv6_mapped())),
        ];
        (ip, any::<u16>()).prop_map(|(ip, port)| SocketAddr::new(ip, port))
    }

    proptest! {
        #[test]
        fn a_reader_finds_what_was_written(
            addresses in proptest::option::of((address(), address())),
            path in "(/[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?){1,6}",
        ) {
            let caller = id(&format!("spiffe://acme.internal{path}"));
            let addresses = addresses.map(|(from, to)| Addresses { from, to });
            let found = read(&header(addresses, &caller));
            prop_assert_eq!(found.fields, vec![(0xD0, caller.as_str().as_bytes().to_vec())]);
            let plain = |address: SocketAddr| (address.ip().to_canonical(), address.port());
            let plain = |addresses: Addresses| (plain(addresses.from), plain(addresses.to));
            prop_assert_eq!(found.addresses.map(plain), addresses.map(plain));
        }
    }
}
