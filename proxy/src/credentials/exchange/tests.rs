//! What is sent, and what is kept; who is asked is tried with servers, in the suite.

use policy::{ClientAuth, OAuth};

use super::*;

fn oauth(grant: Grant, auth: ClientAuth) -> OAuth {
    OAuth {
        token_url: TokenUrl::parse("https://login.example.com/token").unwrap(),
        client_id: "bot 7/a".into(),
        grant,
        auth,
        scope: Some("read write".into()),
        audience: Some("crm".into()),
        resource: Some("https://crm.example.com/?a=b&c".into()),
    }
}

fn value(text: &str) -> Arc<Secret> {
    Arc::new(Secret::lines(text.as_bytes().to_vec()).unwrap())
}

/// The fields and the body of a request.
fn told(request: Result<TokenRequest, ExchangeError>) -> (String, String) {
    let request = request.unwrap();
    let authorization = request.authorization.map(|field| {
        assert!(field.is_sensitive());
        field.to_str().unwrap().to_owned()
    });
    let body = String::from_utf8(request.body.to_vec()).unwrap();
    (authorization.unwrap_or_default(), body)
}

const ASKED: &str = "&scope=read%20write&audience=crm&resource=https%3A%2F%2Fcrm.example.com%2F%3Fa%3Db%26c";

#[test]
fn a_client_says_who_it_is_as_the_mesh_file_has_it() {
    let of = |auth| {
        told(form::with_secret(
            &oauth(Grant::ClientCredentials, auth),
            &value("s&cret: 0123"),
        ))
    };
    let (authorization, body) = of(ClientAuth::Basic);
    // bot%207%2Fa:s%26cret%3A%200123
    assert_eq!(authorization, "Basic Ym90JTIwNyUyRmE6cyUyNmNyZXQlM0ElMjAwMTIz");
    assert_eq!(body, format!("grant_type=client_credentials{ASKED}"));
    let (authorization, body) = of(ClientAuth::Post);
    let client = "&client_id=bot%207%2Fa&client_secret=s%26cret%3A%200123";
    assert_eq!(
        (authorization.as_str(), body),
        ("", format!("grant_type=client_credentials{ASKED}{client}"))
    );
}

#[test]
fn a_refresh_token_goes_alone_or_beside_a_secret() {
    let of = |auth, text: &str, newest: Option<&str>| {
        let newest = newest.map(value);
        form::with_refresh_token(&oauth(Grant::RefreshToken, auth), &value(text), newest.as_deref())
    };
    let (authorization, body) = told(of(ClientAuth::None, "rt-0123456789", None));
    let client = "&client_id=bot%207%2Fa";
    let expected = format!("grant_type=refresh_token{ASKED}&refresh_token=rt-0123456789{client}");
    assert_eq!((authorization.as_str(), body), ("", expected));
    let both =
        "{\"type\": \"authorized_user\",\n \"client_secret\": \"sec-ret-1\", \"refresh_token\": \"rt-0123456789\"}";
    let (authorization, body) = told(of(ClientAuth::Basic, both, Some("rt-newest-1")));
    // bot%207%2Fa:sec-ret-1
    assert_eq!(authorization, "Basic Ym90JTIwNyUyRmE6c2VjLXJldC0x");
    assert_eq!(
        body,
        format!("grant_type=refresh_token{ASKED}&refresh_token=rt-newest-1")
    );
    let (_, body) = told(of(ClientAuth::Post, both, None));
    assert!(
        body.ends_with("&refresh_token=rt-0123456789&client_id=bot%207%2Fa&client_secret=sec-ret-1"),
        "{body}"
    );
    for text in [
        "rt-0123456789",
        r#"{"refresh_token": "rt-0123456789"}"#,
        r#"{"client_secret": "short", "refresh_token": "rt-0123456789"}"#,
        r#"{"client_secret": "sec-ret-1", "refresh_token": "rt-01234\n56789"}"#,
    ] {
        let error = of(ClientAuth::Basic, text, None).unwrap_err();
        assert!(matches!(error, ExchangeError::Value { .. }), "{text}");
        assert!(!error.to_string().contains("rt-01"), "{error}");
    }
}

