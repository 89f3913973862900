//! Why what the CA said did not become part of the next moment.

use policy::Generation;
use spiffe::bundle::BundleError;
use spiffe::id::{HostName, TrustDomain};

/// Why a slice was not applied; the slice before it stays.
#[derive(Debug, thiserror::Error)]
pub enum SliceError {
    /// The message has no generation.
    #[error("the slice has no generation")]
    NoGeneration,
    /// A state before the one that is applied: following it could revive what was
    /// taken back.
    #[error("slice {offered} is older than {applied}, which is applied")]
    Older {
        /// Its number.
        offered: Generation,
        /// The number of what is applied.
        applied: Generation,
    },
    /// Another slice of the same number is applied.
    #[error("slice {offered} differs from the slice of the same number that is applied")]
    Differs {
        /// Its number.
        offered: Generation,
    },
    /// It is not what its sender hashed.
    #[error("the SHA-256 of slice {offered} is wrong")]
    Sha256 {
        /// Its number.
        offered: Generation,
    },
    /// It is not text.
    #[error("slice {offered} is not UTF-8")]
    Utf8 {
        /// Its number.
        offered: Generation,
        /// Where not.
        #[source]
        source: std::str::Utf8Error,
    },
    /// It does not say whose slice it is.
    #[error("slice {offered} does not name its host")]
    Head {
        /// Its number.
        offered: Generation,
        /// What is wrong.
        #[source]
        source: serde_json::Error,
    },
    /// It is another host's.
    #[error("slice {offered} is for host {named}, this is {host}")]
    OtherHost {
        /// Its number.
        offered: Generation,
        /// The host that it names.
        named: HostName,
        /// This host.
        host: HostName,
    },
    /// It is another trust domain's.
    #[error("slice {offered} is of trust domain {named}, this host is in {trust_domain}")]
    OtherTrustDomain {
        /// Its number.
        offered: Generation,
        /// The trust domain that it names.
        named: TrustDomain,
        /// This host's.
        trust_domain: TrustDomain,
    },
    /// It needs what this proxy does not enforce.
    #[error("slice {offered} needs what this version of the proxy does not enforce: {lacking}")]
    Features {
        /// Its number.
        offered: Generation,
        /// The words that this proxy does not know.
        lacking: String,
    },
    /// The mesh-file parser refuses it.
    #[error("slice {offered} does not load: {diagnostics}")]
    Load {
        /// Its number.
        offered: Generation,
        /// What the parser says.
        diagnostics: String,
    },
}

/// Why a trust bundle was not taken; the one before it stays.
#[derive(Debug, thiserror::Error)]
pub enum BundleRefusal {
    /// It does not parse.
    #[error("the trust bundle does not parse")]
    Parse {
        /// What is wrong.
        #[source]
        source: BundleError,
    },
    /// It trusts nobody: applying it would cut this host off from the CA for good.
    #[error("the trust bundle holds no authority")]
    Empty,
    /// A bundle before the one in use: it may trust an authority that was revoked.
    #[error("trust bundle {offered:?} (epoch, sequence) is older than {applied:?}, which is in use")]
    Older {
        /// Its epoch and sequence.
        offered: (u64, u64),
        /// Those of the bundle in use.
        applied: (u64, u64),
    },
    /// Another bundle of the same number is in use.
    #[error("trust bundle {offered:?} (epoch, sequence) differs from the one of the same number that is in use")]
    Differs {
        /// Its epoch and sequence.
        offered: (u64, u64),
    },
}

/// Why not even nothing could be described; cannot happen with a trust domain that
/// parsed.
#[derive(Debug, thiserror::Error)]
pub enum FirstError {
    /// The empty bundle.
    #[error("make an empty trust bundle")]
    Bundle {
        /// Why.
        #[source]
        source: BundleError,
    },
    /// The empty mesh file.
    #[error("load an empty mesh file: {diagnostics}")]
    Mesh {
        /// Why.
        diagnostics: String,
    },
}
