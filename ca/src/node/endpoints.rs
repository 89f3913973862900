//! The slice of one host, and where the bots in it can be reached; pure.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use ca_api::Generation;
use ca_api::node::{BotEndpoints, DOWN_MESSAGE_BYTES_MAX};
use spiffe::id::{BotName, HostName};

use crate::Digest;
use crate::authority::sha256;
use crate::quarantine::QuarantineList;
use crate::world::{Live, Routes};

/// Room for the rest of a message around a slice's JSON.
pub(crate) const SLICE_BYTES_MAX: usize = DOWN_MESSAGE_BYTES_MAX - 1024;

/// The most addresses of one bot that a host is told.
const ADDRESSES_MAX: usize = 64;

/// What one host needs of one generation.
#[derive(Clone, Debug)]
pub(super) struct HostSlice {
    pub(super) generation: Generation,
    pub(super) json: String,
    pub(super) sha256: Digest,
    /// What the host must be able to enforce to apply it.
    pub(super) features: BTreeSet<&'static str>,
    /// The bots that those of the host may call: it learns of no other address.
    callees: BTreeSet<BotName>,
    /// What it was cut from.
    pub(super) mesh: Arc<policy::Mesh>,
}

/// Why there is no slice.
#[derive(Debug, thiserror::Error)]
pub(super) enum SliceError {
    #[error("the slice of {host} has {bytes} bytes, more than a message holds")]
    TooLong { host: HostName, bytes: usize },
}

impl HostSlice {
    /// Cuts the slice; `None` before the first apply.
    pub(super) fn cut(live: &Live, host: &HostName) -> Result<Option<Self>, SliceError> {
        let Some(mesh) = &live.mesh else { return Ok(None) };
        let json = mesh.slice(host);
        if json.len() > SLICE_BYTES_MAX {
            return Err(SliceError::TooLong {
                host: host.clone(),
                bytes: json.len(),
            });
        }
        Ok(Some(Self {
            mesh: Arc::clone(mesh),
            generation: live.generation,
            features: mesh.features_for(host),
            sha256: sha256(json.as_bytes()),
            json,
            callees: mesh.callees_for(host),
        }))
    }

    /// Lists where the bots that the host's own may call can be reached: at every host that
    /// may claim them, in order, whether its stream is up or not (the proxies deal
    /// with one that does not answer), unless it is quarantined.
    pub(super) fn endpoints(
        &self,
        mesh: &policy::Mesh,
        routes: &Routes,
        quarantines: &QuarantineList,
    ) -> Vec<BotEndpoints> {
        let serving = self.callees.iter().filter_map(|name| {
            let bot = mesh.bots().get(name).filter(|bot| bot.serve.is_some())?;
            let address = routes
                .iter()
                .filter(|(host, _)| bot.may_run_on(host) && !quarantines.has_host(host))
                .map(|(_, address)| address.to_string())
                .take(ADDRESSES_MAX)
                .collect::<Vec<_>>();
            Some(BotEndpoints {
                bot: name.to_string(),
                address,
            })
        });
        serving.filter(|endpoints| !endpoints.address.is_empty()).collect()
    }
}

/// Reads the address that a host wants its mesh side to be reached at.
///
/// `""` is none, `":port"` is that port of the address that the stream comes from.
/// An address that nobody else can connect to is none of a host's to advertise, and
/// one on loopback leads every other host to itself.
pub(super) fn advertised(text: &str, source: IpAddr) -> Result<Option<SocketAddr>, BadAddress> {
    if text.is_empty() {
        return Ok(None);
    }
    let address = match text.strip_prefix(':') {
        Some(port) => SocketAddr::new(source.to_canonical(), port.parse().map_err(|_invalid| BadAddress)?),
        None => text.parse().map_err(|_invalid| BadAddress)?,
    };
    let ip = address.ip().to_canonical();
    let nowhere = ip.is_unspecified() || ip.is_multicast() || ip == IpAddr::V4(Ipv4Addr::BROADCAST);
    let elsewhere = ip.is_loopback() && !source.to_canonical().is_loopback();
    if address.port() == 0 || nowhere || elsewhere {
        return Err(BadAddress);
    }
    Ok(Some(SocketAddr::new(ip, address.port())))
}

/// Not an address to advertise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BadAddress;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_alone_takes_the_address_of_the_stream() {
        let source = "::ffff:10.0.0.5".parse().unwrap();
        assert_eq!(
            advertised(":15443", source),
            Ok(Some("10.0.0.5:15443".parse().unwrap()))
        );
        assert_eq!(
            advertised("10.0.0.6:1", source),
            Ok(Some("10.0.0.6:1".parse().unwrap()))
        );
        assert_eq!(advertised("", source), Ok(None));
        let here = "::1".parse().unwrap();
        assert_eq!(
            advertised("127.0.0.1:1", here),
            Ok(Some("127.0.0.1:1".parse().unwrap()))
        );
        assert_eq!(
            advertised("[::ffff:10.0.0.6]:1", source),
            Ok(Some("10.0.0.6:1".parse().unwrap())),
            "one address has one form, or it could be told twice"
        );
    }

    #[test]
    fn addresses_that_mean_nothing_elsewhere_are_refused() {
        let source = "10.0.0.5".parse().unwrap();
        for text in [
            "0.0.0.0:1",
            "[::]:1",
            "10.0.0.5:0",
            ":0",
            ":x",
            "web-1:15443",
            "224.0.0.1:1",
            "255.255.255.255:1",
            "127.0.0.1:1",
            "[::1]:1",
            "[::ffff:127.0.0.1]:1",
            ":-1",
            ":65536",
        ] {
            assert_eq!(advertised(text, source), Err(BadAddress), "{text}");
        }
    }
}
