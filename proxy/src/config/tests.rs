use std::time::Duration;

use super::*;

const REQUIRED: &str = r#""trust_domain":"acme.internal","host":"web-1","ca":{"addresses":["ca:7443"]},"join":{"token_file":"/run/token"}"#;

fn parse(more: &str) -> Result<Settings, String> {
    let defaults = Defaults {
        environment: crate::credentials::Environment(|_name| None),
        state_dir: "/state".into(),
        runtime_dir: "/run/b".into(),
        operators: vec![Operator::Uid(0)],
    };
    let text = if more.is_empty() {
        format!("{{{REQUIRED}}}")
    } else {
        format!("{{{REQUIRED},{more}}}")
    };
    let config: Config = serde_json::from_str(&text).map_err(|error| error.to_string())?;
    config.resolve(&defaults).map_err(|error| error.to_string())
}

#[test]
fn everything_else_has_a_default() {
    let settings = parse("").unwrap();
    assert_eq!(settings.user, Operator::Name("botmesh".to_owned()));
    assert_eq!(settings.state_dir, PathBuf::from("/state"));
    assert_eq!(settings.bots_listen.to_string(), "127.0.0.1:15080");
    assert_eq!(settings.bots_socket, PathBuf::from("/run/b/bot.sock"));
    assert_eq!(settings.mesh_listen.to_string(), "0.0.0.0:15443");
    assert_eq!(settings.mesh_advertise, None);
    assert!(settings.mesh_reuse);
    assert_eq!(settings.admin_socket, PathBuf::from("/run/b/proxy.sock"));
    assert_eq!(settings.operators, [Operator::Uid(0)]);
    assert_eq!(settings.metrics_listen.to_string(), "127.0.0.1:15090");
    assert_eq!(settings.ledger_dir, PathBuf::from("/state/ledger"));
    assert_eq!(settings.ledger_sync, Duration::from_millis(100));
    assert_eq!(settings.ledger_max_bytes, 20 << 30);
    let day = Duration::from_hours(24);
    assert_eq!(
        (settings.ledger_keep, settings.ledger_keep_events),
        (90 * day, 400 * day)
    );
    assert_eq!(settings.local_hop, LocalHop::Direct);
    assert_eq!(settings.disclose, Disclose::Rule);
    assert_eq!(settings.secret_in_url, SecretInUrl::Refuse);
    assert!(!settings.allow_run);
    assert_eq!(settings.max_policy_age, Duration::from_hours(4));
    assert_eq!(settings.calls, 8_192);
    assert_eq!(settings.buffered, 512 << 20);
}

