//! What a lease is to the way in which it is added.

use policy::Injection;
use zeroize::Zeroizing;

use crate::credentials::secret::Secret;
use crate::credentials::vault::{Cause, Fields, VaultWord};

/// A value, and as whom it is used where the vault made that up too.
#[derive(Debug)]
pub(crate) struct Value {
    pub(crate) secret: Secret,
    /// How it is added, with that user.
    pub(crate) injection: Injection,
}

/// Makes a value of the fields of a lease: of the one that is named, or of those that its kind has.
pub(crate) fn of(fields: &Fields, key: Option<&VaultWord>, injection: &Injection) -> Result<Value, Cause> {
    let needs = |wanted| Cause::Fields {
        wanted,
        injection: injection.as_str(),
    };
    let plain = |text: &str| (Zeroizing::new(text.as_bytes().to_vec()), injection.clone());
    let (mut bytes, injection) = match (key, injection) {
        // It would be exchanged for what does not end with it.
        (_, Injection::OAuth(_) | Injection::GithubApp(_) | Injection::Federate(_)) => {
            return Err(needs("value to exchange: leases are added as they are"));
        }
        (Some(key), _) => {
            let text = fields.text(key.as_str());
            plain(text.ok_or_else(|| Cause::NoKey { key: key.clone() })?)
        }
        (None, Injection::Sigv4 { .. }) => {
            let pair = fields.text("access_key").zip(fields.text("secret_key"));
            let (id, secret) = pair.ok_or_else(|| needs("access_key and secret_key"))?;
            // OpenBao and older Vaults name the session so, newer ones thus.
            let session = fields.text("security_token").or_else(|| fields.text("session_token"));
            let parts = [Some(id), Some(secret), session.filter(|session| !session.is_empty())];
            let whole: Vec<&str> = parts.into_iter().flatten().collect();
            (Zeroizing::new(whole.join(":").into_bytes()), injection.clone())
        }
        (None, Injection::Basic { .. }) => {
            let pair = fields.text("username").zip(fields.text("password"));
            let (user, password) = pair.ok_or_else(|| needs("username and password"))?;
            // A colon ends the user (RFC 7617 §2).
            if user.contains(|c: char| c == ':' || c.is_control()) {
                return Err(needs("username that can stand before a colon"));
            }
            let injection = Injection::Basic { user: user.into() };
            (Zeroizing::new(password.as_bytes().to_vec()), injection)
        }
        (None, Injection::Postgres { svid, .. }) => {
            let pair = fields.text("username").zip(fields.text("password"));
            let (user, password) = pair.ok_or_else(|| needs("username and password"))?;
            if user.is_empty() || user.contains(char::is_control) {
                return Err(needs("username that can be said at the start of a session"));
            }
            let injection = Injection::Postgres {
                user: user.into(),
                svid: *svid,
            };
            (Zeroizing::new(password.as_bytes().to_vec()), injection)
        }
        (
            None,
            Injection::Header { .. }
            | Injection::Bearer
            | Injection::Query { .. }
            | Injection::Hmac(_)
            | Injection::Url(_),
        ) => {
            return Err(needs("field that is one value"));
        }
    };
    let secret = Secret::new(std::mem::take(&mut *bytes)).map_err(|source| Cause::NoSecret { source })?;
    Ok(Value { secret, injection })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(text: &str) -> Fields {
        serde_json::from_str(text).unwrap()
    }

    fn basic(user: &str) -> Injection {
        Injection::Basic { user: user.into() }
    }

    fn postgres(user: &str) -> Injection {
        Injection::Postgres {
            user: user.into(),
            svid: false,
        }
    }

    fn sigv4() -> Injection {
        Injection::Sigv4 {
            region: "eu-west-1".into(),
            service: "s3".into(),
        }
    }

    fn made(text: &str, key: Option<&str>, injection: &Injection) -> Result<(String, Injection), String> {
        let key = key.map(|key| VaultWord::parse(key).unwrap());
        let made = of(&fields(text), key.as_ref(), injection).map_err(|cause| cause.to_string())?;
        Ok((String::from_utf8(made.secret.bytes().to_vec()).unwrap(), made.injection))
    }

    #[test]
    fn a_user_that_the_vault_made_takes_the_place_of_the_one_in_the_mesh_file() {
        let text = r#"{"username":"v-cert-orders-1","password":"-AAY5drlZzKmgS5Y"}"#;
        let wanted = ("-AAY5drlZzKmgS5Y".to_owned(), basic("v-cert-orders-1"));
        assert_eq!(made(text, None, &basic("x")).unwrap(), wanted);
        let wanted = ("-AAY5drlZzKmgS5Y".to_owned(), postgres("v-cert-orders-1"));
        assert_eq!(made(text, None, &postgres("x")).unwrap(), wanted);
    }

    #[test]
    fn a_key_of_a_cloud_is_made_of_its_parts() {
        for (text, wanted) in [
            (
                r#"{"access_key":"AKIA","secret_key":"s3cr3t/+","security_token":null}"#,
                "AKIA:s3cr3t/+",
            ),
            (
                r#"{"access_key":"AKIA","secret_key":"s3cr3t/+","security_token":""}"#,
                "AKIA:s3cr3t/+",
            ),
            (
                r#"{"access_key":"ASIA","secret_key":"s3cr3t/+","security_token":"tok"}"#,
                "ASIA:s3cr3t/+:tok",
            ),
            (
                r#"{"access_key":"ASIA","secret_key":"s3cr3t/+","session_token":"tok"}"#,
                "ASIA:s3cr3t/+:tok",
            ),
        ] {
            assert_eq!(made(text, None, &sigv4()).unwrap().0, wanted);
        }
    }

    #[test]
    fn one_field_is_named_for_all_other_ways() {
        let text = r#"{"token":"sk-dynamic-0001","ttl":60}"#;
        assert_eq!(
            made(text, Some("token"), &Injection::Bearer).unwrap().0,
            "sk-dynamic-0001"
        );
        let error = made(text, Some("ttl"), &Injection::Bearer).unwrap_err();
        assert!(error.contains("no key ttl with a text"), "{error}");
    }

    #[test]
    fn a_lease_of_another_kind_is_refused_without_a_value_of_it() {
        let database = r#"{"username":"v-a","password":"sk-in-the-lease"}"#;
        for (text, injection, words) in [
            (
                database,
                Injection::Bearer,
                "no field that is one value, which bearer needs",
            ),
            (database, sigv4(), "no access_key and secret_key, which sigv4 needs"),
            (
                r#"{"password":"sk-in-the-lease"}"#,
                basic("x"),
                "no username and password, which basic needs",
            ),
            (
                r#"{"username":"a:b","password":"sk-in-the-lease"}"#,
                basic("x"),
                "before a colon",
            ),
            (
                r#"{"username":"a\u0000b","password":"sk-in-the-lease"}"#,
                postgres("x"),
                "at the start of a session",
            ),
            (
                r#"{"username":"","password":"sk-in-the-lease"}"#,
                postgres("x"),
                "at the start of a session",
            ),
            (
                r#"{"password":"sk-in-the-lease"}"#,
                postgres("x"),
                "no username and password, which postgres needs",
            ),
            (
                r#"{"username":"a","password":"short"}"#,
                basic("x"),
                "no value of a credential",
            ),
        ] {
            let error = made(text, None, &injection).unwrap_err();
            assert!(error.contains(words) && !error.contains("sk-in-the-lease"), "{error}");
        }
    }
}
