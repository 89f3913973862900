//! What a call costs where it is counted the same on every machine: how often memory is asked for.

use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::{Method, StatusCode};

use super::super::Call;
use super::ends::Ends;
use crate::call::{AnswerBody, RequestBody};
use crate::http1::encode;
use crate::http1::head::RequestHead;
use crate::http1::status::AnswerHead;

/// How many calls are counted together.
const CALLS: u64 = 200;

fn fields(count: usize) -> HeaderMap {
    let name = |number| HeaderName::from_bytes(format!("x-field-{number}").as_bytes()).unwrap();
    HeaderMap::from_iter((0..count).map(|number| (name(number), HeaderValue::from_static("value"))))
}

/// Counts what `work` asks for on this thread, divided by the number of calls, and prints it.
fn count(what: &str, most: u64, work: impl FnOnce()) {
    let counted = allocation_counter::measure(work);
    let (times, bytes) = (counted.count_total / CALLS, counted.bytes_total / CALLS);
    println!("{what}: {times} allocations of {bytes} bytes together");
    assert!(times <= most, "{what}: {times} allocations are more than {most}");
}

#[test]
fn a_call_over_the_hop_asks_seldom_for_memory() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    let (asks, says) = (fields(4), fields(6));
    let answer = move |call: Call| {
        let says = says.clone();
        async move {
            let head = RequestHead::parse(&call.head).unwrap();
            assert_eq!(head.headers.len(), 5);
            let write = |out: &mut bytes::BytesMut| encode::hop_answer_head(out, StatusCode::OK, &says);
            call.reply.send(write, AnswerBody::whole(vec![b'x'; 1024].into())).await;
        }
    };
    let ends = runtime.block_on(async { Ends::answered_by(answer, 64 * 1024) });
    let call = || async {
        let write = |out: &mut bytes::BytesMut| {
            encode::hop_request_head(out, &Method::GET, b"/orders/17", b"orders.prod.mesh", &asks)
        };
        let (head, body) = ends
            .caller
            .call(&ends.tasks, write, RequestBody::empty())
            .await
            .unwrap();
        let head = AnswerHead::parse(&head, &Method::GET).unwrap();
        assert_eq!(
            (head.status, super::ends::read(body).await.unwrap().len()),
            (StatusCode::OK, 1024)
        );
    };
    let many = || {
        runtime.block_on(async {
            for _ in 0..CALLS {
                call().await;
            }
        })
    };
    many();
    // Both ends, the reading of both heads, the task of the call, and what this test itself asks for.
    count("a call over the hop, both ends", 40, many);
}