#[test]
fn a_policy_may_be_old_within_bounds() {
    for (text, age) in [
        ("2m", Some(120)),
        ("30d", Some(30 * 86_400)),
        ("119s", None),
        ("31d", None),
        ("0s", None),
    ] {
        let parsed = parse(&format!(r#""max_policy_age":"{text}""#));
        match age {
            Some(seconds) => assert_eq!(parsed.unwrap().max_policy_age, Duration::from_secs(seconds)),
            None => assert!(parsed.unwrap_err().contains("between 2m and 30d"), "{text}"),
        }
    }
}

#[test]
fn records_are_kept_within_bounds_and_events_not_less_than_calls() {
    let hours = Duration::from_hours;
    for (text, kept) in [
        (r#""keep":"30d""#, Ok((30 * 24, 400 * 24))),
        (r#""keep":"1h","keep_events":"1h""#, Ok((1, 1))),
        // Who keeps calls for two years keeps the rest as long.
        (r#""keep":"730d""#, Ok((730 * 24, 730 * 24))),
        (r#""keep":"36500d""#, Ok((36_500 * 24, 36_500 * 24))),
        (r#""keep":"59m""#, Err("ledger.keep: ")),
        (r#""keep":"36501d""#, Err("ledger.keep: ")),
        (r#""keep_events":"36501d""#, Err("ledger.keep_events: ")),
        (r#""keep":"30d","keep_events":"29d""#, Err("less than ledger.keep")),
        (r#""keep":90"#, Err("invalid type")),
    ] {
        let parsed = parse(&format!(r#""ledger":{{{text}}}"#));
        match kept {
            Ok((calls, events)) => {
                let settings = parsed.unwrap();
                let found = (settings.ledger_keep, settings.ledger_keep_events);
                assert_eq!(found, (hours(calls), hours(events)), "{text}");
            }
            Err(why) => assert!(
                parsed.as_ref().is_err_and(|error| error.contains(why)),
                "{text}: {parsed:?}"
            ),
        }
    }
}

#[test]
fn what_is_required_is_required() {
    for missing in ["trust_domain", "host", "ca", "join"] {
        let mut value: serde_json::Value = serde_json::from_str(&format!("{{{REQUIRED}}}")).unwrap();
        value.as_object_mut().unwrap().remove(missing);
        let error = serde_json::from_value::<Config>(value).unwrap_err().to_string();
        assert!(error.contains(missing), "{error}");
    }
}

#[test]
fn every_setting_is_kept() {
    let settings = parse(
        r#""state_dir":"/s","bots":{"listen":"127.0.0.1:0","socket":"/b.sock"},
        "listeners":[{"listen":"127.0.0.1:0","to":"prod/orders"},{"listen":"unix:/o.sock","to":"prod/db","tcp":5432},
        {"listen":"127.0.0.1:0","to":"https://api.example.com"}],"outside":{"hosts_file":"/h"},
        "mesh":{"listen":"127.0.0.1:0","advertise":"10.0.0.5:15443","reuse":false},
        "admin":{"socket":"/a.sock","operators":["root",1000]},"metrics":{"listen":"[::1]:0"},
        "ledger":{"dir":"/l","sync":"250ms","max_bytes":"1GiB"},
        "local_hop":"mtls","disclose":"full","secret_in_url":"flag","allow_run":true"#,
    )
    .unwrap();
    assert_eq!(settings.ledger_key_file(), PathBuf::from("/s/log.key"));
    let leads: Vec<_> = settings
        .listeners
        .iter()
        .map(|one| (one.to.to_string(), one.tcp))
        .collect();
    assert_eq!(
        leads,
        [
            ("prod/orders".to_owned(), None),
            ("prod/db".to_owned(), Some(5432)),
            ("https://api.example.com".to_owned(), None)
        ]
    );
    assert_eq!(settings.hosts_file, Some(PathBuf::from("/h")));
    assert_eq!(settings.mesh_advertise.unwrap().to_string(), "10.0.0.5:15443");
    assert!(!settings.mesh_reuse && settings.allow_run);
    assert_eq!(settings.operators, [Operator::Name("root".into()), Operator::Uid(1000)]);
    assert_eq!(settings.ledger_sync, Duration::from_millis(250));
    assert_eq!(settings.ledger_max_bytes, 1 << 30);
    assert_eq!(
        (settings.local_hop, settings.disclose, settings.secret_in_url),
        (LocalHop::Mtls, Disclose::Full, SecretInUrl::Flag)
    );
}

#[test]
fn settings_that_are_not_enforced_are_refused_by_name() {
    let error = parse(r#""workload_api":{"socket":"/w.sock"}"#).unwrap_err();
    let words = ["BM0190", "workload_api", "not enforced"];
    assert!(words.iter().all(|word| error.contains(word)), "{error}");
}

#[test]
fn unknown_settings_are_refused() {
    for more in [
        r#""max_policy_years":"4h""#,
        r#""bots":{"lisen":"127.0.0.1:1"}"#,
        r#""join":{"oidc":{}}"#,
        r#""local_hop":"plain""#,
        r#""disclose":"all""#,
        r#""secret_in_url":"allow""#,
        r#""listeners":[{"listen":"127.0.0.1:1","to":"prod/db","tcp":0}]"#,
        r#""listeners":[{"listen":"127.0.0.1:1","to":"prod/db","tcp":65536}]"#,
        r#""listeners":[{"listen":"127.0.0.1:1","to":"tls://www.news.example","tcp":443}]"#,
        r#""listeners":[{"listen":"127.0.0.1:1","to":"tls://*.news.example"}]"#,
        r#""listeners":[{"listen":"127.0.0.1:1","to":"https://10.0.0.1"}]"#,
        r#""outside":{"resolver":"10.0.0.1"}"#,
    ] {
        assert!(parse(more).is_err(), "{more}");
    }
}

#[test]
fn listeners_for_bots_and_metrics_that_others_could_reach_are_refused() {
    for more in [
        r#""bots":{"listen":"0.0.0.0:15080"}"#,
        r#""metrics":{"listen":"10.0.0.5:15090"}"#,
        r#""listeners":[{"listen":"0.0.0.0:1","to":"prod/orders"}]"#,
    ] {
        assert!(parse(more).unwrap_err().contains("loopback"), "{more}");
    }
}

#[test]
fn an_address_that_nobody_can_connect_to_is_not_advertised() {
    for address in ["0.0.0.0:15443", "10.0.0.5:0"] {
        let error = parse(&format!(r#""mesh":{{"advertise":"{address}"}}"#)).unwrap_err();
        assert!(error.contains("mesh.advertise"), "{error}");
    }
}

#[test]
fn a_ledger_that_never_syncs_is_refused() {
    for sync in ["0ms", "11s"] {
        assert!(
            parse(&format!(r#""ledger":{{"sync":"{sync}"}}"#))
                .unwrap_err()
                .contains("ledger.sync"),
            "{sync}"
        );
    }
}

#[test]
fn counts_are_bounded() {
    let with = |addresses: Vec<String>| {
        let text = format!(
            r#"{{"trust_domain":"a.b","host":"h","ca":{{"addresses":{addresses:?}}},"join":{{"token_file":"t"}}}}"#
        );
        let config: Config = serde_json::from_str(&text).unwrap();
        config.check_counts()
    };
    assert!(with(vec![]).is_err());
    assert!(with(vec!["ca:1".into(); CA_ADDRESSES_MAX]).is_ok());
    assert!(with(vec!["ca:1".into(); CA_ADDRESSES_MAX + 1]).is_err());
    let listener = r#"{"listen":"127.0.0.1:0","to":"prod/orders"}"#;
    let many = vec![listener; LISTENERS_MAX + 1].join(",");
    assert!(
        parse(&format!(r#""listeners":[{many}]"#))
            .unwrap_err()
            .contains("listeners")
    );
}

#[test]
fn some_calls_are_carried_and_not_without_end() {
    for (calls, fits) in [("0", false), ("1", true), ("1000000", true), ("1000001", false)] {
        let parsed = parse(&format!(r#""bounds":{{"calls":{calls}}}"#));
        assert_eq!(parsed.is_ok(), fits, "{calls}");
    }
}

/// A vault, with this in the place of its parts, and the source of one credential.
fn vault(address: &str, rest: &str, source: &str) -> Result<Settings, String> {
    parse(&format!(
        r#""credentials":{{"vaults":{{"main":{{"address":"{address}",{rest}}}}},"sources":{{"crm":{{"vault":{source}}}}}}}"#
    ))
}

const CERT: &str = r#""login":{"cert":{"role":"hosts"}}"#;
const KV: &str = r#"{"path":"kv/data/crm","key":"api"}"#;

#[test]
fn a_vault_is_logged_in_to_by_what_the_host_is() {
    use crate::credentials::{ByCert, Login, VaultPath, VaultWord};
    let settings = vault("https://vault:8200", CERT, KV).unwrap();
    let main = VaultWord::parse("main").unwrap();
    let by = ByCert {
        mount: VaultPath::parse("cert").unwrap(),
        role: VaultWord::parse("hosts").unwrap(),
    };
    assert_eq!(settings.vaults[&main].login, Login::Cert(by));
    let (_, source) = settings.credential_sources.iter().next().unwrap();
    assert!(matches!(source, Source::Vault(source) if source.of.as_ref() == Some(&main)));
    let jwt =
        r#""login":{"jwt":{"mount":"k8s/a","role":"hosts","file":"/run/token"}},"ca":"/ca.pem","namespace":"a/b""#;
    assert!(vault("https://vault:8200", jwt, KV).is_ok());
}

#[test]
fn a_stored_token_is_refused_with_the_reason() {
    for rest in [
        r#""token":"s.abc","login":{"cert":{"role":"hosts"}}"#,
        r#""token_file":"/t","login":{"cert":{"role":"hosts"}}"#,
        r#""login":{"token":"s.abc"}"#,
        r#""login":{"token_file":"/t"}"#,
        r#""login":{"approle":{"role_id":"a","secret_id":"b"}}"#,
        r#""login":{"userpass":{"username":"a","password":"b"}}"#,
    ] {
        let error = vault("https://vault:8200", rest, KV).unwrap_err();
        assert!(
            error.contains("a stored token or password is refused: whoever reads it is this host"),
            "{rest}: {error}"
        );
        assert!(!error.contains("s.abc"), "{error}");
    }
}

#[test]
fn a_source_is_a_key_that_stays_or_a_lease_that_ends() {
    for (source, class) in [
        (KV, "static"),
        (r#"{"lease":"database/creds/shop"}"#, "dynamic"),
        (r#"{"of":"main","lease":"aws/creds/bot","key":"access_key"}"#, "dynamic"),
    ] {
        let settings = vault("https://vault:8200", CERT, source).unwrap();
        let found = settings.credential_sources.values().next().unwrap();
        assert_eq!((found.kind(), found.class()), ("vault", class), "{source}");
    }
    for source in [
        "{}",
        r#"{"key":"api"}"#,
        r#"{"lease":"database/creds/shop","path":"kv/data/crm"}"#,
        r#"{"lease":"database/creds/shop","path":"kv/data/crm","key":"api"}"#,
        r#"{"lease":"/database"}"#,
    ] {
        assert!(vault("https://vault:8200", CERT, source).is_err(), "{source}");
    }
}

/// Address, the rest of the vault, the source of the credential, and words of the refusal.
const NOT_ASKED: &[(&str, &str, &str, &str)] = &[
    ("http://10.0.0.5:8200", CERT, KV, "not the address of a vault"),
    (
        "http://127.0.0.1:8200",
        CERT,
        KV,
        "needs an address that begins with https://",
    ),
    (
        "unix:/run/bao.sock",
        CERT,
        KV,
        "needs an address that begins with https://",
    ),
    (
        "http://127.0.0.1:8200",
        r#""login":{"jwt":{"role":"hosts","file":"/t"}},"ca":"/ca.pem""#,
        KV,
        "`ca` needs an address",
    ),
    (
        "https://vault",
        r#""login":{"cert":{"role":"hosts"}},"ca":"ca.pem""#,
        KV,
        "absolute paths",
    ),
    (
        "https://vault",
        r#""login":{"jwt":{"role":"hosts","file":"token"}}"#,
        KV,
        "absolute paths",
    ),
    ("https://vault", r#""login":{}"#, KV, "write one of `cert"),
    (
        "https://vault",
        r#""login":{"cert":{"role":"a"},"jwt":{"role":"a","file":"/t"}}"#,
        KV,
        "write one of `cert",
    ),
    (
        "https://vault",
        r#""login":{"cert":{"role":"a/b"}}"#,
        KV,
        "a name in a vault",
    ),
    ("https://vault", r#""login":{"kerberos":{}}"#, KV, "unknown field"),
    (
        "https://vault",
        CERT,
        r#"{"path":"kv/crm","key":"api"}"#,
        "MOUNT/data/PATH",
    ),
    (
        "https://vault",
        CERT,
        r#"{"path":"data/crm","key":"api"}"#,
        "MOUNT/data/PATH",
    ),
    (
        "https://vault",
        CERT,
        r#"{"path":"kv/data/../sys","key":"api"}"#,
        "a path in a vault",
    ),
    ("https://vault", CERT, r#"{"path":"kv/data/crm"}"#, "vault: write `path"),
    (
        "https://vault",
        CERT,
        r#"{"of":"other","path":"kv/data/crm","key":"api"}"#,
        "`of` names one of",
    ),
];

#[test]
fn a_vault_that_could_not_be_asked_is_refused_by_its_name() {
    for (address, rest, source, words) in NOT_ASKED {
        let error = vault(address, rest, source).unwrap_err();
        assert!(error.contains(words), "{address} {rest} {source}: {error}");
    }
}

#[test]
fn a_source_means_one_vault() {
    let error = parse(&format!(r#""credentials":{{"sources":{{"crm":{{"vault":{KV}}}}}}}"#)).unwrap_err();
    assert!(error.contains("credentials.vaults, which are 0"), "{error}");
    let two = format!(r#""a":{{"address":"https://a",{CERT}}},"b":{{"address":"https://b",{CERT}}}"#);
    let error = parse(&format!(
        r#""credentials":{{"vaults":{{{two}}},"sources":{{"crm":{{"vault":{KV}}}}}}}"#
    ))
    .unwrap_err();
    assert!(error.contains("credentials.vaults, which are 2"), "{error}");
    let many: Vec<String> = (0..=crate::credentials::VAULTS_MAX)
        .map(|number| format!(r#""v{number}":{{"address":"https://a",{CERT}}}"#))
        .collect();
    let error = parse(&format!(r#""credentials":{{"vaults":{{{}}}}}"#, many.join(","))).unwrap_err();
    assert!(error.contains("at most 16"), "{error}");
    assert!(
        parse(&format!(
            r#""credentials":{{"vaults":{{"a b":{{"address":"https://a",{CERT}}}}}}}"#
        ))
        .is_err()
    );
}
