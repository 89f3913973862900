//! A rule with any path pattern decides any path as a plain matcher does.

#![no_main]

use libfuzzer_sys::fuzz_target;
use policy::{Call, CanonicalPath, Generation, Method, Source, load};
use serde_json::json;
use spiffe::id::{BotName, SpiffeId};
use spiffe::time::Timestamp;

fuzz_target!(|input: (&str, &str)| {
    let (pattern, path) = input;
    let Ok(path) = CanonicalPath::parse(path.as_bytes()) else {
        return;
    };
    for effect in ["allow", "deny"] {
        let mut file = json!({
            "version": 1, "trust_domain": "a.b",
            "bots": {"a": {"owner": "o", "hosts": "h", "attest": {"uid": 1}, "serve": {"http": 80}}},
            "allow": [{"id": "all", "from": "a", "to": "a", "http": "GET /**"}],
        });
        let mut rule = json!({"id": "one", "from": "a", "to": "a", "http": format!("GET {pattern}")});
        if effect == "deny" {
            rule["reason"] = json!("r");
        }
        file[effect] = json!([rule]);
        let Ok(mesh) = load(&[Source { name: "m".to_owned(), text: file.to_string() }]) else {
            return;
        };
        let call = Call {
            from: SpiffeId::parse("spiffe://a.b/a").expect("an ID"),
            to: BotName::parse("a").expect("a name"),
            method: Method::parse("GET").expect("a method"),
            path: path.clone(),
            browser: false,
upgrade: None,
        };
        let allowed = mesh.compile(Generation::default()).decide(Timestamp::from_unix_millis(0), call).is_ok();
        let fold = effect == "deny";
        let parts = |text: &str| -> Vec<String> {
            let text = if fold { text.to_ascii_lowercase() } else { text.to_owned() };
            text.split('/').skip(1).map(str::to_owned).collect()
        };
        assert_eq!(allowed, matches(&parts(pattern), &parts(path.as_str())) != fold, "{effect} {pattern} {path}");
    }
});

fn matches(pattern: &[String], path: &[String]) -> bool {
    match (pattern.split_first(), path.split_first()) {
        (Some((last, [])), _) if last == "**" => true,
        (None, None) => true,
        (Some((segment, pattern)), Some((found, path))) => {
            let one = match segment.strip_suffix('*') {
                Some(start) => found.len() > start.len() && found.starts_with(start),
                None => segment == found,
            };
            one && matches(pattern, path)
        }
        _ => false,
    }
}
