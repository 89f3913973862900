//! Proxies of two versions beside each other: one of the version before speaks HTTP/2, and is spoken to by it.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty, Full, combinators::BoxBody};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};

use crate::foreign::with_played_host;
use crate::spine::{CHECKOUT, two_hosts};
use crate::support::{Caller, eventually, root_or_skip};

/// What a proxy of the version before offers, in its order.
const OFFERED: [&[u8]; 3] = [b"botmesh-h2", b"h2", b"http/1.1"];

/// A proxy of the version before, in front of a bot that answers `older`.
#[derive(Debug, Default)]
struct Older {
    chosen: Mutex<Vec<Vec<u8>>>,
    calls: AtomicUsize,
    closing: AtomicBool,
}

impl Older {
    fn serve(chain: &[Vec<u8>], key: &[u8]) -> (Arc<Self>, SocketAddr) {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let chain = chain.iter().map(|der| der.clone().into()).collect();
        let key = rustls::pki_types::PrivateKeyDer::try_from(key.to_vec()).unwrap();
        let mut config = rustls::ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .unwrap();
        config.alpn_protocols = OFFERED.map(<[u8]>::to_vec).to_vec();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let older = Arc::new(Self::default());
        let served = Arc::clone(&older);
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(served.accept(listener, Arc::new(config)));
        });
        (older, address)
    }

    async fn accept(self: Arc<Self>, listener: std::net::TcpListener, config: Arc<rustls::ServerConfig>) {
        let listener = tokio::net::TcpListener::from_std(listener).unwrap();
        let acceptor = tokio_rustls::TlsAcceptor::from(config);
        loop {
            let (tcp, _) = listener.accept().await.unwrap();
            let (older, acceptor) = (Arc::clone(&self), acceptor.clone());
            tokio::spawn(async move {
                let Ok(tls) = acceptor.accept(tcp).await else { return };
                let chosen = tls.get_ref().1.alpn_protocol().unwrap_or_default().to_vec();
                older.chosen.lock().unwrap().push(chosen);
                let service = service_fn(move |request| {
                    let older = Arc::clone(&older);
                    async move { Ok::<_, Infallible>(older.answer(request).await) }
                });
                let serving = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                serving.serve_connection(TokioIo::new(tls), service).await.ok();
            });
        }
    }

    async fn answer(&self, request: Request<hyper::body::Incoming>) -> Response<BoxBody<Bytes, Infallible>> {
        if request.uri().host() != Some("orders.prod.mesh") {
            // The stream on which both prove on.
            return Response::new(Empty::new().boxed());
        }
        request.into_body().collect().await.ok();
        self.calls.fetch_add(1, Ordering::Relaxed);
        let mut answer = Response::new(Full::from("older").boxed());
        if self.closing.load(Ordering::Relaxed) {
            answer
                .headers_mut()
                .insert("botmesh-closing", http::HeaderValue::from_static("1"));
        }
        answer
    }
}

#[test]
fn hosts_are_upgraded_one_after_another_and_no_call_is_lost() {
    if !root_or_skip("proxies of two versions") {
        return;
    }
    let mut mesh = two_hosts("");
    let edge = with_played_host(&mesh);
    let (chain, key) = edge.issue("prod/orders").expect("edge-1 may claim prod/orders");
    let (older, address) = Older::serve(&chain, &key);
    let announced = edge.announce(address);
    let socket = mesh.host("web-1").bot_socket();
    // Calls that may not be repeated, by the caller's proxy to whichever of the two it chooses.
    let lost = AtomicUsize::new(0);
    let mut checkout = Caller::new(CHECKOUT, &socket);
    let mut call = || {
        let answer = checkout.call("POST", "orders.prod.mesh", "/refunds");
        if answer.status != 200 {
            println!("{} {}", answer.status, answer.body);
            lost.fetch_add(1, Ordering::Relaxed);
        }
        if answer.body == "older" { "older" } else { "newer" }
    };
    let mut reach = |who: &str| eventually(&format!("a call to the {who} proxy"), || (call() == who).then_some(()));
    reach("older");
    reach("newer");
    let chosen = older.chosen.lock().unwrap().clone();
    assert!(
        chosen.iter().all(|alpn| alpn == b"botmesh-h2"),
        "the first that both speak: {chosen:?}"
    );
    // The newer one ends: all calls go to the older one, until it is back.
    mesh.host_mut("web-2").process.terminate();
    (0..20).for_each(|_| reach("older"));
    mesh.restart("web-2");
    reach("newer");
    // Then the older one ends, as proxies of its version do, and leaves.
    older.closing.store(true, Ordering::Relaxed);
    reach("older");
    drop(announced);
    let before = older.calls.load(Ordering::Relaxed);
    (0..20).for_each(|_| reach("newer"));
    println!(
        "{} calls by HTTP/2 to the older proxy",
        older.calls.load(Ordering::Relaxed).max(before)
    );
    assert_eq!(lost.load(Ordering::Relaxed), 0);
}
