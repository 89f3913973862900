//! Tells the service manager when the proxy serves and when it stops: `sd_notify(3)`.

use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// The proxy takes calls.
pub(super) const READY: &str = "READY=1\n";

/// The proxy takes none any more.
pub(super) const STOPPING: &str = "STOPPING=1\n";

/// Says one word to the manager at `NOTIFY_SOCKET`, where there is one. That it could not be said stops nothing: the
/// manager has its own patience.
pub(super) fn tell(socket: Option<&OsStr>, word: &str) {
    if let Some(socket) = socket
        && let Err(error) = send(socket, word)
    {
        tracing::warn!(%error, socket = %socket.display(), "the service manager was not told: {}", word.trim_end());
    }
}

fn send(socket: &OsStr, word: &str) -> io::Result<()> {
    let address = match socket.as_bytes() {
        // `@` stands for the first byte of a socket without a file.
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        [b'/', ..] => SocketAddr::from_pathname(socket)?,
        _ => return Err(io::Error::from(io::ErrorKind::InvalidInput)),
    };
    let sent = UnixDatagram::unbound()?.send_to_addr(word.as_bytes(), &address)?;
    if sent == word.len() {
        Ok(())
    } else {
        Err(io::Error::from(io::ErrorKind::WriteZero))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_manager_hears_the_word_at_a_path_and_at_a_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let at_path = UnixDatagram::bind(&path).unwrap();
        send(path.as_os_str(), READY).unwrap();
        let name = format!("botmesh-test-{}", std::process::id());
        let at_name = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        send(OsStr::new(&format!("@{name}")), STOPPING).unwrap();
        let mut heard = [0; 32];
        let count = at_path.recv(&mut heard).unwrap();
        assert_eq!(&heard[..count], b"READY=1\n");
        let count = at_name.recv(&mut heard).unwrap();
        assert_eq!(&heard[..count], b"STOPPING=1\n");
        assert!(send(OsStr::new("notify"), READY).is_err(), "no relative path");
    }
}
