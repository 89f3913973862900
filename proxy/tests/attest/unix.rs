//! Callers over the Unix socket.

use proxy::attest::refusal_of;
use spiffe::selector::SelectorSet;
use tokio::io::AsyncReadExt;

use crate::actor::{ARGUMENTS, INHERITED};
use crate::world::{
    Actor, QUOTES_UID, World, bot, by_uid, entry, eventually, no_entries, orders_uid, refused, skip_without_root,
};

/// Reads what was sent, or the word of the refusal.
async fn read(stream: &mut proxy::attest::Witnessed) -> Result<String, String> {
    let mut bytes = [0u8; 64];
    match stream.read(&mut bytes).await {
        Ok(read) => Ok(String::from_utf8_lossy(&bytes[..read]).into_owned()),
        Err(error) => Err(refusal_of(&error).unwrap().word().to_owned()),
    }
}

#[tokio::test]
async fn the_right_user_with_the_right_program_is_the_bot() {
    let world = World::with_orders_and_quotes();
    let mut actor = world.orders();
    let (fd, caller, mut stream) = world.unix().attest(&mut actor).await.unwrap();
    assert_eq!(caller.bot, bot("prod/orders"));
    assert_eq!((caller.facts.pid, caller.facts.uid), (actor.pid, orders_uid()));
    assert_eq!(caller.facts.exe, Some(world.program("orders")));
    caller.recheck().unwrap();
    actor.ask(&format!("send {fd} hello"));
    assert_eq!(read(&mut stream).await.unwrap(), "hello");
    actor.ask(&format!("close {fd}"));
    assert_eq!(read(&mut stream).await.unwrap(), "");
}

#[tokio::test]
async fn each_user_is_its_own_bot() {
    if skip_without_root() {
        return;
    }
    let world = World::with_orders_and_quotes();
    let door = world.unix();
    let (_, orders, _) = door.attest(&mut world.orders()).await.unwrap();
    let (_, quotes, _) = door.attest(&mut world.quotes()).await.unwrap();
    assert_eq!((orders.bot, quotes.bot), (bot("prod/orders"), bot("prod/quotes")));
}

#[tokio::test]
async fn another_user_with_the_right_program_is_nobody() {
    if skip_without_root() {
        return;
    }
    let world = World::new();
    world.entries([entry("prod/orders", world.orders_set())]);
    let mut actor = Actor::start(&world.program("orders"), QUOTES_UID);
    let refusal = world.unix().attest(&mut actor).await.unwrap_err();
    assert_eq!((refusal.reason(), refusal.word()), ("unknown_caller", "no_entry"));
    let nearest = refusal.nearest().unwrap();
    assert_eq!(
        (nearest.bot.as_str(), nearest.selector.as_str()),
        ("prod/orders", "uid")
    );
    assert_eq!(refusal.facts.unwrap().uid, QUOTES_UID);
}

#[tokio::test]
async fn the_right_user_with_another_program_is_nobody() {
    let world = World::with_orders_and_quotes();
    let mut actor = Actor::start(&world.program("other"), orders_uid());
    let refusal = world.unix().attest(&mut actor).await.unwrap_err();
    assert_eq!(refusal.nearest().unwrap().selector, "exe");
    assert_eq!(refusal.facts.unwrap().exe_seen, Some(world.program("other")));
}

#[tokio::test]
async fn without_entries_everybody_is_nobody() {
    let world = World::new();
    assert_eq!(refused(world.unix().attest(&mut world.orders()).await), "no_entry");
}

#[tokio::test]
async fn a_process_that_two_entries_match_is_refused_with_both_names() {
    let world = World::new();
    world.entries([
        entry("prod/orders", world.orders_set()),
        entry("prod/twin", by_uid(orders_uid())),
    ]);
    let refusal = world.unix().attest(&mut world.orders()).await.unwrap_err();
    assert_eq!(refusal.word(), "two_entries");
    let text = refusal.to_string();
    assert!(text.contains("prod/orders") && text.contains("prod/twin"), "{text}");
    assert!(!refusal.for_peer().contains("prod/"), "the peer is not told");
}

