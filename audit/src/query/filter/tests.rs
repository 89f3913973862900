use super::*;
use proptest::prelude::*;

fn now() -> Timestamp {
    Timestamp::from_rfc3339("2026-11-05T10:00:00Z").unwrap()
}

const CALL: &str = r#"{"kind":"call","id":"01990000-0000-7000-8000-000000000001","time":"2026-11-05T09:00:00.000Z","direction":"out","from":{"id":"spiffe://acme.internal/prod/checkout"},"to":{"host":"api.example"},"method":"GET","path":"/a/b","verdict":"allow","rule":"r","status":204}"#;

fn matches(filter: &str) -> bool {
    parse(filter, now()).unwrap().matches(CALL.as_bytes())
}

#[test]
fn all_terms_must_hold() {
    assert!(matches(""));
    assert!(matches("verdict=allow  from=prod/*\tmethod=GET"));
    for other in [
        "verdict=deny",
        "from=staging/*",
        "from=spiffe://acme.internal/prod",
        "to=prod/*",
        "to=spiffe://**",
        "method=POST",
        "path=/a",
        "rule=s",
        "reason=x",
        "kind=end",
        "direction=in",
        "id=01990000-0000-7000-8000-000000000002",
        "since=30m",
        "until=2h",
        "status=5xx",
        "status=203",
    ] {
        assert!(!matches(other), "{other}");
        assert!(!matches(&format!("verdict=allow {other}")), "{other}");
    }
}

#[test]
fn times_are_absolute_or_before_now() {
    for hit in [
        "since=60m",
        "since=1h",
        "since=3600s",
        "since=1d",
        "since=2026-11-05T09:00:00Z",
        "until=3599s",
        "until=59m",
        "until=2026-11-05T10:00:00.001+01:00 since=2026-11-05T10:00:00+01:00",
    ] {
        assert!(matches(hit), "{hit}");
    }
    assert!(!matches("until=1h"), "until does not include its time");
    let filter = Filter::default().since(now());
    assert!(!filter.matches(CALL.as_bytes()));
    assert!(Filter::default().until(now()).matches(CALL.as_bytes()));
    assert!(
        !Filter::default()
            .until(now() - Duration::from_secs(3600))
            .matches(CALL.as_bytes())
    );
}

#[test]
fn a_time_ago_is_exact_in_each_unit() {
    for (text, seconds) in [("90s", 90), ("15m", 900), ("2h", 7_200), ("7d", 604_800), ("0s", 0)] {
        assert_eq!(time(text, now()), Some(now() - Duration::from_secs(seconds)), "{text}");
    }
}

#[test]
fn a_host_that_is_no_bot_is_found_by_its_name() {
    assert!(matches("to=api.example"));
    assert!(!matches("from=api.example"));
}

#[test]
fn a_destination_outside_is_found_with_its_scheme_and_without() {
    let line = CALL.replace(r#"{"host":"api.example"}"#, r#"{"outside":"https://api.example"}"#);
    let matches = |filter: &str| parse(filter, now()).unwrap().matches(line.as_bytes());
    assert!(matches("to=https://api.example") && matches("to=api.example") && matches("to=https://*"));
    assert!(!matches("to=tls://api.example") && !matches("to=api"));
}

#[test]
fn a_call_without_a_protocol_is_http() {
    assert!(matches("protocol=http") && !matches("protocol=tcp"));
    let tcp = CALL.replace(r#""method":"GET","path":"/a/b""#, r#""protocol":"tcp","port":5432"#);
    let matches = |filter: &str| parse(filter, now()).unwrap().matches(tcp.as_bytes());
    assert!(matches("protocol=tcp") && !matches("protocol=http") && !matches("method=GET"));
    let end = CALL.replace(r#""kind":"call""#, r#""kind":"end""#);
    assert!(!parse("protocol=http", now()).unwrap().matches(end.as_bytes()));
}

#[test]
fn statuses_are_single_or_a_class() {
    assert!(matches("status=204"));
    assert!(matches("status=2xx"));
    assert!(!matches("status=2xx status=5xx"));
    let edge = |status: &str, filter: &str| {
        let line = CALL.replace("204", status);
        parse(filter, now()).unwrap().matches(line.as_bytes())
    };
    assert!(edge("500", "status=5xx") && edge("599", "status=5xx"));
    assert!(!edge("499", "status=5xx") && !edge("600", "status=5xx"));
}

#[test]
fn what_is_no_filter_is_refused_with_what_would_be_one() {
    let value = |key, value: &str, wanted| FilterError::Value {
        key,
        value: value.into(),
        wanted,
    };
    for (text, error) in [
        ("deny", FilterError::NoTerm { term: "deny".into() }),
        ("verdit=deny", FilterError::Key { key: "verdit".into() }),
        ("verdict=no", value("verdict", "no", "allow, audit or deny")),
        ("direction=up", value("direction", "up", "in or out")),
        ("rule=", value("rule", "", "it must not be empty")),
        ("id=1", value("id", "1", "a UUID in lower case")),
        ("since=yesterday", value("since", "yesterday", TIME)),
        ("until=m", value("until", "m", TIME)),
        ("since=-5m", value("since", "-5m", TIME)),
        (
            "since=99999999999999999999d",
            value("since", "99999999999999999999d", TIME),
        ),
        ("status=0xx", value("status", "0xx", "a status such as 503, or 5xx")),
        ("status=99", value("status", "99", "a status such as 503, or 5xx")),
        ("status=1000", value("status", "1000", "a status such as 503, or 5xx")),
        (
            "from=a*b",
            FilterError::Pattern {
                key: "from",
                value: "a*b".into(),
                source: NotAPattern,
            },
        ),
    ] {
        assert_eq!(parse(text, now()), Err(error), "{text}");
    }
    let listed = parse("x=y", now()).unwrap_err().to_string();
    assert!(KEYS.iter().all(|key| listed.contains(key)), "{listed}");
    assert!(listed.ends_with(&KEYS.join(", ")), "{listed}");
}

#[test]
fn a_filter_has_bounds() {
    assert!(parse(&"rule=a ".repeat(64), now()).is_ok());
    assert_eq!(parse(&"rule=a ".repeat(65), now()), Err(FilterError::TooLong));
    assert_eq!(parse(&"status=200 ".repeat(65), now()), Err(FilterError::TooLong));
    assert!(parse(&format!("rule={}", "a".repeat(4091)), now()).is_ok());
    assert_eq!(
        parse(&format!("rule={}", "a".repeat(4092)), now()),
        Err(FilterError::TooLong)
    );
}

#[test]
fn what_is_no_record_matches_nothing() {
    for line in ["", "{}", "[]", r#"{"kind":1}"#] {
        assert!(!parse("", now()).unwrap().matches(line.as_bytes()), "{line}");
    }
}

proptest! {
    #[test]
    fn no_text_panics(text in "([a-z]{2,9}=)?[ -~]{0,30}", line: Vec<u8>) {
        if let Ok(filter) = parse(&text, now()) {
            let is_object = line.trim_ascii_start().starts_with(b"{");
            prop_assert!(is_object || !filter.matches(&line));
        }
    }
}
