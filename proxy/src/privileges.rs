//! What the proxy may do, and how it gives up the rest.
//!
//! Started by root, the process narrows itself before there is a second thread ([`narrow`]), binds and opens what only
//! root can, and becomes its own user ([`become_user`]) before it serves anybody. Capabilities belong to threads: the
//! bounding set and no-new-privileges are inherited by threads that begin later; the change of the user, which the C
//! library makes on every thread, takes the rest.

use std::io;

use nix::sys::prctl;
use nix::unistd::{Gid, Uid, setgroups, setresgid, setresuid};
use rustix::thread::{
    CapabilitySet, CapabilitySets, capability_is_in_bounding_set, clear_ambient_capability_set,
    remove_capability_from_bounding_set, set_capabilities, set_no_new_privs,
};
use thiserror::Error;

/// Who to become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct User {
    /// The user.
    pub uid: u32,
    /// Its group; it is in no other.
    pub gid: u32,
}

/// A right that could not be given up.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum PrivilegeError {
    /// The system refused a step.
    #[error("{step}")]
    Step {
        /// The step.
        step: &'static str,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// After all steps a thread has what it must not have.
    #[error("a thread still has {line:?}")]
    Kept {
        /// The line of its status.
        line: String,
    },
}

fn step<E: Into<io::Error>>(step: &'static str) -> impl FnOnce(E) -> PrivilegeError {
    move |source| PrivilegeError::Step {
        step,
        source: source.into(),
    }
}

/// Takes from this thread, and from those that it starts, the way to rights that it does not have, and closes this
/// process to others of its user: no dump, no tracing.
///
/// # Errors
/// When the system refuses.
pub fn seal() -> Result<(), PrivilegeError> {
    clear_ambient_capability_set().map_err(step("clear the ambient set"))?;
    set_no_new_privs(true).map_err(step("set no-new-privileges"))?;
    prctl::set_dumpable(false).map_err(step("set not dumpable"))
}

/// Does what [`seal`] does, and gives up every capability of this thread and of those that it starts. For a server that is
/// not root and needs none.
///
/// # Errors
/// When the system refuses.
pub fn renounce() -> Result<(), PrivilegeError> {
    seal()?;
    let none = CapabilitySets {
        effective: CapabilitySet::empty(),
        permitted: CapabilitySet::empty(),
        inheritable: CapabilitySet::empty(),
    };
    set_capabilities(None, none).map_err(step("give up all capabilities"))
}

/// Does what [`seal`] does, and empties the bounding and the inheritable set. To be called by root while there is one
/// thread, after the helper was started.
///
/// # Errors
/// When the system refuses.
pub fn narrow() -> Result<(), PrivilegeError> {
    seal()?;
    bound(CapabilitySet::empty())?;
    let now = rustix::thread::capabilities(None).map_err(step("read the capabilities"))?;
    let sets = CapabilitySets {
        inheritable: CapabilitySet::empty(),
        ..now
    };
    set_capabilities(None, sets).map_err(step("clear the inheritable set"))
}

/// Becomes the user on every thread, without any capability, and makes sure of it.
///
/// # Errors
/// When the system refuses, or any thread has anything left: the process must then end.
pub fn become_user(user: User) -> Result<(), PrivilegeError> {
    switch(user)?;
    prctl::set_dumpable(false).map_err(step("set not dumpable"))?;
    check(user, CapabilitySet::empty())
}

/// Becomes the user, keeps `kept` and nothing else. To be called by root while there is one thread.
///
/// # Errors
/// Like [`become_user`].
pub(crate) fn become_helper(user: User, kept: CapabilitySet) -> Result<(), PrivilegeError> {
    seal()?;
    bound(kept)?;
    prctl::set_keepcaps(true).map_err(step("keep capabilities"))?;
    switch(user)?;
    prctl::set_keepcaps(false).map_err(step("keep capabilities no longer"))?;
    let sets = CapabilitySets {
        effective: kept,
        permitted: kept,
        inheritable: CapabilitySet::empty(),
    };
    set_capabilities(None, sets).map_err(step("keep what is needed and give up the rest"))?;
    prctl::set_dumpable(false).map_err(step("set not dumpable"))?;
    check(user, kept)
}

/// Real, effective, saved and file-system ids, and no supplementary groups.
fn switch(user: User) -> Result<(), PrivilegeError> {
    let (uid, gid) = (Uid::from_raw(user.uid), Gid::from_raw(user.gid));
    setgroups(&[]).map_err(step("leave all groups"))?;
    setresgid(gid, gid, gid).map_err(step("become the group"))?;
    setresuid(uid, uid, uid).map_err(step("become the user"))
}

