//! Who listens where a bot should: on its port, on another form of its address, at its socket. It hears nothing.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use crate::spine::{CHECKOUT, LOCAL, NOBODY, ORDERS, mesh_file};
use crate::support::{Caller, Mesh, PYTHON, Process, Setup, as_user, eventually, free_port, http_get, root_or_skip};

/// Every form of an address whose port a foreign user can try to hold beside, before or instead of the bot on
/// 127.0.0.1, and whether a connection to 127.0.0.1 can end there when the bot is down.
const FORMS: [(&str, bool); 7] = [
    ("127.0.0.1", true),
    ("0.0.0.0", true),
    ("::", true),
    ("::ffff:127.0.0.1", true),
    ("::only", false),
    ("::1", false),
    ("127.0.0.2", false),
];

/// A foreign user's process where the bot should be.
struct Squatter {
    process: Process,
    /// Where the test reaches it.
    at: String,
    /// How often it has.
    knocked: usize,
}

impl Squatter {
    /// Tries to listen; `None` when the kernel does not let it.
    fn at(mesh: &Mesh, words: &[&str]) -> Option<Self> {
        let mut command = as_user(PYTHON, NOBODY);
        command.args(["-c", include_str!("support/squatter.py")]).args(words);
        let log = tempfile::NamedTempFile::new_in(mesh.dir())
            .expect("a file")
            .into_temp_path();
        let process = Process::spawn(command, log.to_path_buf());
        let holds = eventually("the squatter to try", || {
            let told = process.log();
            told.contains("holds")
                .then_some(true)
                .or(told.contains("refused").then_some(false))
        });
        log.keep().expect("kept");
        let at = match words {
            [port, form] => match form.trim_end_matches("only") {
                "::" if form.ends_with("only") => format!("[::1]:{port}"),
                "0.0.0.0" | "::" => format!("127.0.0.1:{port}"),
                form if form.contains(':') => format!("[{form}]:{port}"),
                form => format!("{form}:{port}"),
            },
            words => words.concat(),
        };
        holds.then_some(Self {
            process,
            at,
            knocked: 0,
        })
    }

    /// How many connections it was given; it must not have read a byte from any. The test's own comes last, so that all
    /// before it have been taken.
    fn connections(&mut self) -> usize {
        drop(self.knock());
        self.knocked += 1;
        // One reading of the log for all counts: it grows between two.
        let count = |log: &str, word: &str| log.lines().filter(|line| line.starts_with(word)).count();
        let (given, log) = eventually("the test's own connection", || {
            let log = self.process.log();
            let (given, read) = (count(&log, "connection"), count(&log, "read"));
            (count(&log, "read 1") == self.knocked && given == read).then_some((given, log))
        });
        assert_eq!(given, count(&log, "read 0") + self.knocked, "{log}");
        given - self.knocked
    }

    /// Connects and sends the one byte by which the test knows its own connections.
    fn knock(&self) -> Box<dyn std::any::Any> {
        use std::io::Write as _;
        match self.at.strip_prefix("unix:") {
            Some(path) => {
                let mut stream = std::os::unix::net::UnixStream::connect(path).expect("the squatter listens");
                stream.write_all(b"!").expect("sent");
                Box::new(stream)
            }
            None => {
                let mut stream = std::net::TcpStream::connect(&self.at).expect("the squatter listens");
                stream.write_all(b"!").expect("sent");
                Box::new(stream)
            }
        }
    }
}

/// The bot that serves, started and stopped by the test.
fn bot(mesh: &Mesh, uid: u32, at: &str) -> Process {
    let mut command = as_user(PYTHON, uid);
    command.args(["-c", include_str!("support/callee.py"), at]);
    let log = tempfile::NamedTempFile::new_in(mesh.dir())
        .expect("a file")
        .into_temp_path();
    let process = Process::spawn(command, log.to_path_buf());
    log.keep().expect("kept");
    eventually("the bot to listen", || is_ready(&process).then_some(()));
    process
}

