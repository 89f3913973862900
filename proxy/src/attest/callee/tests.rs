use super::could_take;
use crate::attest::diag::SocketFact;

fn listener(on: &str, v6_only: bool) -> SocketFact {
    SocketFact {
        state: 10,
        own: on.parse().unwrap(),
        other: "0.0.0.0:0".parse().unwrap(),
        uid: 0,
        inode: 1,
        cookie: 1,
        cgroup: None,
        v6_only,
    }
}

#[test]
fn every_listener_that_could_have_taken_the_connection_is_checked() {
    let takes = |on, v6_only, ip: &str| could_take(&listener(on, v6_only), ip.parse().unwrap());
    assert!(takes("127.0.0.1:80", false, "127.0.0.1"));
    assert!(takes("0.0.0.0:80", false, "127.0.0.1"));
    assert!(takes("[::]:80", false, "127.0.0.1"));
    assert!(takes("[::]:80", true, "::1"));
    assert!(takes("[::1]:80", true, "::1"));
}

#[test]
fn a_listener_elsewhere_is_no_concern() {
    let takes = |on, v6_only, ip: &str| could_take(&listener(on, v6_only), ip.parse().unwrap());
    assert!(!takes("127.0.0.2:80", false, "127.0.0.1"));
    assert!(!takes("[::]:80", true, "127.0.0.1"));
    assert!(!takes("0.0.0.0:80", false, "::1"));
    assert!(!takes("[::1]:80", true, "127.0.0.1"));
}
