//! What the process that reads calls may do.

use ca_api::proxy_admin::ProxyStatus;

use super::Looks;

const PART: &str = "proxy";

/// The capabilities that a proxy may have, by their bits (capabilities(7)).
const KNOWN: [(u32, &str); 4] = [
    (0, "CAP_CHOWN"),
    (1, "CAP_DAC_OVERRIDE"),
    (2, "CAP_DAC_READ_SEARCH"),
    (19, "CAP_SYS_PTRACE"),
];

/// Looks at the process of the proxy.
pub(super) fn look(status: &ProxyStatus, looks: &mut Looks) {
    let Some(pid) = status.pid else {
        return looks.untried(
            PART,
            "privileges",
            "the proxy is of an earlier version and does not say which process it is",
        );
    };
    match std::fs::read_to_string(format!("/proc/{pid}/status")) {
        Ok(text) => judge(&text, looks),
        Err(error) => looks.untried(PART, "privileges", format!("process {pid}: {error}")),
    }
}

fn judge(status: &str, looks: &mut Looks) {
    let line = |name: &str| {
        let value = status
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        value.map(str::trim)
    };
    // Real, effective, saved and file system user: the second counts.
    let uid = line("Uid").and_then(|uids| uids.split_whitespace().nth(1));
    let held = line("CapEff").and_then(|held| u64::from_str_radix(held, 16).ok());
    let (Some(uid), Some(held)) = (uid, held) else {
        return looks.untried(PART, "privileges", "the kernel does not say");
    };
    let known = KNOWN.iter().fold(0, |bits: u64, (bit, _)| bits | 1 << bit);
    if held & !known != 0 {
        return looks.finding(
            PART,
            "privileges",
            format!("uid {uid} with capabilities that it does not need ({held:#x})"),
            "start it by its unit, which keeps them from it: systemctl enable --now botmesh-proxy",
        );
    }
    let names: Vec<&str> = KNOWN
        .iter()
        .filter(|(bit, _)| held >> bit & 1 == 1)
        .map(|(_, name)| *name)
        .collect();
    let names = if names.is_empty() {
        "no capabilities".to_owned()
    } else {
        names.join(", ")
    };
    looks.ok(PART, "privileges", format!("uid {uid}, {names}"));
}

#[cfg(test)]
mod tests {
    use super::super::State;
    use super::*;

    fn judged(status: &str) -> (State, String) {
        let mut looks = Looks::default();
        judge(status, &mut looks);
        let look = looks.0.remove(0);
        (look.state, look.seen)
    }

    #[test]
    fn more_capabilities_than_a_proxy_needs_are_a_finding() {
        let status = |held: &str| format!("Name:\tbotmesh\nUid:\t0\t997\t0\t0\nCapEff:\t{held}\n");
        assert_eq!(
            judged(&status("0000000000000000")),
            (State::Ok, "uid 997, no capabilities".to_owned())
        );
        let (state, seen) = judged(&status("0000000000080002"));
        assert_eq!(
            (state, seen.as_str()),
            (State::Ok, "uid 997, CAP_DAC_OVERRIDE, CAP_SYS_PTRACE")
        );
        assert_eq!(judged(&status("000001ffffffffff")).0, State::Finding);
        assert_eq!(judged(&status("0000000000200000")).0, State::Finding);
        assert_eq!(judged("Name:\tx\n").0, State::Untried);
    }
}
