//! Who the kernel says is calling, through the live proxy: users, executables, `exec`, inherited and passed sockets, reused ports.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::support::{Mesh, PYTHON, Setup, as_user, both, free_port, root_or_skip, run};

const USERS: [u32; 5] = [61_021, 61_022, 61_023, 61_024, 61_025];
const CALLEE: u32 = 61_030;
const CONNECTIONS: usize = 10_000;

/// One host; each user is the bot `prod/u-UID`; `prod/exact` is user 61 040 with one executable.
fn one_host() -> Mesh {
    let mut mesh = Mesh::start(&Setup {
        hosts: &["web-1"],
        ..Setup::default()
    });
    let orders = free_port();
    mesh.callee(CALLEE, &orders.to_string());
    let exe = private_curl(mesh.dir());
    let bots: String = USERS
        .iter()
        .map(|uid| format!("  prod/u-{uid}: {{owner: qa@acme.internal, hosts: [web-1], attest: {{uid: {uid}}}}}\n"))
        .collect();
    mesh.apply(&format!(
        "version: 1\ntrust_domain: acme.internal\nbots:\n{bots}\
         \x20 prod/exact: {{owner: qa@acme.internal, hosts: [web-1], attest: {{uid: 61040, exe: {exe}}}}}\n\
         \x20 prod/orders: {{owner: qa@acme.internal, hosts: [web-1], attest: {{uid: {CALLEE}}}, serve: {{http: {orders}}}}}\n\
         allow:\n  - {{id: echo, from: prod/**, to: prod/orders, http: [POST /echo, GET /echo]}}\n"
    ));
    mesh
}

/// A copy of curl that only root may write.
fn private_curl(dir: &Path) -> String {
    let exe = dir.join("exact-curl");
    std::fs::copy("/usr/bin/curl", &exe).expect("curl is installed");
    std::fs::set_permissions(&exe, std::fs::Permissions::from_mode(0o755)).expect("chmod");
    exe.display().to_string()
}

/// GET /echo by a curl as a user, over the Unix socket and over TCP: the reason of each answer, or `ok`.
fn ask(mesh: &Mesh, mut curl: impl FnMut() -> Command) -> [String; 2] {
    let host = mesh.host("web-1");
    let socket = host.bot_socket().replacen("unix:", "", 1);
    let tcp = host.bot_tcp();
    let ways = [
        vec!["--unix-socket", socket.as_str()],
        vec!["--connect-to", "::127.0.0.1:0"],
    ];
    let connect = format!("::{tcp}");
    ways.map(|mut way| {
        if let Some(to) = way.iter_mut().find(|a| a.starts_with("::")) {
            *to = connect.as_str();
        }
        let out = run(curl().args(["-sS"]).args(&way).arg("http://orders.prod.mesh/echo"));
        let text = String::from_utf8_lossy(&out.stdout).into_owned();
        let answer: Value = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {}", both(&out)));
        answer["reason"].as_str().unwrap_or("ok").to_owned()
    })
}

#[test]
fn the_right_user_with_the_right_executable_is_the_bot_and_nobody_else_is() {
    if !root_or_skip("users and executables") {
        return;
    }
    let mesh = one_host();
    let exe = mesh.dir().join("exact-curl").display().to_string();
    assert_eq!(
        ask(&mesh, || as_user(&exe, 61_040)),
        ["ok", "ok"],
        "right user, right executable"
    );
    assert_eq!(
        ask(&mesh, || as_user(&exe, 61_041)),
        ["unknown_caller"; 2],
        "wrong user, right executable"
    );
    assert_eq!(
        ask(&mesh, || as_user("curl", 61_040)),
        ["unknown_caller"; 2],
        "right user, other executable"
    );
    let copy = mesh.dir().join("same-bytes");
    std::fs::copy(&exe, &copy).expect("copied");
    let copy = copy.display().to_string();
    assert_eq!(
        ask(&mesh, || as_user(&copy, 61_040)),
        ["unknown_caller"; 2],
        "the same bytes at another path"
    );
}

