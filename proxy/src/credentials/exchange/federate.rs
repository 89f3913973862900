//! What is asked of a provider that exchanges JWT-SVIDs (RFC 8693 §2.1, RFC 7523 §2), as a form or as JSON.

use policy::{Encoding, SvidExchange, SvidGrant, TokenType};
use zeroize::Zeroizing;

use super::super::secret::Secret;
use super::TokenRequest;
use super::form::Form;

const TOKEN_EXCHANGE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
const JWT_BEARER: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";
const CLIENT_ASSERTION: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// RFC 8693 §3.
const fn name_of(kind: TokenType) -> &'static str {
    match kind {
        TokenType::Jwt => "urn:ietf:params:oauth:token-type:jwt",
        TokenType::IdToken => "urn:ietf:params:oauth:token-type:id_token",
        TokenType::AccessToken => "urn:ietf:params:oauth:token-type:access_token",
    }
}

/// Asks for what the JWT-SVID is exchanged for.
pub(super) fn request(exchange: &SvidExchange, svid: &Secret) -> TokenRequest {
    let mut members = Members::new(exchange.encoding, svid);
    match exchange.grant {
        SvidGrant::TokenExchange => {
            members.put("grant_type", TOKEN_EXCHANGE);
            members.put("subject_token_type", name_of(exchange.subject_token_type));
            members.put_secret("subject_token", svid);
            if let Some(kind) = exchange.requested_token_type {
                members.put("requested_token_type", name_of(kind));
            }
        }
        SvidGrant::JwtBearer => {
            members.put("grant_type", JWT_BEARER);
            members.put_secret("assertion", svid);
        }
        SvidGrant::ClientCredentials => {
            members.put("grant_type", "client_credentials");
            members.put("client_assertion_type", CLIENT_ASSERTION);
            members.put_secret("client_assertion", svid);
        }
    }
    let said = [
        ("client_id", &exchange.client_id),
        ("scope", &exchange.scope),
        ("audience", &exchange.token_audience),
        ("resource", &exchange.resource),
    ];
    for (name, value) in said {
        if let Some(value) = value {
            members.put(name, value);
        }
    }
    for (name, value) in &exchange.parameters {
        members.put(name, value);
    }
    let content_type = members.content_type();
    TokenRequest {
        authorization: None,
        accept: "application/json",
        content_type,
        body: members.into_bytes(),
    }
}

/// The members of a request, wiped when they are dropped.
enum Members {
    Form(Form),
    Json(Zeroizing<Vec<u8>>),
}

impl Members {
    fn new(encoding: Encoding, svid: &Secret) -> Self {
        // Room for all of it, so that no copy of a part is left behind by growing: a form writes three letters for one, and
        // everything but the JWT-SVID is bounded by the mesh file.
        let room = 3 * (svid.bytes().len() + 2048) + 32 * 1024 * 3;
        match encoding {
            Encoding::Form => Self::Form(Form::with_room(room)),
            Encoding::Json => Self::Json(Zeroizing::new(Vec::with_capacity(room))),
        }
    }

    fn put(&mut self, name: &str, value: &str) {
        self.put_bytes(name, value.as_bytes());
    }

    fn put_secret(&mut self, name: &str, value: &Secret) {
        self.put_bytes(name, value.bytes());
    }

    fn put_bytes(&mut self, name: &str, value: &[u8]) {
        match self {
            Self::Form(form) => form.put(name, value),
            Self::Json(out) => {
                let before = if out.is_empty() { b'{' } else { b',' };
                out.push(before);
                text(out, name.as_bytes());
                out.push(b':');
                text(out, value);
            }
        }
    }

    const fn content_type(&self) -> &'static str {
        match self {
            Self::Form(_) => "application/x-www-form-urlencoded",
            Self::Json(_) => "application/json",
        }
    }

    fn into_bytes(self) -> Zeroizing<Vec<u8>> {
        match self {
            Self::Form(form) => form.into_bytes(),
            Self::Json(mut out) => {
                out.push(b'}');
                out
            }
        }
    }
}

