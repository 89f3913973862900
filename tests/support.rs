//! Starts real processes and talks to them; tests say what they want and read what came back.
use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

pub(crate) mod cluster;
pub(crate) mod hand;
pub(crate) mod join;
pub(crate) mod load;
pub(crate) mod manager;
pub(crate) mod netns;
pub(crate) mod planted;
pub(crate) mod thief;
pub(crate) mod turn;
pub(crate) mod wire;
pub(crate) mod witness;

use turn::Turn;
pub(crate) use turn::free_port;

/// How long a test waits for a state before it says that the state did not come.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Debian's own, which every user may run; one under a home folder may be closed to them.
pub(crate) const PYTHON: &str = "/usr/bin/python3";

/// The binary under test.
pub(crate) fn botmesh() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_botmesh"));
    for name in [
        "BOTMESH_SERVER",
        "http_proxy",
        "HTTP_PROXY",
        "https_proxy",
        "no_proxy",
        "NO_PROXY",
    ] {
        command.env_remove(name);
    }
    command
}

/// Runs a command to its end.
pub(crate) fn run(command: &mut Command) -> Output {
    let out = command
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|e| panic!("{command:?}: {e}"));
    if command.get_program() == env!("CARGO_BIN_EXE_botmesh") {
        planted::none_in(&format!("{command:?}"), &[&out.stdout, &out.stderr]);
    }
    out
}

/// Runs a command that must succeed and gives its standard output.
pub(crate) fn ok(command: &mut Command) -> String {
    let out = run(command);
    assert!(out.status.success(), "{command:?}: {}\n{}", out.status, both(&out));
    String::from_utf8(out.stdout).expect("utf-8")
}

/// Both outputs of a command, for a message.
pub(crate) fn both(out: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&out.stdout),
        String::from_utf8_lossy(&out.stderr)
    )
}

/// Waits until `probe` gives something.
pub(crate) fn eventually<T>(what: &str, probe: impl FnMut() -> Option<T>) -> T {
    eventually_within(PATIENCE, what, probe)
}

/// The same for what takes longer.
pub(crate) fn eventually_within<T>(patience: Duration, what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(value) = probe() {
            return value;
        }
        assert!(start.elapsed() < patience, "waited {patience:?} for: {what}");
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

/// Whom the suite's proxies become; a number needs no user of that name.
pub(crate) const PROXY_USER: u32 = 61_900;

/// Makes a folder for the socket of a bot, as the operator's page has it: the bot's own, and the proxy's user may enter.
pub(crate) fn socket_folder(path: &Path, bot: u32) {
    fs::create_dir(path).expect("a folder for the socket");
    nix::unistd::chown(path, Some(bot.into()), Some(PROXY_USER.into())).expect("chown");
    fs::set_permissions(path, fs::Permissions::from_mode(0o750)).expect("chmod");
}

/// True when the suite may change users and namespaces; says so when not.
pub(crate) fn root_or_skip(test: &str) -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        println!("skipped: {test}: needs root");
    }
    root
}

/// A child that ends with the test, and whose log a failing test prints.
pub(crate) struct Process {
    pub(crate) child: Child,
    log: PathBuf,
}

impl Process {
    pub(crate) fn spawn(mut command: Command, log: PathBuf) -> Self {
        let file = fs::OpenOptions::new().create(true).append(true).open(&log).unwrap();
        command
            .stdin(Stdio::null())
            .stdout(file.try_clone().unwrap())
            .stderr(file);
        let child = command.spawn().unwrap_or_else(|e| panic!("{command:?}: {e}"));
        Self { child, log }
    }

    pub(crate) fn kill(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }

    pub(crate) fn terminate(&mut self) -> std::process::ExitStatus {
        let pid = nix::unistd::Pid::from_raw(i32::try_from(self.child.id()).unwrap());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).ok();
        self.child.wait().unwrap()
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            let log = self.log();
            let from = log.len().saturating_sub(6000);
            let tail: String = log.chars().skip(log[..from].chars().count()).collect();
            println!("--- {}\n{tail}", self.log.display());
        }
    }
}

/// What one proxy of a mesh listens on.
#[derive(Clone, Debug)]
pub(crate) struct Ports {
    pub(crate) bots: u16,
    pub(crate) mesh: u16,
    pub(crate) metrics: u16,
}

/// One host: its proxy's process, ports and folder.
pub(crate) struct Host {
    pub(crate) process: Process,
    pub(crate) ports: Ports,
    pub(crate) dir: PathBuf,
    config: PathBuf,
    /// What its proxy writes wrongly into its ledger; honest without.
    lies: String,
}

impl Host {
    pub(crate) fn bot_socket(&self) -> String {
        format!("unix:{}", self.dir.join("bot.sock").display())
    }