#[test]
fn the_path_faked_in_a_mount_namespace_of_the_callers_own_is_not_the_path() {
    if !root_or_skip("bind mount in a user namespace") {
        return;
    }
    let mesh = one_host();
    let exe = mesh.dir().join("exact-curl").display().to_string();
    let faked = || {
        let mut command = as_user("unshare", 61_040);
        command.args(["--user", "--map-current-user", "--keep-caps", "--mount", "sh", "-c"]);
        command
            .arg(format!("mount --bind /usr/bin/curl {exe} && exec {exe} \"$@\""))
            .arg("sh");
        command
    };
    let probe = run(faked().arg("--version"));
    if !probe.status.success() {
        println!("skipped: bind mount in a user namespace: {}", both(&probe).trim());
        return;
    }
    assert_eq!(ask(&mesh, faked), ["unknown_caller"; 2]);
}

#[test]
fn the_genuine_executable_with_a_library_preloaded_by_another_user_is_not_the_bot() {
    if !root_or_skip("LD_PRELOAD") {
        return;
    }
    let mesh = one_host();
    let exe = mesh.dir().join("exact-curl").display().to_string();
    let (source, library) = (mesh.dir().join("evil.c"), mesh.dir().join("evil.so"));
    std::fs::write(
        &source,
        "#include <stdio.h>\n__attribute__((constructor)) static void f(void) { fputs(\"loaded\\n\", stderr); }\n",
    )
    .expect("written");
    let built = run(Command::new("gcc")
        .args(["-shared", "-fPIC", "-o"])
        .arg(&library)
        .arg(&source));
    assert!(built.status.success(), "{}", both(&built));
    let preloaded = || {
        let mut command = as_user(&exe, 61_041);
        command.env("LD_PRELOAD", &library);
        command
    };
    assert!(
        both(&run(preloaded().arg("--version"))).contains("loaded"),
        "the library is in the process"
    );
    assert_eq!(ask(&mesh, preloaded), ["unknown_caller"; 2]);
}

/// A Python program that opens a connection as one user and then does something with it; prints the reason of the last answer or `closed`.
fn trick(mesh: &Mesh, uid: u32, by_socket: bool, program: &str) -> String {
    let host = mesh.host("web-1");
    let at = if by_socket { host.bot_socket() } else { host.bot_tcp() };
    let mut command = as_user(PYTHON, uid);
    command.args(["-c", &format!("{}\n{program}", include_str!("support/trick.py")), &at]);
    let out = run(command.stdin(Stdio::null()));
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    text.lines()
        .last()
        .unwrap_or_else(|| panic!("{}", both(&out)))
        .to_owned()
}

#[test]
fn a_connection_ends_with_the_program_that_opened_it() {
    if !root_or_skip("exec, fork, passed sockets") {
        return;
    }
    let mesh = one_host();
    for by_socket in [true, false] {
        let way = if by_socket { "socket" } else { "tcp" };
        let stays = "s = connect(); print(ask(s)); print(ask(s))";
        assert_eq!(
            trick(&mesh, USERS[0], by_socket, stays),
            "ok",
            "{way}: an ordinary second request"
        );
        for (what, program) in [
            ("exec of another file", "s = connect(); print(ask(s)); exec_other(s)"),
            ("exec of the same file", "s = connect(); print(ask(s)); exec_same(s)"),
            (
                "fork and exit, the child keeps the socket",
                "s = connect(); print(ask(s)); fork_and_exit(s)",
            ),
        ] {
            let last = trick(&mesh, USERS[0], by_socket, program);
            assert!(last == "unknown_caller" || last == "closed", "{way}: {what}: {last}");
        }
    }
}

#[test]
fn a_socket_handed_to_another_bots_process_speaks_for_nobody() {
    if !root_or_skip("a passed socket") {
        return;
    }
    let mesh = one_host();
    // Root starts both halves: one process of each user, joined by a socket that carries the connection across.
    for by_socket in [true, false] {
        let program = format!("hand_over({}, {}, True)", USERS[0], USERS[1]);
        let last = trick(&mesh, 0, by_socket, &program);
        assert!(
            last == "unknown_caller" || last == "closed",
            "by_socket {by_socket}: {last}"
        );
    }
}

