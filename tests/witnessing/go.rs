//! A witness by other people: what it cosigns, and that it takes what we send.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::spine::{CHECKOUT, with_callees};
use crate::support::{
    Caller, PYTHON, Process, Setup, botmesh, eventually, eventually_within, free_port, ok, root_or_skip,
};

/// A key in an agent of SSH, which is where litewitness has its own.
struct Agent {
    _process: Process,
    socket: PathBuf,
    fingerprint: String,
}

impl Agent {
    fn start(dir: &Path) -> Self {
        let (key, socket) = (dir.join("witness.key"), dir.join("agent.sock"));
        ok(Command::new("ssh-keygen")
            .args(["-q", "-t", "ed25519", "-N", "", "-f"])
            .arg(&key));
        let mut agent = Command::new("ssh-agent");
        agent.arg("-D").arg("-a").arg(&socket);
        let process = Process::spawn(agent, dir.join("agent.log"));
        eventually("the agent", || socket.exists().then_some(()));
        ok(Command::new("ssh-add")
            .arg("-q")
            .arg(&key)
            .env("SSH_AUTH_SOCK", &socket));
        let listed = ok(Command::new("ssh-keygen").arg("-lf").arg(key.with_extension("key.pub")));
        let fingerprint = listed.split_whitespace().nth(1).unwrap().to_owned();
        Self {
            _process: process,
            socket,
            fingerprint,
        }
    }
}

/// The witness of the module filippo.io/torchwood.
struct Litewitness {
    process: Process,
    port: u16,
    key: String,
    database: PathBuf,
    _agent: Agent,
}

impl Litewitness {
    fn start(go: &OsStr, dir: &Path) -> Self {
        let bin = dir.join("bin");
        ok(Command::new(go)
            .args(["install", "filippo.io/torchwood/cmd/litewitness@v0.6.1"])
            .env("GOBIN", &bin)
            .env("GOFLAGS", "-mod=mod"));
        let agent = Agent::start(dir);
        let (port, database) = (free_port(), dir.join("w.db"));
        let mut command = Command::new(bin.join("litewitness"));
        let listen = format!("127.0.0.1:{port}");
        command.args(["-name", "w.example/go", "-listen", &listen, "-key", &agent.fingerprint]);
        command.arg("-ssh-agent").arg(&agent.socket).arg("-db").arg(&database);
        let process = Process::spawn(command, dir.join("w.log"));
        let key = eventually("its key", || {
            let text = process.log();
            let key = text.split("vkey=").nth(1)?.split_whitespace().next()?;
            Some(key.trim_matches('"').to_owned())
        });
        Self {
            process,
            port,
            key,
            database,
            _agent: agent,
        }
    }

    /// Tells it of a ledger, as its witnessctl does.
    fn add(&self, vkey: &str) {
        let add = "import sqlite3,sys\ndb=sqlite3.connect(sys.argv[1],timeout=10)\n\
                   db.execute('INSERT INTO log VALUES(?,0,?)',(sys.argv[2],'47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU='))\n\
                   db.execute('INSERT INTO key VALUES(?,?)',(sys.argv[2],sys.argv[3]))\ndb.commit()";
        let (vkey, origin) = (vkey.trim_end(), vkey.split('+').next().unwrap());
        ok(Command::new(PYTHON)
            .args(["-c", add])
            .arg(&self.database)
            .args([origin, vkey]));
    }
}

#[test]
fn a_witness_in_go_cosigns_our_ledgers() {
    let Some(go) = std::env::var_os("BOTMESH_GO") else {
        println!("skipped: a witness by Go: BOTMESH_GO names no go command");
        return;
    };
    if !root_or_skip("a witness by Go") {
        return;
    }
    let kept = tempfile::Builder::new().prefix("bm").tempdir().unwrap();
    let theirs = Litewitness::start(&go, kept.path());
    println!("{}", theirs.key);
    let mut mesh = with_callees(&Setup {
        hosts: &["web-1", "web-2"],
        ..Setup::default()
    });
    let ledger = mesh.host("web-1").ledger();
    for ledger in [&ledger, &mesh.ca_ledger()] {
        theirs.add(&fs::read_to_string(ledger.join("ledger.vkey")).unwrap());
    }
    let config = mesh.dir().join("ca.yaml");
    let url = format!("http://127.0.0.1:{}", theirs.port);
    let section = serde_json::json!({"witnesses": [{"url": url, "key": theirs.key}]});
    fs::write(
        &config,
        fs::read_to_string(&config).unwrap() + &format!("ledger: {section}\n"),
    )
    .unwrap();
    mesh.restart_ca();
    mesh.wait_for("web-1", "/readyz");
    let cosigner = audit::Cosigner::parse(&theirs.key).unwrap();
    let witnessed = |more_than: u64| {
        eventually_within(Duration::from_secs(180), "a cosignature of litewitness", || {
            let kept = audit::kept::kept_witnessed(&ledger, &cosigner)?;
            (kept.checkpoint.size > more_than).then_some(kept.checkpoint.size)
        })
    };
    let mut checkout = Caller::new(CHECKOUT, &mesh.host("web-1").bot_socket());
    let mut call = || assert_eq!(checkout.call("GET", "orders.prod.mesh", "/orders/17").status, 200);
    let first = witnessed(0);
    (0..300).for_each(|_| call());
    let second = witnessed(first);
    println!("litewitness cosigned {first} and then {second} records");
    let verify = |what: &Path, more: &[&str]| {
        let mut verify = botmesh();
        ok(verify
            .args(["audit", "verify"])
            .arg(what)
            .args(["--witness", &theirs.key])
            .args(more))
    };
    print!("{}", verify(&ledger, &[]));
    let proof = kept.path().join("p.tlog-proof");
    fs::write(&proof, ok(botmesh().args(["audit", "prove", "0"]).arg(&ledger))).unwrap();
    let vkey = ledger.join("ledger.vkey");
    print!("{}", verify(&proof, &["--key", vkey.to_str().unwrap()]));
    print!("{}", ok(botmesh().args(["audit", "heads", "--server", &mesh.server()])));
    print!("{}", theirs.process.log());
}
