//! The process at the other end: obeys one command per line, answers one line to each.

use std::collections::BTreeMap;
use std::io::{BufRead, IoSlice, IoSliceMut, Read, Stderr, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::LazyLock;
use std::time::Duration;

use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, UnixAddr, recvmsg, sendmsg};
use nix::unistd::{Gid, Uid, setgroups, setresuid};
use rustix::net::{AddressFamily, SocketType, bind, connect, socket, sockopt};

/// What an answer begins with, so that it is told from what the test harness prints.
pub(crate) const MARK: &str = "answer: ";

/// The arguments that make a copy of this binary an actor.
pub(crate) const ARGUMENTS: [&str; 5] = ["--exact", "actor", "--ignored", "--nocapture", "--test-threads=1"];

/// The number by which an actor knows the socket that it was started with, as its standard error.
pub(crate) const INHERITED: RawFd = 2;

static STDERR: LazyLock<Stderr> = LazyLock::new(std::io::stderr);

/// Obeys until the standard input ends.
pub(crate) fn act() {
    let mut sockets = BTreeMap::new();
    let mut line = String::new();
    loop {
        line.clear();
        if std::io::stdin().lock().read_line(&mut line).unwrap() == 0 {
            return;
        }
        let words: Vec<&str> = line.split_whitespace().collect();
        let answer = obey(&mut sockets, &words);
        println!("{MARK}{answer}");
    }
}

#[expect(clippy::exit, reason = "one of the commands is to be gone")]
fn obey(sockets: &mut BTreeMap<RawFd, OwnedFd>, words: &[&str]) -> String {
    match words {
        ["die"] => std::process::exit(0),
        ["hello"] => std::process::id().to_string(),
        ["ppid"] => std::os::unix::process::parent_id().to_string(),
        ["unix", path] => keep(sockets, UnixStream::connect(path).unwrap()),
        ["tcp", address] => keep(sockets, std::net::TcpStream::connect(address).unwrap()),
        ["tcp-from", port, address] => keep(sockets, connect_from(port.parse().unwrap(), address).unwrap()),
        ["tcp-mapped", address] => keep(sockets, connect_mapped(address.parse().unwrap())),
        ["listen", address] => listen(sockets, address),
        ["listen-unix", path] => keep(sockets, UnixListener::bind(path).unwrap()),
        ["accept", fd] => accept(sockets, fd),
        ["send", fd, text] => send(borrow(sockets, fd), text),
        ["send-file", fd, text] => send_with(borrow(sockets, fd), text, std::io::stdin().as_raw_fd()),
        ["await", fd] => receive(borrow(sockets, fd)),
        ["wait-for", path] => keep(sockets, UnixListener::bind(path).unwrap()),
        ["take", fd] => {
            let taken = take(borrow(sockets, fd));
            keep(sockets, taken)
        }
        ["pass", fd, path] => {
            let to = UnixStream::connect(path).unwrap();
            send_with(to.as_fd(), "x", borrow(sockets, fd).as_raw_fd())
        }
        ["close", fd] => sockets
            .remove(&fd.parse::<RawFd>().unwrap())
            .map(|_| "closed".to_owned())
            .unwrap(),
        ["abort", fd] => abort(sockets.remove(&fd.parse::<RawFd>().unwrap()).unwrap()),
        ["exec", fd, program, arguments @ ..] => {
            let kept = sockets.remove(&fd.parse::<RawFd>().unwrap()).unwrap();
            // Answered before, since there is no after; the next command is left to the next program.
            println!("{MARK}executing");
            panic!(
                "{}",
                Command::new(program).args(arguments).stderr(Stdio::from(kept)).exec()
            )
        }
        ["leave", fd] => leave(sockets.remove(&fd.parse::<RawFd>().unwrap()).unwrap()),
        ["become", real, effective] => become_user(real.parse().unwrap(), effective.parse().unwrap()),
        ["regroup", gid] => {
            setgroups(&[Gid::from_raw(gid.parse().unwrap())]).unwrap();
            "regrouped".to_owned()
        }
        ["burst", address, uid, count] => burst(address, uid, count.parse().unwrap()),
        other => panic!("unknown command {other:?}"),
    }
}

fn keep(sockets: &mut BTreeMap<RawFd, OwnedFd>, socket: impl Into<OwnedFd>) -> String {
    let socket = socket.into();
    let number = socket.as_raw_fd();
    sockets.insert(number, socket);
    number.to_string()
}

fn borrow<'a>(sockets: &'a BTreeMap<RawFd, OwnedFd>, fd: &str) -> BorrowedFd<'a> {
    let number: RawFd = fd.parse().unwrap();
    if number == INHERITED {
        STDERR.as_fd()
    } else {
        sockets[&number].as_fd()
    }
}

fn send(socket: BorrowedFd<'_>, text: &str) -> String {
    rustix::io::write(socket, text.as_bytes()).unwrap().to_string()
}