#[test]
fn ten_thousand_connections_of_five_users_on_shared_ports_are_never_misattributed() {
    if !root_or_skip("ten thousand connections") {
        return;
    }
    let mesh = one_host();
    let port = mesh.host("web-1").ports.bots.to_string();
    let each = (CONNECTIONS / USERS.len()).to_string();
    let children: Vec<_> = USERS
        .iter()
        .map(|uid| {
            let mut command = as_user(PYTHON, *uid);
            command.args([
                "-c",
                include_str!("support/flood.py"),
                &port,
                &each,
                "21000",
                "400",
                &format!("prod/u-{uid}"),
            ]);
            command
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .expect("python3 starts")
        })
        .collect();
    let mut answered = 0;
    for child in children {
        let out = child.wait_with_output().expect("python3 ends");
        let told: Value = serde_json::from_slice(&out.stdout).unwrap_or_else(|e| panic!("{e}: {}", both(&out)));
        println!("{told}");
        assert_eq!(
            (&told["other"], &told["refused"]),
            (&Value::from(0), &Value::from(0)),
            "{}",
            both(&out)
        );
        answered += told["answered"].as_u64().expect("a count");
    }
    assert_eq!(answered, CONNECTIONS as u64);
}

/// Which bot the proxy takes a process for, over the Unix socket and over TCP; `nobody` where it is none.
fn who(mesh: &Mesh, mut curl: impl FnMut() -> Command) -> [String; 2] {
    let host = mesh.host("web-1");
    let socket = host.bot_socket().replacen("unix:", "", 1);
    let tcp = format!("::{}", host.bot_tcp());
    let ways = [["--unix-socket", socket.as_str()], ["--connect-to", tcp.as_str()]];
    ways.map(|way| {
        let out = run(curl().arg("-sS").args(way).arg("http://botmesh.mesh/whoami"));
        let answer: Value = serde_json::from_slice(&out.stdout).unwrap_or_else(|e| panic!("{e}: {}", both(&out)));
        answer["bot"].as_str().unwrap_or("nobody").to_owned()
    })
}

/// A curl of a user in a group and in supplementary groups.
fn in_groups(uid: u32, gid: u32, groups: &str) -> Command {
    let mut command = as_user("setpriv", 0);
    command.args([
        format!("--reuid={uid}"),
        format!("--regid={gid}"),
        format!("--groups={groups}"),
    ]);
    command.arg("curl");
    command
}

/// A curl of a user in a cgroup.
fn in_cgroup(uid: u32, cgroup: &Path) -> Command {
    let mut command = as_user("sh", 0);
    command.args([
        "-c",
        "echo $$ > \"$0\" && u=$1 && shift && exec setpriv --reuid=\"$u\" --clear-groups curl \"$@\"",
    ]);
    command.arg(cgroup.join("cgroup.procs")).arg(uid.to_string());
    command
}

/// A mesh of one host, with nothing applied.
fn bare_host() -> Mesh {
    Mesh::start(&Setup {
        hosts: &["web-1"],
        ..Setup::default()
    })
}

/// A mesh file with these bots of `prod/`, each with what attests it, on web-1.
fn bots(bots: &[(&str, &str)]) -> String {
    let lines = bots.iter().map(|(name, attest)| {
        format!("  prod/{name}: {{owner: qa@acme.internal, hosts: [web-1], attest: {{{attest}}}}}\n")
    });
    format!(
        "version: 1\ntrust_domain: acme.internal\nbots:\n{}",
        lines.collect::<String>()
    )
}

#[test]
fn groups_alone_tell_bots_of_one_user_apart_through_the_live_proxy() {
    if !root_or_skip("groups") {
        return;
    }
    let mesh = bare_host();
    mesh.apply(&bots(&[
        ("audio", "uid: 61051, group: audio"),
        ("video", "uid: 61051, group: video"),
        ("one", "uid: 61052, gid: 61101"),
        ("two", "uid: 61052, gid: 61102"),
    ]));
    let of = |name: &str| {
        nix::unistd::Group::from_name(name)
            .expect("asked")
            .expect("there")
            .gid
            .to_string()
    };
    assert_eq!(
        who(&mesh, || in_groups(61_051, 61_051, &of("audio"))),
        ["prod/audio"; 2]
    );
    assert_eq!(
        who(&mesh, || in_groups(61_051, 61_051, &of("video"))),
        ["prod/video"; 2]
    );
    assert_eq!(who(&mesh, || in_groups(61_051, 61_051, "5")), ["nobody"; 2]);
    assert_eq!(who(&mesh, || in_groups(61_052, 61_101, "5")), ["prod/one"; 2]);
    assert_eq!(who(&mesh, || in_groups(61_052, 61_052, "5,61102")), ["prod/two"; 2]);
    assert_eq!(
        who(&mesh, || in_groups(61_052, 61_101, "61102")),
        ["nobody"; 2],
        "both at once is neither"
    );
}