/// A text of visible ASCII, as RFC 8259 §7 writes it.
fn text(out: &mut Vec<u8>, value: &[u8]) {
    out.push(b'"');
    for byte in value {
        if matches!(byte, b'"' | b'\\') {
            out.push(b'\\');
        }
        out.push(*byte);
    }
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use policy::TokenUrl;
    use proptest::prelude::*;

    use super::*;

    fn exchange(grant: SvidGrant, encoding: Encoding) -> SvidExchange {
        SvidExchange {
            token_url: TokenUrl::parse("https://sts.example.com/token").unwrap(),
            grant,
            client_id: None,
            scope: None,
            resource: None,
            token_audience: None,
            subject_token_type: TokenType::Jwt,
            requested_token_type: None,
            encoding,
            parameters: BTreeMap::new(),
        }
    }

    fn svid() -> Secret {
        Secret::new(b"eyJh.eyJi.c2ln".to_vec()).unwrap()
    }

    fn sent(exchange: &SvidExchange) -> (String, &'static str) {
        let request = request(exchange, &svid());
        assert!(request.authorization.is_none());
        (String::from_utf8(request.body.to_vec()).unwrap(), request.content_type)
    }

    #[test]
    fn each_grant_has_the_svid_where_its_standard_has_it() {
        let of = |grant| sent(&exchange(grant, Encoding::Form));
        let form = "application/x-www-form-urlencoded";
        assert_eq!(
            of(SvidGrant::TokenExchange),
            (
                "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Atoken-exchange\
                 &subject_token_type=urn%3Aietf%3Aparams%3Aoauth%3Atoken-type%3Ajwt&subject_token=eyJh.eyJi.c2ln"
                    .to_owned(),
                form
            )
        );
        assert_eq!(
            of(SvidGrant::JwtBearer),
            (
                "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer&assertion=eyJh.eyJi.c2ln".to_owned(),
                form
            )
        );
        assert_eq!(
            of(SvidGrant::ClientCredentials),
            (
                "grant_type=client_credentials\
                 &client_assertion_type=urn%3Aietf%3Aparams%3Aoauth%3Aclient-assertion-type%3Ajwt-bearer\
                 &client_assertion=eyJh.eyJi.c2ln"
                    .to_owned(),
                form
            )
        );
    }

    #[test]
    fn what_the_mesh_file_says_of_the_token_goes_along() {
        let mut exchange = exchange(SvidGrant::TokenExchange, Encoding::Json);
        exchange.client_id = Some("bot \"7\"".into());
        exchange.scope = Some("read write".into());
        exchange.token_audience = Some("//iam.example.com/pool".into());
        exchange.resource = Some("https://api.example.com/".into());
        exchange.subject_token_type = TokenType::IdToken;
        exchange.requested_token_type = Some(TokenType::AccessToken);
        exchange.parameters = BTreeMap::from([("rule_id".into(), r"fdrl\1".into())]);
        let (body, kind) = sent(&exchange);
        assert_eq!(kind, "application/json");
        let told: serde_json::Value = serde_json::from_str(&body).unwrap();
        assert_eq!(
            told,
            serde_json::json!({
                "grant_type": TOKEN_EXCHANGE,
                "subject_token": "eyJh.eyJi.c2ln",
                "subject_token_type": "urn:ietf:params:oauth:token-type:id_token",
                "requested_token_type": "urn:ietf:params:oauth:token-type:access_token",
                "client_id": "bot \"7\"",
                "scope": "read write",
                "audience": "//iam.example.com/pool",
                "resource": "https://api.example.com/",
                "rule_id": r"fdrl\1",
            })
        );
    }

    proptest! {
        #[test]
        fn whatever_a_parameter_is_it_is_read_as_it_was_written(value in "[ -~]{1,200}") {
            let mut exchange = exchange(SvidGrant::JwtBearer, Encoding::Json);
            exchange.parameters = BTreeMap::from([("x".into(), value.clone().into())]);
            let told: serde_json::Value = serde_json::from_str(&sent(&exchange).0).unwrap();
            prop_assert_eq!(told["x"].as_str(), Some(value.as_str()));
        }
    }
}
