//! Callers over loopback TCP.

use std::time::Duration;

use proxy::attest::Attestor;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::actor::{ARGUMENTS, INHERITED};
use crate::unix::hand_over;
use crate::world::{
    Actor, QUOTES_UID, World, bot, by_uid, entry, eventually, is_root, orders_uid, refused, skip_without_root,
};
use spiffe::selector::SelectorSet;

const LOOPBACK: &str = "127.0.0.1:0";

#[tokio::test]
async fn the_right_user_with_the_right_program_is_the_bot() {
    let world = World::with_orders_and_quotes();
    let mut actor = world.orders();
    let (_, caller, _stream) = world.tcp(LOOPBACK).await.attest(&mut actor).await.unwrap();
    assert_eq!(caller.bot, bot("prod/orders"));
    assert_eq!((caller.facts.pid, caller.facts.uid), (actor.pid, orders_uid()));
    caller.recheck().unwrap();
    caller.deep_recheck().await.unwrap();
}

#[tokio::test]
async fn ipv6_and_ipv4_written_as_ipv6_are_attested_alike() {
    let world = World::with_orders_and_quotes();
    let mut actor = world.orders();
    let (_, caller, _stream) = world.tcp("[::1]:0").await.attest(&mut actor).await.unwrap();
    assert_eq!(caller.bot, bot("prod/orders"));
    let door = world.tcp(LOOPBACK).await;
    actor.ask(&format!("tcp-mapped {}", door.address));
    let (stream, _) = door.listener.accept().await.unwrap();
    assert_eq!(
        world.attestor.tcp_caller(&stream).await.unwrap().bot,
        bot("prod/orders")
    );
}

#[tokio::test]
async fn another_user_with_the_right_program_is_nobody() {
    if skip_without_root() {
        return;
    }
    let world = World::new();
    world.entries([entry("prod/orders", world.orders_set())]);
    let mut actor = Actor::start(&world.program("orders"), QUOTES_UID);
    let refusal = world.tcp(LOOPBACK).await.attest(&mut actor).await.unwrap_err();
    assert_eq!(refusal.word(), "no_entry");
    assert_eq!(refusal.nearest().unwrap().selector, "uid");
}

#[tokio::test]
async fn the_right_user_with_another_program_is_nobody() {
    let world = World::with_orders_and_quotes();
    let mut actor = Actor::start(&world.program("other"), orders_uid());
    let refusal = world.tcp(LOOPBACK).await.attest(&mut actor).await.unwrap_err();
    assert_eq!(refusal.nearest().unwrap().selector, "exe");
}

#[tokio::test]
async fn executing_after_connect_ends_the_caller_whichever_program_it_is() {
    for program in ["orders", "other"] {
        let world = World::with_orders_and_quotes();
        let mut actor = world.orders();
        let (fd, caller, _stream) = world.tcp(LOOPBACK).await.attest(&mut actor).await.unwrap();
        actor.ask(&format!("exec {fd} {} {}", world.program(program), ARGUMENTS.join(" ")));
        actor.greet();
        assert_eq!(actor.pid, caller.facts.pid, "it is still the same process");
        assert_eq!(refused(caller.recheck()), "image_changed", "{program}");
    }
}

#[tokio::test]
async fn a_socket_left_to_a_child_by_a_process_that_exits_is_refused() {
    let world = World::with_orders_and_quotes();
    let mut actor = world.orders();
    let (fd, caller, _stream) = world.tcp(LOOPBACK).await.attest(&mut actor).await.unwrap();
    actor.ask(&format!("leave {fd}"));
    actor.reap();
    actor.greet();
    actor.ask(&format!("send {INHERITED} forged"));
    assert_eq!(refused(caller.recheck()), "exited");
}

#[tokio::test]
async fn a_socket_duplicated_within_the_process_stays_attested() {
    let world = World::with_orders_and_quotes();
    let (mut actor, mut other) = (world.orders(), world.orders());
    let (fd, caller, _stream) = world.tcp(LOOPBACK).await.attest(&mut actor).await.unwrap();
    let there = hand_over(&world, &mut actor, &fd, &mut other);
    caller.recheck().unwrap();
    other.ask(&format!("close {there}"));
    caller.deep_recheck().await.unwrap();
}

#[tokio::test]
async fn a_socket_passed_to_another_bot_and_closed_is_refused_at_once() {
    if skip_without_root() {
        return;
    }
    let world = World::with_orders_and_quotes();
    let (mut orders, mut quotes) = (world.orders(), world.quotes());
    let door = world.tcp(LOOPBACK).await;
    let (fd, caller, stream) = door.attest(&mut orders).await.unwrap();
    hand_over(&world, &mut orders, &fd, &mut quotes);
    orders.ask(&format!("close {fd}"));
    assert_eq!(refused(caller.recheck()), "no_holder");
    assert_eq!(refused(world.attestor.tcp_caller(&stream).await), "no_holder");
}

