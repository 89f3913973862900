//! Ranges of addresses.

use std::fmt;
use std::net::IpAddr;

/// A range of addresses: `10.20.0.0/16`, or one address.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct AddressRange {
    first: IpAddr,
    bits: u8,
}

impl AddressRange {
    /// Reads a range. `None` where it is none, or where its first address is not the range's first: `10.1.2.3/8` would
    /// say two things.
    pub fn parse(text: &str) -> Option<Self> {
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (text, None),
        };
        let first: IpAddr = address.parse().ok()?;
        // An IPv4 address in the dress of IPv6 is written as what it is.
        if matches!(first, IpAddr::V6(address) if address.to_ipv4_mapped().is_some()) {
            return None;
        }
        let most = width(first);
        let bits = match bits {
            Some(bits) if !bits.starts_with('+') && (bits == "0" || !bits.starts_with('0')) => bits.parse().ok()?,
            Some(_) => return None,
            None => most,
        };
        let range = Self { first, bits };
        (bits <= most && number(first) & !range.mask() == 0).then_some(range)
    }

    /// Says whether an address is in the range.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.first.is_ipv4() == address.is_ipv4() && number(address) & self.mask() == number(self.first)
    }

    /// The bits that all addresses of the range share.
    fn mask(&self) -> u128 {
        let free = u32::from(width(self.first).saturating_sub(self.bits));
        u128::MAX.checked_shl(free).unwrap_or(0)
    }
}

/// How many bits an address has.
const fn width(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(_) => 32,
        IpAddr::V6(_) => 128,
    }
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(address.to_bits()),
        IpAddr::V6(address) => address.to_bits(),
    }
}

impl fmt::Display for AddressRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.bits == width(self.first) {
            return self.first.fmt(f);
        }
        write!(f, "{}/{}", self.first, self.bits)
    }
}

impl fmt::Debug for AddressRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AddressRange({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_holds_what_shares_its_bits() {
        for (range, inside, outside) in [
            ("10.0.0.0/8", "10.255.0.1", "11.0.0.0"),
            ("10.1.2.3", "10.1.2.3", "10.1.2.4"),
            ("0.0.0.0/0", "255.255.255.255", "::1"),
            ("fd00::/8", "fdff::1", "fe00::"),
            ("::1", "::1", "0.0.0.1"),
            ("::/0", "::a00:1", "10.0.0.1"),
        ] {
            let read = AddressRange::parse(range).unwrap();
            assert_eq!(read.to_string(), range);
            assert!(read.contains(inside.parse().unwrap()), "{range} {inside}");
            assert!(!read.contains(outside.parse().unwrap()), "{range} {outside}");
        }
        assert_eq!(AddressRange::parse("10.1.2.3/32").unwrap().to_string(), "10.1.2.3");
    }

    #[test]
    fn what_is_no_range_is_refused() {
        for text in [
            "",
            "10.0.0.0/",
            "10.0.0.0/33",
            "10.0.0.0/08",
            "10.0.0.0/+8",
            "10.1.0.0/8",
            "10.0.0/8",
            "010.0.0.0/8",
            "::/129",
            "::1/64",
            "::ffff:10.0.0.1",
            "a.b",
        ] {
            assert_eq!(AddressRange::parse(text), None, "{text}");
        }
    }
}
