//! By tokio's paused clock, with real processes.

use super::*;
use crate::attest::process_of;

struct Bench {
    leases: Arc<Leases>,
    _folder: tempfile::TempDir,
}

fn bench() -> Bench {
    let folder = tempfile::tempdir().unwrap();
    let leases = Leases::new(Vaults::default(), folder.path(), Clock::system(), TaskTracker::new());
    Bench {
        leases: Arc::new(leases),
        _folder: folder,
    }
}

fn name() -> CredentialName {
    CredentialName::parse("db").unwrap()
}

fn bot(text: &str) -> BotName {
    BotName::parse(text).unwrap()
}

fn basic() -> Injection {
    Injection::Basic { user: "x".into() }
}

fn taken(number: usize, time: Duration) -> Taken {
    Taken {
        vault: VaultWord::parse("main").unwrap(),
        id: LeaseId::try_from(format!("database/creds/a/{number}")).unwrap(),
        grant: Grant::of(Instant::now() + time),
        injection: basic(),
        loaded: Loaded::of(&name(), &basic(), "a-value-of-a-test"),
    }
}

impl Bench {
    async fn install(&self, key: &Key, process: &Process, number: usize) -> Result<Arc<Loaded>, SourceError> {
        drop(self.leases.turn(key, process).await);
        self.leases.install(key, taken(number, Duration::from_hours(1)))
    }

    fn look(&self) -> bool {
        self.leases.look(|_, _| true) == keeper::Looked::SomeEnded
    }

    fn waiting(&self) -> usize {
        self.leases.waiting().values().map(|(count, _)| count).sum()
    }
}

#[tokio::test(start_paused = true)]
async fn a_lease_is_of_one_process_as_one_bot_and_of_one_way_of_adding_it() {
    let bench = bench();
    let mut child = std::process::Command::new("/bin/sleep").arg("60").spawn().unwrap();
    let (own, other) = (process_of(std::process::id()), process_of(child.id()));
    let key = |whose: &str, process| Key::new(&name(), &bot(whose), process);
    let mine = key("prod/a", &own);
    bench.install(&mine, &own, 1).await.unwrap();
    let usable = |key: &Key, injection: &Injection| bench.leases.usable(key, injection, Least::Fresh).is_some();
    assert!(usable(&mine, &basic()));
    assert!(!usable(&key("prod/a", &other), &basic()), "another process");
    assert!(!usable(&key("prod/b", &own), &basic()), "another bot");
    assert!(!usable(&mine, &Injection::Bearer), "another way");
    child.kill().unwrap();
    child.wait().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_lease_of_a_process_that_is_gone_waits_to_be_given_back() {
    let bench = bench();
    let mut child = std::process::Command::new("/bin/sleep").arg("60").spawn().unwrap();
    let process = process_of(child.id());
    let key = Key::new(&name(), &bot("prod/a"), &process);
    let loaded = bench.install(&key, &process, 1).await.unwrap();
    assert!(!bench.look());
    assert_eq!((bench.leases.count(&name()), bench.waiting()), (1, 0));
    let before = bench.leases.changes();
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(
        bench.look() && loaded.is_over(),
        "sessions that go on with it are ended"
    );
    assert_eq!((bench.leases.count(&name()), bench.waiting()), (0, 1));
    assert!(
        bench.leases.changes() > before,
        "what is looked for in answers changed too"
    );
    // One that comes late, for a process that is gone, does as well.
    let late = bench.install(&key, &process, 2).await.unwrap_err();
    assert!(matches!(late, SourceError::ProcessEnded), "{late}");
    assert_eq!(bench.waiting(), 2);
}

#[tokio::test(start_paused = true)]
async fn shortly_before_its_end_a_lease_is_left_to_the_calls_that_have_it() {
    let bench = bench();
    let own = process_of(std::process::id());
    let key = Key::new(&name(), &bot("prod/a"), &own);
    bench.install(&key, &own, 1).await.unwrap();
    let usable = |least| bench.leases.usable(&key, &basic(), least);
    let call = usable(Least::Fresh).unwrap();
    tokio::time::advance(Duration::from_mins(60) - MARGIN).await;
    assert!(usable(Least::Fresh).is_none() && usable(Least::Good).is_some());
    // Another one follows it, and it is kept as long as the call has it.
    bench.install(&key, &own, 2).await.unwrap();
    bench.look();
    assert_eq!(bench.leases.count(&name()), 2);
    drop(call);
    bench.look();
    assert_eq!((bench.leases.count(&name()), bench.waiting()), (1, 1));
    tokio::time::advance(Duration::from_hours(1)).await;
    assert!(usable(Least::Good).is_none(), "it has ended");
    bench.look();
    assert_eq!(bench.leases.count(&name()), 0);
}

#[tokio::test(start_paused = true)]
async fn there_is_a_bound_for_each_bot_and_for_all_and_none_is_taken_at_the_end() {
    let bench = bench();
    let begin = |whose: &str| bench.leases.begin(&bot(whose));
    let mut own: Vec<Taking> = (0..LEASES_OF_BOT_MAX).map(|_| begin("prod/a").ok().unwrap()).collect();
    assert!(matches!(
        begin("prod/a").err().unwrap(),
        SourceError::Leases {
            own: LEASES_OF_BOT_MAX,
            ..
        }
    ));
    let mut others: Vec<Taking> = (LEASES_OF_BOT_MAX..LEASES_MAX)
        .map(|number| begin(&format!("prod/b{}", number / 100)).ok().unwrap())
        .collect();
    assert!(matches!(
        begin("prod/c").err().unwrap(),
        SourceError::Leases { all: LEASES_MAX, .. }
    ));
    drop(others.pop());
    own.push(begin("prod/c").ok().unwrap());
    // What waits to be given back counts too.
    drop(others.pop());
    let waits = taken(1, Duration::from_hours(1));
    bench.leases.give_back(nobodys(waits.vault), waits.id, &waits.grant);
    assert!(begin("prod/c").is_err());
    drop(own);
    assert!(begin("prod/a").is_ok());
    bench.leases.close().await;
    assert!(matches!(begin("prod/a").err().unwrap(), SourceError::Stopping));
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_comes_while_the_proxy_stops_is_given_back_and_not_used() {
    let bench = bench();
    let own = process_of(std::process::id());
    let key = Key::new(&name(), &bot("prod/a"), &own);
    bench.leases.close().await;
    let late = bench.install(&key, &own, 1).await.unwrap_err();
    assert!(matches!(late, SourceError::ProcessEnded), "{late}");
    assert_eq!((bench.leases.count(&name()), bench.waiting()), (0, 1));
}

#[tokio::test(start_paused = true)]
async fn what_a_vault_has_taken_back_by_itself_is_waited_for_no_more() {
    let bench = bench();
    for (number, until) in [(1, 0), (2, i64::MAX / 2)] {
        let until = Timestamp::from_unix_millis(until);
        let Taken { vault, id, .. } = taken(number, Duration::ZERO);
        bench
            .leases
            .table()
            .returns
            .insert(id, Return::new(nobodys(vault), until, Instant::now()));
    }
    bench.look();
    assert_eq!(bench.waiting(), 1);
}

/// Of a lease that an earlier process left.
fn nobodys(vault: VaultWord) -> Whose {
    Whose {
        vault,
        name: None,
        bot: None,
    }
}