#[tokio::test]
async fn a_socket_shared_with_another_bot_is_refused_by_the_next_deep_check() {
    if skip_without_root() {
        return;
    }
    let world = World::with_orders_and_quotes();
    let (mut orders, mut quotes) = (world.orders(), world.quotes());
    let (fd, caller, _stream) = world.tcp(LOOPBACK).await.attest(&mut orders).await.unwrap();
    hand_over(&world, &mut orders, &fd, &mut quotes);
    assert_eq!(refused(caller.deep_recheck().await), "foreign_holder");
    assert_eq!(refused(caller.recheck()), "foreign_holder");
    let text = caller.recheck().unwrap_err().to_string();
    assert!(text.contains("prod/quotes"), "{text}");
}

#[tokio::test]
async fn a_socket_shared_with_another_bot_is_found_by_the_watch() {
    if skip_without_root() {
        return;
    }
    let world = World::with_orders_and_quotes();
    let (mut orders, mut quotes) = (world.orders(), world.quotes());
    let cancel = CancellationToken::new();
    let mut tasks = JoinSet::new();
    let (attestor, until) = (world.attestor.clone(), cancel.clone());
    tasks.spawn(async move { attestor.watch(until).await });
    let (fd, caller, _stream) = world.tcp(LOOPBACK).await.attest(&mut orders).await.unwrap();
    hand_over(&world, &mut orders, &fd, &mut quotes);
    eventually("the sweep finds it", || caller.recheck().is_err()).await;
    assert_eq!(refused(caller.recheck()), "foreign_holder");
    cancel.cancel();
    tasks.join_next().await.unwrap().unwrap();
}

#[tokio::test]
async fn root_may_hold_it_too_since_nothing_is_kept_from_root() {
    if skip_without_root() {
        return;
    }
    let world = World::with_orders_and_quotes();
    let (mut orders, mut root) = (world.orders(), Actor::start(&world.program("other"), 0));
    let (fd, caller, _stream) = world.tcp(LOOPBACK).await.attest(&mut orders).await.unwrap();
    hand_over(&world, &mut orders, &fd, &mut root);
    caller.deep_recheck().await.unwrap();
    orders.ask(&format!("close {fd}"));
    assert_eq!(refused(caller.recheck()), "no_holder", "but root alone is not the bot");
}

#[tokio::test]
async fn a_process_that_changes_its_user_after_connect_is_refused() {
    if skip_without_root() {
        return;
    }
    let world = World::new();
    world.entries([
        entry("prod/rooted", by_uid(0)),
        entry("prod/orders", by_uid(orders_uid())),
    ]);
    let door = world.tcp(LOOPBACK).await;
    let mut actor = Actor::start(&world.program("orders"), 0);
    let (_, caller, _stream) = door.attest(&mut actor).await.unwrap();
    let (_, unattested) = door.connect(&mut actor).await;
    assert_eq!(caller.bot, bot("prod/rooted"));
    actor.ask(&format!("become {0} {0}", orders_uid()));
    assert_eq!(refused(caller.recheck()), "credentials_changed");
    assert_eq!(refused(world.attestor.tcp_caller(&unattested).await), "no_holder");
}

#[tokio::test]
async fn holders_of_one_user_that_are_different_bots_are_refused() {
    let world = World::new();
    let other = SelectorSet {
        exe: Some(world.program("other")),
        ..by_uid(orders_uid())
    };
    world.entries([entry("prod/orders", world.orders_set()), entry("prod/other", other)]);
    let (mut orders, mut second) = (world.orders(), Actor::start(&world.program("other"), orders_uid()));
    let (fd, stream) = world.tcp(LOOPBACK).await.connect(&mut orders).await;
    hand_over(&world, &mut orders, &fd, &mut second);
    let refusal = world.attestor.tcp_caller(&stream).await.unwrap_err();
    assert_eq!(refusal.word(), "holders_differ");
}

#[tokio::test]
async fn holders_that_are_all_the_same_bot_are_attested_together() {
    let world = World::with_orders_and_quotes();
    let (mut one, mut two) = (world.orders(), world.orders());
    let (fd, stream) = world.tcp(LOOPBACK).await.connect(&mut one).await;
    let there = hand_over(&world, &mut one, &fd, &mut two);
    let caller = world.attestor.tcp_caller(&stream).await.unwrap();
    // Either may let go of it, the other goes on; but whoever holds it must not execute another program.
    one.ask(&format!("close {fd}"));
    caller.recheck().unwrap();
    two.ask(&format!("exec {there} /bin/sleep 1000"));
    // While a thread executes a program, the process has for a moment no files to be seen: refused too, in other words.
    eventually("the exec is seen", || {
        caller.recheck().is_err_and(|refused| refused.word() == "image_changed")
    })
    .await;
}

