//! Unmodified clients, as other users, through `botmesh up`: no library, no key, no token.

use std::process::Command;

use serde_json::Value;

use crate::spine::{CHECKOUT, ORDERS};
use crate::support::{PYTHON, Process, as_user, both, botmesh, eventually, free_port, http_get, ok, root_or_skip, run};

/// One VM under `botmesh up`: a caller and a callee of different users.
pub(crate) struct Vm {
    up: Process,
    _callee: Process,
    dir: tempfile::TempDir,
    pub(crate) socket: String,
    pub(crate) tcp: u16,
    pub(crate) listener: u16,
}

impl Vm {
    pub(crate) fn start() -> Self {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::Builder::new().prefix("bm").tempdir().expect("a folder");
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).expect("chmod");
        let orders = free_port();
        let mesh = dir.path().join("mesh.yaml");
        std::fs::write(
            &mesh,
            format!(
                "version: 1\ntrust_domain: acme.internal\nbots:\n\
                 \x20 prod/checkout: {{owner: shop@acme.internal, hosts: [vm-1], attest: {{uid: {CHECKOUT}}}}}\n\
                 \x20 prod/orders: {{owner: shop@acme.internal, hosts: [vm-1], attest: {{uid: {ORDERS}}}, serve: {{http: {orders}}}}}\n\
                 allow:\n  - {{id: reads, from: prod/checkout, to: prod/orders, http: [GET /orders/*]}}\n"
            ),
        )
        .expect("mesh.yaml");
        let (tcp, listener, metrics) = (free_port(), free_port(), free_port());
        let state = dir.path().join("state");
        std::fs::create_dir(&state).expect("state");
        std::fs::set_permissions(&state, std::fs::Permissions::from_mode(0o755)).expect("chmod");
        let s = state.display();
        // `up` keeps a configuration that is there already: here with ports of the test's own and a listener.
        std::fs::write(
            state.join("proxy.yaml"),
            format!(
                "trust_domain: acme.internal\nhost: vm-1\nuser: root\nstate_dir: {s}/proxy\nca: {{addresses: [\"127.0.0.1:{node}\"]}}\n\
                 join: {{token_file: {s}/join-token}}\nbots: {{listen: 127.0.0.1:{tcp}, socket: {s}/bot.sock}}\n\
                 listeners: [{{listen: \"127.0.0.1:{listener}\", to: prod/orders}}]\nmesh: {{listen: 127.0.0.1:{}}}\n\
                 admin: {{socket: {s}/proxy.sock, operators: [root]}}\nmetrics: {{listen: 127.0.0.1:{metrics}}}\n\
                 ledger: {{dir: {s}/proxy/ledger}}\n",
                free_port(),
                node = {
                    let node = free_port();
                    std::fs::write(
                        state.join("ca.yaml"),
                        format!(
                            "trust_domain: acme.internal\nstate_dir: {s}/ca\nnode_api: {{listen: 127.0.0.1:{node}}}\n\
                             admin: {{socket: {s}/ca.sock, operators: [root]}}\ndashboard: {{listen: 127.0.0.1:{}}}\n",
                            free_port()
                        ),
                    )
                    .expect("ca.yaml");
                    node
                },
            ),
        )
        .expect("proxy.yaml");
        let mut command = botmesh();
        command
            .args(["up", "--host", "vm-1", "--mesh"])
            .arg(&mesh)
            .arg("--dir")
            .arg(&state);
        let up = Process::spawn(command, dir.path().join("up.log"));
        let mut callee = as_user(PYTHON, ORDERS);
        callee.args(["-c", include_str!("support/callee.py"), &orders.to_string()]);
        let callee = Process::spawn(callee, dir.path().join("callee.log"));
        eventually("the callee to listen", || callee.log().contains("ready").then_some(()));
        eventually("up to be ready", || {
            http_get(metrics, "/readyz").filter(|(status, _)| *status == 200)
        });
        let socket = state.join("bot.sock").display().to_string();
        Self {
            up,
            _callee: callee,
            dir,
            socket,
            tcp,
            listener,
        }
    }

    /// What a client printed: status, then body.
    pub(crate) fn client(&self, command: &mut Command) -> (u16, String) {
        let out = run(command.current_dir(self.dir.path()));
        let text = both(&out);
        let (status, body) = text
            .split_once('\n')
            .unwrap_or_else(|| panic!("{command:?}: {text}\n{}", self.up.log()));
        (
            status.parse().unwrap_or_else(|e| panic!("{e}: {text}")),
            body.to_owned(),
        )
    }

    pub(crate) fn curl(&self, args: &[&str], url: &str) -> (u16, String) {
        let mut command = as_user("curl", CHECKOUT);
        command
            .args(["-sS", "-w", "%{stderr}%{http_code}\n", "-o", "-"])
            .args(args)
            .arg(url);
        let out = run(&mut command);
        let status = String::from_utf8_lossy(&out.stderr);
        let status = status
            .lines()
            .last()
            .and_then(|l| l.parse().ok())
            .unwrap_or_else(|| panic!("{}", both(&out)));
        (status, String::from_utf8_lossy(&out.stdout).into_owned())
    }
}

