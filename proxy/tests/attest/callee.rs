//! The process behind a callee's port or socket.

use proxy::attest::CalleeFound;
use tokio::net::{TcpStream, UnixStream};

use crate::unix::hand_over;
use crate::world::{Actor, QUOTES_UID, World, bot, orders_uid, skip_without_root};

/// Starts to listen; returns the actor's number for the listener, and the address.
fn listen(actor: &mut Actor, on: &str) -> (String, String) {
    let answer = actor.ask(&format!("listen {on}:0"));
    let (fd, port) = answer.split_once(' ').unwrap();
    (fd.to_owned(), format!("{on}:{port}"))
}

#[tokio::test]
async fn a_port_of_the_bot_is_the_bot() {
    let world = World::with_orders_and_quotes();
    let mut orders = world.orders();
    for on in ["127.0.0.1", "[::1]"] {
        let (listener, address) = listen(&mut orders, on);
        let waiting = TcpStream::connect(&address).await.unwrap();
        world.attestor.callee_tcp(&waiting, &bot("prod/orders")).await.unwrap();
        orders.ask(&format!("accept {listener}"));
        world.attestor.callee_tcp(&waiting, &bot("prod/orders")).await.unwrap();
    }
}

#[tokio::test]
async fn a_squatter_on_the_port_is_refused() {
    if skip_without_root() {
        return;
    }
    let world = World::with_orders_and_quotes();
    let mut quotes = world.quotes();
    for on in ["127.0.0.1", "0.0.0.0"] {
        let (listener, address) = listen(&mut quotes, on);
        let stream = TcpStream::connect(address.replace("0.0.0.0", "127.0.0.1"))
            .await
            .unwrap();
        for accepted in [false, true] {
            if accepted {
                quotes.ask(&format!("accept {listener}"));
            }
            let mismatch = world
                .attestor
                .callee_tcp(&stream, &bot("prod/orders"))
                .await
                .unwrap_err();
            assert_eq!(mismatch.reason(), "callee_mismatch");
            let CalleeFound::OtherBot { bot: found, pid } = &mismatch.found else {
                panic!("{mismatch:?}")
            };
            assert_eq!((found.as_str(), *pid), ("prod/quotes", quotes.pid));
            assert_eq!(mismatch.facts.unwrap().uid, QUOTES_UID);
        }
    }
}

#[tokio::test]
async fn a_process_of_the_right_user_with_another_program_is_refused() {
    let world = World::with_orders_and_quotes();
    let mut squatter = Actor::start(&world.program("other"), orders_uid());
    let (_, address) = listen(&mut squatter, "127.0.0.1");
    let stream = TcpStream::connect(&address).await.unwrap();
    let mismatch = world
        .attestor
        .callee_tcp(&stream, &bot("prod/orders"))
        .await
        .unwrap_err();
    assert!(matches!(mismatch.found, CalleeFound::Nobody { .. }), "{mismatch:?}");
}

#[tokio::test]
async fn a_listener_shared_with_another_bot_is_refused() {
    if skip_without_root() {
        return;
    }
    let world = World::with_orders_and_quotes();
    let (mut orders, mut quotes) = (world.orders(), world.quotes());
    let (listener, address) = listen(&mut orders, "127.0.0.1");
    hand_over(&world, &mut orders, &listener, &mut quotes);
    let stream = TcpStream::connect(&address).await.unwrap();
    let mismatch = world
        .attestor
        .callee_tcp(&stream, &bot("prod/orders"))
        .await
        .unwrap_err();
    assert!(matches!(mismatch.found, CalleeFound::OtherBot { .. }), "{mismatch:?}");
}

#[tokio::test]
async fn a_listener_that_root_keeps_too_is_the_bots_but_one_that_only_root_keeps_is_not() {
    if skip_without_root() {
        return;
    }
    let world = World::with_orders_and_quotes();
    let (mut orders, mut root) = (world.orders(), Actor::start(&world.program("other"), 0));
    let (listener, address) = listen(&mut orders, "127.0.0.1");
    hand_over(&world, &mut orders, &listener, &mut root);
    let stream = TcpStream::connect(&address).await.unwrap();
    world.attestor.callee_tcp(&stream, &bot("prod/orders")).await.unwrap();
    orders.ask(&format!("close {listener}"));
    let stream = TcpStream::connect(&address).await.unwrap();
    let mismatch = world
        .attestor
        .callee_tcp(&stream, &bot("prod/orders"))
        .await
        .unwrap_err();
    assert!(matches!(mismatch.found, CalleeFound::NoHolder), "{mismatch:?}");
}

#[tokio::test]
async fn a_connection_accepted_by_another_user_is_refused_though_the_listener_is_the_bots_by_then() {
    if skip_without_root() {
        return;
    }
    let world = World::with_orders_and_quotes();
    let (mut orders, mut quotes) = (world.orders(), world.quotes());
    let (listener, address) = listen(&mut quotes, "127.0.0.1");
    let stream = TcpStream::connect(&address).await.unwrap();
    quotes.ask(&format!("accept {listener}"));
    hand_over(&world, &mut quotes, &listener, &mut orders);
    quotes.ask(&format!("close {listener}"));
    let mismatch = world
        .attestor
        .callee_tcp(&stream, &bot("prod/orders"))
        .await
        .unwrap_err();
    assert!(
        matches!(mismatch.found, CalleeFound::OtherUser { uid: QUOTES_UID }),
        "{mismatch:?}"
    );
}

#[tokio::test]
async fn a_listener_whose_holder_executes_another_program_is_refused_at_the_next_connection() {
    let world = World::with_orders_and_quotes();
    let mut orders = world.orders();
    let (listener, address) = listen(&mut orders, "127.0.0.1");
    let first = TcpStream::connect(&address).await.unwrap();
    world.attestor.callee_tcp(&first, &bot("prod/orders")).await.unwrap();
    let arguments = crate::actor::ARGUMENTS.join(" ");
    orders.ask(&format!("exec {listener} {} {arguments}", world.program("other")));
    orders.greet();
    let second = TcpStream::connect(&address).await.unwrap();
    let mismatch = world
        .attestor
        .callee_tcp(&second, &bot("prod/orders"))
        .await
        .unwrap_err();
    assert!(matches!(mismatch.found, CalleeFound::Nobody { .. }), "{mismatch:?}");
}

#[tokio::test]
async fn the_process_that_listens_on_a_unix_socket_must_be_the_bot() {
    let world = World::with_orders_and_quotes();
    let mut orders = world.orders();
    let path = world.socket("orders.sock");
    orders.ask(&format!("listen-unix {}", path.display()));
    let stream = UnixStream::connect(&path).await.unwrap();
    world.attestor.callee_unix(&stream, &bot("prod/orders")).await.unwrap();
    let mismatch = world
        .attestor
        .callee_unix(&stream, &bot("prod/quotes"))
        .await
        .unwrap_err();
    assert!(matches!(mismatch.found, CalleeFound::OtherBot { .. }), "{mismatch:?}");
    let mut squatter = Actor::start(&world.program("other"), orders_uid());
    let path = world.socket("squat.sock");
    squatter.ask(&format!("listen-unix {}", path.display()));
    let stream = UnixStream::connect(&path).await.unwrap();
    let mismatch = world
        .attestor
        .callee_unix(&stream, &bot("prod/orders"))
        .await
        .unwrap_err();
    assert!(matches!(mismatch.found, CalleeFound::Nobody { .. }), "{mismatch:?}");
}
