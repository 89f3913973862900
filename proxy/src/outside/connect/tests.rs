use std::error::Error as _;
use std::path::PathBuf;
use std::sync::Arc;

use policy::AddressRange;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_util::task::TaskTracker;

use super::*;

/// A host with a file of names, and an authority of its own.
struct Host {
    _dir: tempfile::TempDir,
    names: PathBuf,
    resolver: Resolver,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Host {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let names = dir.path().join("hosts");
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self {
            resolver: Resolver::new(Some(names.clone()), TaskTracker::new()),
            names,
            _dir: dir,
            issuer: CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap(),
        }
    }

    /// Has `api.example.com` be at these addresses.
    fn at(&self, addresses: &[&str]) {
        let lines: Vec<String> = addresses.iter().map(|at| format!("{at} api.example.com\n")).collect();
        std::fs::write(&self.names, lines.concat()).unwrap();
    }

    fn said(&self, addresses: &[&str]) -> OutsideDestination {
        OutsideDestination {
            addresses: addresses
                .iter()
                .map(|range| AddressRange::parse(range).unwrap())
                .collect(),
            ca: Some(self.issuer.pem().into()),
            ..OutsideDestination::default()
        }
    }

    /// Serves TLS on loopback with a certificate for `name`, and greets who comes.
    async fn serve(&self, name: &str) -> u16 {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new([name.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)
            .unwrap();
        let (acceptor, listener) = (TlsAcceptor::from(Arc::new(config)), listener().await);
        let port = listener.local_addr().unwrap().port();
        drop(TaskTracker::new().spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                if let Ok(mut stream) = acceptor.accept(stream).await {
                    stream.write_all(b"hello").await.unwrap_or_default();
                }
            }
        }));
        port
    }

    async fn connect(&self, text: &str, said: &OutsideDestination) -> Result<Connected, OutsideFault> {
        connect(&self.resolver, &Clock::system(), &Outside::parse(text).unwrap(), said).await
    }
}

async fn listener() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").await.unwrap()
}

/// Why it failed, with all that caused it.
fn told(failed: Result<Connected, OutsideFault>) -> String {
    let error = failed.unwrap_err();
    let mut told = error.to_string();
    let mut source = error.source();
    while let Some(next) = source {
        told.push_str(&format!(": {next}"));
        source = next.source();
    }
    told
}

#[tokio::test]
async fn the_destination_is_reached_at_a_listed_address_and_proves_its_name() {
    let host = Host::new();
    host.at(&["127.0.0.1"]);
    let port = host.serve("api.example.com").await;
    let connected = host
        .connect(&format!("https://api.example.com:{port}"), &host.said(&["127.0.0.1"]))
        .await;
    let connected = connected.unwrap();
    assert_eq!(connected.address, SocketAddr::from(([127, 0, 0, 1], port)));
    let Stream::Tls(mut stream) = connected.stream else {
        panic!("no TLS")
    };
    let mut greeting = [0; 5];
    stream.read_exact(&mut greeting).await.unwrap();
    assert_eq!(&greeting, b"hello");
}

#[tokio::test]
async fn a_certificate_of_another_name_or_of_another_authority_is_refused() {
    let host = Host::new();
    host.at(&["127.0.0.1"]);
    let (said, port) = (host.said(&["127.0.0.1"]), host.serve("other.example.com").await);
    let refused = told(host.connect(&format!("https://api.example.com:{port}"), &said).await);
    assert!(refused.contains("not valid for name"), "{refused}");
    let port = host.serve("api.example.com").await;
    let by_web = OutsideDestination {
        ca: None,
        ..said.clone()
    };
    let refused = told(host.connect(&format!("https://api.example.com:{port}"), &by_web).await);
    assert!(refused.contains("UnknownIssuer"), "{refused}");
    let of_another = OutsideDestination {
        ca: Host::new().said(&[]).ca,
        ..said
    };
    let refused = told(
        host.connect(&format!("https://api.example.com:{port}"), &of_another)
            .await,
    );
    // Both authorities call themselves the same.
    assert!(refused.contains("BadSignature"), "{refused}");
}

#[tokio::test]
async fn an_address_that_may_not_be_called_is_not_connected_to() {
    let host = Host::new();
    let listener = listener().await;
    let to = format!("http://api.example.com:{}", listener.local_addr().unwrap().port());
    for address in [
        "127.0.0.1",
        "::ffff:127.0.0.1",
        "::127.0.0.1",
        "64:ff9b::7f00:1",
        "64:ff9b:1::7f00:1",
        "2002:7f00:1::1",
        "10.0.0.1",
        "169.254.169.254",
        "0.0.0.0",
    ] {
        host.at(&[address]);
        let failed = host.connect(&to, &OutsideDestination::default()).await;
        assert!(
            matches!(failed, Err(OutsideFault::Forbidden { .. })),
            "{address}: {failed:?}"
        );
    }
    host.at(&["169.254.169.254"]);
    let failed = host.connect(&to, &host.said(&["0.0.0.0/0"])).await;
    assert!(
        matches!(
            failed,
            Err(OutsideFault::Forbidden {
                source: Forbidden::Never,
                ..
            })
        ),
        "{failed:?}"
    );
    // Nobody came.
    let none = tokio::time::timeout(Duration::from_millis(50), listener.accept()).await;
    assert!(none.is_err());
}

#[tokio::test]
async fn a_name_that_turns_to_an_inner_address_leads_there_neither_at_once_nor_later() {
    let host = Host::new();
    let listener = listener().await;
    let port = listener.local_addr().unwrap().port();
    let said = host.said(&["127.0.0.2"]);
    let to = format!("http://api.example.com:{port}");
    let listed = TcpListener::bind(("127.0.0.2", port)).await.unwrap();
    // Of two answers the permitted one is called, whatever comes first.
    host.at(&["127.0.0.1", "127.0.0.2"]);
    let connected = host.connect(&to, &said).await.unwrap();
    assert_eq!(connected.address, listed.local_addr().unwrap());
    let Stream::Plain(stream) = &connected.stream else {
        panic!("TLS")
    };
    assert_eq!(
        stream.peer_addr().unwrap(),
        connected.address,
        "the address that was judged"
    );
    // The next answer is another one, and is judged anew.
    host.at(&["127.0.0.1"]);
    let failed = host.connect(&to, &said).await;
    assert!(
        matches!(
            failed,
            Err(OutsideFault::Forbidden {
                source: Forbidden::NotListed,
                ..
            })
        ),
        "{failed:?}"
    );
    let none = tokio::time::timeout(Duration::from_millis(50), listener.accept()).await;
    assert!(none.is_err());
}

#[tokio::test]
async fn a_destination_that_does_not_answer_is_given_up_in_time() {
    let host = Host::new();
    host.at(&["127.0.0.1"]);
    let mut said = host.said(&["127.0.0.1"]);
    said.waits.connect_timeout = Some(Duration::from_millis(100));
    // It takes the connection and says nothing.
    let silent = listener().await;
    let port = silent.local_addr().unwrap().port();
    let failed = host.connect(&format!("https://api.example.com:{port}"), &said).await;
    assert!(matches!(failed, Err(OutsideFault::Slow)), "{failed:?}");
    drop(silent);
    let failed = host.connect(&format!("http://api.example.com:{port}"), &said).await;
    assert!(matches!(failed, Err(OutsideFault::Connect { .. })), "{failed:?}");
}