    pub(crate) fn bot_tcp(&self) -> String {
        format!("127.0.0.1:{}", self.ports.bots)
    }

    pub(crate) fn admin(&self) -> String {
        format!("unix:{}", self.dir.join("proxy.sock").display())
    }

    /// A line of the proxy's memory, in MiB: `VmRSS`, or `VmHWM` for the most that it has had.
    pub(crate) fn memory_mib(&self, which: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process.child.id())).expect("the proxy lives");
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix(which)?.strip_prefix(':'));
        let kib: u64 = line.unwrap().trim().trim_end_matches(" kB").parse().expect("a number");
        kib / 1024
    }

    pub(crate) fn log_bytes(&self) -> u64 {
        fs::metadata(self.dir.join("proxy.log")).expect("the log").len()
    }

    pub(crate) fn ledger(&self) -> PathBuf {
        self.dir.join("ledger")
    }

    /// Every record in this host's ledger that the filter selects.
    pub(crate) fn query(&self, filter: &str) -> Vec<Value> {
        ok(botmesh()
            .args(["audit", "query", filter, "-o", "jsonl", "--limit", "1000000"])
            .arg(self.ledger()))
        .lines()
        .map(|line| serde_json::from_str(line).expect("a JSON line"))
        .collect()
    }

    pub(crate) fn verify(&self) -> Output {
        run(botmesh().args(["audit", "verify"]).arg(self.ledger()))
    }
}

/// A CA and proxies on one machine, as separate processes.
pub(crate) struct Mesh {
    pub(crate) ca: Process,
    pub(crate) hosts: BTreeMap<String, Host>,
    bots: Vec<Process>,
    ca_config: PathBuf,
    clock: Option<PathBuf>,
    ca_clock: Option<PathBuf>,
    dir: tempfile::TempDir,
    // Given up last, when every process has ended.
    _turn: Turn,
}

/// What a mesh is started with.
#[derive(Default)]
pub(crate) struct Setup<'a> {
    pub(crate) hosts: &'a [&'a str],
    /// Lines for `ca.yaml`.
    pub(crate) ca: &'a str,
    /// Lines for every `proxy.yaml`.
    pub(crate) extra: &'a str,
    /// Settings of every proxy's ledger beside its folder: `, max_bytes: 4MiB`.
    pub(crate) ledger: &'a str,
    /// No other mesh runs meanwhile: something is measured.
    pub(crate) alone: bool,
    /// Follow a test's clock at this socket.
    pub(crate) clock: Option<PathBuf>,
    /// The CA's clock, where it is another.
    pub(crate) ca_clock: Option<PathBuf>,
}

impl Mesh {
    /// Starts the CA and the proxies of `setup`, joined; no mesh file is live yet.
    pub(crate) fn start(setup: &Setup<'_>) -> Self {
        let turn = Turn::take(setup.alone);
        let dir = tempfile::Builder::new().prefix("bm").tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let (node, dash) = (free_port(), free_port());
        let me = nix::unistd::geteuid();
        let ca_config = dir.path().join("ca.yaml");
        let d = dir.path().display();
        fs::write(
            &ca_config,
            format!(
                "trust_domain: acme.internal\nstate_dir: {d}/ca\nnode_api: {{listen: 127.0.0.1:{node}}}\n\
                 admin: {{socket: {d}/ca.sock, operators: [{me}]}}\ndashboard: {{listen: 127.0.0.1:{dash}}}\n{}",
                setup.ca
            ),
        )
        .unwrap();
        ok(botmesh().args(["ca", "init", "--config"]).arg(&ca_config));
        let ca_clock = setup.ca_clock.clone().or_else(|| setup.clock.clone());
        let ca = spawn_server(
            &["ca", "run", "--config"],
            &ca_config,
            ca_clock.as_deref(),
            dir.path().join("ca.log"),
        );
        let mut mesh = Self {
            ca,
            hosts: BTreeMap::new(),
            bots: Vec::new(),
            ca_config,
            clock: setup.clock.clone(),
            ca_clock,
            dir,
            _turn: turn,
        };
        for host in setup.hosts {
            mesh.add_host(host, node, setup);
        }
        for host in setup.hosts {
            mesh.wait_for(host, "/livez");
        }
        mesh
    }