#[tokio::test]
async fn executing_another_program_after_connect_ends_the_caller() {
    let world = World::with_orders_and_quotes();
    let mut actor = world.orders();
    let (fd, caller, _stream) = world.unix().attest(&mut actor).await.unwrap();
    actor.ask(&format!("exec {fd} {} {}", world.program("other"), ARGUMENTS.join(" ")));
    actor.greet();
    assert_eq!(actor.pid, caller.facts.pid, "it is still the same process");
    assert_eq!(refused(caller.recheck()), "image_changed");
}

#[tokio::test]
async fn executing_the_same_program_after_connect_ends_the_caller() {
    let world = World::with_orders_and_quotes();
    let mut actor = world.orders();
    let (fd, caller, _stream) = world.unix().attest(&mut actor).await.unwrap();
    actor.ask(&format!(
        "exec {fd} {} {}",
        world.program("orders"),
        ARGUMENTS.join(" ")
    ));
    actor.greet();
    assert_eq!(actor.pid, caller.facts.pid, "it is still the same process");
    assert_eq!(refused(caller.recheck()), "image_changed");
    assert_eq!(refused(caller.deep_recheck().await), "image_changed");
}

#[tokio::test]
async fn a_socket_left_to_a_child_by_a_process_that_exits_is_refused() {
    let world = World::with_orders_and_quotes();
    let door = world.unix();
    let mut actor = world.orders();
    let (fd, caller, mut stream) = door.attest(&mut actor).await.unwrap();
    actor.ask(&format!("leave {fd}"));
    actor.reap();
    actor.greet();
    actor.ask(&format!("send {INHERITED} forged"));
    assert_eq!(refused(caller.recheck()), "exited");
    assert_eq!(read(&mut stream).await.unwrap_err(), "other_sender");
}

#[tokio::test]
async fn a_socket_left_to_a_child_before_it_was_accepted_is_refused() {
    let world = World::with_orders_and_quotes();
    let door = world.unix();
    let mut actor = world.orders();
    let (fd, stream) = door.connect(&mut actor).await;
    actor.ask(&format!("leave {fd}"));
    actor.reap();
    assert_eq!(refused(world.attestor.unix_caller(&stream).await), "exited");
}

#[tokio::test]
async fn a_socket_passed_to_another_bot_does_not_let_it_speak() {
    if skip_without_root() {
        return;
    }
    let world = World::with_orders_and_quotes();
    let (mut orders, mut quotes) = (world.orders(), world.quotes());
    let (fd, caller, mut stream) = world.unix().attest(&mut orders).await.unwrap();
    orders.ask(&format!("send {fd} mine"));
    assert_eq!(read(&mut stream).await.unwrap(), "mine");
    let taken = hand_over(&world, &mut orders, &fd, &mut quotes);
    quotes.ask(&format!("send {taken} forged"));
    assert_eq!(read(&mut stream).await.unwrap_err(), "other_sender");
    caller.recheck().unwrap();
}

/// Passes a socket from one actor to another; returns the number by which the other knows it.
pub(crate) fn hand_over(world: &World, from: &mut Actor, fd: &str, to: &mut Actor) -> String {
    let path = world.socket("handover.sock");
    let listener = to.ask(&format!("wait-for {}", path.display()));
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    from.ask(&format!("pass {fd} {}", path.display()));
    to.ask(&format!("take {listener}"))
}

#[tokio::test]
async fn data_of_two_senders_is_told_apart_even_when_read_late() {
    let world = World::with_orders_and_quotes();
    let (mut one, mut two) = (world.orders(), world.orders());
    let (fd, _caller, mut stream) = world.unix().attest(&mut one).await.unwrap();
    let taken = hand_over(&world, &mut one, &fd, &mut two);
    one.ask(&format!("send {fd} mine"));
    two.ask(&format!("send {taken} forged"));
    assert_eq!(read(&mut stream).await.unwrap(), "mine");
    assert_eq!(read(&mut stream).await.unwrap_err(), "other_sender");
}

#[tokio::test]
async fn files_passed_to_the_proxy_end_the_stream() {
    let world = World::with_orders_and_quotes();
    let mut actor = world.orders();
    let (fd, _caller, mut stream) = world.unix().attest(&mut actor).await.unwrap();
    actor.ask(&format!("send-file {fd} take-this"));
    assert_eq!(read(&mut stream).await.unwrap_err(), "other_sender");
}

