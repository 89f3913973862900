//! What the processes of a proxy that root started may still do, by the kernel's own word.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::process::Command;

use crate::spine::{CHECKOUT, two_hosts};
use crate::support::{Caller, Mesh, PROXY_USER, Setup, both, botmesh, eventually, ok, root_or_skip, run};

/// CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH (capabilities(7)).
const HELPERS: &str = "0000000000080004";
const NONE: &str = "0000000000000000";

/// One thread's status, by key.
fn status(path: &str) -> Option<BTreeMap<String, String>> {
    let text = fs::read_to_string(path).ok()?;
    let pairs = text.lines().filter_map(|line| line.split_once(':'));
    Some(
        pairs
            .map(|(key, value)| (key.to_owned(), value.trim().to_owned()))
            .collect(),
    )
}

/// Checks every thread of a process: user, no groups, these capabilities, no new ones, and that it is closed to its user.
fn check(pid: u32, kept: &str) -> usize {
    let mut threads = 0;
    for task in fs::read_dir(format!("/proc/{pid}/task")).expect("the process lives") {
        let path = task.expect("a thread").path().join("status");
        let Some(status) = status(&path.display().to_string()) else {
            continue;
        };
        let ids = [PROXY_USER; 4].map(|id| id.to_string()).join("\t");
        for (key, wanted) in [
            ("Uid", ids.as_str()),
            ("Gid", ids.as_str()),
            ("Groups", ""),
            ("CapInh", NONE),
            ("CapPrm", kept),
            ("CapEff", kept),
            ("CapBnd", kept),
            ("CapAmb", NONE),
            ("NoNewPrivs", "1"),
        ] {
            assert_eq!(status[key], wanted, "{}: {key}", path.display());
        }
        threads += 1;
    }
    // The files of a process that must not be dumped are root's, although the process is not (proc(5)).
    let mem = fs::metadata(format!("/proc/{pid}/mem")).expect("the process lives");
    assert_eq!(mem.uid(), 0, "pid {pid} is dumpable");
    threads
}

/// The helper of a proxy: its only child.
fn helper_of(pid: u32) -> u32 {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).expect("the process lives");
    let mut children = children.split_whitespace();
    let (child, none) = (children.next(), children.next());
    assert!(none.is_none(), "one child");
    child.expect("a child").parse().expect("a number")
}

#[test]
fn a_proxy_that_root_started_has_no_rights_and_its_helper_two() {
    if !root_or_skip("users and capabilities") {
        return;
    }
    let mesh = two_hosts("");
    let host = mesh.host("web-1");
    let proxy = host.process.child.id();
    // A call first, so that every thread that calls need is there.
    let mut caller = Caller::new(CHECKOUT, &host.bot_socket());
    assert_eq!(caller.call("GET", "orders.prod.mesh", "/orders/1").status, 200);
    let mut caller = Caller::new(CHECKOUT, &host.bot_tcp());
    assert_eq!(caller.call("GET", "orders.prod.mesh", "/orders/1").status, 200);
    let threads = check(proxy, NONE);
    assert!(threads > 2, "{threads}");
    let helper = helper_of(proxy);
    let helpers = check(helper, HELPERS);
    println!("proxy: uid {PROXY_USER}, {threads} threads, no capability; helper: {helpers} threads, {HELPERS}");

    // The helper opened no socket of its own, and was left none of the proxy's: each is one of a pair.
    let unix = fs::read_to_string(format!("/proc/{helper}/net/unix")).expect("the helper lives");
    for file in fs::read_dir(format!("/proc/{helper}/fd")).expect("root may look") {
        let link = fs::read_link(file.expect("a file").path()).unwrap_or_default();
        let link = link.display().to_string();
        if let Some(inode) = link.strip_prefix("socket:[").and_then(|rest| rest.strip_suffix(']')) {
            let tcp = fs::read_to_string(format!("/proc/{proxy}/net/tcp")).expect("the proxy lives");
            assert!(!tcp.contains(inode), "a TCP socket: {link}");
            let bound = unix.lines().any(|line| line.contains(inode) && line.contains('/'));
            assert!(!bound, "a bound socket: {link}");
        }
    }

    // Neither may be traced or killed by a bot; nor may the proxy's user trace what is not dumpable.
    for pid in [proxy, helper] {
        let as_proxy = |program: &str| {
            let mut command = Command::new("setpriv");
            command.args([
                format!("--reuid={PROXY_USER}"),
                format!("--regid={PROXY_USER}"),
                "--clear-groups".to_owned(),
            ]);
            run(command.args(["sh", "-c", program]))
        };
        let out = as_proxy(&format!("cat /proc/{pid}/maps /proc/{pid}/environ"));
        assert!(!out.status.success(), "{}", both(&out));
        assert!(both(&out).contains("Permission denied"), "{}", both(&out));
    }
}

