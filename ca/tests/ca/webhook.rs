//! Alerts that are sent: signed, tried again, to nobody else, and at no cost to the CA.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;
use std::sync::mpsc::{Receiver, channel};

use serde_json::{Value, json};
use spiffe_tls::PrivateKey;

use crate::support::*;

const KEY: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// What came in: the request line and header fields, and the body.
struct Request {
    head: Vec<String>,
    body: String,
}

impl Request {
    fn field(&self, name: &str) -> &str {
        let prefix = format!("{name}: ");
        let field = self.head.iter().find_map(|line| line.strip_prefix(&prefix));
        field.unwrap_or_default()
    }
}

/// A server that answers each request with the next of these.
fn serve(answers: &'static [&'static str]) -> (u16, Receiver<Request>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        for answer in answers {
            let (mut stream, _) = listener.accept().unwrap();
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            let lines = std::iter::from_fn(|| {
                let mut line = String::new();
                reader.read_line(&mut line).ok()?;
                Some(line.trim_end().to_owned()).filter(|line| !line.is_empty())
            });
            let head: Vec<String> = lines.collect();
            let mut request = Request {
                head,
                body: String::new(),
            };
            let length = request.field("content-length").parse().unwrap_or(0);
            reader.take(length).read_to_string(&mut request.body).unwrap();
            write!(stream, "HTTP/1.1 {answer}\r\ncontent-length: 0\r\n\r\n").unwrap();
            sender.send(request).ok();
        }
    });
    (port, receiver)
}

fn write(path: &Path, text: &str, mode: u32) {
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

/// A CA that tells a webhook, and the folder of its secrets.
async fn ca_with(url: &str) -> (TestCa, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    write(&dir.path().join("url"), url, 0o600);
    write(&dir.path().join("key"), KEY, 0o600);
    let (url, key) = (dir.path().join("url"), dir.path().join("key"));
    let ca = TestCa::start_with(json!({"watch": {"webhook": {"url": {"file": url}, "secret": {"file": key}}}})).await;
    (ca, dir)
}

/// The shortest way to an alert: a second key for a join token.
async fn raise(ca: &TestCa) {
    let token = ca.token("web-1").await;
    ca.join_with(&token, PrivateKey::generate().unwrap()).await.unwrap();
    let other = ca.join_with(&token, PrivateKey::generate().unwrap()).await;
    assert!(other.is_err());
}

async fn counted(ca: &TestCa, result: &str, count: u64) {
    let line = format!("botmesh_ca_webhook_total{{result=\"{result}\"}} {count}\n");
    let metrics = async || String::from_utf8(tcp_http(ca.addresses.dashboard, "/metrics").await.1.to_vec()).unwrap();
    eventually(async || metrics().await.contains(&line).then_some(())).await;
}

/// Whether Python finds the signature to be that of Standard Webhooks.
fn is_signed(request: &Request) -> bool {
    let check = "import sys,hmac,hashlib,base64\nk,i,t,s,b=sys.argv[1:]\n\
                 m=hmac.new(base64.b64decode(k[6:]),f'{i}.{t}.{b}'.encode(),hashlib.sha256).digest()\n\
                 sys.exit(not hmac.compare_digest(s,'v1,'+base64.b64encode(m).decode()))";
    let fields = ["webhook-id", "webhook-timestamp", "webhook-signature"].map(|name| request.field(name));
    let mut python = Command::new("/usr/bin/python3");
    python.args(["-c", check, KEY]).args(fields).arg(&request.body);
    python.status().unwrap().success()
}

#[tokio::test]
async fn an_alert_is_posted_signed_and_tried_again_with_the_same_number() {
    let (port, requests) = serve(&["503 Later", "204 Fine"]);
    let (ca, _dir) = ca_with(&format!("http://127.0.0.1:{port}/in/hunter2?key=1")).await;
    raise(&ca).await;
    counted(&ca, "sent", 1).await;
    counted(&ca, "retried", 1).await;
    let (first, second) = (requests.recv().unwrap(), requests.recv().unwrap());
    assert_eq!(first.head[0], "POST /in/hunter2?key=1 HTTP/1.1");
    assert_eq!(first.field("webhook-id"), second.field("webhook-id"));
    assert_eq!(first.body, second.body);
    assert!(is_signed(&first) && is_signed(&second));
    let told: Value = serde_json::from_str(&first.body).unwrap();
    assert_eq!(told["schema"], "botmesh/v1");
    assert_eq!(told["alert"]["kind"], "token_other_key");
    assert_eq!(told["alert"]["command"], "botmesh host evict web-1");
    let text = told["text"].as_str().unwrap();
    assert!(text.starts_with("token_other_key: web-1: "), "{text}");
    let ledger = serde_json::to_string(&ca.ledger()).unwrap();
    assert!(!ledger.contains("hunter2") && !first.body.contains("hunter2"));
}

#[tokio::test]
async fn a_redirection_is_not_followed_and_what_is_refused_is_not_tried_again() {
    let (elsewhere, stolen) = serve(&["204 Fine"]);
    for answer in [
        format!("307 There\r\nlocation: http://127.0.0.1:{elsewhere}/in"),
        "404 Gone".to_owned(),
    ] {
        let answers: &'static [&'static str] = vec![&*answer.leak(), "204 Fine"].leak();
        let (port, requests) = serve(answers);
        let (ca, _dir) = ca_with(&format!("http://127.0.0.1:{port}/in")).await;
        raise(&ca).await;
        counted(&ca, "failed", 1).await;
        counted(&ca, "retried", 0).await;
        assert_eq!(requests.try_iter().count(), 1);
    }
    assert!(stolen.try_recv().is_err());
}