/// Takes all but `kept` from the bounding set.
fn bound(kept: CapabilitySet) -> Result<(), PrivilegeError> {
    for bit in 0..u64::BITS {
        let one = CapabilitySet::from_bits_retain(1 << bit);
        // Numbers that the kernel does not know are above all that it knows.
        if kept.contains(one) || !capability_is_in_bounding_set(one).unwrap_or(false) {
            continue;
        }
        remove_capability_from_bounding_set(one).map_err(step("narrow the bounding set"))?;
    }
    Ok(())
}

/// Reads back what the kernel says of every thread.
fn check(user: User, kept: CapabilitySet) -> Result<(), PrivilegeError> {
    let unread = || step("read the status of every thread");
    for task in std::fs::read_dir("/proc/self/task").map_err(unread())? {
        let path = task.map_err(unread())?.path().join("status");
        let status = match std::fs::read_to_string(path) {
            Ok(status) => status,
            // A thread that has ended has nothing.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(unread()(error)),
        };
        if let Some(line) = left(&status, user, kept) {
            return Err(PrivilegeError::Kept { line });
        }
    }
    Ok(())
}

/// The first line of a status (proc_pid_status(5)) that says more than is allowed.
fn left(status: &str, user: User, kept: CapabilitySet) -> Option<String> {
    let ids = |id: u32| format!("\t{id}\t{id}\t{id}\t{id}");
    let (kept, none) = (format!("\t{:016x}", kept.bits()), format!("\t{:016x}", 0));
    let wanted = [
        ("Uid:", ids(user.uid)),
        ("Gid:", ids(user.gid)),
        ("Groups:", "\t".to_owned()),
        ("CapInh:", none.clone()),
        ("CapPrm:", kept.clone()),
        ("CapEff:", kept.clone()),
        ("CapBnd:", kept),
        ("CapAmb:", none),
        ("NoNewPrivs:", "\t1".to_owned()),
    ];
    wanted.into_iter().find_map(|(key, wanted)| {
        let line = status.lines().find(|line| line.starts_with(key));
        let is_so = line
            .and_then(|line| line.strip_prefix(key))
            .is_some_and(|value| value.trim_end_matches(' ') == wanted);
        (!is_so).then(|| line.unwrap_or(key).to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATUS: &str = "Name:\tx\nUid:\t7\t7\t7\t7\nGid:\t8\t8\t8\t8\nGroups:\t \nCapInh:\t0000000000000000\n\
                          CapPrm:\t0000000000000000\nCapEff:\t0000000000000000\nCapBnd:\t0000000000000000\n\
                          CapAmb:\t0000000000000000\nNoNewPrivs:\t1\n";
    const USER: User = User { uid: 7, gid: 8 };

    #[test]
    fn each_thing_that_a_thread_could_have_kept_is_found() {
        let none = CapabilitySet::empty();
        assert_eq!(left(STATUS, USER, none), None);
        for (from, to) in [
            ("Uid:\t7\t7\t7\t7", "Uid:\t7\t7\t0\t7"),
            ("Gid:\t8\t8\t8\t8", "Gid:\t0\t8\t8\t8"),
            ("Groups:\t ", "Groups:\t0 "),
            ("CapInh:\t0000000000000000", "CapInh:\t0000000000080000"),
            ("CapPrm:\t0000000000000000", "CapPrm:\t0000000000080000"),
            ("CapEff:\t0000000000000000", "CapEff:\t0000000000080000"),
            ("CapBnd:\t0000000000000000", "CapBnd:\t0000000000080000"),
            ("CapAmb:\t0000000000000000", "CapAmb:\t0000000000080000"),
            ("NoNewPrivs:\t1", "NoNewPrivs:\t0"),
            ("NoNewPrivs:\t1\n", ""),
        ] {
            let status = STATUS.replace(from, to);
            assert_ne!(status, STATUS);
            assert!(left(&status, USER, none).is_some(), "{to}");
        }
        let kept = STATUS.replace("CapPrm:\t0000000000000000", "CapPrm:\t0000000000080004");
        let two = CapabilitySet::SYS_PTRACE | CapabilitySet::DAC_READ_SEARCH;
        assert_eq!(left(&kept, USER, two), Some("CapEff:\t0000000000000000".to_owned()));
    }
}