#[tokio::test]
async fn a_later_connection_with_the_same_ports_is_not_taken_for_an_earlier_one() {
    if skip_without_root() {
        return;
    }
    let world = World::with_orders_and_quotes();
    let (mut orders, mut quotes) = (world.orders(), world.quotes());
    let door = world.tcp(LOOPBACK).await;
    // Below the ports that the kernel gives to connections, which other tests hold some of.
    let first = quotes.ask(&format!("tcp-from 21090 {}", door.address));
    let (earlier, _) = door.listener.accept().await.unwrap();
    quotes.ask(&format!("send {first} forged"));
    quotes.ask(&format!("abort {first}"));
    orders.ask(&format!("tcp-from 21090 {}", door.address));
    let (later, _) = door.listener.accept().await.unwrap();
    assert_eq!(earlier.local_addr().unwrap(), later.local_addr().unwrap());
    let refusal = world.attestor.tcp_caller(&earlier).await.unwrap_err();
    assert_eq!(refusal.word(), "socket_gone");
    assert_eq!(world.attestor.tcp_caller(&later).await.unwrap().bot, bot("prod/orders"));
}

#[tokio::test]
async fn a_caller_that_has_closed_its_end_is_refused() {
    let world = World::with_orders_and_quotes();
    let mut actor = world.orders();
    let (fd, stream) = world.tcp(LOOPBACK).await.connect(&mut actor).await;
    actor.ask(&format!("close {fd}"));
    let word = refused(world.attestor.tcp_caller(&stream).await);
    assert!(["socket_gone", "no_holder"].contains(&word.as_str()), "{word}");
}

#[tokio::test]
async fn a_connection_from_another_address_than_loopback_is_nobodys() {
    // Connecting a datagram socket sends nothing, and tells which of this host's addresses would be used.
    let socket = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
    let address = socket.connect("192.0.2.1:9").and_then(|()| socket.local_addr());
    let Ok(address) = address else {
        println!("skipped: this host has no address but loopback");
        return;
    };
    let world = World::with_orders_and_quotes();
    let mut actor = world.orders();
    let door = world.tcp(&format!("{}:0", address.ip())).await;
    assert_eq!(refused(door.attest(&mut actor).await), "not_local");
}

/// Answers one connection with the user id of the bot that it was attested as.
async fn answer(attestor: Attestor, mut stream: TcpStream) -> String {
    let caller = attestor.tcp_caller(&stream).await;
    let mut claimed = [0u8; 5];
    stream.read_exact(&mut claimed).await.unwrap();
    let caller = match caller {
        Ok(caller) => caller,
        Err(refusal) => panic!("{refusal:?}"),
    };
    caller.recheck().unwrap();
    let believed = caller.bot.as_str().trim_start_matches("users/").to_owned();
    assert_eq!(believed.as_bytes(), claimed, "misattributed");
    stream.write_all(believed.as_bytes()).await.unwrap();
    believed
}

#[tokio::test(flavor = "multi_thread")]
async fn many_connections_of_several_users_with_ports_reused_are_never_confused() {
    const EACH: u32 = 300;
    let users: Vec<u32> = if is_root() {
        (61_001..=61_005).collect()
    } else {
        vec![orders_uid()]
    };
    let world = World::new();
    world.entries(users.iter().map(|uid| entry(&format!("users/{uid:05}"), by_uid(*uid))));
    let door = world.tcp(LOOPBACK).await;
    let mut actors: Vec<Actor> = users
        .iter()
        .map(|uid| Actor::start(&world.program("orders"), *uid))
        .collect();
    for (actor, uid) in actors.iter_mut().zip(&users) {
        actor.tell(&format!("burst {} {uid:05} {EACH}", door.address));
    }
    let mut answers = JoinSet::new();
    for _ in 0..EACH * u32::try_from(users.len()).unwrap() {
        let accepted = tokio::time::timeout(Duration::from_secs(60), door.listener.accept()).await;
        answers.spawn(answer(world.attestor.clone(), accepted.unwrap().unwrap().0));
    }
    while let Some(answered) = answers.join_next().await {
        answered.unwrap();
    }
    for actor in &mut actors {
        assert_eq!(actor.hear(), "0", "answers that named another user");
    }
}
