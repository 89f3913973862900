//! Bots of one user that their cgroups tell apart, on a tree of cgroups of version 2 made by hand.
//!
//! There is no systemd here: the folders are the ones that it would make.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};

use spiffe::selector::SelectorSet;

use crate::world::{Actor, World, bot, by_uid, entry, orders_uid, refused, skip_without_root};

/// Folders of this test below the root of cgroups, removed in the end.
struct Tree {
    root: PathBuf,
    made: Vec<PathBuf>,
    /// What makes names of this run unlike those of another one on the same host.
    mark: String,
}

impl Tree {
    /// `None` where cgroups of version 2 are not mounted or not writable.
    fn new(test: &str) -> Option<Self> {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let root = mounts.lines().find(|line| line.contains(" - cgroup2 "));
        let root = root.map(|line| PathBuf::from(line.split(' ').nth(4).unwrap()));
        let mark = format!("botmesh-{test}-{}", std::process::id());
        let mut tree = Self {
            root: root?,
            made: Vec::new(),
            mark,
        };
        let probe = format!("/{}-probe", tree.mark);
        if tree.try_make(&probe).is_err() {
            println!("skipped: no writable cgroups of version 2 here");
            return None;
        }
        Some(tree)
    }

    fn try_make(&mut self, path: &str) -> std::io::Result<()> {
        let mut at = self.root.clone();
        for name in path.split('/').skip(1) {
            at.push(name);
            match fs::create_dir(&at) {
                Ok(()) => self.made.push(at.clone()),
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Makes a cgroup; returns its path below the root.
    fn make(&mut self, path: &str) -> String {
        self.try_make(path).unwrap();
        path.to_owned()
    }

    fn at(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    fn put(&self, actor: &Actor, path: &str) {
        fs::write(self.at(path).join("cgroup.procs"), actor.pid.to_string()).unwrap();
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        for path in self.made.iter().rev() {
            // One that another run made or uses meanwhile stays.
            let _in_use = fs::remove_dir(path);
        }
    }
}

fn by_unit(unit: &str) -> SelectorSet {
    SelectorSet {
        unit: Some(unit.to_owned()),
        ..SelectorSet::default()
    }
}

fn by_cgroup(cgroup: &str) -> SelectorSet {
    SelectorSet {
        cgroup: Some(cgroup.to_owned()),
        ..by_uid(orders_uid())
    }
}

#[tokio::test]
async fn the_unit_alone_tells_two_bots_of_one_user_apart() {
    if skip_without_root() {
        return;
    }
    let Some(mut tree) = Tree::new("unit") else { return };
    let (one, other) = (format!("{}-1.service", tree.mark), format!("{}@2.service", tree.mark));
    let place_of_one = tree.make(&format!("/system.slice/{one}"));
    let place_of_other = tree.make(&format!("/system.slice/system-{}.slice/{other}", tree.mark));
    let world = World::new();
    world.entries([entry("prod/one", by_unit(&one)), entry("prod/other", by_unit(&other))]);
    let (unix, tcp) = (world.unix(), world.tcp("127.0.0.1:0").await);
    for (place, unit, name) in [
        (&place_of_one, &one, "prod/one"),
        (&place_of_other, &other, "prod/other"),
    ] {
        let mut actor = world.orders();
        tree.put(&actor, place);
        let (_, caller, _stream) = unix.attest(&mut actor).await.unwrap();
        assert_eq!((&caller.bot, caller.facts.unit.as_ref()), (&bot(name), Some(unit)));
        assert_eq!(caller.facts.cgroup.as_ref(), Some(place));
        caller.recheck().unwrap();
        let (_, caller, _connection) = tcp.attest(&mut actor).await.unwrap();
        assert_eq!(caller.bot, bot(name));
        caller.recheck().unwrap();
        let report = world.attestor.whois(actor.pid).await.unwrap();
        assert!(report.entry.contains(&format!("unit: {unit}")) || report.entry.contains(&format!("unit: \"{unit}\"")));
    }
    let refusal = unix.attest(&mut world.orders()).await.unwrap_err();
    assert_eq!(refusal.nearest().unwrap().selector, "unit");
}

#[tokio::test]
async fn the_cgroup_alone_tells_two_bots_of_one_user_apart() {
    if skip_without_root() {
        return;
    }
    let Some(mut tree) = Tree::new("cgroup") else { return };
    let one = tree.make(&format!("/{}/one", tree.mark));
    let other = tree.make(&format!("/{}/other", tree.mark));
    let world = World::new();
    world.entries([
        entry("prod/one", by_cgroup(&one)),
        entry("prod/other", by_cgroup(&other)),
    ]);
    let door = world.unix();
    for (place, name) in [(&one, "prod/one"), (&other, "prod/other")] {
        let mut actor = world.orders();
        tree.put(&actor, place);
        assert_eq!(door.attest(&mut actor).await.unwrap().1.bot, bot(name));
    }
    let mut above = world.orders();
    tree.put(&above, &format!("/{}", tree.mark));
    let refusal = door.attest(&mut above).await.unwrap_err();
    assert_eq!(refusal.nearest().unwrap().selector, "cgroup");
    assert_eq!(
        refused(door.attest(&mut world.orders()).await),
        "no_entry",
        "in no cgroup of its own"
    );
}

#[tokio::test]
async fn what_a_user_was_given_of_the_tree_names_nobody() {
    if skip_without_root() {
        return;
    }
    let Some(mut tree) = Tree::new("given") else { return };
    let unit = format!("{}.service", tree.mark);
    let place = tree.make(&format!("/system.slice/{}.slice/{unit}", tree.mark));
    let world = World::new();
    world.entries([
        entry("prod/unit", by_unit(&unit)),
        entry("prod/cgroup", by_cgroup("/x")),
    ]);
    let door = world.unix();
    let mut actor = world.orders();
    tree.put(&actor, &place);
    assert_eq!(door.attest(&mut actor).await.unwrap().1.bot, bot("prod/unit"));
    let uid = orders_uid();
    let above = tree.at(&format!("/system.slice/{}.slice", tree.mark));
    let give = |path: &Path, to: u32| chown(path, Some(to), None).unwrap();
    for path in [
        above.clone(),
        above.join("cgroup.procs"),
        above.join("cgroup.threads"),
        tree.at(&place),
        tree.at(&place).join("cgroup.procs"),
        tree.at(&place).join("cgroup.threads"),
    ] {
        give(&path, uid);
        assert_eq!(refused(door.attest(&mut actor).await), "no_entry", "{}", path.display());
        give(&path, 0);
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        fs::set_permissions(&path, Permissions::from_mode(mode | 0o020)).unwrap();
        assert_eq!(
            refused(door.attest(&mut actor).await),
            "no_entry",
            "{} for its group",
            path.display()
        );
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
    }
    let (_, caller, _stream) = door.attest(&mut actor).await.unwrap();
    assert_eq!(caller.bot, bot("prod/unit"), "all given back");
}

#[tokio::test]
async fn a_unit_of_the_same_name_elsewhere_and_a_lookalike_of_a_container_are_nobody() {
    if skip_without_root() {
        return;
    }
    let Some(mut tree) = Tree::new("same") else { return };
    let unit = format!("{}.service", tree.mark);
    let world = World::new();
    let container = format!("/system.slice/docker-{}.scope", "ab".repeat(32));
    world.entries([
        entry("prod/unit", by_unit(&unit)),
        entry("prod/container", by_cgroup(&container)),
    ]);
    let door = world.unix();
    let manager = format!("/user.slice/user-{uid}.slice/user@{uid}.service", uid = orders_uid());
    let lookalikes = [
        // Root's, but not in the tree of the system's manager.
        format!("{manager}/app.slice/{unit}"),
        format!("/{}.slice/{unit}", tree.mark),
        format!("/system.slice/{unit}/{unit}"),
        format!("/system.slice/{}.scope", tree.mark),
        format!("{manager}{container}"),
        format!("/{}{container}", tree.mark),
    ];
    for place in &lookalikes {
        let place = tree.make(place);
        let mut actor = world.orders();
        tree.put(&actor, &place);
        assert_eq!(refused(door.attest(&mut actor).await), "no_entry", "{place}");
    }
    // A user's own manager, given its part of the tree, makes what names it likes.
    chown(tree.at(&manager), Some(orders_uid()), None).unwrap();
    let place = tree.make(&format!("{manager}/system.slice/{unit}"));
    let mut actor = world.orders();
    tree.put(&actor, &place);
    let refusal = door.attest(&mut actor).await.unwrap_err();
    assert_eq!((refusal.word(), refusal.facts.unwrap().cgroup), ("no_entry", None));
}

#[tokio::test]
async fn a_process_that_moves_to_another_cgroup_is_nobody() {
    if skip_without_root() {
        return;
    }
    let Some(mut tree) = Tree::new("moved") else { return };
    let one = tree.make(&format!("/{}/one", tree.mark));
    let other = tree.make(&format!("/{}/other", tree.mark));
    let world = World::new();
    world.entries([
        entry("prod/one", by_cgroup(&one)),
        entry("prod/other", by_cgroup(&other)),
    ]);
    let (unix, tcp) = (world.unix(), world.tcp("127.0.0.1:0").await);
    let mut actor = world.orders();
    tree.put(&actor, &one);
    let (_, by_socket, _stream) = unix.attest(&mut actor).await.unwrap();
    let (_, by_port, _connection) = tcp.attest(&mut actor).await.unwrap();
    by_socket.recheck().unwrap();
    by_port.recheck().unwrap();
    let (_, made_in_one) = tcp.connect(&mut actor).await;
    tree.put(&actor, &other);
    assert_eq!(refused(by_socket.recheck()), "cgroup_changed");
    assert_eq!(refused(by_port.recheck()), "cgroup_changed");
    assert_eq!(
        refused(world.attestor.tcp_caller(&made_in_one).await),
        "cgroup_changed",
        "the socket was made in the other cgroup"
    );
    assert_eq!(unix.attest(&mut actor).await.unwrap().1.bot, bot("prod/other"));
}