/// "Already in use" is not ready.
fn is_ready(process: &Process) -> bool {
    process.log().lines().any(|line| line == "ready")
}

struct Scene {
    mesh: Mesh,
    port: u16,
    socket: PathBuf,
    checkout: Caller,
}

impl Scene {
    fn start() -> Self {
        let mesh = Mesh::start(&Setup {
            hosts: &["web-1", "web-2"],
            ..Setup::default()
        });
        let port = free_port();
        let folder = mesh.dir().join("stock");
        crate::support::socket_folder(&folder, LOCAL);
        let socket = folder.join("stock.sock");
        mesh.apply(&mesh_file(port, &format!("unix:{}", socket.display())));
        let checkout = Caller::new(CHECKOUT, &mesh.host("web-1").bot_socket());
        Self {
            mesh,
            port,
            socket,
            checkout,
        }
    }

    /// One call across hosts to the bot on the port: the user that answered, or the word of the refusal.
    fn orders(&mut self) -> String {
        self.call("orders.prod.mesh", "/orders/17")
    }

    /// One call on the host to the bot at the socket.
    fn stock(&mut self) -> String {
        self.call("stock.prod.mesh", "/stock/4")
    }

    fn call(&mut self, host: &str, path: &str) -> String {
        let secret = [("authorization", "Bearer nobody-else's")];
        let answer = self.checkout.call_with("GET", host, path, &secret);
        if answer.status == 200 {
            return answer.json()["uid"].to_string();
        }
        answer.reason()
    }

    /// How many ends of calls on a host say that something else than the bot listened.
    fn mismatches(&self, host: &str) -> usize {
        let ends = self.mesh.host(host).query("kind=end");
        ends.iter().filter(|end| end["outcome"] == "callee_mismatch").count()
    }
}

#[test]
fn a_squatter_on_the_port_of_a_bot_or_on_another_form_of_its_address_hears_nothing() {
    if !root_or_skip("squatters on a port") {
        return;
    }
    let mut scene = Scene::start();
    let port = scene.port.to_string();
    let mut refusals = 0;
    println!(
        "{:17} bot down                          bot on 127.0.0.1                  squatter first, then the bot",
        "squatter on"
    );
    for (form, reached) in FORMS {
        let mut squatter = Squatter::at(&scene.mesh, &[&port, form]).expect("nobody else is there");
        let told = scene.orders();
        let connections = squatter.connections();
        let down = if reached {
            assert_eq!((told.as_str(), connections > 0), ("callee_mismatch", true), "{form}");
            refusals += 1;
            eventually("the record", || (scene.mismatches("web-2") >= refusals).then_some(()));
            format!("{told}, {connections} connection, 0 B")
        } else {
            assert_eq!((told.as_str(), connections), ("peer_unreachable", 0), "{form}");
            format!("{told}, not reached")
        };
        // While the squatter stays, the bot starts.
        let after = beside(&mut scene, &mut squatter, reached);
        drop(squatter);

        let orders = bot(&scene.mesh, ORDERS, &port);
        assert_eq!(scene.orders(), ORDERS.to_string());
        let squatter = Squatter::at(&scene.mesh, &[&port, form]);
        assert_eq!(
            squatter.is_none(),
            reached,
            "{form}: two listeners for one address, or none for another"
        );
        assert_eq!(scene.orders(), ORDERS.to_string(), "{form}: the bot still answers");
        let up = match squatter {
            None => "kernel refuses the squatter".to_owned(),
            Some(mut squatter) => {
                assert_eq!(squatter.connections(), 0, "{form}");
                "bot answers, 0 connections".to_owned()
            }
        };
        drop(orders);
        println!("{form:17} {down:33} {up:33} {after}");
    }
    let (_, text) = http_get(scene.mesh.host("web-2").ports.metrics, "/metrics").expect("metrics");
    let counted = text
        .lines()
        .find_map(|line| line.strip_prefix("botmesh_denied_total{reason=\"callee_mismatch\"} "));
    assert!(
        counted.and_then(|count| count.parse().ok()).unwrap_or(0) >= refusals,
        "{counted:?}"
    );
}

