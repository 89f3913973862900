//! Connections to callees that are kept: the watch looks again who is there before a second is over, so that a call need
//! not; of whatever it is not sure it leaves to the call. Time is the test's.

use std::time::Duration;

use proxy::attest::Callee;
use tokio::net::{TcpStream, UnixStream};
use tokio::task::JoinSet;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::unix::hand_over;
use crate::world::{Actor, World, bot, skip_without_root};

/// More than a second, and more than two rounds of the watch.
const LONG: Duration = Duration::from_secs(3);

/// A bot that listens and has accepted a connection, and that connection.
struct Scene {
    world: World,
    orders: Actor,
    listener: String,
    accepted: String,
    callee: Callee,
    _stream: TcpStream,
    _watch: JoinSet<()>,
}

fn watch(world: &World) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    let attestor = world.attestor.clone();
    tasks.spawn(async move { attestor.watch(CancellationToken::new()).await });
    tasks
}

impl Scene {
    async fn new() -> Self {
        let world = World::with_orders_and_quotes();
        let mut orders = world.orders();
        let answer = orders.ask("listen 127.0.0.1:0");
        let (listener, port) = answer.split_once(' ').unwrap();
        let stream = TcpStream::connect(format!("127.0.0.1:{port}")).await.unwrap();
        let callee = world.attestor.callee_tcp(&stream, &bot("prod/orders")).await.unwrap();
        let accepted = orders.ask(&format!("accept {listener}"));
        Self {
            _watch: watch(&world),
            listener: listener.to_owned(),
            accepted,
            callee,
            orders,
            world,
            _stream: stream,
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_found_of_a_callee_is_good_for_a_second_and_the_watch_finds_it_again() {
    let world = World::with_orders_and_quotes();
    let mut orders = world.orders();
    let answer = orders.ask("listen 127.0.0.1:0");
    let (listener, port) = answer.split_once(' ').unwrap();
    let stream = TcpStream::connect(format!("127.0.0.1:{port}")).await.unwrap();
    let callee = world.attestor.callee_tcp(&stream, &bot("prod/orders")).await.unwrap();
    sleep(Duration::from_millis(999)).await;
    assert!(callee.is_fresh());
    sleep(Duration::from_millis(1)).await;
    assert!(!callee.is_fresh());
    let _watch = watch(&world);
    for accept in [false, true] {
        if accept {
            orders.ask(&format!("accept {listener}"));
        }
        sleep(LONG).await;
        for _ in 0..40 {
            assert!(callee.is_fresh(), "accepted: {accept}");
            sleep(Duration::from_millis(50)).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_callee_whose_sockets_another_bot_holds_too_grows_old() {
    if skip_without_root() {
        return;
    }
    for accepted in [false, true] {
        let mut scene = Scene::new().await;
        sleep(LONG).await;
        assert!(scene.callee.is_fresh());
        let mut quotes = scene.world.quotes();
        let given = if accepted { &scene.accepted } else { &scene.listener };
        hand_over(&scene.world, &mut scene.orders, given, &mut quotes);
        sleep(LONG).await;
        assert!(!scene.callee.is_fresh(), "accepted: {accepted}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_callee_that_root_holds_too_stays_and_one_that_only_root_holds_grows_old() {
    if skip_without_root() {
        return;
    }
    let mut scene = Scene::new().await;
    let mut root = Actor::start(&scene.world.program("other"), 0);
    hand_over(&scene.world, &mut scene.orders, &scene.accepted, &mut root);
    sleep(LONG).await;
    assert!(scene.callee.is_fresh());
    scene.orders.ask(&format!("close {}", scene.accepted));
    sleep(LONG).await;
    assert!(!scene.callee.is_fresh());
}

#[tokio::test(start_paused = true)]
async fn a_callee_that_executes_another_program_or_is_no_bot_any_more_grows_old() {
    for executes in [true, false] {
        let mut scene = Scene::new().await;
        sleep(LONG).await;
        assert!(scene.callee.is_fresh());
        if executes {
            let arguments = crate::actor::ARGUMENTS.join(" ");
            let (program, socket) = (scene.world.program("other"), &scene.accepted);
            scene.orders.ask(&format!("exec {socket} {program} {arguments}"));
            scene.orders.greet();
        } else {
            scene.world.entries([]);
        }
        sleep(LONG).await;
        assert!(!scene.callee.is_fresh(), "executes: {executes}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_callee_at_a_unix_socket_is_found_again_until_it_exits() {
    let world = World::with_orders_and_quotes();
    let mut orders = world.orders();
    let path = world.socket("orders.sock");
    orders.ask(&format!("listen-unix {}", path.display()));
    let stream = UnixStream::connect(&path).await.unwrap();
    let callee = world.attestor.callee_unix(&stream, &bot("prod/orders")).await.unwrap();
    let _watch = watch(&world);
    sleep(LONG).await;
    assert!(callee.is_fresh());
    drop(orders);
    sleep(LONG).await;
    assert!(!callee.is_fresh());
}
