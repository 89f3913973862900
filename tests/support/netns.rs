//! Hosts as network namespaces on one wire, each started from what `deploy/install.sh` installs.
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::Value;

use super::turn::Turn;
use super::{PROXY_USER, Process, as_user, botmesh, eventually, ok, run};

/// The user of the CA, in place of the one that `install.sh` makes.
const CA_USER: u32 = 61_100;

/// The folders of a host, which the test moves below one of its own.
const FOLDERS: [&str; 4] = ["/etc/botmesh", "/var/lib/botmesh", "/run/botmesh", "/usr/local/bin"];

/// Network namespaces on one bridge, which has a namespace of its own; they are removed at the end.
pub(crate) struct Net {
    prefix: String,
    names: Vec<String>,
}

impl Net {
    /// Makes a namespace for each name; the first has 10.77.0.1, the next 10.77.0.2.
    pub(crate) fn new(names: &[&str]) -> Self {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let mut net = Self {
            prefix: format!("bm{}-{number}", std::process::id()),
            names: Vec::new(),
        };
        let wire = net.add("wire");
        ok(Command::new("ip").args(["-n", &wire, "link", "add", "br0", "type", "bridge"]));
        ok(Command::new("ip").args(["-n", &wire, "link", "set", "br0", "up"]));
        for name in names {
            let ns = net.add(name);
            let port = format!("p{}", net.names.len());
            ok(Command::new("ip").args([
                "link", "add", "eth0", "netns", &ns, "type", "veth", "peer", "name", &port, "netns", &wire,
            ]));
            ok(Command::new("ip").args(["-n", &wire, "link", "set", &port, "master", "br0", "up"]));
            let address = format!("{}/24", net.address(name));
            ok(Command::new("ip").args(["-n", &ns, "addr", "add", &address, "dev", "eth0"]));
            ok(Command::new("ip").args(["-n", &ns, "link", "set", "eth0", "up"]));
        }
        net
    }

    fn add(&mut self, name: &str) -> String {
        let ns = self.ns(name);
        ok(Command::new("ip").args(["netns", "add", &ns]));
        self.names.push(name.to_owned());
        ok(Command::new("ip").args(["-n", &ns, "link", "set", "lo", "up"]));
        ns
    }

    fn ns(&self, name: &str) -> String {
        format!("{}-{name}", self.prefix)
    }

    pub(crate) fn address(&self, name: &str) -> String {
        let number = self.names.iter().position(|known| known == name).expect("a namespace");
        format!("10.77.0.{number}")
    }

    /// A command in a namespace, as a user.
    pub(crate) fn command(&self, name: &str, uid: u32, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let user = [
            format!("--reuid={uid}"),
            format!("--regid={uid}"),
            "--clear-groups".to_owned(),
        ];
        let mut command = self.root(name);
        command.arg("setpriv").args(user).arg(program);
        command
    }

    /// `ip netns exec`, which needs a program yet.
    fn root(&self, name: &str) -> Command {
        let mut command = as_user("ip", 0);
        command
            .env_remove("BOTMESH_SERVER")
            .args(["netns", "exec", &self.ns(name)]);
        command
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        for name in &self.names {
            run(Command::new("ip").args(["netns", "del", &self.ns(name)]));
        }
    }
}

/// One host: what the install script put below its folder, and the server that its unit starts.
pub(crate) struct Installed {
    pub(crate) name: String,
    dir: PathBuf,
    role: &'static str,
    pub(crate) process: Option<Process>,
}

impl Installed {
    /// Runs the install script for a role. The binary is a script that starts the one under test.
    pub(crate) fn new(parent: &Path, name: &str, role: &'static str) -> Self {
        let dir = parent.join(name);
        fs::create_dir(&dir).unwrap();
        let wrapper = parent.join("botmesh");
        if !wrapper.exists() {
            let real = parent.join("botmesh.real");
            fs::copy(env!("CARGO_BIN_EXE_botmesh"), &real).unwrap();
            fs::write(&wrapper, format!("#!/bin/sh\nexec {} \"$@\"\n", real.display())).unwrap();
            fs::set_permissions(&wrapper, fs::Permissions::from_mode(0o755)).unwrap();
        }
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/install.sh");
        for _again in 0..2 {
            ok(Command::new(&script)
                .arg(role)
                .env("DESTDIR", &dir)
                .env("BOTMESH", &wrapper));
        }
        let host = Self {
            name: name.to_owned(),
            dir,
            role,
            process: None,
        };
        host.tmpfiles();
        if role == "ca" {
            let state = host.path("/var/lib/botmesh/ca");
            nix::unistd::chown(&state, Some(CA_USER.into()), Some(CA_USER.into())).unwrap();
        }
        host
    }