#[test]
fn the_proxy_ends_with_its_helper_and_the_helper_with_its_proxy() {
    if !root_or_skip("users and capabilities") {
        return;
    }
    let mut mesh = two_hosts("");
    let helper = helper_of(mesh.host("web-1").process.child.id());
    let gone = |pid: u32| {
        move || {
            status(&format!("/proc/{pid}/status"))
                .is_none_or(|s| s["State"].starts_with('Z'))
                .then_some(())
        }
    };
    mesh.host_mut("web-1").process.kill();
    eventually("the helper to end", gone(helper));

    let host = mesh.host_mut("web-2");
    let helper = helper_of(host.process.child.id());
    let raw = |pid: u32| nix::unistd::Pid::from_raw(i32::try_from(pid).expect("a pid"));
    // Asked to end, it stays: while the proxy finishes its calls it needs answers.
    nix::sys::signal::kill(raw(helper), nix::sys::signal::Signal::SIGTERM).expect("it lives");
    nix::sys::signal::kill(raw(helper), nix::sys::signal::Signal::SIGKILL).expect("it lives still");
    let ended = host.process.child.wait().expect("it ends");
    assert_eq!(ended.code(), Some(1));
    assert!(
        host.process.log().contains("the attest helper has ended"),
        "{}",
        host.process.log()
    );
}

#[test]
fn a_state_folder_that_root_left_is_taken_whole_and_anybody_elses_is_refused() {
    if !root_or_skip("users and capabilities") {
        return;
    }
    let mut mesh = two_hosts("");
    let dir = mesh.host("web-1").dir.clone();
    for path in [dir.clone(), dir.join("ledger"), dir.join("node.json")] {
        assert_eq!(
            fs::metadata(&path).expect("there").uid(),
            PROXY_USER,
            "{}",
            path.display()
        );
    }
    eventually("the SVIDs on disk", || {
        dir.join("svids/svids.json").exists().then_some(())
    });
    // As a proxy of an earlier version would have left it.
    mesh.host_mut("web-1").process.kill();
    ok(Command::new("chown").args(["-R", "0:0"]).arg(&dir));
    let secret = mesh.dir().join("secret");
    fs::write(&secret, "root's").expect("written");
    std::os::unix::fs::symlink(&secret, dir.join("link")).expect("a link");
    mesh.restart("web-1");
    mesh.wait_for("web-1", "/readyz");
    for path in [
        dir.clone(),
        dir.join("ledger"),
        dir.join("node.json"),
        dir.join("svids/svids.json"),
    ] {
        assert_eq!(
            fs::metadata(&path).expect("there").uid(),
            PROXY_USER,
            "{}",
            path.display()
        );
    }
    assert_eq!(fs::metadata(&secret).expect("there").uid(), 0, "a link is not followed");

    mesh.host_mut("web-1").process.kill();
    ok(Command::new("chown").arg("61901").arg(&dir));
    mesh.restart("web-1");
    let host = mesh.host_mut("web-1");
    assert!(!host.process.child.wait().expect("it ends").success());
    assert!(
        host.process.log().contains("belongs to uid 61901"),
        "{}",
        host.process.log()
    );
}

