//! Apps of GitHub: the app says who it is by a token that its private key signs, and is given one of its installation.
//!
//! <https://docs.github.com/apps/creating-github-apps/authenticating-with-a-github-app>

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{RSA_PKCS1_SHA256, RsaKeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::HeaderValue;
use policy::GithubApp;
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject as _;
use spiffe::time::Timestamp;
use zeroize::{Zeroize as _, Zeroizing};

use super::super::secret::Secret;
use super::{ExchangeError, TokenRequest};

/// How long the app's own token is good for, in seconds: GitHub takes ten minutes at most, by its own clock.
const LIFE: i64 = 540;

/// How far GitHub's clock may be behind, in seconds.
const SKEW: i64 = 60;

/// The least length of a line of a key that is looked for: all but the last are longer.
const LINE_BYTES_MIN: usize = 16;

/// Asks for a token of the installation.
pub(super) fn request(app: &GithubApp, value: &Secret, now: Timestamp) -> Result<TokenRequest, ExchangeError> {
    let token = Zeroizing::new(format!("Bearer {}", &*own_token(&app.app_id, value, now)?));
    let Ok(mut authorization) = HeaderValue::from_str(&token) else {
        return Err(ExchangeError::Value {
            why: "its signature cannot stand in a field",
        });
    };
    authorization.set_sensitive(true);
    Ok(TokenRequest {
        authorization: Some(authorization),
        accept: "application/vnd.github+json",
        content_type: "application/json",
        body: Zeroizing::new(b"{}".to_vec()),
    })
}

/// The app's own token (RFC 7519), signed by RS256 (RFC 7518 §3.3).
fn own_token(app_id: &str, value: &Secret, now: Timestamp) -> Result<Zeroizing<String>, ExchangeError> {
    let key = key(value)?;
    let seconds = now.unix_seconds();
    let claims = serde_json::json!({ "exp": seconds + LIFE, "iat": seconds - SKEW, "iss": app_id });
    let part = |text: &str| URL_SAFE_NO_PAD.encode(text);
    let mut token = Zeroizing::new(format!(
        "{}.{}",
        part(r#"{"alg":"RS256","typ":"JWT"}"#),
        part(&claims.to_string())
    ));
    let mut signature = vec![0; key.public_modulus_len()];
    let signed = key.sign(
        &RSA_PKCS1_SHA256,
        &SystemRandom::new(),
        token.as_bytes(),
        &mut signature,
    );
    if signed.is_err() {
        return Err(ExchangeError::Value {
            why: "it does not sign",
        });
    }
    token.push('.');
    token.push_str(&URL_SAFE_NO_PAD.encode(&signature));
    Ok(token)
}

/// Reads the key as GitHub gives it (PKCS #1), or as others write it (PKCS #8).
fn key(value: &Secret) -> Result<RsaKeyPair, ExchangeError> {
    let Ok(mut der) = PrivateKeyDer::from_pem_slice(value.bytes()) else {
        return Err(ExchangeError::Value {
            why: "it is no private key as PEM, or an encrypted one",
        });
    };
    let read = match &der {
        PrivateKeyDer::Pkcs1(der) => RsaKeyPair::from_der(der.secret_pkcs1_der()).ok(),
        PrivateKeyDer::Pkcs8(der) => RsaKeyPair::from_pkcs8(der.secret_pkcs8_der()).ok(),
        // No RSA, and whatever else is to come.
        PrivateKeyDer::Sec1(_) | _ => None,
    };
    der.zeroize();
    read.ok_or(ExchangeError::Value {
        why: "it is no RSA key of 2048 bits or more",
    })
}

/// The lines of a key: whoever has one of them has a part of it, however the others are broken.
pub(in crate::credentials) fn lines(value: &Secret) -> Vec<Zeroizing<Vec<u8>>> {
    let lines = value.bytes().split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
    let lines = lines.filter(|line| line.len() >= LINE_BYTES_MIN && !line.starts_with(b"-----"));
    let found: Vec<_> = lines.map(|line| Zeroizing::new(line.to_vec())).collect();
    if found.is_empty() { vec![value.copy()] } else { found }
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::encoding::AsDer as _;
    use aws_lc_rs::rsa::KeySize;
    use aws_lc_rs::signature::{KeyPair as _, RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey};

    use super::*;

    fn pem(kind: &str, der: &[u8]) -> String {
        let text = base64::engine::general_purpose::STANDARD.encode(der);
        let lines: Vec<&str> = text
            .as_bytes()
            .chunks(64)
            .map(|line| std::str::from_utf8(line).unwrap())
            .collect();
        format!("-----BEGIN {kind}-----\n{}\n-----END {kind}-----\n", lines.join("\n"))
    }

    fn value(text: &str) -> Secret {
        Secret::lines(text.as_bytes().to_vec()).unwrap()
    }

    #[test]
    fn the_app_says_who_it_is_for_nine_minutes() {
        let pair = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
        let pem = pem("PRIVATE KEY", pair.as_der().unwrap().as_ref());
        let token = own_token("12345", &value(&pem), Timestamp::from_unix_seconds(1_000_000)).unwrap();
        let parts: Vec<&str> = token.split('.').collect();
        let [head, claims, signature] = [0, 1, 2].map(|at| URL_SAFE_NO_PAD.decode(parts[at]).unwrap());
        assert_eq!(head, br#"{"alg":"RS256","typ":"JWT"}"#);
        assert_eq!(claims, br#"{"exp":1000540,"iat":999940,"iss":"12345"}"#);
        let signed = format!("{}.{}", parts[0], parts[1]);
        let public = UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, pair.public_key().as_ref());
        public.verify(signed.as_bytes(), &signature).unwrap();
        // Every line of it is looked for.
        assert_eq!(lines(&value(&pem)).len(), pem.lines().count() - 2);
    }

    #[test]
    fn what_is_no_rsa_key_is_refused_and_not_told() {
        let other = rcgen::KeyPair::generate().unwrap().serialize_pem();
        for (text, why) in [
            ("a-client-secret", "no private key as PEM"),
            (
                "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----",
                "or an encrypted one",
            ),
            (other.as_str(), "no RSA key of 2048 bits"),
            (
                "-----BEGIN RSA PRIVATE KEY-----\nAAAA\n-----END RSA PRIVATE KEY-----",
                "no RSA key of 2048 bits",
            ),
        ] {
            let error = key(&value(text)).unwrap_err().to_string();
            assert!(error.contains(why) && !error.contains("AAAA"), "{text}: {error}");
        }
        assert_eq!(lines(&value("a-client-secret")).len(), 1);
    }
}