/// The bot starts while the squatter is there: either the kernel lets it, and it answers, or it does not.
fn beside(scene: &mut Scene, squatter: &mut Squatter, reached: bool) -> String {
    let mut command = as_user(PYTHON, ORDERS);
    command.args(["-c", include_str!("support/callee.py"), &scene.port.to_string()]);
    let late = Process::spawn(
        command,
        scene.mesh.dir().join(format!("late-{}", squatter.process.child.id())),
    );
    let starts = eventually("the bot to try", || {
        let told = late.log();
        is_ready(&late)
            .then_some(true)
            .or(told.contains("Address already in use").then_some(false))
    });
    assert_eq!(starts, !reached, "{}", late.log());
    let (before, told) = (squatter.connections(), scene.orders());
    if starts {
        assert_eq!(
            (told.as_str(), squatter.connections()),
            (ORDERS.to_string().as_str(), before)
        );
        return "bot answers, 0 connections".to_owned();
    }
    assert_eq!(told, "callee_mismatch");
    "kernel refuses the bot; callee_mismatch, 0 B".to_owned()
}

#[test]
fn a_squatter_that_takes_over_from_a_bot_is_not_given_what_a_kept_connection_would_have_carried() {
    if !root_or_skip("squatters after the bot") {
        return;
    }
    let mut scene = Scene::start();
    let port = scene.port.to_string();
    let mut orders = bot(&scene.mesh, ORDERS, &port);
    assert_eq!(scene.orders(), ORDERS.to_string(), "a connection is kept from here on");
    orders.kill();
    let mut squatter = Squatter::at(&scene.mesh, &[&port, "127.0.0.1"]).expect("the port is free");
    for _ in 0..3 {
        assert_eq!(scene.orders(), "callee_mismatch");
    }
    assert_eq!(squatter.connections(), 3, "each call looked anew and said nothing");
    drop(squatter);
    let _orders = bot(&scene.mesh, ORDERS, &port);
    assert_eq!(
        scene.orders(),
        ORDERS.to_string(),
        "the bot is back, and answers at once"
    );
}

#[test]
fn a_squatter_at_the_socket_of_a_bot_needs_the_folder_and_hears_nothing_then() {
    if !root_or_skip("squatters at a socket") {
        return;
    }
    let mut scene = Scene::start();
    let at = format!("unix:{}", scene.socket.display());
    let folder = scene.socket.parent().expect("a folder").to_owned();
    let mode = |mode| fs::set_permissions(&folder, fs::Permissions::from_mode(mode)).expect("chmod");
    for closed in [0o750, 0o755] {
        mode(closed);
        assert!(Squatter::at(&scene.mesh, &[&at]).is_none(), "{closed:o}");
    }
    assert_eq!(scene.stock(), "peer_unreachable");
    mode(0o777);
    let mut squatter = Squatter::at(&scene.mesh, &[&at]).expect("whoever may write the folder may listen there");
    assert_eq!(scene.stock(), "callee_mismatch");
    let connections = squatter.connections();
    assert!(connections > 0);
    eventually("the record", || (scene.mismatches("web-1") > 0).then_some(()));
    drop(squatter);
    mode(0o750);
    fs::remove_file(&scene.socket).expect("removed");
    let _stock = bot(&scene.mesh, LOCAL, &at);
    assert_eq!(scene.stock(), LOCAL.to_string());
    println!(
        "socket in a folder of 0750 or 0755: kernel refuses the squatter; of 0777: callee_mismatch, {connections} connection, 0 B"
    );
}
