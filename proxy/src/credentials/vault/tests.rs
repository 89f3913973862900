//! Against a server that says what a test has it say: what no real one does, or only in a bad hour.

use std::collections::VecDeque;
use std::error::Error as _;
use std::sync::Mutex;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio_util::task::TaskTracker;

use super::*;

const LOGIN: &str = r#"{"auth":{"client_token":"s.token-of-a-test","lease_duration":3600,"renewable":true}}"#;
const GOOD: &str = r#"{"data":{"data":{"key":"sk-a-good-value"},"metadata":{"version":1}}}"#;

/// Answers each question with the next of these, one to a connection, and notes what it was asked.
struct Played {
    vaults: Vaults,
    asked: Arc<Mutex<Vec<String>>>,
    folder: tempfile::TempDir,
}

fn said(status: u16, body: &str) -> String {
    format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

async fn played(answers: &[String]) -> Played {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("jwt");
    std::fs::write(&file, "eyJ.the-token-of-this-host.sig\n").unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (mut answers, asked) = (
        answers.iter().cloned().collect::<VecDeque<_>>(),
        Arc::<Mutex<Vec<_>>>::default(),
    );
    let notes = Arc::clone(&asked);
    let serving = async move {
        while let Some(answer) = answers.pop_front() {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut head = vec![0; 8192];
            let mut length = 0;
            while !head[..length].windows(4).any(|end| end == b"\r\n\r\n") {
                length += stream.read(&mut head[length..]).await.unwrap();
            }
            notes
                .lock()
                .unwrap()
                .push(String::from_utf8_lossy(&head[..length]).into_owned());
            // One that was not read to its end is none of the server's.
            let _sent = stream.write_all(answer.as_bytes()).await;
        }
    };
    drop(TaskTracker::new().spawn(serving));
    let config = format!(
        r#"{{"address":"http://{address}","namespace":"team/a","login":{{"jwt":{{"role":"hosts","file":"{}"}}}}}}"#,
        file.display()
    );
    let config = serde_json::from_str(&config).unwrap();
    let node = NodeIdentity(Arc::new(|| None));
    let vaults = Vaults::new([(word("main"), config)].into(), &node, &Clock::system());
    Played { vaults, asked, folder }
}

fn word(text: &str) -> VaultWord {
    VaultWord::parse(text).unwrap()
}

impl Played {
    async fn read(&self) -> Result<String, String> {
        let source = VaultSource {
            of: Some(word("main")),
            what: What::Kv {
                path: VaultPath::parse("kv/data/a").unwrap(),
                key: word("key"),
            },
        };
        let read = self.vaults.read(Shape::Line, &source).await;
        read.map(|secret| String::from_utf8(secret.bytes().to_vec()).unwrap())
            .map_err(|error| format!("{error}: {}", error.source().unwrap()))
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }

    /// The first lines of what it was asked.
    fn lines(&self) -> Vec<String> {
        let line = |head: &String| head.lines().next().unwrap().to_owned();
        self.asked().iter().map(line).collect()
    }
}

#[tokio::test]
async fn a_host_logs_in_once_and_shows_its_token_to_each_question() {
    let played = played(&[said(200, LOGIN), said(200, GOOD), said(200, GOOD), said(204, "")]).await;
    assert_eq!(played.read().await.unwrap(), "sk-a-good-value");
    assert_eq!(played.read().await.unwrap(), "sk-a-good-value");
    played.vaults.log_out().await;
    played.vaults.log_out().await;
    assert_eq!(
        played.lines(),
        [
            "POST /v1/auth/jwt/login HTTP/1.1",
            "GET /v1/kv/data/a HTTP/1.1",
            "GET /v1/kv/data/a HTTP/1.1",
            "POST /v1/auth/token/revoke-self HTTP/1.1"
        ]
    );
    let asked = played.asked();
    assert!(!asked[0].contains("x-vault-token") && asked[1].contains("x-vault-token: s.token-of-a-test\r\n"));
    assert!(
        asked.iter().all(|head| head.contains("x-vault-namespace: team/a\r\n")),
        "{asked:?}"
    );
}

#[tokio::test]
async fn an_answer_that_points_elsewhere_is_not_followed() {
    for status in [301, 307, 308] {
        let elsewhere =
            format!("HTTP/1.1 {status} X\r\nLocation: http://127.0.0.1:1/v1/kv/data/a\r\nContent-Length: 0\r\n\r\n");
        let played = played(&[said(200, LOGIN), elsewhere]).await;
        let error = played.read().await.unwrap_err();
        assert!(
            error.contains("points elsewhere") && error.contains(&status.to_string()),
            "{error}"
        );
        assert_eq!(played.asked().len(), 2);
    }
}

#[tokio::test]
async fn an_answer_without_an_end_is_not_read_to_it() {
    let long = said(
        200,
        &format!(r#"{{"data":{{"data":{{"key":"{}"}}}}}}"#, "a".repeat(70_000)),
    );
    let head = format!("HTTP/1.1 200 X\r\nX-A: {}\r\n\r\n", "a".repeat(70_000));
    for (answer, words) in [
        (long, "longer than 64 KiB"),
        (head, "does not speak HTTP"),
        ("nonsense\r\n\r\n".to_owned(), "does not speak HTTP"),
    ] {
        let played = played(&[said(200, LOGIN), answer]).await;
        let error = played.read().await.unwrap_err();
        assert!(error.contains(words), "{words}: {error}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_says_nothing_is_not_waited_for() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let config: VaultConfig = serde_json::from_str(&format!(
        r#"{{"address":"http://{}","login":{{"cert":{{"role":"hosts"}}}}}}"#,
        listener.local_addr().unwrap()
    ))
    .unwrap();
    let clock = Clock::system();
    let ends = Ends {
        config: &config,
        clock: &clock,
        own: None,
    };
    let question = Question {
        method: Method::GET,
        path: "sys/health",
        token: None,
        body: None,
    };
    let begun = tokio::time::Instant::now();
    let asked = tokio::time::timeout(10 * http::ASK_TIMEOUT, ends.ask(question)).await;
    assert!(matches!(asked, Ok(Err(Cause::Slow))));
    assert!(begun.elapsed() < std::time::Duration::from_secs(10));
}

#[tokio::test]
async fn a_token_that_the_vault_knows_no_more_is_made_anew_and_a_missing_right_is_said() {
    let other = LOGIN.replace("s.token-of-a-test", "s.another-token");
    let denied = said(403, r#"{"errors":["permission denied"]}"#);
    let revoked = [
        said(200, LOGIN),
        denied.clone(),
        denied.clone(),
        said(200, &other),
        said(200, GOOD),
    ];
    let played_revoked = played(&revoked).await;
    assert_eq!(played_revoked.read().await.unwrap(), "sk-a-good-value");
    assert!(played_revoked.lines()[2].starts_with("GET /v1/auth/token/lookup-self "));
    assert!(played_revoked.asked()[4].contains("x-vault-token: s.another-token\r\n"));
    // A token that lives, without the right.
    let played = played(&[said(200, LOGIN), denied, said(200, "{}")]).await;
    let error = played.read().await.unwrap_err();
    assert!(
        error.contains(r#"needs `path "kv/data/a" { capabilities = ["read"] }`"#),
        "{error}"
    );
    assert_eq!(played.asked().len(), 3, "it does not log in again for that");
}

#[tokio::test]
async fn what_keeps_a_host_out_is_said_without_the_token_that_it_showed_and_not_asked_again_at_once() {
    let quoting = r#"{"errors":["no: eyJ.the-token-of-this-host.sig"]}"#;
    let plain = r#"{"errors":["claim \"sub\" does not match\u0007"]}"#;
    for (body, shown) in [(quoting, false), (plain, true)] {
        let played = played(&[said(400, body), said(200, LOGIN)]).await;
        let error = played.read().await.unwrap_err();
        assert!(
            error.contains("does not let this host in by role hosts of auth/jwt"),
            "{error}"
        );
        assert_eq!(error.contains("claim \"sub\" does not match "), shown, "{error}");
        assert!(!error.contains("the-token") && !error.contains('\u{7}'), "{error}");
        assert!(played.read().await.is_err());
        assert_eq!(played.asked().len(), 1, "it is left alone for a second");
    }
}

#[tokio::test]
async fn a_host_that_has_nothing_to_log_in_by_does_not_try() {
    for (text, words) in [
        ("", "read the token in"),
        (" \n", "read the token in"),
        ("two\nlines", "read the token in"),
    ] {
        let played = played(&[said(200, LOGIN)]).await;
        std::fs::write(played.folder.path().join("jwt"), text).unwrap();
        let error = played.read().await.unwrap_err();
        assert!(error.contains(words), "{text:?}: {error}");
        assert_eq!(played.asked().len(), 0);
    }
    let config = r#"{"address":"https://127.0.0.1:1","login":{"cert":{"role":"hosts"}}}"#;
    let node = NodeIdentity(Arc::new(|| None));
    let config = serde_json::from_str(config).unwrap();
    let vaults = Vaults::new([(word("main"), config)].into(), &node, &Clock::system());
    let source = VaultSource {
        of: Some(word("main")),
        what: What::Kv {
            path: VaultPath::parse("kv/data/a").unwrap(),
            key: word("key"),
        },
    };
    let error = vaults.read(Shape::Line, &source).await.unwrap_err();
    assert!(matches!(error.cause, Cause::NoSvid), "{error:?}");
}

#[tokio::test]
async fn each_status_has_words_of_its_own() {
    for (status, words) in [
        (404, "there is nothing"),
        (429, "sealed or in trouble"),
        (473, "sealed or in trouble"),
        (503, "sealed or in trouble"),
        (500, "it answers 500"),
        (400, "it answers 400"),
    ] {
        let secret = said(status, r#"{"errors":["sk-in-its-words-0001"]}"#);
        let played = played(&[said(200, LOGIN), secret]).await;
        let error = played.read().await.unwrap_err();
        assert!(
            error.contains(words) && !error.contains("sk-in-its-words"),
            "{status}: {error}"
        );
    }
}

#[tokio::test]
async fn what_nobody_could_take_back_is_no_lease_and_a_lease_that_the_vault_knows_no_more_is_gone() {
    let source = VaultSource {
        of: Some(word("main")),
        what: What::Lease {
            path: VaultPath::parse("database/creds/a").unwrap(),
            key: None,
        },
    };
    let lease = |id: &str, seconds: u64, data: &str| {
        let body = format!(r#"{{"lease_id":"{id}","lease_duration":{seconds},"renewable":true,"data":{data}}}"#);
        said(200, &body)
    };
    let data = r#"{"username":"v-a","password":"sk-in-the-lease"}"#;
    for (answer, words) in [
        (lease("", 60, data), "is no lease"),
        (lease("database/creds/a/1", 0, data), "is no lease"),
        (lease("database/creds/a 1", 60, data), "not the one that is documented"),
        (
            lease("database/creds/a/1", 60, "null"),
            "not the one that is documented",
        ),
        (said(404, "{}"), "there is nothing"),
    ] {
        let played = played(&[said(200, LOGIN), answer]).await;
        let error = played.vaults.take(&source).await.err().unwrap();
        let told = format!("{error}: {}", error.source().unwrap());
        assert!(told.contains(words) && !told.contains("sk-in-the-lease"), "{told}");
    }
    let gone = said(400, r#"{"errors":["lease not found"]}"#);
    let good = lease("database/creds/a/1", 60, data);
    let played = played(&[said(200, LOGIN), good, gone, said(503, "{}"), said(204, "")]).await;
    let granted = played.vaults.take(&source).await.unwrap();
    let (main, id, grant) = (word("main"), granted.id, granted.grant);
    assert!(matches!(
        played.vaults.renew(&main, &id, &grant).await,
        Err(NotRenewed::Gone(_))
    ));
    assert!(matches!(
        played.vaults.renew(&main, &id, &grant).await,
        Err(NotRenewed::Later(_))
    ));
    played.vaults.revoke(&main, &id).await.unwrap();
    let nowhere = played.vaults.revoke(&word("other"), &id).await.unwrap_err();
    assert!(matches!(nowhere.cause, Cause::Unknown));
    assert!(
        played.lines()[4].starts_with("POST /v1/sys/leases/revoke "),
        "{:?}",
        played.lines()
    );
}

#[test]
fn an_address_is_over_tls_or_on_this_host() {
    for (text, shown) in [
        ("https://vault.acme.internal:8200", "https://vault.acme.internal:8200"),
        ("https://vault.acme.internal/", "https://vault.acme.internal:443"),
        ("https://[2001:db8::1]:8200", "https://[2001:db8::1]:8200"),
        ("http://127.0.0.1:8200", "http://127.0.0.1:8200"),
        ("http://[::1]:8200", "http://[::1]:8200"),
        ("unix:/run/openbao.sock", "unix:/run/openbao.sock"),
    ] {
        assert_eq!(text.parse::<VaultAddress>().unwrap().to_string(), shown);
    }
    for text in [
        "",
        "vault.acme.internal:8200",
        "http://vault.acme.internal:8200",
        "http://10.0.0.5:8200",
        "http://0.0.0.0:8200",
        "http://localhost:8200",
        "https://user:pw@vault:8200",
        "https://vault:8200/v1",
        "https://vault:8200?a=b",
        "https://vault:0",
        "unix:openbao.sock",
        "ftp://vault",
    ] {
        let error = text.parse::<VaultAddress>().unwrap_err().to_string();
        assert!(error.contains("https://HOST:PORT") && !error.contains("pw"), "{text}");
    }
}

#[test]
fn paths_and_names_cannot_lead_elsewhere() {
    for text in ["kv/data/a", "a", "team-a/kv/data/b.c_d@e:f+g=h"] {
        assert_eq!(VaultPath::parse(text).unwrap().as_str(), text);
    }
    for text in [
        "",
        "/a",
        "a/",
        "a//b",
        "a/../b",
        "a/./b",
        "..",
        "a?b",
        "a#b",
        "a%2fb",
        "a b",
        "a\nb",
        &"a".repeat(513),
    ] {
        assert_eq!(VaultPath::parse(text), None, "{text:?}");
    }
    for text in ["", "a/b", "a b", "a:b", &"a".repeat(129)] {
        assert_eq!(VaultWord::parse(text), None, "{text:?}");
    }
}
