//! What each call costs in instructions, step by step: `tests/counts` runs this under callgrind and prints a line a step.
//!
//! One step is done so many times and nothing else: `hot_path STEP TIMES`. Two runs that differ in the number of times
//! differ by the step alone. Steps are those that every call takes and that take no system call; what the kernel does is
//! measured by the lab. Hashes of records are left out: callgrind has not the instructions that a processor has for them.

#![expect(
    clippy::expect_used,
    clippy::print_stderr,
    reason = "a measurement, which ends with its first error"
)]

use std::fmt::Write as _;
use std::hint::black_box;
use std::sync::Arc;

use audit::{Actor, CallId, CallRecord, Callee, Direction, EndRecord, Hop, Party, Record};
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, StatusCode};
use policy::{Call, CanonicalPath, Generation, HttpAsk, Method, Policy, Source, What, load};
use proxy::http1::encode::{self, Form};
use proxy::http1::framing::Version;
use proxy::http1::head::RequestHead;
use proxy::http1::scan::Scanner;
use proxy::http1::status::AnswerHead;
use spiffe::id::{BotName, SpiffeId};
use spiffe::selector::Facts;
use spiffe::time::Timestamp;

const REQUEST: &[u8] =
    b"GET /orders/17?page=2 HTTP/1.1\r\nHost: orders.prod.mesh\r\nUser-Agent: python-requests/2.32.3\r\n\
    Accept-Encoding: gzip, deflate\r\nAccept: */*\r\nConnection: keep-alive\r\n\
    traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\r\n\r\n";

const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nServer: nginx/1.26.0\r\nDate: Mon, 02 Nov 2026 10:00:00 GMT\r\n\
    Content-Type: application/json\r\nContent-Length: 1024\r\nConnection: keep-alive\r\n\r\n";

/// Rules of a mesh that is not small.
const RULES: usize = 1_000;

fn main() {
    let mut words = std::env::args().skip(1);
    let step = words.next().unwrap_or_default();
    let times: usize = words.next().and_then(|times| times.parse().ok()).unwrap_or_default();
    match step.as_str() {
        "read_request" => repeat(times, || {
            let end = Scanner::default().scan(REQUEST);
            assert_eq!(end, Ok(Some(REQUEST.len())));
            RequestHead::parse(&Bytes::from_static(REQUEST)).expect("a request")
        }),
        "read_answer" => repeat(times, || {
            AnswerHead::parse(&Bytes::from_static(ANSWER), &http::Method::GET).expect("an answer")
        }),
        "write_request" => {
            let head = RequestHead::parse(&Bytes::from_static(REQUEST)).expect("a request");
            repeat(times, || {
                let mut out = BytesMut::with_capacity(512);
                encode::request_head(&mut out, &head.method, b"/orders/17?page=2", &head.headers, Form::None);
                out
            });
        }
        "write_answer" => {
            let headers: HeaderMap = AnswerHead::parse(&Bytes::from_static(ANSWER), &http::Method::GET)
                .expect("an answer")
                .headers;
            repeat(times, || {
                let mut out = BytesMut::with_capacity(512);
                encode::answer_head(
                    &mut out,
                    Version::Http11,
                    StatusCode::OK,
                    &headers,
                    Form::Length(1024),
                    true,
                );
                out
            });
        }
        "decide" => {
            let policy = policy();
            let at = Timestamp::from_unix_millis(1_793_872_800_000);
            repeat(times, || {
                let path = CanonicalPath::parse(black_box(b"/orders/17")).expect("a path");
                policy.decide(at, call(path)).expect("allowed")
            });
        }
        "record_call" => {
            let record = Record::Call(Box::new(record()));
            repeat(times, || record.encode().expect("a record"));
        }
        "record_end" => {
            let record = Record::End(end());
            repeat(times, || record.encode().expect("a record"));
        }
        // What `cargo test --benches` and `cargo bench` ask for.
        "" | "--bench" | "--test" => {}
        other => {
            eprintln!("no step is named {other}");
            std::process::exit(2);
        }
    }
}

fn repeat<T>(times: usize, mut step: impl FnMut() -> T) {
    for _ in 0..times {
        drop(black_box(step()));
    }
}

fn policy() -> Policy {
    let mut text = String::from("{version: 1, trust_domain: acme.internal, bots: {\n");
    for bot in 0..100 {
        let line = format!("t/b{bot}: {{owner: o, hosts: [h], attest: {{uid: {bot}}}, serve: {{http: 80}}}},");
        writeln!(text, "{line}").expect("a String");
    }
    text.push_str("}, allow: [\n");
    for n in 0..RULES - 1 {
        let (from, to) = (n % 100, (n * 7 + n / 100) % 100);
        let line = format!("{{id: r{n}, from: t/b{from}, to: t/b{to}, http: [GET /orders/*, GET /r{n}/**]}},");
        writeln!(text, "{line}").expect("a String");
    }
    text.push_str("], deny: [{id: no-admin, from: \"**\", to: t/**, http: [\"* /admin/**\"], reason: people only}]}\n");
    let name = "mesh.yaml".to_owned();
    let mesh = load(&[Source { name, text }]).expect("a valid mesh");
    mesh.compile(Generation::default())
}

fn call(path: CanonicalPath) -> Call {
    Call {
        from: SpiffeId::parse("spiffe://acme.internal/t/b0").expect("an ID"),
        to: BotName::parse("t/b0").expect("a name").into(),
        what: What::Http(HttpAsk::new(Method::parse("GET").expect("a method"), path)),
    }
}

fn record() -> CallRecord {
    let party = |bot: &str| Some(SpiffeId::parse(&format!("spiffe://acme.internal/{bot}")).expect("an ID"));
    let facts = Facts {
        user: Some("checkout".to_owned()),
        exe: Some("/srv/checkout/bin/checkout".to_owned()),
        ..Facts::new(4711, 1001, 1001)
    };
    CallRecord {
        actor: Actor::Bot,
        from: Party {
            id: party("prod/checkout"),
            facts: Some(Arc::new(facts)),
            ..Party::default()
        },
        to: Callee {
            id: party("prod/orders"),
            ..Callee::default()
        },
        method: "GET".to_owned(),
        path: "/orders/17".to_owned(),
        query: vec!["page".to_owned()],
        verdict: audit::Verdict::Allow,
        rule: Some("checkout-reads-orders".to_owned()),
        epoch: 1,
        revision: 3,
        hop: Some(Hop::Mtls),
        trace: Some("4bf92f3577b34da6a3ce929d0e0e4736".to_owned()),
        ..CallRecord::new(
            CallId::from_bytes([7; 16]),
            Timestamp::from_unix_millis(1_793_872_800_000),
            Direction::Out,
        )
    }
}

fn end() -> EndRecord {
    EndRecord {
        id: CallId::from_bytes([7; 16]),
        time: Timestamp::from_unix_millis(1_793_872_800_020),
        status: Some(200),
        grpc_status: None,
        request_bytes: 0,
        response_bytes: 1024,
        duration_us: 20_000,
        upstream_us: 18_000,
        tries: 1,
        address: None,
        outcome: "done".to_owned(),
    }
}
