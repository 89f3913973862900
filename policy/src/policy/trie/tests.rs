use proptest::prelude::*;
use proptest::sample::select;

use super::*;
use crate::path::CanonicalPath;
use crate::pattern::PathPattern;

fn item(method: &str, path: &str) -> HttpMatch {
    let method = if method == "*" {
        MethodMatch::Any
    } else {
        MethodMatch::Is(Method::parse(method).unwrap())
    };
    HttpMatch {
        method,
        path: PathPattern::parse(path).unwrap(),
    }
}

fn found(trie: &Trie, method: &str, path: &str) -> Vec<usize> {
    let method = Method::parse(method).unwrap();
    let mut found = Vec::new();
    trie.walk(path, &mut |terminal| {
        found.extend(terminal.rules(&method).flat_map(Sparse::iter))
    });
    found.sort_unstable();
    found.dedup();
    found
}

#[test]
fn a_terminal_keeps_rules_by_method() {
    let rules = [
        vec![item("GET", "/a"), item("POST", "/a")],
        vec![item("*", "/a")],
        vec![item("GET", "/a")],
    ];
    let trie = Trie::new(rules.iter().map(Vec::as_slice), Effect::Allow);
    assert_eq!(found(&trie, "GET", "/a"), [0, 1, 2]);
    assert_eq!(found(&trie, "POST", "/a"), [0, 1]);
    assert_eq!(found(&trie, "PUT", "/a"), [1]);
    assert_eq!(found(&trie, "GET", "/b"), [0; 0]);
}

#[test]
fn a_deny_rule_without_items_is_found_on_every_path_and_an_allow_rule_on_none() {
    let rules: [&[HttpMatch]; 1] = [&[]];
    for (effect, wanted) in [(Effect::Deny, vec![0]), (Effect::Allow, vec![])] {
        let trie = Trie::new(rules.into_iter(), effect);
        for path in ["/", "/a", "/a/b/"] {
            assert_eq!(found(&trie, "GET", path), wanted);
        }
    }
}

proptest! {
    /// With a mask of two bits most edges have twins.
    #[test]
    fn a_walk_finds_what_the_patterns_match_one_by_one(
        patterns in proptest::collection::vec(pattern(), 0..24),
        paths in proptest::collection::vec(path(), 1..12),
        mask in select(vec![u64::MAX, 3, 0]),
    ) {
        let items: Vec<[HttpMatch; 1]> = patterns.iter().map(|pattern| [item("GET", pattern)]).collect();
        let allow = Trie::with_mask(items.iter().map(<[_; 1]>::as_slice), Effect::Allow, mask);
        let deny = Trie::with_mask(items.iter().map(<[_; 1]>::as_slice), Effect::Deny, mask);
        for path in paths {
            let matching = |fold: bool| -> Vec<usize> {
                let cased = |text: &str| if fold { text.to_ascii_uppercase() } else { text.to_owned() };
                let read = CanonicalPath::parse(cased(&path).as_bytes()).unwrap();
                let matches = |pattern: &String| PathPattern::parse(&cased(pattern)).unwrap().matches(&read);
                patterns.iter().enumerate().filter(|(_, pattern)| matches(pattern)).map(|(number, _)| number).collect()
            };
            prop_assert_eq!(found(&allow, "GET", &path), matching(false));
            prop_assert_eq!(found(&deny, "GET", &path), matching(true));
        }
    }
}

fn segment(stars: bool) -> impl Strategy<Value = &'static str> {
    let plain = vec!["a", "A", "b", "ab", "aB", "abc", "ba", "c-1", "C-2"];
    let starred = vec!["*", "a*", "ab*", "A*", "c-*", "b*"];
    select(if stars { [plain, starred].concat() } else { plain })
}

fn pattern() -> impl Strategy<Value = String> {
    (
        proptest::collection::vec(segment(true), 0..4),
        select(vec!["", "/", "/**"]),
    )
        .prop_map(joined)
}

fn path() -> impl Strategy<Value = String> {
    (proptest::collection::vec(segment(false), 0..5), select(vec!["", "/"])).prop_map(joined)
}

fn joined((segments, end): (Vec<&str>, &str)) -> String {
    let head: String = segments.iter().map(|segment| format!("/{segment}")).collect();
    if head.is_empty() && end.is_empty() {
        "/".to_owned()
    } else {
        head + end
    }
}
