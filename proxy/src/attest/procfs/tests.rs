use proptest::prelude::*;

use super::{Credentials, Stat, parse_cgroup, parse_credentials, parse_socket_link, parse_stat, read};

fn stat_line(name: &[u8], parent: u32, start: u64) -> Vec<u8> {
    let mut line = b"4711 (".to_vec();
    line.extend(name);
    line.extend(format!(") S {parent} 1 1 0 -1 4194304 9 0 0 0 3 1 0 0 20 0 1 0 {start} 2400256 230").bytes());
    line
}

fn status_file(name: &[u8], uids: [u32; 4], gids: [u32; 4], groups: &[u32]) -> Vec<u8> {
    let words = |numbers: &[u32]| numbers.iter().map(|number| format!("\t{number}")).collect::<String>();
    let mut file = b"Name:\t".to_vec();
    file.extend(name);
    let rest = format!(
        "\nUmask:\t0022\nState:\tS (sleeping)\nUid:{}\nGid:{}\nFDSize:\t64\nGroups:{} \nThreads:\t1\n",
        words(&uids),
        words(&gids),
        words(groups)
    );
    file.extend(rest.bytes());
    file
}

proptest! {
    #[test]
    fn a_process_cannot_name_itself_into_another_parent(
        name in prop::collection::vec(any::<u8>(), 0..16), parent: u32, start: u64,
    ) {
        prop_assert_eq!(parse_stat(&stat_line(&name, parent, start)), Some(Stat { parent, start }));
    }

    #[test]
    fn a_name_that_imitates_the_fields_is_a_name(parent: u32, start: u64, forged in 0u32..100) {
        let name = format!("x) S {forged} 1 1 0 -1 (");
        prop_assert_eq!(parse_stat(&stat_line(name.as_bytes(), parent, start)), Some(Stat { parent, start }));
    }

    #[test]
    fn a_process_cannot_name_itself_into_other_credentials(
        name in "[ -~]{0,16}", uids: [u32; 4], gids: [u32; 4], groups in prop::collection::vec(any::<u32>(), 0..40),
    ) {
        let file = status_file(name.as_bytes(), uids, gids, &groups);
        prop_assert_eq!(parse_credentials(&file), Some(Credentials { uids, gids, groups }));
    }

    #[test]
    fn a_line_end_in_a_name_gives_no_credentials_or_the_true_ones(
        name in prop::collection::vec(prop::sample::select(b"\n\t Uid:Gro0ps".to_vec()), 0..24), uids: [u32; 4],
    ) {
        let found = parse_credentials(&status_file(&name, uids, uids, &[]));
        prop_assert!(found.is_none_or(|found| found.uids == uids));
    }

    #[test]
    fn no_bytes_make_a_parser_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _nothing = (parse_stat(&bytes), parse_credentials(&bytes), parse_socket_link(&bytes));
    }
}

#[test]
fn a_second_line_of_credentials_is_refused() {
    let mut file = status_file(b"cat", [7; 4], [7; 4], &[]);
    file.extend(b"Uid:\t0\t0\t0\t0\n");
    assert_eq!(parse_credentials(&file), None);
}

#[test]
fn a_short_line_is_refused() {
    assert_eq!(parse_stat(b"1 (cat) S 2 3"), None);
    assert_eq!(parse_stat(b"1 cat S 2 3"), None);
    assert_eq!(
        parse_credentials(b"Name:\tcat\nUid:\t1\t1\t1\nGid:\t1\t1\t1\t1\nGroups:\t\n"),
        None
    );
}

#[test]
fn only_a_socket_is_a_socket() {
    assert_eq!(parse_socket_link(b"socket:[4711]"), Some(4711));
    for other in [
        &b"pipe:[4711]"[..],
        b"/tmp/socket:[4711]",
        b"socket:[47x]",
        b"socket:[4711",
        b"socket:[4711] (deleted)",
    ] {
        assert_eq!(parse_socket_link(other), None);
    }
}

#[test]
fn the_kernel_says_of_this_process_what_this_process_knows() {
    let folder = std::fs::File::open("/proc/self").unwrap();
    let stat = parse_stat(&read(&folder, c"stat").unwrap()).unwrap();
    assert_eq!(stat.parent, std::os::unix::process::parent_id());
    let found = parse_credentials(&read(&folder, c"status").unwrap()).unwrap();
    assert_eq!(found.uids[1], rustix::process::geteuid().as_raw());
    assert_eq!(found.gids[1], rustix::process::getegid().as_raw());
}

#[test]
fn a_file_larger_than_the_bound_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("status"), vec![b'x'; 70_000]).unwrap();
    let folder = std::fs::File::open(folder.path()).unwrap();
    assert_eq!(read(&folder, c"status").unwrap_err(), rustix::io::Errno::FBIG);
}

#[test]
fn only_the_one_line_of_version_2_tells_the_cgroup() {
    let path = |text: &str| parse_cgroup(text.as_bytes()).map(str::to_owned);
    let mixed = "9:name=systemd:/system.slice/a.service\n1:cpu:/0::/x\n0::/b\n";
    assert_eq!(path(mixed).as_deref(), Some("/b"));
    assert_eq!(path("0::/\n").as_deref(), Some("/"));
    for text in ["", "1:cpu:/a\n", "0::/a\n0::/b\n", "0::a\n", "10::/a\n"] {
        assert_eq!(path(text), None, "{text}");
    }
}

#[test]
fn all_groups_are_told_once_and_without_the_real_and_the_saved() {
    let credentials = Credentials {
        uids: [1; 4],
        gids: [1, 20, 3, 4],
        groups: vec![30, 20, 10],
    };
    assert_eq!(credentials.all_groups(), [10, 20, 30]);
}
