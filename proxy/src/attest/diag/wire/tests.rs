use std::net::SocketAddr;

use proptest::prelude::*;

use super::{AF_INET, AF_INET6, LISTEN, Part, Request, Socket, parts, sixteen};

/// Writes what the kernel would write for a socket.
fn message(socket: &Socket, family: u8, flags: u16, sequence: u32) -> Vec<u8> {
    let mut body = vec![family, socket.state, 0, 0];
    body.extend(socket.own.port().to_be_bytes());
    body.extend(socket.other.port().to_be_bytes());
    body.extend(sixteen(socket.own.ip(), family));
    body.extend(sixteen(socket.other.ip(), family));
    body.extend([0; 4]);
    body.extend(u32::try_from(socket.cookie & 0xffff_ffff).unwrap().to_ne_bytes());
    body.extend(u32::try_from(socket.cookie >> 32).unwrap().to_ne_bytes());
    body.extend([0; 12]);
    body.extend(socket.uid.to_ne_bytes());
    body.extend(u32::try_from(socket.inode).unwrap().to_ne_bytes());
    // An attribute that is not known, with padding; then those that are.
    body.extend([5, 0, 8, 0, 3, 0, 0, 0]);
    body.extend([5, 0, 11, 0, u8::from(socket.v6_only), 0, 0, 0]);
    if let Some(cgroup) = socket.cgroup {
        body.extend([12, 0, 21, 0]);
        body.extend(cgroup.to_ne_bytes());
    }
    framed(20, flags, sequence, &body)
}

fn framed(kind: u16, flags: u16, sequence: u32, body: &[u8]) -> Vec<u8> {
    let mut bytes = u32::try_from(body.len() + 16).unwrap().to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(flags.to_ne_bytes());
    bytes.extend(sequence.to_ne_bytes());
    bytes.extend([0; 4]);
    bytes.extend(body);
    bytes
}

fn address(v6: bool) -> impl Strategy<Value = SocketAddr> {
    if v6 {
        // The first byte keeps it from being an IPv4 address written as IPv6.
        (any::<[u8; 15]>(), any::<u16>())
            .prop_map(|(rest, port)| {
                let mut bytes = [0xfd; 16];
                bytes[1..].copy_from_slice(&rest);
                SocketAddr::new(bytes.into(), port)
            })
            .boxed()
    } else {
        (any::<[u8; 4]>(), any::<u16>())
            .prop_map(|(ip, port)| SocketAddr::new(ip.into(), port))
            .boxed()
    }
}

fn any_socket() -> impl Strategy<Value = (Socket, u8)> {
    any::<bool>().prop_flat_map(|v6| {
        (
            address(v6),
            address(v6),
            any::<(u8, u32, u32, u64, bool)>(),
            any::<Option<u64>>(),
        )
            .prop_map(move |(own, other, (state, uid, inode, cookie, v6_only), cgroup)| {
                let socket = Socket {
                    state,
                    own,
                    other,
                    uid,
                    inode: u64::from(inode),
                    cookie,
                    cgroup,
                    v6_only,
                };
                (socket, if v6 { AF_INET6 } else { AF_INET })
            })
    })
}

fn read(bytes: &[u8], sequence: u32) -> Vec<Option<Part>> {
    parts(bytes, sequence).map(Result::ok).collect()
}

proptest! {
    #[test]
    fn a_socket_is_read_as_it_was_written((socket, family) in any_socket(), sequence: u32) {
        let bytes = message(&socket, family, 0, sequence);
        prop_assert_eq!(read(&bytes, sequence), [Some(Part::Socket { socket, torn: false })]);
    }

    #[test]
    fn an_answer_to_another_question_is_not_read((socket, family) in any_socket(), sequence in 1u32..) {
        let mut bytes = message(&socket, family, 0, sequence - 1);
        bytes.extend(framed(3, 0, sequence, &[0; 4]));
        prop_assert_eq!(read(&bytes, sequence), [Some(Part::Done { torn: false })]);
    }

    #[test]
    fn an_answer_cut_short_is_an_error((socket, family) in any_socket(), cut in 1usize..) {
        let bytes = message(&socket, family, 0, 1);
        let cut = 1 + cut % (bytes.len() - 1);
        prop_assert_eq!(read(&bytes[..cut], 1), [None]);
    }

    #[test]
    fn no_bytes_make_it_panic_or_go_on_for_ever(bytes in prop::collection::vec(any::<u8>(), 0..400), sequence in 0u32..2) {
        prop_assert!(parts(&bytes, sequence).count() <= bytes.len());
    }

    #[test]
    fn a_damaged_answer_does_not_make_it_panic((socket, family) in any_socket(), at: prop::sample::Index, to: u8) {
        let mut bytes = message(&socket, family, 0, 1);
        let at = at.index(bytes.len());
        bytes[at] = to;
        let sockets = parts(&bytes, 1).filter(|part| matches!(part, Ok(Part::Socket { .. }))).count();
        prop_assert!(sockets <= 1);
    }
}

#[test]
fn an_ipv4_address_in_ipv6_is_read_as_ipv4() {
    let own = "127.0.0.1:7".parse().unwrap();
    let socket = Socket {
        state: 1,
        own,
        other: own,
        uid: 1,
        inode: 2,
        cookie: 3,
        cgroup: None,
        v6_only: false,
    };
    let bytes = message(&socket, AF_INET6, 0, 1);
    assert_eq!(read(&bytes, 1), [Some(Part::Socket { socket, torn: false })]);
}

#[test]
fn absence_and_other_errors_are_told_apart() {
    let error = |errno: i32| framed(2, 0, 1, &errno.wrapping_neg().to_ne_bytes());
    assert_eq!(read(&error(2), 1), [Some(Part::Absent)]);
    assert_eq!(read(&error(13), 1), [Some(Part::Failed(13))]);
    assert_eq!(read(&error(i32::MIN), 1).len(), 1);
}

#[test]
fn a_list_that_changed_is_marked() {
    let own = "127.0.0.1:7".parse().unwrap();
    let socket = Socket {
        state: LISTEN,
        own,
        other: own,
        uid: 1,
        inode: 2,
        cookie: 3,
        cgroup: None,
        v6_only: false,
    };
    assert_eq!(
        read(&message(&socket, AF_INET, 0x10, 1), 1),
        [Some(Part::Socket { socket, torn: true })]
    );
    assert_eq!(read(&framed(3, 0x10, 1, &[0; 4]), 1), [Some(Part::Done { torn: true })]);
}

#[test]
fn a_message_of_an_unknown_kind_is_an_error() {
    assert_eq!(read(&framed(99, 0, 1, &[]), 1), [None]);
}

#[test]
fn a_question_has_the_length_that_the_kernel_expects() {
    let (own, other) = ("[::1]:1".parse().unwrap(), "[::1]:2".parse().unwrap());
    let request = Request::connection(own, other, 7);
    assert_eq!(request.bytes().len(), 72);
    assert_eq!((request.sequence(), request.is_list()), (7, false));
}
