//! The users, programs and entries that the tests share.

use std::fs::{self, Permissions};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use proxy::attest::{AttestConfig, Attestor, Caller, Unattested, Witnessed, prepare_listener};
use spiffe::entry::Entry;
use spiffe::id::BotName;
use spiffe::selector::SelectorSet;
use spiffe::time::Clock;
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

use crate::actor::{ARGUMENTS, MARK};

/// The user of `prod/orders`, which no system has an account for; without root, the only user there is.
pub(crate) fn orders_uid() -> u32 {
    if is_root() {
        61_001
    } else {
        rustix::process::geteuid().as_raw()
    }
}

/// The user of `prod/quotes`.
pub(crate) const QUOTES_UID: u32 = 61_002;

pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Tells, in the words that the test run counts, that a test needs more than there is.
pub(crate) fn skip_without_root() -> bool {
    if !is_root() {
        println!("skipped: needs root, to have two users");
    }
    !is_root()
}

pub(crate) fn bot(name: &str) -> BotName {
    BotName::parse(name).unwrap()
}

pub(crate) fn entry(name: &str, set: SelectorSet) -> Entry {
    Entry {
        bot: bot(name),
        attest: vec![set],
    }
}

pub(crate) fn by_uid(uid: u32) -> SelectorSet {
    SelectorSet {
        uid: Some(uid),
        ..SelectorSet::default()
    }
}

/// A folder with two copies of this binary, owned by the one who runs the tests, and an attestor.
pub(crate) struct World {
    folder: TempDir,
    pub(crate) attestor: Attestor,
}

impl World {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
        // Sockets of all users go there.
        fs::create_dir(folder.path().join("sockets")).unwrap();
        fs::set_permissions(folder.path().join("sockets"), Permissions::from_mode(0o1777)).unwrap();
        fs::create_dir(folder.path().join("bin")).unwrap();
        for name in ["orders", "other"] {
            let to = folder.path().join("bin").join(name);
            // Copied by another process: a file that this one has open for writing cannot be executed, and a child of
            // another test can keep it open for a moment longer.
            let copied = Command::new("cp")
                .arg(std::env::current_exe().unwrap())
                .arg(&to)
                .status()
                .unwrap();
            assert!(copied.success());
            fs::set_permissions(&to, Permissions::from_mode(0o755)).unwrap();
        }
        let attestor = Attestor::new(AttestConfig::default(), Clock::system()).unwrap();
        Self { folder, attestor }
    }

    /// A world in which `prod/orders` is the program `orders` of its user, and `prod/quotes` all of its user's.
    pub(crate) fn with_orders_and_quotes() -> Self {
        let world = Self::new();
        world.entries([
            entry("prod/orders", world.orders_set()),
            entry("prod/quotes", by_uid(QUOTES_UID)),
        ]);
        world
    }

    pub(crate) fn orders_set(&self) -> SelectorSet {
        SelectorSet {
            exe: Some(self.program("orders")),
            ..by_uid(orders_uid())
        }
    }

    pub(crate) fn entries(&self, entries: impl IntoIterator<Item = Entry>) {
        self.attestor
            .set_entries(entries.into_iter().collect::<Vec<_>>().into());
    }

    pub(crate) fn program(&self, name: &str) -> String {
        self.folder.path().join("bin").join(name).to_str().unwrap().to_owned()
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn socket(&self, name: &str) -> PathBuf {
        self.folder.path().join("sockets").join(name)
    }

    pub(crate) fn orders(&self) -> Actor {
        Actor::start(&self.program("orders"), orders_uid())
    }

    pub(crate) fn quotes(&self) -> Actor {
        Actor::start(&self.program("other"), QUOTES_UID)
    }

    pub(crate) fn unix(&self) -> UnixDoor {
        let path = self.socket("bot.sock");
        let listener = UnixListener::bind(&path).unwrap();
        prepare_listener(&listener).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o777)).unwrap();
        UnixDoor {
            listener,
            path,
            attestor: self.attestor.clone(),
        }
    }

    pub(crate) async fn tcp(&self, address: &str) -> TcpDoor {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        TcpDoor {
            listener,
            address,
            attestor: self.attestor.clone(),
        }
    }
}

/// The proxy's Unix socket.
pub(crate) struct UnixDoor {
    pub(crate) listener: UnixListener,
    path: PathBuf,
    attestor: Attestor,
}

