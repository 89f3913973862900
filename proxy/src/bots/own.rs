//! A Unix socket for each bot that asks for one: `bots/NAME.sock` beside the socket of all.
//!
//! The bot's user may connect and nobody else: root gives the socket to that user; a proxy without privileges keeps it and
//! names the user in an access control list, which that user cannot widen. In a container only that one socket is mounted, so bots of
//! one user are told apart by what each can reach. That a process connected over it is one fact more: all others must
//! hold as on the socket of all.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::unistd::{User, geteuid};
use rustix::fs::{XattrFlags, setxattr};
use spiffe::entry::Entry;
use spiffe::id::BotName;
use tokio::net::UnixListener;
use tokio_util::sync::CancellationToken;

use super::{Listeners, Source, WayIn, Ways, serve};
use crate::attest::prepare_listener;
use crate::proxy::Proxy;

/// How many bots of one host have a socket of their own.
const SOCKETS_MAX: usize = 1024;

/// Whose socket it is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Owner {
    Uid(u32),
    User(String),
}

#[derive(Debug)]
struct Open {
    owner: Owner,
    path: PathBuf,
    gone: CancellationToken,
}

/// Keeps one socket open for each bot of the slice that asks for one, until the proxy closes.
///
/// `folder` is where they are; it is made where it is not there.
pub(crate) async fn serve_own(proxy: Arc<Proxy>, listeners: Arc<Listeners>, folder: PathBuf) {
    let mut changed = proxy.control.changed();
    let mut open: BTreeMap<BotName, Open> = BTreeMap::new();
    remove_left(&folder);
    loop {
        changed.mark_unchanged();
        let wanted = wanted(&proxy.control.snapshot().entries);
        open.retain(|bot, socket| {
            let stays = wanted.get(bot) == Some(&socket.owner);
            if !stays {
                close(socket);
            }
            stays
        });
        for (bot, owner) in wanted {
            if open.contains_key(&bot) {
                continue;
            }
            if open.len() >= SOCKETS_MAX {
                tracing::error!(%bot, most = SOCKETS_MAX, "the bot gets no socket of its own: too many of this host ask for one");
                break;
            }
            match make(&folder, &bot, &owner).await {
                Ok((path, listener)) => {
                    let gone = proxy.closing.child_token();
                    let source = Source::Own {
                        listener,
                        bot: bot.clone(),
                        gone: gone.clone(),
                    };
                    let way = Ways::Http(Arc::new(WayIn::Shared {
                        trust_domain: proxy.trust_domain.clone(),
                        own: None,
                    }));
                    let (proxy, listeners) = (Arc::clone(&proxy), Arc::clone(&listeners));
                    let tasks = proxy.tasks.clone();
                    drop(tasks.spawn(serve(proxy, listeners, source, way, "own_sockets")));
                    open.insert(bot, Open { owner, path, gone });
                }
                Err(error) => {
                    tracing::error!(%bot, %error, folder = %folder.display(), "the bot gets no socket of its own")
                }
            }
        }
        // A change that comes while the select is lost is seen by the next round.
        tokio::select! {
            () = proxy.closing.cancelled() => break,
            told = changed.changed() => if told.is_err() { break },
        }
    }
    open.values().for_each(close);
}

/// The bots that ask for a socket, and whose it is. A bot that names two users gets none.
fn wanted(entries: &[Entry]) -> BTreeMap<BotName, Owner> {
    let mut wanted = BTreeMap::new();
    for entry in entries {
        let mut owners = entry
            .attest
            .iter()
            .filter(|set| set.socket)
            .filter_map(|set| set.uid.map(Owner::Uid).or_else(|| set.user.clone().map(Owner::User)));
        if let Some(owner) = owners.next()
            && owners.all(|other| other == owner)
        {
            wanted.insert(entry.bot.clone(), owner);
        }
    }
    wanted
}

/// Makes a bot's socket where nobody else can come to it, gives it to its owner, and only then puts it in its place.
async fn make(folder: &Path, bot: &BotName, owner: &Owner) -> io::Result<(PathBuf, UnixListener)> {
    let uid = uid_of(owner.clone()).await?;
    own_folder(folder, 0o755)?;
    let workshop = folder.join(".new");
    own_folder(&workshop, 0o700)?;
    let name = format!("{}.sock", bot.as_str().replace('/', "."));
    let (new, path) = (workshop.join(&name), folder.join(&name));
    match std::fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let listener = UnixListener::bind(&new)?;
    prepare_listener(&listener)?;
    std::fs::set_permissions(&new, std::fs::Permissions::from_mode(0o600))?;
    let own = geteuid();
    if own.is_root() {
        chown(&new, Some(uid), None)?;
    } else if own.as_raw() != uid {
        setxattr(&new, c"system.posix_acl_access", &acl(uid), XattrFlags::empty())?;
    }
    std::fs::rename(&new, &path)?;
    Ok((path, listener))
}