#[tokio::test]
async fn data_sent_before_it_was_accepted_has_a_sender() {
    let world = World::with_orders_and_quotes();
    let door = world.unix();
    let mut actor = world.orders();
    let fd = actor.ask(&format!("unix {}", world.socket("bot.sock").display()));
    actor.ask(&format!("send {fd} early"));
    let (stream, _) = door.listener.accept().await.unwrap();
    let caller = world.attestor.unix_caller(&stream).await.unwrap();
    let mut stream = proxy::attest::Witnessed::new(stream, &caller).unwrap();
    assert_eq!(read(&mut stream).await.unwrap(), "early");
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
    let door = world.unix();
    let mut actor = Actor::start(&world.program("orders"), 0);
    let (_, caller, _stream) = door.attest(&mut actor).await.unwrap();
    let (_, unattested) = door.connect(&mut actor).await;
    assert_eq!(caller.bot, bot("prod/rooted"));
    actor.ask(&format!("become {0} {0}", orders_uid()));
    assert_eq!(refused(caller.recheck()), "credentials_changed");
    assert_eq!(
        refused(world.attestor.unix_caller(&unattested).await),
        "credentials_changed"
    );
}

#[tokio::test]
async fn a_process_of_two_users_is_refused() {
    if skip_without_root() {
        return;
    }
    let world = World::new();
    world.entries([entry("prod/orders", by_uid(orders_uid()))]);
    let mut actor = Actor::start(&world.program("orders"), 0);
    actor.ask(&format!("become {QUOTES_UID} {}", orders_uid()));
    assert_eq!(refused(world.unix().attest(&mut actor).await), "mixed_credentials");
}

#[tokio::test]
async fn entries_that_no_longer_name_the_bot_end_the_caller() {
    let world = World::with_orders_and_quotes();
    let mut actor = world.orders();
    let (_, caller, _stream) = world.unix().attest(&mut actor).await.unwrap();
    world.entries([entry("prod/orders", world.orders_set()), entry("prod/more", by_uid(7))]);
    caller.recheck().unwrap();
    world.entries([entry("prod/renamed", world.orders_set())]);
    assert_eq!(refused(caller.recheck()), "entries_changed");
    world.attestor.set_entries(no_entries());
    assert_eq!(refused(caller.recheck()), "no_entry");
}

#[tokio::test]
async fn a_caller_that_exits_is_ended() {
    let world = World::with_orders_and_quotes();
    let mut actor = world.orders();
    let (_, caller, _stream) = world.unix().attest(&mut actor).await.unwrap();
    drop(actor);
    eventually("the exit is seen", || caller.recheck().is_err()).await;
    assert_eq!(refused(caller.recheck()), "exited");
}

#[tokio::test]
async fn a_user_can_be_meant_by_name() {
    let uid = nix::unistd::Uid::from_raw(if crate::world::is_root() { 65_534 } else { orders_uid() });
    let Some(user) = nix::unistd::User::from_uid(uid).unwrap() else {
        println!("skipped: the user that the tests would run as has no name");
        return;
    };
    let world = World::new();
    let set = SelectorSet {
        user: Some(user.name.clone()),
        ..SelectorSet::default()
    };
    world.entries([entry("prod/named", set)]);
    let mut actor = Actor::start(&world.program("orders"), uid.as_raw());
    let (_, caller, _stream) = world.unix().attest(&mut actor).await.unwrap();
    assert_eq!(
        (caller.bot, caller.facts.user.clone()),
        (bot("prod/named"), Some(user.name))
    );
}

#[tokio::test]
async fn a_name_stands_for_its_user_only() {
    let world = World::new();
    let set = SelectorSet {
        user: Some("nobody-of-that-name".to_owned()),
        ..SelectorSet::default()
    };
    world.entries([entry("prod/orders", set)]);
    let refusal = world.unix().attest(&mut world.orders()).await.unwrap_err();
    assert_eq!(refusal.nearest().unwrap().selector, "user");
}
