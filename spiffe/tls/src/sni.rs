//! Server names that tell an onlooker nothing: not who is called, and not that two trust domains use the same name.

use aws_lc_rs::digest;
use rustls_pki_types::{DnsName, ServerName};
use spiffe::id::SpiffeId;

/// How many bytes of the hash a label keeps: 40 hex digits, inside the 63 of a DNS label.
const LABEL_HASH_BYTES: usize = 20;

/// Gives the opaque DNS label of a SPIFFE ID: the first 20 bytes of SHA-256 of the ID in lower-case hex, and
/// `.botmesh.invalid` (RFC 6761 §6.4: no such name is ever resolved).
pub fn sni_label(id: &SpiffeId) -> String {
    let hash = digest::digest(&digest::SHA256, id.as_str().as_bytes());
    let mut label = String::with_capacity(64);
    for byte in hash.as_ref().iter().take(LABEL_HASH_BYTES) {
        label.push_str(&format!("{byte:02x}"));
    }
    label + ".botmesh.invalid"
}

/// Gives [`sni_label`] in the shape that rustls asks for.
#[expect(
    clippy::expect_used,
    reason = "hex digits and `.botmesh.invalid` are always a DNS name"
)]
pub fn sni_for(id: &SpiffeId) -> ServerName<'static> {
    ServerName::DnsName(DnsName::try_from(sni_label(id)).expect("a DNS name"))
}
