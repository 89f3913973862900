use spiffe::time::Clock;
use tokio::net::{TcpListener, TcpStream};

use super::{Ends, Kernel, SocketFact, Why};
use crate::attest::AttestConfig;

/// A connection of this process with itself: both of its ends, and what is known about the client's.
async fn joined() -> (Kernel, TcpStream, TcpStream, Ends, SocketFact) {
    let kernel = Kernel::new(AttestConfig::default(), Clock::system()).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (server, _) = listener.accept().await.unwrap();
    let ends = Ends::of(&server).unwrap();
    let peer = ends.peer(&kernel).unwrap();
    (kernel, client, server, ends, peer)
}

#[tokio::test]
async fn the_two_ends_of_a_connection_are_joined() {
    let (kernel, client, _server, ends, peer) = joined().await;
    ends.still_joined(&kernel, &peer).unwrap();
    assert_eq!(peer.uid, rustix::process::geteuid().as_raw());
    assert_eq!(peer.cookie, rustix::net::sockopt::socket_cookie(&client).unwrap());
}

#[tokio::test]
async fn another_socket_of_ours_with_the_same_ends_is_not_this_one() {
    let (kernel, _client, _server, ends, peer) = joined().await;
    let other = Ends {
        cookie: ends.cookie + 1,
        ..ends
    };
    assert!(matches!(other.still_joined(&kernel, &peer), Err(Why::SocketGone)));
}

#[tokio::test]
async fn another_peer_with_the_same_ends_is_not_the_one_that_was_looked_at() {
    let (kernel, _client, _server, ends, peer) = joined().await;
    let by_cookie = SocketFact {
        cookie: peer.cookie + 1,
        ..peer.clone()
    };
    assert!(matches!(ends.still_joined(&kernel, &by_cookie), Err(Why::SocketGone)));
    let by_inode = SocketFact {
        inode: peer.inode + 1,
        ..peer
    };
    assert!(matches!(ends.still_joined(&kernel, &by_inode), Err(Why::SocketGone)));
}
