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
    assert_eq!(settings.local_hop, LocalHop::Direct);
    assert_eq!(settings.disclose, Disclose::Rule);
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
        "local_hop":"mtls","disclose":"full","allow_run":true"#,
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
        (settings.local_hop, settings.disclose),
        (LocalHop::Mtls, Disclose::Full)
    );
}

#[test]
fn settings_that_are_not_enforced_are_refused_by_name() {
    for (more, name) in [
        (r#""workload_api":{"socket":"/w.sock"}"#, "workload_api"),
        (r#""ledger":{"keep":"90d"}"#, "ledger.keep"),
    ] {
        let error = parse(more).unwrap_err();
        assert!(
            error.contains("BM0190") && error.contains(name) && error.contains("not enforced"),
            "{error}"
        );
    }
}

#[test]
fn unknown_settings_are_refused() {
    for more in [
        r#""max_policy_years":"4h""#,
        r#""bots":{"lisen":"127.0.0.1:1"}"#,
        r#""join":{"oidc":{}}"#,
        r#""local_hop":"plain""#,
        r#""disclose":"all""#,
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