/// A server of TLS 1.3 for 127.0.0.1 that says yes to whoever asks; its certificate, in PEM.
fn serve_tls() -> (u16, String) {
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let key = rustls_pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let provider = std::sync::Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    let config = std::sync::Arc::new(config);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let tls = rustls::ServerConnection::new(std::sync::Arc::clone(&config)).unwrap();
            let mut stream = rustls::StreamOwned::new(tls, stream);
            // A client that does not like the certificate ends here.
            if stream.read(&mut [0; 16 * 1024]).is_ok_and(|read| read > 0) {
                stream.write_all(b"HTTP/1.1 204 Fine\r\n\r\n").ok();
            }
        }
    });
    (port, made.cert.pem())
}

#[tokio::test]
async fn only_who_has_a_certificate_of_the_given_authority_is_told() {
    let (port, right) = serve_tls();
    let (_, wrong) = serve_tls();
    for (authority, sent) in [(Some(right), true), (Some(wrong), false), (None, false)] {
        let dir = tempfile::tempdir().unwrap();
        write(&dir.path().join("url"), &format!("https://127.0.0.1:{port}/in"), 0o600);
        let mut webhook = json!({"url": {"file": dir.path().join("url")}});
        if let Some(authority) = authority {
            write(&dir.path().join("ca.pem"), &authority, 0o644);
            webhook["ca"] = json!(dir.path().join("ca.pem"));
        }
        let ca = TestCa::start_with(json!({"watch": {"webhook": webhook}})).await;
        raise(&ca).await;
        counted(&ca, if sent { "sent" } else { "retried" }, 1).await;
        counted(&ca, "sent", u64::from(sent)).await;
    }
}

#[tokio::test]
async fn what_cannot_be_used_is_said_at_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str, mode| {
        write(&dir.path().join(name), text, mode);
        json!({"file": dir.path().join(name)})
    };
    let url = file("url", "https://alerts.acme.example/in", 0o600);
    for (webhook, why) in [
        (
            json!({"url": file("open", "https://alerts.acme.example/hunter2", 0o644)}),
            "everybody can read it",
        ),
        (
            json!({"url": file("plain", "http://alerts.acme.example/hunter2", 0o600)}),
            "no address of a webhook",
        ),
        (json!({"url": {"file": dir.path().join("none")}}), "read "),
        (json!({"url": {"systemd": "alerts"}}), "$CREDENTIALS_DIRECTORY"),
        (json!({"url": url, "secret": file("short", "hunter2", 0o600)}), "no key"),
        (json!({"url": url, "ca": dir.path().join("short")}), "authorities"),
    ] {
        let state = tempfile::tempdir().unwrap();
        let settings = settings_with(state.path(), &json!({"watch": {"webhook": webhook}}));
        let clock = spiffe::time::Clock::system();
        ca::init(&settings, &clock).await.unwrap();
        let refused = ca::start(settings, clock, tokio_util::sync::CancellationToken::new()).await;
        let error = refused.err().unwrap();
        let text = format!("{error}: {}", std::error::Error::source(&error).unwrap());
        assert!(
            text.contains(why) && text.contains("watch.webhook") && !text.contains("hunter2"),
            "{text}"
        );
    }
}