#[test]
fn a_user_that_is_missing_is_named_and_root_is_a_choice_that_is_said_aloud() {
    if !root_or_skip("users and capabilities") {
        return;
    }
    let dir = tempfile::tempdir().expect("a folder");
    let config = dir.path().join("proxy.yaml");
    let d = dir.path().display();
    let write = |user: &str| {
        let text = format!(
            "trust_domain: acme.internal\nhost: web-1\n{user}state_dir: {d}\nca: {{addresses: [\"127.0.0.1:1\"]}}\n\
             join: {{token_file: {d}/token}}\nbots: {{listen: 127.0.0.1:0, socket: {d}/bot.sock}}\n\
             mesh: {{listen: 127.0.0.1:0}}\nadmin: {{socket: {d}/proxy.sock}}\nmetrics: {{listen: 127.0.0.1:0}}\n"
        );
        fs::write(&config, text).expect("written");
    };
    let start = || run(botmesh().args(["proxy", "run", "--config"]).arg(&config));
    write("user: no-such-user\n");
    let out = start();
    assert_eq!(out.status.code(), Some(3), "{}", both(&out));
    assert!(both(&out).contains("no user no-such-user"), "{}", both(&out));
    assert!(!dir.path().join("bot.sock").exists(), "nothing was bound");
    // It ends because there is no token; what counts is what it says before.
    write("user: root\n");
    let out = start();
    assert!(
        both(&out).contains("user: root: the part of this proxy"),
        "{}",
        both(&out)
    );
    write(&format!("user: {PROXY_USER}\n"));
    fs::set_permissions(dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("chmod");
    let out = start();
    assert!(!both(&out).contains("user: root"), "{}", both(&out));
    assert!(both(&out).contains("there is no join token"), "{}", both(&out));
}

#[test]
fn a_server_closes_itself_to_other_processes_of_its_user() {
    if !root_or_skip("users and capabilities") {
        return;
    }
    let mesh = Mesh::start(&Setup {
        hosts: &["web-1"],
        ..Setup::default()
    });
    let ca = mesh.ca.child.id();
    let told = status(&format!("/proc/{ca}/status")).expect("it lives");
    assert_eq!(told["NoNewPrivs"], "1");
    assert!(mesh.ca.log().contains("the CA runs as root"), "{}", mesh.ca.log());
    // Root's own: what is dumpable and root's looks the same, so a user of its own is asked.
    let dir = tempfile::tempdir().expect("a folder");
    fs::set_permissions(dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o777)).expect("chmod");
    let d = dir.path().display();
    let config = dir.path().join("ca.yaml");
    fs::write(
        &config,
        format!(
            "trust_domain: acme.internal\nstate_dir: {d}/ca\nnode_api: {{listen: 127.0.0.1:0}}\n\
             admin: {{socket: {d}/ca.sock}}\ndashboard: {{listen: 127.0.0.1:0}}\n"
        ),
    )
    .expect("written");
    let program = env!("CARGO_BIN_EXE_botmesh");
    let user = |words: &[&str]| {
        let mut command = Command::new("setpriv");
        command.args(["--reuid=61901", "--regid=61901", "--clear-groups", program]);
        command.args(words).arg(&config);
        command
    };
    ok(&mut user(&["ca", "init", "--config"]));
    let ca = crate::support::Process::spawn(user(&["ca", "run", "--config"]), dir.path().join("log"));
    eventually("the CA to serve", || dir.path().join("ca.sock").exists().then_some(()));
    let pid = ca.child.id();
    let told = status(&format!("/proc/{pid}/status")).expect("it lives");
    for (key, wanted) in [
        ("CapPrm", NONE),
        ("CapEff", NONE),
        ("CapAmb", NONE),
        ("NoNewPrivs", "1"),
    ] {
        assert_eq!(told[key], wanted, "{key}");
    }
    let mem = fs::metadata(format!("/proc/{pid}/mem")).expect("it lives");
    assert_eq!(mem.uid(), 0, "the CA is dumpable");
}