impl UnixDoor {
    /// Lets an actor connect; returns its number for the connection, and our end.
    pub(crate) async fn connect(&self, actor: &mut Actor) -> (String, UnixStream) {
        let fd = actor.ask(&format!("unix {}", self.path.display()));
        (fd, self.listener.accept().await.unwrap().0)
    }

    pub(crate) async fn attest(&self, actor: &mut Actor) -> Result<(String, Caller, Witnessed), Unattested> {
        let (fd, stream) = self.connect(actor).await;
        let caller = self.attestor.unix_caller(&stream).await?;
        let stream = Witnessed::new(stream, &caller).unwrap();
        Ok((fd, caller, stream))
    }
}

/// The proxy's TCP port.
pub(crate) struct TcpDoor {
    pub(crate) listener: TcpListener,
    pub(crate) address: String,
    attestor: Attestor,
}

impl TcpDoor {
    pub(crate) async fn connect(&self, actor: &mut Actor) -> (String, TcpStream) {
        let fd = actor.ask(&format!("tcp {}", self.address));
        (fd, self.listener.accept().await.unwrap().0)
    }

    pub(crate) async fn attest(&self, actor: &mut Actor) -> Result<(String, Caller, TcpStream), Unattested> {
        let (fd, stream) = self.connect(actor).await;
        let caller = self.attestor.tcp_caller(&stream).await?;
        Ok((fd, caller, stream))
    }
}

/// A process that does what it is told.
pub(crate) struct Actor {
    child: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
    /// Its process id, which is not that of the child where a shell is in between.
    pub(crate) pid: u32,
}

impl Actor {
    pub(crate) fn start(program: &str, uid: u32) -> Self {
        let mut command = Command::new(program);
        command.args(ARGUMENTS);
        Self::run(command, uid)
    }

    /// Starts an actor of `uid` and `gid` in the supplementary `groups`.
    pub(crate) fn in_groups(program: &str, uid: u32, gid: u32, groups: &str) -> Self {
        let mut command = Command::new("setpriv");
        command.args([format!("--reuid={uid}"), format!("--regid={gid}")]);
        command.arg(format!("--groups={groups}"));
        command.arg(program).args(ARGUMENTS);
        Self::run(command, 0)
    }

    /// Starts what ends up being an actor.
    pub(crate) fn run(mut command: Command, uid: u32) -> Self {
        if is_root() {
            command.uid(uid).gid(uid);
        }
        let mut child = command
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (to, from) = (
            child.stdin.take().unwrap(),
            BufReader::new(child.stdout.take().unwrap()),
        );
        let mut actor = Self {
            child,
            to,
            from,
            pid: 0,
        };
        actor.greet();
        actor
    }

    /// Asks for the process id again, after another process has taken the place of the first.
    pub(crate) fn greet(&mut self) {
        self.pid = self.ask("hello").parse().unwrap();
    }

    pub(crate) fn ask(&mut self, command: &str) -> String {
        self.tell(command);
        self.hear()
    }

    pub(crate) fn tell(&mut self, command: &str) {
        writeln!(self.to, "{command}").unwrap();
    }

    pub(crate) fn hear(&mut self) -> String {
        loop {
            let mut line = String::new();
            assert_ne!(self.from.read_line(&mut line).unwrap(), 0, "the actor has died");
            // The harness leaves its own line open when the test begins to print.
            if let Some((_, answer)) = line.split_once(MARK) {
                return answer.trim_end().to_owned();
            }
        }
    }

    pub(crate) fn first_pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until the process that was started first has exited, and leaves it to the kernel no longer.
    pub(crate) fn reap(&mut self) {
        self.child.wait().unwrap();
    }
}

impl Drop for Actor {
    fn drop(&mut self) {
        // It may have exited already; descendants end when their standard input does.
        let _exited_already = self.child.kill();
        let _reaped_already = self.child.wait();
    }
}

/// Repeats a check until it holds; another process is on its way to make it so.
pub(crate) async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let repeated = async {
        while !holds() {
            tokio::task::yield_now().await;
        }
    };
    assert!(
        tokio::time::timeout(Duration::from_secs(20), repeated).await.is_ok(),
        "not within 20 s: {what}"
    );
}

/// The word of a refusal.
pub(crate) fn refused<T>(result: Result<T, Unattested>) -> String {
    match result {
        Ok(_) => panic!("was not refused"),
        Err(refused) => refused.word().to_owned(),
    }
}

/// Any entries as the attestor takes them.
pub(crate) fn no_entries() -> Arc<[Entry]> {
    Arc::from([])
}