    fn add_host(&mut self, name: &str, node: u16, setup: &Setup<'_>) {
        let dir = self.dir.path().join(name);
        fs::create_dir(&dir).unwrap();
        let token = eventually("a join token", || {
            let out = run(botmesh().args(["host", "token", name, "--server", &self.server()]));
            out.status.success().then(|| String::from_utf8(out.stdout).unwrap())
        });
        fs::write(dir.join("token"), token).unwrap();
        let ports = Ports {
            bots: free_port(),
            mesh: free_port(),
            metrics: free_port(),
        };
        let (d, me) = (dir.display(), nix::unistd::geteuid());
        let (extra, ledger) = (setup.extra, setup.ledger);
        let config = dir.join("proxy.yaml");
        fs::write(
            &config,
            format!(
                "trust_domain: acme.internal\nhost: {name}\nuser: {PROXY_USER}\nstate_dir: {d}\nca: {{addresses: [\"127.0.0.1:{node}\"]}}\n\
                 join: {{token_file: {d}/token}}\nbots: {{listen: 127.0.0.1:{}, socket: {d}/bot.sock}}\n\
                 mesh: {{listen: 127.0.0.1:{}, advertise: \"127.0.0.1:{}\"}}\nadmin: {{socket: {d}/proxy.sock, operators: [{me}]}}\n\
                 metrics: {{listen: 127.0.0.1:{}}}\nledger: {{dir: {d}/ledger{ledger}}}\ndisclose: full\n{extra}\n",
                ports.bots, ports.mesh, ports.mesh, ports.metrics
            ),
        )
        .unwrap();
        let process = spawn_server(
            &["proxy", "run", "--config"],
            &config,
            self.clock.as_deref(),
            dir.join("proxy.log"),
        );
        self.hosts.insert(
            name.to_owned(),
            Host {
                process,
                ports,
                dir,
                config,
                lies: String::new(),
            },
        );
    }

    pub(crate) fn host(&self, name: &str) -> &Host {
        &self.hosts[name]
    }

    pub(crate) fn host_mut(&mut self, name: &str) -> &mut Host {
        self.hosts.get_mut(name).unwrap()
    }

    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The CA's admin socket, as `--server` takes it.
    pub(crate) fn server(&self) -> String {
        format!("unix:{}", self.dir.path().join("ca.sock").display())
    }

    pub(crate) fn ca_ledger(&self) -> PathBuf {
        self.dir.path().join("ca/ledger")
    }

    /// Waits for 200 at a path of a proxy's metrics listener.
    pub(crate) fn wait_for(&self, host: &str, path: &str) {
        let port = self.host(host).ports.metrics;
        eventually(&format!("{host} {path}"), || {
            http_get(port, path).filter(|(status, _)| *status == 200)
        });
    }

    /// Writes `mesh.yaml` and applies it; the caller reads the outcome.
    pub(crate) fn try_apply(&self, text: &str) -> Output {
        let file = self.dir.path().join("mesh.yaml");
        fs::write(&file, text).unwrap();
        run(botmesh().arg("apply").arg(&file).args(["--server", &self.server()]))
    }

    /// Applies a mesh file and waits until every proxy is ready with it.
    pub(crate) fn apply(&self, text: &str) {
        let out = self.try_apply(text);
        assert!(out.status.success(), "apply: {}\n{}", out.status, both(&out));
        for host in self.hosts.keys() {
            self.wait_for(host, "/readyz");
        }
    }

    pub(crate) fn mesh_file(&self) -> PathBuf {
        self.dir.path().join("mesh.yaml")
    }

    /// Starts the answering bot as a user on a port or at `unix:PATH`.
    pub(crate) fn callee(&mut self, uid: u32, at: &str) {
        self.bot(uid, include_str!("support/callee.py"), at);
    }

    /// Starts a bot in Python that says `ready`, and ends with the mesh.
    fn bot(&mut self, uid: u32, program: &str, at: &str) {
        let mut command = as_user(PYTHON, uid);
        command.args(["-c", program, at]);
        let log = self.dir.path().join(format!("callee-{}.log", self.bots.len()));
        let process = Process::spawn(command, log);
        self.bots.push(process);
        let bot = self.bots.last().unwrap();
        eventually("the callee to listen", || bot.log().contains("ready").then_some(()));
    }

    /// Starts a host's proxy again, as it was.
    pub(crate) fn restart(&mut self, host: &str) {
        let clock = self.clock.clone();
        let host = self.hosts.get_mut(host).unwrap();
        host.process.kill();
        let log = host.dir.join("proxy.log");
        let mut command = server(&["proxy", "run", "--config"], &host.config, clock.as_deref());
        command.env("BOTMESH_TEST_LIES", &host.lies);
        host.process = Process::spawn(command, log);
    }

    /// The same, and has it lie in its ledger from now on.
    pub(crate) fn restart_lying(&mut self, host: &str, lies: &str) {
        lies.clone_into(&mut self.host_mut(host).lies);
        self.restart(host);
        self.wait_for(host, "/readyz");
    }