/// An access control list that lets its owner and one user read and write, in the kernel's form
/// (`linux/posix_acl_xattr.h`): version 2; then of each entry tag, permissions and id, little-endian.
fn acl(uid: u32) -> Vec<u8> {
    const VERSION: u32 = 2;
    const NOBODY: u32 = u32::MAX;
    const READ_WRITE: u16 = 6;
    const OWNER: u16 = 0x01;
    const USER: u16 = 0x02;
    const GROUP: u16 = 0x04;
    const MASK: u16 = 0x10;
    const OTHERS: u16 = 0x20;
    let mut bytes = VERSION.to_le_bytes().to_vec();
    for (tag, may, id) in [
        (OWNER, READ_WRITE, NOBODY),
        (USER, READ_WRITE, uid),
        (GROUP, 0, NOBODY),
        (MASK, READ_WRITE, NOBODY),
        (OTHERS, 0, NOBODY),
    ] {
        bytes.extend(tag.to_le_bytes());
        bytes.extend(may.to_le_bytes());
        bytes.extend(id.to_le_bytes());
    }
    bytes
}

async fn uid_of(owner: Owner) -> io::Result<u32> {
    let name = match owner {
        Owner::Uid(uid) => return Ok(uid),
        Owner::User(name) => name,
    };
    let found = tokio::task::spawn_blocking(move || User::from_name(&name))
        .await
        .map_err(io::Error::other)??;
    found
        .map(|user| user.uid.as_raw())
        .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "this host has no such user"))
}

/// Makes a folder, or makes sure that only this user can write the one that is there.
fn own_folder(path: &Path, mode: u32) -> io::Result<()> {
    const GROUP_OR_OTHERS: u32 = 0o022;
    match std::fs::DirBuilder::new().mode(mode).create(path) {
        // What the process's mask took away is given back.
        Ok(()) => std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))?,
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(error),
    }
    let found = std::fs::symlink_metadata(path)?;
    if found.is_dir() && found.uid() == geteuid().as_raw() && found.mode() & GROUP_OR_OTHERS == 0 {
        return Ok(());
    }
    let refused =
        "the folder of bots' own sockets can be written by others; give it to the proxy's user with mode 0755";
    Err(io::Error::new(io::ErrorKind::PermissionDenied, refused))
}

fn close(socket: &Open) {
    socket.gone.cancel();
    if let Err(error) = std::fs::remove_file(&socket.path) {
        tracing::warn!(%error, path = %socket.path.display(), "a bot's own socket was not removed");
    }
}

/// Removes what a killed proxy left: the proxy holds the socket of all, so no other one uses the folder.
fn remove_left(folder: &Path) {
    let files = std::fs::read_dir(folder).into_iter().flatten().flatten();
    for file in files.filter(|file| file.path().extension().is_some_and(|end| end == "sock")) {
        if let Err(error) = std::fs::remove_file(file.path()) {
            tracing::warn!(%error, path = %file.path().display(), "an old socket was not removed");
        }
    }
}

#[cfg(test)]
mod tests {
    use spiffe::selector::SelectorSet;

    use super::*;

    fn entry(bot: &str, sets: &[(Option<u32>, Option<&str>, bool)]) -> Entry {
        let sets = sets.iter().map(|(uid, user, socket)| SelectorSet {
            uid: *uid,
            user: user.map(str::to_owned),
            socket: *socket,
            ..SelectorSet::default()
        });
        Entry {
            bot: BotName::parse(bot).unwrap(),
            attest: sets.collect(),
        }
    }

    #[test]
    fn a_bot_gets_the_socket_that_it_asks_for_and_only_for_one_user() {
        let entries = [
            entry("a", &[(Some(5), None, true)]),
            entry("b", &[(None, Some("b"), true), (Some(6), None, false)]),
            entry("c", &[(Some(5), None, false)]),
            entry("d", &[(Some(5), None, true), (Some(6), None, true)]),
            entry("e", &[(None, None, true)]),
        ];
        let found: Vec<(String, Owner)> = wanted(&entries)
            .into_iter()
            .map(|(bot, owner)| (bot.to_string(), owner))
            .collect();
        let expected = [("a", Owner::Uid(5)), ("b", Owner::User("b".to_owned()))];
        assert_eq!(found, expected.map(|(bot, owner)| (bot.to_owned(), owner)));
    }

    #[tokio::test]
    async fn a_socket_is_its_owners_alone_in_a_folder_that_nobody_else_writes() {
        let own = geteuid().as_raw();
        let place = tempfile::tempdir().unwrap();
        let (folder, bot) = (place.path().join("bots"), BotName::parse("prod/orders").unwrap());
        let (path, _listener) = make(&folder, &bot, &Owner::Uid(own)).await.unwrap();
        assert_eq!(path, folder.join("prod.orders.sock"));
        let meta = std::fs::symlink_metadata(&path).unwrap();
        assert_eq!((meta.uid(), meta.mode() & 0o777), (own, 0o600));
        assert_eq!(std::fs::metadata(&folder).unwrap().mode() & 0o777, 0o755);
        std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o777)).unwrap();
        assert!(
            make(&folder, &bot, &Owner::Uid(own)).await.is_err(),
            "others may write there"
        );
        std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o755)).unwrap();
        let unknown = Owner::User("no-such-user".to_owned());
        assert!(make(&folder, &bot, &unknown).await.is_err());
        remove_left(&folder);
        assert!(!path.exists());
    }
}