/// Cgroups of version 2 below the root, removed in the end; and where the root is.
struct Cgroups(Vec<std::path::PathBuf>, std::path::PathBuf);

impl Cgroups {
    /// `None` where there is no writable tree of version 2.
    fn make(paths: &[String]) -> Option<Self> {
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").expect("mounts");
        let line = mounts.lines().find(|line| line.contains(" - cgroup2 "))?;
        let root = Path::new(line.split(' ').nth(4)?);
        let mut made = Self(Vec::new(), root.to_owned());
        for path in paths {
            let at = root.join(path.trim_start_matches('/'));
            std::fs::create_dir_all(&at).ok()?;
            made.0.push(at);
        }
        Some(made)
    }

    fn at(&self, path: &str) -> std::path::PathBuf {
        self.1.join(path.trim_start_matches('/'))
    }

    /// The path as a process sees it.
    fn shown(&self, place: &Path) -> String {
        format!("/{}", place.strip_prefix(&self.1).expect("below the root").display())
    }
}

impl Drop for Cgroups {
    fn drop(&mut self) {
        for path in self.0.iter().rev() {
            let _in_use = std::fs::remove_dir(path);
            // Only folders of this test's own: others make theirs in the slices at the same time.
            let above = path.ancestors().skip(1);
            let own = |folder: &&Path| folder.to_string_lossy().contains("botmesh-live");
            above.take_while(own).for_each(|folder| {
                let _in_use = std::fs::remove_dir(folder);
            });
        }
    }
}

#[test]
fn units_and_cgroups_alone_tell_bots_of_one_user_apart_through_the_live_proxy() {
    if !root_or_skip("cgroups") {
        return;
    }
    let mark = format!("botmesh-live-{}", std::process::id());
    let places = [
        format!("/system.slice/{mark}-a.service"),
        format!("/system.slice/{mark}-b.service"),
        format!("/{mark}-c"),
        format!("/{mark}-d"),
        format!("/user.slice/{mark}-a.service"),
        // In what a user was given of the tree, which it makes folders in as it likes.
        format!("/user.slice/{mark}-user@61053.service/{mark}-a.service"),
        format!("/system.slice/{mark}-user@61053.service/{mark}-a.service"),
        // Where engines put containers, under an id that looks like theirs.
        format!("/{mark}-docker/{}/{mark}-a.service", "ab".repeat(32)),
        format!("/system.slice/{mark}-docker-{}.scope/{mark}-a.service", "ab".repeat(32)),
    ];
    let Some(cgroups) = Cgroups::make(&places) else {
        println!("skipped: no writable cgroups of version 2 here");
        return;
    };
    for given in ["/user.slice", "/system.slice"].map(|slice| format!("{slice}/{mark}-user@61053.service")) {
        let given = cgroups.at(&given);
        nix::unistd::chown(&given, Some(61_053.into()), Some(61_053.into())).expect("chown");
    }
    let mesh = bare_host();
    mesh.apply(&bots(&[
        ("a", &format!("unit: {mark}-a.service")),
        ("b", &format!("unit: {mark}-b.service")),
        ("c", &format!("uid: 61053, cgroup: /{mark}-c")),
        ("d", &format!("uid: 61053, cgroup: /{mark}-d")),
    ]));
    let names = ["prod/a", "prod/b", "prod/c", "prod/d"];
    let names = names.into_iter().chain(std::iter::repeat("nobody"));
    for (place, name) in cgroups.0.iter().zip(names) {
        assert_eq!(
            who(&mesh, || in_cgroup(61_053, place)),
            [name; 2],
            "{}",
            place.display()
        );
        let shown = cgroups
            .shown(place)
            .replace(&format!("{mark}-"), "")
            .replace(&"ab".repeat(32), "abab...");
        println!("{name:8} {shown}");
    }
    assert_eq!(
        who(&mesh, || as_user("curl", 61_053)),
        ["nobody"; 2],
        "in no cgroup of its own"
    );
}