pub(crate) fn assert_refused(way: &str, (status, body): &(u16, String)) {
    assert_eq!(*status, 403, "{way}: {body}");
    let problem: Value = serde_json::from_str(body).unwrap_or_else(|e| panic!("{way}: {e}: {body}"));
    assert_eq!(problem["reason"], "no_rule", "{way}: {body}");
    assert_eq!(problem["nearest"]["rule"], "reads", "{way}: {body}");
}

#[test]
fn curl_requests_and_node_call_without_key_token_or_library() {
    if !root_or_skip("unmodified clients of other users") {
        return;
    }
    let vm = Vm::start();
    let proxy = format!("http://127.0.0.1:{}", vm.tcp);
    let base = format!("http://127.0.0.1:{}", vm.listener);

    let by_proxy = ["-x", proxy.as_str()];
    let by_socket = ["--unix-socket", vm.socket.as_str()];
    for (way, args, root) in [
        ("curl by http_proxy", &by_proxy[..], "http://orders.prod.mesh"),
        ("curl by socket", &by_socket[..], "http://orders.prod.mesh"),
        ("curl by listener", &[][..], base.as_str()),
    ] {
        let (status, body) = vm.curl(args, &format!("{root}/orders/17"));
        assert_eq!(status, 200, "{way}: {body}");
        assert_refused(way, &vm.curl(args, &format!("{root}/refunds/1")));
    }

    let python = "import requests,sys\nr=requests.get(sys.argv[1])\nprint(r.status_code)\nprint(r.text)";
    let requests = |path: &str| {
        let mut command = as_user(PYTHON, CHECKOUT);
        command
            .env("http_proxy", &proxy)
            .args(["-c", python, &format!("http://orders.prod.mesh{path}")]);
        vm.client(&mut command)
    };
    assert_eq!(requests("/orders/17").0, 200);
    assert_refused("requests", &requests("/refunds/1"));

    if run(Command::new("node").arg("--version")).status.success() {
        let script = "fetch(process.argv[1]).then(async r => { console.log(r.status); console.log(await r.text()) })";
        let fetch = |path: &str| {
            let mut command = as_user("node", CHECKOUT);
            command.args(["-e", script, &format!("{base}{path}")]);
            vm.client(&mut command)
        };
        assert_eq!(fetch("/orders/17").0, 200);
        assert_refused("node fetch", &fetch("/refunds/1"));
    } else {
        println!("skipped: node fetch: node is not installed");
    }
}

#[test]
fn up_applies_the_mesh_file_again_when_it_changes_and_keeps_the_old_one_when_it_is_wrong() {
    if !root_or_skip("up re-applies") {
        return;
    }
    let vm = Vm::start();
    let listener = format!("http://127.0.0.1:{}", vm.listener);
    let call = |path: &str| vm.curl(&[], &format!("{listener}{path}")).0;
    assert_eq!((call("/orders/17"), call("/refunds/1")), (200, 403));
    let file = vm.dir.path().join("mesh.yaml");
    let good = std::fs::read_to_string(&file).expect("mesh.yaml");

    std::fs::write(&file, good.replace("[GET /orders/*]", "[GET /refunds/*]")).expect("written");
    eventually("the new rule", || (call("/refunds/1") == 200).then_some(()));
    assert_eq!(call("/orders/17"), 403);

    std::fs::write(&file, good.replace("from: prod/checkout", "from: prod/chekout")).expect("written");
    eventually("the rejection to be told", || {
        vm.up.log().contains("did you mean").then_some(())
    });
    assert_eq!(call("/refunds/1"), 200, "the running revision stays");
}

#[test]
fn whoami_tells_a_bot_its_name_and_a_stranger_what_was_missing() {
    if !root_or_skip("whoami") {
        return;
    }
    let vm = Vm::start();
    let (status, body) = vm.curl(&["--unix-socket", &vm.socket], "http://botmesh.mesh/whoami");
    assert_eq!(status, 200, "{body}");
    assert!(body.contains("spiffe://acme.internal/prod/checkout"), "{body}");
    let out = run(as_user("curl", 61_050).args(["-sS", "--unix-socket", &vm.socket, "http://botmesh.mesh/whoami"]));
    assert!(both(&out).contains("61050"), "{}", both(&out));
    assert!(both(&out).contains("unknown_caller"), "{}", both(&out));
}

#[test]
fn agents_md_is_twenty_lines_that_tell_an_agent_how_to_call() {
    let text = ok(botmesh().arg("agents-md"));
    assert_eq!(text.lines().count(), 20, "{text}");
    assert!(text.contains("http_proxy") && text.contains(".mesh"), "{text}");
}
