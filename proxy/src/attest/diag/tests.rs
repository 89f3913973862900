use std::net::{SocketAddr, TcpListener, TcpStream};

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, connect, getsockname, listen, socket, socket_with};

use super::{Diag, wire};

const ANY: &str = "127.0.0.1:0";

#[test]
fn both_ends_of_a_connection_are_found_and_a_listener_is_neither() {
    let diag = Diag::default();
    let listener = TcpListener::bind(ANY).unwrap();
    let at = listener.local_addr().unwrap();
    let client = TcpStream::connect(at).unwrap();
    let from = client.local_addr().unwrap();
    let (own, server) = (
        diag.connection(from, at).unwrap().unwrap(),
        diag.connection(at, from).unwrap().unwrap(),
    );
    assert_eq!((own.own, own.other, server.own, server.other), (from, at, at, from));
    assert_ne!(own.inode, 0);
    assert_eq!(server.inode, 0, "nobody has accepted it");
    let _accepted = listener.accept().unwrap();
    assert_ne!(diag.connection(at, from).unwrap().unwrap().inode, 0);
    // Where there is no connection the kernel would answer with the listener.
    let nobody: SocketAddr = "127.0.0.1:1".parse().unwrap();
    assert_eq!(diag.connection(at, nobody).unwrap(), None);
}

#[test]
fn a_connection_that_is_not_established_is_none() {
    let listener = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    bind(&listener, &ANY.parse::<SocketAddr>().unwrap()).unwrap();
    listen(&listener, 0).unwrap();
    let at = SocketAddr::try_from(getsockname(&listener).unwrap()).unwrap();
    // The queue has room for one; who knocks next is not answered.
    let _first = TcpStream::connect(at).unwrap();
    let second = socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::NONBLOCK, None).unwrap();
    assert_eq!(connect(&second, &at).unwrap_err(), Errno::INPROGRESS);
    let from = SocketAddr::try_from(getsockname(&second).unwrap()).unwrap();
    assert_eq!(Diag::default().connection(from, at).unwrap(), None);
}

#[test]
fn the_listeners_of_one_port_are_listed_and_no_others() {
    let diag = Diag::default();
    let (one, other) = (TcpListener::bind(ANY).unwrap(), TcpListener::bind(ANY).unwrap());
    let _connected = TcpStream::connect(one.local_addr().unwrap()).unwrap();
    let port = one.local_addr().unwrap().port();
    assert_ne!(port, other.local_addr().unwrap().port());
    let found = diag.listeners(port).unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!(
        (found[0].own, found[0].state),
        (one.local_addr().unwrap(), wire::LISTEN)
    );
}