    /// A path of the host, below the test's folder.
    pub(crate) fn path(&self, path: &str) -> PathBuf {
        self.dir.join(path.trim_start_matches('/'))
    }

    /// Text whose paths are those of the host.
    fn moved(&self, text: &str) -> String {
        FOLDERS.iter().fold(text.to_owned(), |text, folder| {
            text.replace(folder, &self.path(folder).display().to_string())
        })
    }

    /// Makes what the installed tmpfiles.d file says.
    fn tmpfiles(&self) {
        let file = self.path(&format!("/usr/lib/tmpfiles.d/botmesh-{}.conf", self.role));
        let text = fs::read_to_string(file).unwrap();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let words: Vec<&str> = line.split_whitespace().collect();
            let path = self.path(words[1]);
            match words[0] {
                "d" => {
                    fs::create_dir_all(&path).unwrap();
                    let mode = u32::from_str_radix(words[2], 8).unwrap();
                    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
                    if words[3] == "botmesh-ca" {
                        nix::unistd::chown(&path, Some(CA_USER.into()), Some(CA_USER.into())).unwrap();
                    }
                }
                "L+" => symlink(words[6], &path).unwrap(),
                other => panic!("{other}"),
            }
        }
    }

    /// Edits the installed configuration: moves its paths, and replaces addresses and names; each must be there.
    pub(crate) fn configure(&self, changes: &[(&str, &str)]) {
        let file = self.path(&format!("/etc/botmesh/{}.yaml", self.role));
        let mut text = self.moved(&fs::read_to_string(&file).unwrap());
        for (from, to) in changes {
            assert!(text.contains(from), "{}: no {from}", file.display());
            text = text.replace(from, to);
        }
        fs::write(file, text).unwrap();
    }

    fn unit(&self, key: &str) -> String {
        let file = self.path(&format!("/etc/systemd/system/botmesh-{}.service", self.role));
        let text = fs::read_to_string(file).unwrap();
        let value = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
        value.unwrap_or_else(|| panic!("{key}")).to_owned()
    }

    /// The user, privileges and bounding set of the unit, as words for `setpriv`.
    fn privileges(&self) -> Vec<String> {
        let mut words = Vec::new();
        if self.unit("User") != "root" {
            words.extend([
                format!("--reuid={CA_USER}"),
                format!("--regid={CA_USER}"),
                "--clear-groups".to_owned(),
            ]);
        }
        let kept = self.unit("CapabilityBoundingSet").to_lowercase();
        let kept = kept.split_whitespace().map(|name| name.replace("cap_", ",+"));
        words.push(format!("--bounding-set=-all{}", kept.collect::<String>()));
        assert_eq!(self.unit("NoNewPrivileges"), "yes");
        words.push("--no-new-privs".to_owned());
        words
    }

    /// Runs `botmesh ca init` as the unit's user.
    pub(crate) fn init(&self, net: &Net) {
        let mut command = net.root(&self.name);
        command
            .arg("setpriv")
            .args(self.privileges())
            .arg(self.path("/usr/local/bin/botmesh"));
        ok(command
            .args(["ca", "init", "--config"])
            .arg(self.path("/etc/botmesh/ca.yaml")));
    }

    /// Starts what the unit starts, in the host's namespace, with the unit's user and capabilities.
    pub(crate) fn start(&mut self, net: &Net) {
        let mut command = net.root(&self.name);
        command.arg("setpriv").args(self.privileges());
        command.args(self.moved(&self.unit("ExecStart")).split_whitespace());
        self.process = Some(Process::spawn(command, self.dir.join("log")));
    }

    /// Where commands find this host's servers.
    pub(crate) fn server(&self) -> String {
        format!("unix:{}", self.path("/run/botmesh").display())
    }

    /// Asks this host's server as root, in JSON.
    pub(crate) fn ask(&self, words: &[&str]) -> Value {
        let out = ok(botmesh().args(words).args(["-o", "json", "--server", &self.server()]));
        serde_json::from_str(&out).unwrap()
    }

    /// Waits until the proxy says that it is ready.
    pub(crate) fn ready(&self) {
        eventually(&format!("{} to be ready", self.name), || {
            let status = run(botmesh().args(["proxy", "status", "-o", "json", "--server", &self.server()]));
            let status: Value = serde_json::from_slice(&status.stdout).ok()?;
            (status["ready"] == true).then_some(())
        });
    }
}