fn send_with(socket: BorrowedFd<'_>, text: &str, file: RawFd) -> String {
    let files = [file];
    let parts = [IoSlice::new(text.as_bytes())];
    let passed = [ControlMessage::ScmRights(&files)];
    sendmsg::<UnixAddr>(socket.as_raw_fd(), &parts, &passed, MsgFlags::empty(), None)
        .unwrap()
        .to_string()
}

fn receive(socket: BorrowedFd<'_>) -> String {
    let mut bytes = [0u8; 256];
    let read = rustix::io::read(socket, &mut bytes).unwrap();
    format!("got {}", String::from_utf8_lossy(&bytes[..read]))
}

/// Accepts one connection and takes the file that is passed over it. A file that is received is a plain number, which
/// only unsafe code can own, so it is duplicated through the one safe door there is: `/proc` cannot reopen sockets,
/// `pidfd_getfd` can.
fn take(listener: BorrowedFd<'_>) -> OwnedFd {
    let from = rustix::net::accept(listener).unwrap();
    let mut bytes = [0u8; 8];
    let mut parts = [IoSliceMut::new(&mut bytes)];
    let mut control = nix::cmsg_space!([RawFd; 1]);
    let received = recvmsg::<UnixAddr>(from.as_raw_fd(), &mut parts, Some(&mut control), MsgFlags::empty()).unwrap();
    let Some(ControlMessageOwned::ScmRights(files)) = received.cmsgs().unwrap().next() else {
        panic!("no file was passed")
    };
    let this = rustix::process::pidfd_open(rustix::process::getpid(), rustix::process::PidfdFlags::empty()).unwrap();
    let taken = rustix::process::pidfd_getfd(this, files[0], rustix::process::PidfdGetfdFlags::empty()).unwrap();
    nix::unistd::close(files[0]).unwrap();
    taken
}

fn connect_from(port: u16, address: &str) -> rustix::io::Result<OwnedFd> {
    let address: SocketAddr = address.parse().unwrap();
    let from = socket(AddressFamily::INET, SocketType::STREAM, None)?;
    sockopt::set_socket_reuseaddr(&from, true)?;
    bind(&from, &SocketAddr::new(address.ip(), port))?;
    connect(&from, &address)?;
    Ok(from)
}

/// Connects an IPv6 socket to an IPv4 address.
fn connect_mapped(address: SocketAddr) -> OwnedFd {
    let SocketAddr::V4(v4) = address else {
        panic!("not an IPv4 address")
    };
    let from = socket(AddressFamily::INET6, SocketType::STREAM, None).unwrap();
    connect(&from, &SocketAddr::new(v4.ip().to_ipv6_mapped().into(), v4.port())).unwrap();
    from
}

fn listen(sockets: &mut BTreeMap<RawFd, OwnedFd>, address: &str) -> String {
    let listener = TcpListener::bind(address).unwrap();
    let port = listener.local_addr().unwrap().port();
    format!("{} {port}", keep(sockets, listener))
}

fn accept(sockets: &mut BTreeMap<RawFd, OwnedFd>, fd: &str) -> String {
    let accepted = rustix::net::accept(borrow(sockets, fd)).unwrap();
    keep(sockets, accepted)
}

/// Closes a TCP connection by a reset, so that its ports are free at once.
fn abort(socket: OwnedFd) -> String {
    sockopt::set_socket_linger(&socket, Some(Duration::ZERO)).unwrap();
    drop(socket);
    "aborted".to_owned()
}

/// Starts another actor that inherits the socket and the standard streams, and exits.
#[expect(clippy::exit, reason = "the point is to be gone while the child goes on")]
fn leave(socket: OwnedFd) -> String {
    let program = std::env::current_exe().unwrap();
    let child = Command::new(program)
        .args(ARGUMENTS)
        .stderr(Stdio::from(socket))
        .spawn()
        .unwrap();
    println!("{MARK}{}", child.id());
    std::process::exit(0)
}

fn become_user(real: u32, effective: u32) -> String {
    let effective = Uid::from_raw(effective);
    setresuid(Uid::from_raw(real), effective, effective).unwrap();
    "become".to_owned()
}

/// Opens many connections one after the other from a narrow range of ports that other actors use too, sends its user
/// id on each and waits for the answer, which is the user id that the other end believes.
fn burst(address: &str, uid: &str, count: u32) -> String {
    let mut wrong = 0;
    let mut port = u16::try_from(std::process::id() % 64).unwrap();
    for _ in 0..count {
        let connection = loop {
            port = (port + 7) % 64;
            match connect_from(42_100 + port, address) {
                Ok(connection) => break connection,
                Err(rustix::io::Errno::ADDRINUSE | rustix::io::Errno::ADDRNOTAVAIL) => std::thread::yield_now(),
                Err(error) => panic!("{error}"),
            }
        };
        let mut connection = std::net::TcpStream::from(connection);
        connection.write_all(uid.as_bytes()).unwrap();
        let mut believed = [0u8; 5];
        connection.read_exact(&mut believed).unwrap();
        wrong += u32::from(believed != uid.as_bytes());
        abort(connection.into());
    }
    wrong.to_string()
}