#[test]
fn nobody_else_may_read_any_part_of_a_value() {
    let parts = |auth, text: &str| {
        let parts = parts(&oauth(Grant::RefreshToken, auth), &value(text));
        parts
            .iter()
            .map(|part| String::from_utf8(part.to_vec()).unwrap())
            .collect::<Vec<_>>()
    };
    let both = r#"{"client_secret": "sec-ret-1", "refresh_token": "rt-0123456789"}"#;
    assert_eq!(parts(ClientAuth::Post, both), ["sec-ret-1", "rt-0123456789"]);
    assert_eq!(parts(ClientAuth::None, "rt-0123456789"), ["rt-0123456789"]);
    assert_eq!(parts(ClientAuth::Post, "not-of-that-form"), ["not-of-that-form"]);
}

/// A host on which one refresh token follows the other.
struct Host {
    folder: tempfile::TempDir,
    name: CredentialName,
    held: Option<Lineage>,
}

impl Host {
    fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
            name: CredentialName::parse("mailbox").unwrap(),
            held: None,
        }
    }

    fn sealer(&self) -> Sealer {
        Sealer::new(self.folder.path())
    }

    async fn newest(&mut self, put: &str) -> Result<Option<String>, ExchangeError> {
        let sealer = self.sealer();
        let newest = Lineage::newest(&mut self.held, &self.name, &value(put), &sealer).await?;
        Ok(newest.map(|newest| String::from_utf8(newest.bytes().to_vec()).unwrap()))
    }

    async fn follow(&mut self, put: &str, next: &str) -> Result<(), ExchangeError> {
        let (sealer, next) = (self.sealer(), Secret::new(next.as_bytes().to_vec()).unwrap());
        Lineage::follow(&mut self.held, &self.name, &value(put), next, &sealer).await
    }

    fn file(&self) -> std::path::PathBuf {
        self.folder.path().join("credentials/mailbox.newest.age")
    }
}

#[tokio::test]
async fn the_newest_refresh_token_is_on_disk_sealed_and_found_after_a_restart() {
    let mut host = Host::new();
    assert_eq!(host.newest("rt-put-00").await.unwrap(), None);
    host.follow("rt-put-00", "rt-next-1").await.unwrap();
    host.follow("rt-put-00", "rt-next-2").await.unwrap();
    let sealed = std::fs::read(host.file()).unwrap();
    assert!(sealed.starts_with(b"age-encryption.org/v1\n") && memchr::memmem::find(&sealed, b"rt-next").is_none());
    host.held = None;
    assert_eq!(host.newest("rt-put-00").await.unwrap().as_deref(), Some("rt-next-2"));
    // Another value begins anew, whatever descended from the one before.
    assert_eq!(host.newest("rt-put-11").await.unwrap(), None);
    host.held = None;
    assert_eq!(host.newest("rt-put-11").await.unwrap(), None);
    host.follow("rt-put-11", "rt-next-3").await.unwrap();
    host.held = None;
    assert_eq!(host.newest("rt-put-11").await.unwrap().as_deref(), Some("rt-next-3"));
    assert_eq!(host.newest("rt-put-00").await.unwrap(), None);
}

#[tokio::test]
async fn a_refresh_token_that_cannot_be_kept_is_not_used_before_it_is() {
    let mut host = Host::new();
    host.follow("rt-put-00", "rt-next-1").await.unwrap();
    // Nothing can be written over a folder.
    std::fs::remove_file(host.file()).unwrap();
    std::fs::create_dir(host.file()).unwrap();
    std::fs::write(host.file().join("x"), "").unwrap();
    let refused = host.follow("rt-put-00", "rt-next-2").await.unwrap_err();
    assert!(matches!(refused, ExchangeError::NotKept { .. }), "{refused}");
    let refused = host.newest("rt-put-00").await.unwrap_err();
    assert!(matches!(refused, ExchangeError::NotKept { .. }), "{refused}");
    std::fs::remove_dir_all(host.file()).unwrap();
    assert_eq!(host.newest("rt-put-00").await.unwrap().as_deref(), Some("rt-next-2"));
    host.held = None;
    assert_eq!(host.newest("rt-put-00").await.unwrap().as_deref(), Some("rt-next-2"));
}

#[tokio::test]
async fn an_old_refresh_token_is_not_sent_where_the_newest_cannot_be_read() {
    let mut host = Host::new();
    host.follow("rt-put-00", "rt-next-1").await.unwrap();
    host.held = None;
    std::fs::write(host.file(), "rt-next-1 in the clear").unwrap();
    let refused = host.newest("rt-put-00").await.unwrap_err();
    assert!(matches!(refused, ExchangeError::Lineage { .. }), "{refused}");
}
