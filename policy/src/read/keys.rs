//! Which keys each map has, and which belong to the format but are not enforced by this version.

/// The keys of one kind of map.
#[derive(Debug)]
pub(crate) struct Keys {
    /// Names the map for people, with its article.
    pub(crate) of: &'static str,
    pub(crate) known: &'static [&'static str],
    /// Keys that this version refuses with `BM0190`; one that ends in `*` stands for all keys that start so.
    pub(crate) later: &'static [&'static str],
}

pub(crate) const MESH: Keys = Keys {
    of: "a mesh file",
    known: &[
        "version",
        "trust_domain",
        "slice",
        "bots",
        "groups",
        "allow",
        "deny",
        "destinations",
        "limits",
        "audit_only",
        "credentials",
        "tests",
    ],
    later: &["federation"],
};

pub(crate) const BOT: Keys = Keys {
    of: "a bot",
    known: &["owner", "hosts", "attest", "serve", "svid_ttl", "keys"],
    later: &["jwt", "limits"],
};

pub(crate) const ATTEST: Keys = Keys {
    of: "an attest map",
    known: &[
        "user",
        "uid",
        "unit",
        "group",
        "gid",
        "cgroup",
        "exe",
        "exe_sha256",
        "run_by",
        "socket",
    ],
    later: &["container_*", "k8s_*", "oidc"],
};

pub(crate) const SERVE: Keys = Keys {
    of: "serve",
    known: &["http", "grpc", "tcp", "proxy_protocol", "endpoints"],
    later: &["tls"],
};

const ALLOW: Keys = Keys {
    of: "an allow rule",
    known: &[
        "id", "from", "to", "http", "grpc", "tcp", "postgres", "until", "reason", "justify", "browser", "upgrade",
        "inject", "path",
    ],
    later: &["headers", "when"],
};

const DENY: Keys = Keys {
    of: "a deny rule",
    known: &[
        "id", "from", "to", "http", "grpc", "tcp", "postgres", "until", "reason", "path",
    ],
    later: &["headers", "when"],
};

pub(crate) const DESTINATION: Keys = Keys {
    of: "a destination",
    known: &[
        "connect_timeout",
        "request_timeout",
        "stream_idle",
        "retries",
        "max_in_flight",
        "max_pending",
        "max_failures",
    ],
    later: &[],
};

pub(crate) const OUTSIDE: Keys = Keys {
    of: "a destination outside",
    known: &[
        "addresses",
        "ca",
        "connect_timeout",
        "request_timeout",
        "stream_idle",
        "max_in_flight",
        "max_failures",
    ],
    later: &["retries", "max_pending"],
};

pub(crate) const CREDENTIAL: Keys = Keys {
    of: "a credential",
    known: &[
        "owner",
        "header",
        "prefix",
        "bearer",
        "basic",
        "query",
        "unsafe_query",
        "hmac",
        "sigv4",
        "postgres",
        "oauth",
        "github_app",
        "federate",
        "url",
        "rotate_every",
        "shared",
        "probe",
    ],
    later: &[],
};

pub(crate) const FEDERATE: Keys = Keys {
    of: "federate",
    known: &[
        "audience",
        "token_url",
        "grant",
        "client_id",
        "scope",
        "resource",
        "token_audience",
        "subject_token_type",
        "requested_token_type",
        "encoding",
        "parameters",
    ],
    later: &[],
};

pub(crate) const GITHUB_APP: Keys = Keys {
    of: "github_app",
    known: &["app_id", "installation_id", "base"],
    later: &[],
};

pub(crate) const OAUTH: Keys = Keys {
    of: "oauth",
    known: &[
        "token_url",
        "client_id",
        "grant",
        "auth",
        "scope",
        "audience",
        "resource",
    ],
    later: &[],
};

pub(crate) const HMAC: Keys = Keys {
    of: "hmac",
    known: &["header", "hash", "encoding", "prefix", "timestamp"],
    later: &[],
};

pub(crate) const SIGV4: Keys = Keys {
    of: "sigv4",
    known: &["region", "service"],
    later: &[],
};

pub(crate) const POSTGRES: Keys = Keys {
    of: "postgres",
    known: &["user", "svid"],
    later: &["lease"],
};

pub(crate) const LIMIT: Keys = Keys {
    of: "a limit",
    known: &["id", "from", "to", "rate", "burst"],
    later: &[],
};

pub(crate) const AUDIT_ONLY: Keys = Keys {
    of: "an entry of audit_only",
    known: &["to", "until", "reason"],
    later: &[],
};

pub(crate) const TEST: Keys = Keys {
    of: "a test",
    known: &["name", "from", "to", "at", "by", "allow", "audit", "deny"],
    later: &[],
};

/// Gives the keys of rules with an effect.
pub(crate) fn rule(effect: crate::rule::Effect) -> &'static Keys {
    match effect {
        crate::rule::Effect::Allow => &ALLOW,
        crate::rule::Effect::Deny => &DENY,
    }
}

impl Keys {
    /// Says whether a later version enforces `key`.
    pub(crate) fn is_later(&self, key: &str) -> bool {
        self.later.iter().any(|later| match later.strip_suffix('*') {
            Some(start) => key.starts_with(start),
            None => *later == key,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_later_key_is_named_whole_or_by_its_start() {
        for key in ["oidc", "container_image", "k8s_ns"] {
            assert!(ATTEST.is_later(key), "{key}");
        }
        for key in ["unit", "container", "user", "k8s"] {
            assert!(!ATTEST.is_later(key), "{key}");
        }
    }
}
