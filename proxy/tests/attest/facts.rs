//! What is believed about a program, and what is told about a process.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::process::Command;

use aws_lc_rs::digest::{SHA256, digest};
use proxy::attest::WhoisOutcome;
use spiffe::selector::SelectorSet;

use crate::actor::ARGUMENTS;
use crate::world::{Actor, QUOTES_UID, World, bot, by_uid, entry, orders_uid, refused, skip_without_root};

#[tokio::test]
async fn a_program_mounted_over_the_configured_path_in_a_namespace_of_its_own_is_not_believed() {
    let world = World::with_orders_and_quotes();
    let (genuine, fake) = (world.program("orders"), world.program("other"));
    let script = format!(
        "mount --bind {fake} {genuine} && exec {genuine} {}",
        ARGUMENTS.join(" ")
    );
    let works = Command::new("unshare")
        .args(["--user", "--map-root-user", "--mount", "true"])
        .status();
    if !works.is_ok_and(|status| status.success()) {
        println!("skipped: this host does not let a user make namespaces");
        return;
    }
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "--mount", "sh", "-c", &script]);
    let mut actor = Actor::run(command, orders_uid());
    let refusal = world.unix().attest(&mut actor).await.unwrap_err();
    assert_eq!(refusal.nearest().unwrap().selector, "exe");
    let facts = refusal.facts.unwrap();
    assert_eq!(
        facts.exe_seen,
        Some(genuine),
        "the kernel shows the path that the process made up"
    );
    assert_eq!(
        (facts.exe, facts.uid),
        (None, orders_uid()),
        "root of its own namespace is still its user"
    );
}

#[tokio::test]
async fn the_genuine_program_with_a_preloaded_library_of_another_user_is_nobody() {
    if skip_without_root() {
        return;
    }
    let world = World::new();
    world.entries([entry("prod/orders", world.orders_set())]);
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    let library = maps.split_whitespace().find(|word| word.contains("/libc.so")).unwrap();
    let mut command = Command::new(world.program("orders"));
    command.args(ARGUMENTS).env("LD_PRELOAD", library);
    let refusal = world
        .unix()
        .attest(&mut Actor::run(command, QUOTES_UID))
        .await
        .unwrap_err();
    assert_eq!(refusal.nearest().unwrap().selector, "uid");
    assert_eq!(refusal.facts.unwrap().exe_seen, Some(world.program("orders")));
}

#[tokio::test]
async fn a_program_that_the_bot_can_write_is_not_believed() {
    if skip_without_root() {
        return;
    }
    let world = World::with_orders_and_quotes();
    let door = world.unix();
    door.attest(&mut world.orders()).await.unwrap();
    fs::set_permissions(world.folder().join("bin"), Permissions::from_mode(0o777)).unwrap();
    let refusal = door.attest(&mut world.orders()).await.unwrap_err();
    assert!(refusal.to_string().contains("the bot can write"), "{refusal}");
    fs::set_permissions(world.folder().join("bin"), Permissions::from_mode(0o755)).unwrap();
    chown(world.program("orders"), Some(orders_uid()), None).unwrap();
    assert_eq!(refused(door.attest(&mut world.orders()).await), "no_entry");
}

#[tokio::test(start_paused = true)]
async fn whether_the_bot_can_write_its_program_is_judged_again_after_a_second() {
    if skip_without_root() {
        return;
    }
    let world = World::with_orders_and_quotes();
    let (door, mut orders) = (world.unix(), world.orders());
    door.attest(&mut orders).await.unwrap();
    fs::set_permissions(world.folder().join("bin"), Permissions::from_mode(0o777)).unwrap();
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    let refusal = door.attest(&mut orders).await.unwrap_err();
    assert!(refusal.to_string().contains("the bot can write"), "{refusal}");
}

#[tokio::test]
async fn two_names_of_one_program_that_mean_two_bots_are_refused() {
    let world = World::new();
    let alias = world.folder().join("bin/alias");
    symlink(world.program("orders"), &alias).unwrap();
    let set = SelectorSet {
        exe: Some(alias.to_str().unwrap().to_owned()),
        ..by_uid(orders_uid())
    };
    world.entries([entry("prod/alias", set.clone())]);
    let door = world.unix();
    assert_eq!(door.attest(&mut world.orders()).await.unwrap().1.bot, bot("prod/alias"));
    world.entries([entry("prod/orders", world.orders_set()), entry("prod/alias", set)]);
    assert_eq!(refused(door.attest(&mut world.orders()).await), "two_entries");
}

#[tokio::test]
async fn the_hash_is_of_the_program_that_runs() {
    let world = World::new();
    let hash: String = digest(&SHA256, &fs::read(world.program("orders")).unwrap())
        .as_ref()
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect();
    let set = SelectorSet {
        exe_sha256: Some(hash.clone()),
        ..by_uid(orders_uid())
    };
    world.entries([entry("prod/orders", set)]);
    let door = world.unix();
    let (_, caller, _stream) = door.attest(&mut world.orders()).await.unwrap();
    assert_eq!(caller.facts.exe_sha256, Some(hash));
    let changed = world.program("other");
    let grown = Command::new("sh")
        .args(["-c", "echo >> \"$0\"", &changed])
        .status()
        .unwrap();
    assert!(grown.success());
    let refusal = door
        .attest(&mut Actor::start(&changed, orders_uid()))
        .await
        .unwrap_err();
    assert_eq!(refusal.nearest().unwrap().selector, "exe_sha256");
}

#[tokio::test]
async fn whois_names_the_bot_or_what_is_missing_and_how_to_add_it() {
    let world = World::with_orders_and_quotes();
    let orders = world.orders();
    let report = world.attestor.whois(orders.pid).await.unwrap();
    assert_eq!(
        report.outcome,
        WhoisOutcome::Bot {
            bot: bot("prod/orders")
        }
    );
    assert_eq!(report.facts.exe, Some(world.program("orders")));
    let other = Actor::start(&world.program("other"), orders_uid());
    let report = world.attestor.whois(other.pid).await.unwrap();
    let WhoisOutcome::Nearest { nearest } = &report.outcome else {
        panic!("{report:?}")
    };
    assert_eq!(
        (nearest.selector.as_str(), nearest.wanted.clone()),
        ("exe", world.program("orders"))
    );
    assert!(
        report.entry.contains(&format!("exe: {}", world.program("other"))),
        "{}",
        report.entry
    );
    let json = serde_json::to_string(&report).unwrap();
    assert_eq!(
        serde_json::from_str::<proxy::attest::WhoisReport>(&json).unwrap(),
        report
    );
}

#[tokio::test]
async fn whois_of_no_process_is_an_error() {
    let world = World::new();
    let mut actor = world.orders();
    let pid = actor.pid;
    actor.tell("die");
    actor.reap();
    assert_eq!(refused(world.attestor.whois(pid).await), "exited");
    assert_eq!(refused(world.attestor.whois(0).await), "peer_not_visible");
}