/// The bot that a curl is over one bot's own socket; `closed` where it may not or cannot connect.
fn over(socket: &Path, uid: u32) -> String {
    let out = run(as_user("curl", uid)
        .args(["-sS", "--unix-socket"])
        .arg(socket)
        .arg("http://botmesh.mesh/whoami"));
    serde_json::from_slice::<Value>(&out.stdout).map_or_else(
        |_| "closed".to_owned(),
        |me| me["bot"].as_str().unwrap_or("nobody").to_owned(),
    )
}

#[test]
fn the_socket_of_its_own_alone_tells_two_bots_of_one_user_apart() {
    use std::os::unix::fs::MetadataExt as _;
    if !root_or_skip("sockets of their own") {
        return;
    }
    const UID: u32 = 61_060;
    let mesh = bare_host();
    let attest = format!("uid: {UID}, socket: true");
    let with = |names: &[&'static str]| bots(&names.iter().map(|name| (*name, attest.as_str())).collect::<Vec<_>>());
    let shared = mesh.host("web-1").bot_socket().replacen("unix:", "", 1);
    let folder = Path::new(&shared).with_file_name("bots");
    let (one, two) = (folder.join("prod.one.sock"), folder.join("prod.two.sock"));
    let wait = |what: &str, holds: &dyn Fn() -> bool| crate::support::eventually(what, || holds().then_some(()));
    mesh.apply(&with(&["one", "two"]));
    wait("both sockets", &|| one.exists() && two.exists());
    for (path, name) in [(&one, "prod/one"), (&two, "prod/two")] {
        let meta = std::fs::symlink_metadata(path).expect("there");
        // The proxy's own, with an access control list for the one user: the group's bits stand for its mask.
        assert_eq!((meta.uid(), meta.mode() & 0o777), (crate::support::PROXY_USER, 0o660));
        assert_eq!(over(path, UID), name);
        assert_eq!(over(path, 61_061), "closed", "another user cannot connect");
        assert_eq!(over(path, 0), "nobody", "root can, and is not the bot");
    }
    let meta = std::fs::metadata(&folder).expect("there");
    assert_eq!((meta.uid(), meta.mode() & 0o777), (crate::support::PROXY_USER, 0o755));
    assert_eq!(
        who(&mesh, || as_user("curl", UID)),
        ["nobody"; 2],
        "over the ways of all it is neither"
    );
    mesh.apply(&with(&["one"]));
    wait("the second to vanish", &|| !two.exists());
    assert_eq!(
        (over(&one, UID).as_str(), over(&two, UID).as_str()),
        ("prod/one", "closed")
    );
}

#[test]
fn callers_over_ipv6_and_ipv4_written_as_ipv6_are_the_bots_that_they_are() {
    if !root_or_skip("two users over IPv6") {
        return;
    }
    let six = free_port();
    let mesh = Mesh::start(&Setup {
        hosts: &["web-1"],
        extra: &format!("listeners: [{{listen: \"[::1]:{six}\", to: prod/a}}]"),
        ..Setup::default()
    });
    mesh.apply(
        "version: 1\ntrust_domain: acme.internal\nbots:\n\
         \x20 prod/a: {owner: qa@acme.internal, hosts: [web-1], attest: {uid: 61071}}\n\
         \x20 prod/b: {owner: qa@acme.internal, hosts: [web-1], attest: {uid: 61072}}\n",
    );
    let mapped = mesh.host("web-1").bot_tcp().replace("127.0.0.1", "[::ffff:127.0.0.1]");
    for to in [format!("[::1]:{six}"), mapped] {
        for (uid, name) in [(61_071, "prod/a"), (61_072, "prod/b"), (61_073, "nobody")] {
            let mut curl = as_user("curl", uid);
            let out = run(curl.args(["-sS", "--connect-to", &format!("::{to}"), "http://botmesh.mesh/whoami"]));
            let me: Value = serde_json::from_slice(&out.stdout).unwrap_or_else(|e| panic!("{e}: {}", both(&out)));
            assert_eq!(me["bot"].as_str().unwrap_or("nobody"), name, "{to}");
        }
    }
}