    /// Starts the CA again, as it was.
    pub(crate) fn restart_ca(&mut self) {
        self.ca.kill();
        let log = self.dir.path().join("ca.log");
        self.ca = spawn_server(
            &["ca", "run", "--config"],
            &self.ca_config,
            self.ca_clock.as_deref(),
            log,
        );
    }
}

impl Drop for Mesh {
    fn drop(&mut self) {
        self.ca.kill();
        for host in self.hosts.values_mut() {
            host.process.kill();
        }
        if !std::thread::panicking() {
            planted::none_under(self.dir.path());
        }
    }
}

fn spawn_server(args: &[&str], config: &Path, clock: Option<&Path>, log: PathBuf) -> Process {
    Process::spawn(server(args, config, clock), log)
}

fn server(args: &[&str], config: &Path, clock: Option<&Path>) -> Command {
    let mut command = botmesh();
    command.args(args).arg(config);
    if let Some(clock) = clock {
        command.arg("--clock").arg(format!("unix:{}", clock.display()));
    }
    command
}

/// A command that runs as another user (when that is not this one).
pub(crate) fn as_user(program: &str, uid: u32) -> Command {
    let mut command = Command::new(program);
    if nix::unistd::geteuid().as_raw() != uid {
        command.uid(uid).gid(uid);
    }
    for name in ["http_proxy", "HTTP_PROXY", "https_proxy", "no_proxy", "NO_PROXY"] {
        command.env_remove(name);
    }
    command.current_dir("/");
    command
}

/// What a client received.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) status: u64,
    headers: Vec<(String, String)>,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    /// All header fields, a line each.
    pub(crate) fn head(&self) -> String {
        let lines = self.headers.iter().map(|(name, value)| format!("{name}: {value}\n"));
        lines.collect()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.body))
    }

    /// The word of a refusal.
    pub(crate) fn reason(&self) -> String {
        self.json()["reason"].as_str().unwrap_or_default().to_owned()
    }

    /// The value that the callee saw for a header.
    pub(crate) fn callee_saw(&self, name: &str) -> Vec<String> {
        let told = self.json();
        let headers = told["headers"].as_array().cloned().unwrap_or_default();
        headers
            .iter()
            .filter(|pair| pair[0] == name)
            .map(|pair| pair[1].as_str().unwrap().to_owned())
            .collect()
    }
}

/// A bot that calls: a process of a user, with one connection to its proxy that it keeps.
pub(crate) struct Caller {
    child: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
}

impl Caller {
    pub(crate) fn new(uid: u32, proxy: &str) -> Self {
        let mut command = as_user(PYTHON, uid);
        command.args(["-c", include_str!("support/client.py"), proxy]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let to = child.stdin.take().unwrap();
        let from = BufReader::new(child.stdout.take().unwrap());
        Self { child, to, from }
    }

    /// The process of the bot.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends one order of `client.py`; `Err` is a connection that ended.
    pub(crate) fn order(&mut self, order: &Value) -> Result<Answer, String> {
        writeln!(self.to, "{order}").unwrap();
        let mut line = String::new();
        self.from.read_line(&mut line).unwrap();
        let told: Value = serde_json::from_str(&line).unwrap_or_else(|e| panic!("{e}: {line:?}"));
        if let Some(error) = told["error"].as_str() {
            return Err(error.to_owned());
        }
        let headers = told["headers"].as_array().unwrap();
        Ok(Answer {
            status: told["status"].as_u64().unwrap(),
            headers: headers
                .iter()
                .map(|h| (h[0].as_str().unwrap().to_owned(), h[1].as_str().unwrap().to_owned()))
                .collect(),
            body: told["body"].as_str().unwrap().to_owned(),
        })
    }

    /// One request by Host routing.
    pub(crate) fn call(&mut self, method: &str, host: &str, path: &str) -> Answer {
        self.call_with(method, host, path, &[])
    }

    /// The same with headers of its own.
    pub(crate) fn call_with(&mut self, method: &str, host: &str, path: &str, headers: &[(&str, &str)]) -> Answer {
        let mut all = vec![json!(["Host", host]), json!(["X-Planted", planted::HEADER])];
        all.extend(headers.iter().map(|(n, v)| json!([n, v])));
        self.order(&json!({"method": method, "target": path, "headers": all}))
            .unwrap_or_else(|e| panic!("{method} {host}{path}: {e}"))
    }
}

impl Drop for Caller {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// A plain GET to a loopback port: status and body, or nothing while it does not answer.
pub(crate) fn http_get(port: u16, path: &str) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\r\n"
    )
    .ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    let status = text.split(' ').nth(1)?.parse().ok()?;
    let body = text.split_once("\r\n\r\n")?.1.to_owned();
    if path == "/metrics" {
        planted::none_in("metrics", &[body.as_bytes()]);
    }
    Some((status, body))
}