/// A CA and proxies in namespaces of their own, with nothing applied yet.
pub(crate) struct Hosts {
    pub(crate) ca: Installed,
    pub(crate) proxies: Vec<Installed>,
    bots: Vec<Process>,
    // Removed last, when no process is left in it.
    pub(crate) net: Net,
    pub(crate) dir: tempfile::TempDir,
    _turn: Turn,
}

impl Hosts {
    /// Follows the operator's page: install, edit, init, start; then a token for each host.
    pub(crate) fn start(names: &[&str], more: &str) -> Self {
        let turn = Turn::take(false);
        let dir = tempfile::Builder::new().prefix("bm").tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let net = Net::new(&[&["ca"], names].concat());
        let mut ca = Installed::new(dir.path(), "ca", "ca");
        ca.configure(&[]);
        ca.init(&net);
        ca.start(&net);
        let mut proxies = Vec::new();
        for name in names {
            let mut host = Installed::new(dir.path(), name, "proxy");
            host.configure(&[
                ("host: web-1", &format!("host: {name}")),
                ("user: botmesh", &format!("user: {PROXY_USER}")),
                ("ca.acme.internal", &net.address("ca")),
                ("10.0.0.5", &net.address(name)),
                ("allow_run: false", &format!("allow_run: false\n{more}")),
            ]);
            let token = eventually("a join token", || {
                let out = run(botmesh().args(["host", "token", name, "--server", &ca.server()]));
                out.status.success().then(|| String::from_utf8(out.stdout).unwrap())
            });
            fs::write(host.path("/run/botmesh/join-token"), token).unwrap();
            host.start(&net);
            proxies.push(host);
        }
        Self {
            ca,
            proxies,
            bots: Vec::new(),
            net,
            dir,
            _turn: turn,
        }
    }

    pub(crate) fn host(&self, name: &str) -> &Installed {
        self.proxies.iter().find(|host| host.name == name).expect("a host")
    }

    /// Applies a mesh file and waits until every host is ready with it.
    pub(crate) fn apply(&self, text: &str) {
        let file = self.dir.path().join("mesh.yaml");
        fs::write(&file, text).unwrap();
        for host in &self.proxies {
            eventually(&format!("{} to connect", host.name), || {
                let hosts = self.ca.ask(&["host", "list"]);
                let items = hosts["items"].as_array()?.clone();
                items
                    .iter()
                    .any(|item| item["host"] == host.name.as_str() && item["connected"] == true)
                    .then_some(())
            });
        }
        ok(botmesh().arg("apply").arg(&file).args(["--server", &self.ca.server()]));
        for host in &self.proxies {
            host.ready();
        }
    }

    /// Starts the answering bot on a host as a user, on a port or at `unix:PATH`.
    pub(crate) fn callee(&mut self, host: &str, uid: u32, at: &str) {
        let mut command = self.net.command(host, uid, super::PYTHON);
        command.args(["-c", include_str!("callee.py"), at]);
        self.spawn(command, "ready");
    }

    /// Keeps a process until the end, and waits until its log holds a word.
    pub(crate) fn spawn(&mut self, command: Command, word: &str) -> &mut Process {
        let log = self.dir.path().join(format!("bot-{}.log", self.bots.len()));
        let process = Process::spawn(command, log);
        eventually(word, || process.log().contains(word).then_some(()));
        self.bots.push(process);
        self.bots.last_mut().unwrap()
    }

    /// Curl as a user of a host; gives the status and the body.
    pub(crate) fn curl(&self, host: &str, uid: u32, words: &[&str]) -> (String, String) {
        let mut command = self.net.command(host, uid, "curl");
        command.args(["-sS", "-m", "20", "-w", "\n%{http_code}"]).args(words);
        let out = run(&mut command);
        let text = String::from_utf8_lossy(&out.stdout).into_owned();
        let (body, status) = text.rsplit_once('\n').unwrap_or(("", ""));
        (
            status.to_owned(),
            format!("{body}{}", String::from_utf8_lossy(&out.stderr)),
        )
    }
}
