//! Processes that an operator started as a bot.

use std::process::Command;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use proxy::attest::{RunRefused, WhoisOutcome};
use spiffe::selector::SelectorSet;

use crate::actor::ARGUMENTS;
use crate::world::{Actor, World, bot, entry, eventually, orders_uid, refused};

fn backfill(world: &World) {
    let set = SelectorSet {
        run_by: vec!["root".to_owned()],
        ..SelectorSet::default()
    };
    world.entries([entry("prod/backfill", set)]);
}

#[tokio::test]
async fn a_bound_process_is_the_bot_and_an_unbound_one_is_not() {
    let world = World::new();
    backfill(&world);
    let (mut bound, mut free) = (world.orders(), world.orders());
    world
        .attestor
        .bind_run(bound.pid, bot("prod/backfill"), "root")
        .unwrap();
    let door = world.unix();
    let (_, caller, _stream) = door.attest(&mut bound).await.unwrap();
    assert_eq!(
        (caller.bot.clone(), caller.facts.run.clone()),
        (bot("prod/backfill"), Some(bot("prod/backfill")))
    );
    caller.recheck().unwrap();
    assert_eq!(
        door.attest(&mut free).await.unwrap_err().nearest().unwrap().selector,
        "run_by"
    );
    let report = world.attestor.whois(bound.pid).await.unwrap();
    assert_eq!(report.bound_by.as_deref(), Some("root"));
}

#[tokio::test]
async fn a_descendant_is_the_bot_until_it_is_given_another_parent() {
    let world = World::new();
    backfill(&world);
    // A shell that stays, below it a shell that waits, below it the actor. The first must not read the actor's input.
    let actor = format!("{} {}", world.program("orders"), ARGUMENTS.join(" "));
    let middle = format!("exec 3<&0; {actor} <&3 & wait");
    let fifo = world.socket("fifo");
    let mut command = Command::new("sh");
    command.args([
        "-c",
        "sh -c \"$0\"; mkfifo \"$1\"; read forever < \"$1\"",
        &middle,
        fifo.to_str().unwrap(),
    ]);
    let mut leaf = Actor::run(command, orders_uid());
    let root = leaf.first_pid();
    assert_ne!(root, leaf.pid);
    world.attestor.bind_run(root, bot("prod/backfill"), "root").unwrap();
    let door = world.unix();
    let (_, caller, _stream) = door.attest(&mut leaf).await.unwrap();
    assert_eq!((&caller.bot, caller.facts.pid), (&bot("prod/backfill"), leaf.pid));
    caller.recheck().unwrap();
    let parent = leaf.ask("ppid");
    kill(Pid::from_raw(parent.parse().unwrap()), Signal::SIGKILL).unwrap();
    eventually("the leaf has another parent", || leaf.ask("ppid") != parent).await;
    assert_eq!(refused(caller.recheck()), "run_broken");
    assert_eq!(refused(door.attest(&mut leaf).await), "no_entry");
    let report = world.attestor.whois(root).await.unwrap();
    assert_eq!(
        report.outcome,
        WhoisOutcome::Bot {
            bot: bot("prod/backfill")
        },
        "the bound process is not affected"
    );
}

#[tokio::test]
async fn only_an_operator_that_the_mesh_file_names_can_bind() {
    let world = World::new();
    backfill(&world);
    let actor = world.orders();
    let refused = world
        .attestor
        .bind_run(actor.pid, bot("prod/backfill"), "mallory")
        .unwrap_err();
    assert!(matches!(refused, RunRefused::NotAllowed { .. }), "{refused:?}");
    let refused = world
        .attestor
        .bind_run(actor.pid, bot("prod/orders"), "root")
        .unwrap_err();
    assert!(matches!(refused, RunRefused::NotAllowed { .. }), "{refused:?}");
    let refused = world.attestor.bind_run(1, bot("prod/backfill"), "root").unwrap_err();
    assert!(matches!(refused, RunRefused::Init), "{refused:?}");
    world
        .attestor
        .bind_run(actor.pid, bot("prod/backfill"), "root")
        .unwrap();
    let refused = world
        .attestor
        .bind_run(actor.pid, bot("prod/backfill"), "root")
        .unwrap_err();
    assert!(matches!(refused, RunRefused::AlreadyBound(_)), "{refused:?}");
}

#[tokio::test]
async fn a_binding_ends_with_its_process() {
    let world = World::new();
    backfill(&world);
    let mut actor = world.orders();
    let pid = actor.pid;
    world.attestor.bind_run(pid, bot("prod/backfill"), "root").unwrap();
    actor.tell("die");
    actor.reap();
    assert_eq!(refused(world.attestor.whois(pid).await), "exited");
    let gone = world.attestor.bind_run(pid, bot("prod/backfill"), "root").unwrap_err();
    assert!(matches!(gone, RunRefused::Process(_)), "{gone:?}");
    let _unused: Actor = world.orders();
}
