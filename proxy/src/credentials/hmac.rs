//! Signs a body with a key (RFC 2104), as webhooks are signed.

use aws_lc_rs::hmac::{self, HMAC_SHA256, HMAC_SHA512, Key};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderMap;
use http::header::HeaderName;
use policy::{Hmac, HmacEncoding, HmacHash};
use spiffe::time::Timestamp;

use super::inject::{Misfit, put};
use super::secret::Secret;

/// Puts the signature, and the time where it is signed too, into their fields.
pub(super) fn sign(
    of: &Hmac,
    secret: &Secret,
    now: Timestamp,
    headers: &mut HeaderMap,
    body: &[u8],
) -> Result<(), Misfit> {
    let algorithm = match of.hash {
        HmacHash::Sha256 => HMAC_SHA256,
        HmacHash::Sha512 => HMAC_SHA512,
    };
    let key = Key::new(algorithm, secret.bytes());
    let mut context = hmac::Context::with_key(&key);
    if let Some(field) = &of.timestamp {
        let seconds = (now.unix_millis() / 1000).to_string();
        context.update(seconds.as_bytes());
        context.update(b".");
        let name = HeaderName::from_bytes(field.as_bytes()).map_err(|_invalid| Misfit::Field)?;
        put(headers, name, &[seconds.as_bytes()])?;
    }
    context.update(body);
    let tag = context.sign();
    let text = match of.encoding {
        HmacEncoding::Hex => super::hex(tag.as_ref()),
        HmacEncoding::Base64 => STANDARD.encode(tag.as_ref()),
    };
    let name = HeaderName::from_bytes(of.header.as_bytes()).map_err(|_invalid| Misfit::Field)?;
    put(headers, name, &[of.prefix.as_bytes(), text.as_bytes()])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signed(hash: HmacHash, encoding: HmacEncoding, timestamp: Option<&str>) -> HeaderMap {
        let of = Hmac {
            header: "x-signature".into(),
            hash,
            encoding,
            prefix: "v=".into(),
            timestamp: timestamp.map(Into::into),
        };
        // RFC 4231 §4.3, whose key is shorter than a credential may be: repeated here as Python's hmac gives it.
        let secret = Secret::new(b"JefeJefe".to_vec()).unwrap();
        let mut headers = HeaderMap::new();
        let now = Timestamp::from_unix_millis(1_700_000_000_999);
        sign(&of, &secret, now, &mut headers, b"what do ya want for nothing?").unwrap();
        headers
    }

    #[test]
    fn signatures_are_those_that_others_compute() {
        let headers = signed(HmacHash::Sha256, HmacEncoding::Hex, None);
        assert_eq!(headers["x-signature"], SHA256_HEX);
        assert!(headers["x-signature"].is_sensitive());
        let headers = signed(HmacHash::Sha512, HmacEncoding::Base64, Some("x-time"));
        assert_eq!(headers["x-time"], "1700000000");
        assert_eq!(headers["x-signature"], SHA512_TIMED_BASE64);
    }

    // python3: hmac.new(b'JefeJefe', b'what do ya want for nothing?', 'sha256').hexdigest()
    const SHA256_HEX: &str = "v=315bced3a44cef7cdf2a7f137b8ebfae2cf2a7466fb34497d9257dd0321fd8de";
    // base64.b64encode(hmac.new(b'JefeJefe', b'1700000000.what do ya want for nothing?', 'sha512').digest())
    const SHA512_TIMED_BASE64: &str =
        "v=ygZnIAM/5GHYMl7UMJyn8tuAm+FpaJH9f01aaelvQO3lbFH8ODmAwly1gJYIVMe80vYS3eP1YcUR6DBNWtkAeg==";
}
