//! Which addresses a destination outside may have.
//!
//! Without a list in the mesh file an address must be one of the public internet: what the registries of special
//! addresses hold (RFC 6890 and IANA's two tables) is somebody's inside. With a list it must be on the list. Some are
//! refused whatever the list says: services that give a machine's credentials to whoever asks, and what is no host.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use policy::AddressRange;
use thiserror::Error;

/// Why an address is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Forbidden {
    /// It serves the credentials of the machine, or is no address of a host.
    #[error("it is never called, whatever the mesh file lists")]
    Never,
    /// It is not public.
    #[error("it is not public, and the mesh file lists no addresses for the destination")]
    NotPublic,
    /// It is not on the list of the mesh file.
    #[error("it is not among the addresses that the mesh file lists")]
    NotListed,
}

/// Judges one address.
///
/// # Errors
///
/// When it may not be connected to.
pub fn judge(address: IpAddr, listed: &[AddressRange]) -> Result<(), Forbidden> {
    if is_never(address) {
        return Err(Forbidden::Never);
    }
    if listed.is_empty() {
        return is_public(address).then_some(()).ok_or(Forbidden::NotPublic);
    }
    let on_list = listed.iter().any(|range| range.contains(address));
    on_list.then_some(()).ok_or(Forbidden::NotListed)
}

/// Services of clouds that give credentials, or the machine's own data, to whoever can connect: AWS, Azure, Google and
/// most others; ECS and EKS; Azure's agent; Alibaba; Oracle.
const METADATA_V4: [Ipv4Addr; 6] = [
    Ipv4Addr::new(169, 254, 169, 254),
    Ipv4Addr::new(169, 254, 170, 2),
    Ipv4Addr::new(169, 254, 170, 23),
    Ipv4Addr::new(168, 63, 129, 16),
    Ipv4Addr::new(100, 100, 100, 200),
    Ipv4Addr::new(192, 0, 0, 192),
];

/// The same by IPv6: EC2, EKS, Google.
const METADATA_V6: [Ipv6Addr; 3] = [
    Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254),
    Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x23),
    Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254),
];

fn is_never(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => {
            // RFC 1122 §3.2.1.3: 0.0.0.0/8 is this host, here; the kernel connects it to the loopback.
            let [first, ..] = address.octets();
            first == 0 || address.is_multicast() || address.is_broadcast() || METADATA_V4.contains(&address)
        }
        IpAddr::V6(address) => {
            let mapped_or_compatible = matches!(address.segments(), [0, 0, 0, 0, 0, 0 | 0xffff, ..]);
            // The loopback is of that form and can be listed.
            let is_other = address != Ipv6Addr::LOCALHOST && mapped_or_compatible;
            // Link-local, with the metadata service's IPv4 address at the end.
            let local = matches!(address.segments(), [0xfe80, _, _, _, _, _, 0xa9fe, 0xa9fe]);
            is_other
                || local
                || address.is_multicast()
                || METADATA_V6.contains(&address)
                || within(address).is_some_and(|inner| is_never(IpAddr::V4(inner)))
        }
    }
}

/// The IPv4 address that a translator or a tunnel would make of an IPv6 address.
fn within(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let from = |high: u16, low: u16| Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low));
    match address.segments() {
        // NAT64: the well-known prefix (RFC 6052 §2.1) and the local-use one (RFC 8215).
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] | [0x64, 0xff9b, 1, _, _, _, high, low] => Some(from(high, low)),
        // 6to4 (RFC 3056 §2).
        [0x2002, high, low, ..] => Some(from(high, low)),
        // Teredo (RFC 4380 §4), which turns the bits over.
        [0x2001, 0, _, _, _, _, high, low] => Some(from(!high, !low)),
        _ => None,
    }
}

/// Ranges of IPv4 that are not public: first address and bits.
const SPECIAL_V4: [(Ipv4Addr, u32); 15] = [
    (Ipv4Addr::new(0, 0, 0, 0), 8),
    (Ipv4Addr::new(10, 0, 0, 0), 8),
    (Ipv4Addr::new(100, 64, 0, 0), 10),
    (Ipv4Addr::new(127, 0, 0, 0), 8),
    (Ipv4Addr::new(169, 254, 0, 0), 16),
    (Ipv4Addr::new(172, 16, 0, 0), 12),
    (Ipv4Addr::new(192, 0, 0, 0), 24),
    (Ipv4Addr::new(192, 0, 2, 0), 24),
    (Ipv4Addr::new(192, 88, 99, 0), 24),
    (Ipv4Addr::new(192, 168, 0, 0), 16),
    (Ipv4Addr::new(198, 18, 0, 0), 15),
    (Ipv4Addr::new(198, 51, 100, 0), 24),
    (Ipv4Addr::new(203, 0, 113, 0), 24),
    (Ipv4Addr::new(224, 0, 0, 0), 4),
    (Ipv4Addr::new(240, 0, 0, 0), 4),
];

/// Ranges inside of 2000::/3, which alone is public, that are not: protocol assignments with Teredo and ORCHID,
/// documentation, 6to4, documentation again.
const SPECIAL_V6: [(Ipv6Addr, u32); 4] = [
    (Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, 0, 0), 23),
    (Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0), 32),
    (Ipv6Addr::new(0x2002, 0, 0, 0, 0, 0, 0, 0), 16),
    (Ipv6Addr::new(0x3fff, 0, 0, 0, 0, 0, 0, 0), 20),
];

fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => {
            let special = |(first, bits): &(Ipv4Addr, u32)| (address.to_bits() ^ first.to_bits()) >> (32 - bits) == 0;
            !SPECIAL_V4.iter().any(special)
        }
        IpAddr::V6(address) => {
            let special = |(first, bits): &(Ipv6Addr, u32)| (address.to_bits() ^ first.to_bits()) >> (128 - bits) == 0;
            address.segments()[0] >> 13 == 1 && !SPECIAL_V6.iter().any(special)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(address: &str, listed: &[&str]) -> Result<(), Forbidden> {
        let listed: Vec<_> = listed.iter().map(|range| AddressRange::parse(range).unwrap()).collect();
        judge(address.parse().unwrap(), &listed)
    }

    #[test]
    fn the_public_internet_is_called_without_a_list() {
        for address in [
            "1.1.1.1",
            "9.255.255.255",
            "11.0.0.0",
            "100.63.255.255",
            "100.128.0.0",
            "172.15.255.255",
            "172.32.0.0",
            "192.0.1.0",
            "198.17.255.255",
            "198.20.0.0",
            "223.255.255.255",
            "2606:4700::1111",
            "2001:200::1",
            "2003::1",
            "3ffe::1",
        ] {
            assert_eq!(judged(address, &[]), Ok(()), "{address}");
        }
    }

    #[test]
    fn what_is_not_public_is_called_only_where_it_is_listed() {
        for (address, range) in [
            ("10.0.0.1", "10.0.0.0/8"),
            ("100.64.0.1", "100.64.0.0/10"),
            ("127.0.0.1", "127.0.0.1"),
            ("127.1.2.3", "127.0.0.0/8"),
            ("169.254.0.1", "169.254.0.0/16"),
            ("172.31.255.255", "172.16.0.0/12"),
            ("192.0.0.8", "192.0.0.0/24"),
            ("192.0.2.1", "192.0.2.0/24"),
            ("192.88.99.1", "192.88.99.0/24"),
            ("192.168.1.1", "192.168.0.0/16"),
            ("198.19.0.1", "198.18.0.0/15"),
            ("198.51.100.1", "198.51.100.0/24"),
            ("203.0.113.1", "203.0.113.0/24"),
            ("240.0.0.1", "240.0.0.0/4"),
            ("::1", "::1"),
            ("fd00::1", "fd00::/8"),
            ("fe80::1", "fe80::/10"),
            ("100::1", "100::/64"),
            ("2001:db8::1", "2001:db8::/32"),
            ("3fff::1", "3fff::/20"),
            ("2001:20::1", "2001:20::/28"),
            ("5f00::1", "5f00::/16"),
            // NAT64, its local use, 6to4 and Teredo of 10.0.0.1.
            ("64:ff9b::a00:1", "64:ff9b::/96"),
            ("64:ff9b:1::a00:1", "64:ff9b:1::/48"),
            ("2002:a00:1::1", "2002::/16"),
            ("2001:0:1::f5ff:fffe", "2001::/32"),
            // And of public ones: who translates them is not known.
            ("64:ff9b::101:101", "64:ff9b::/96"),
            ("2002:101:101::1", "2002::/16"),
        ] {
            assert_eq!(judged(address, &[]), Err(Forbidden::NotPublic), "{address}");
            assert_eq!(judged(address, &[range]), Ok(()), "{address} {range}");
        }
    }

    #[test]
    fn a_list_is_the_whole_of_where_a_destination_may_be() {
        assert_eq!(judged("1.1.1.1", &["10.0.0.0/8"]), Err(Forbidden::NotListed));
        assert_eq!(judged("10.0.0.1", &["10.1.0.0/16", "10.0.0.1"]), Ok(()));
        assert_eq!(
            judged("10.0.0.2", &["10.1.0.0/16", "10.0.0.1"]),
            Err(Forbidden::NotListed)
        );
    }

    #[test]
    fn what_gives_a_machines_credentials_is_never_called_in_any_dress() {
        for address in [
            "169.254.169.254",
            "169.254.170.2",
            "169.254.170.23",
            "168.63.129.16",
            "100.100.100.200",
            "192.0.0.192",
            "fd00:ec2::254",
            "fd00:ec2::23",
            "fd20:ce::254",
            "fe80::a9fe:a9fe",
            "::ffff:169.254.169.254",
            "::169.254.169.254",
            "64:ff9b::a9fe:a9fe",
            "64:ff9b:1::a9fe:a9fe",
            "2002:a9fe:a9fe::1",
            "2001:0:1::5601:5601",
        ] {
            for listed in [&[][..], &["0.0.0.0/0", "::/0"]] {
                assert_eq!(judged(address, listed), Err(Forbidden::Never), "{address}");
            }
        }
    }

    #[test]
    fn what_is_no_host_and_ipv4_in_the_dress_of_ipv6_is_never_called() {
        for address in [
            "0.0.0.0",
            "0.1.2.3",
            "224.0.0.1",
            "255.255.255.255",
            "::",
            "ff02::1",
            "::ffff:10.0.0.1",
            "::ffff:1.1.1.1",
            "::10.0.0.1",
            "::2",
            "2002:e000:1::1",
        ] {
            for listed in [&[][..], &["0.0.0.0/0", "::/0"]] {
                assert_eq!(judged(address, listed), Err(Forbidden::Never), "{address}");
            }
        }
    }
}
