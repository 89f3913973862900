//! Keys by their looks: the prefixes that services give them, so that one which should not be there is found without being known.

use std::ops::Range;
use std::sync::LazyLock;

use aho_corasick::{AhoCorasick, MatchKind};

use super::percent::{self, Plus};

/// What may follow a prefix.
#[derive(Clone, Copy, Debug)]
enum Letters {
    /// Letters and digits.
    Alnum,
    /// Those, `-` and `_`.
    Word,
    /// Those and dots.
    Dotted,
    /// Those of [`Self::Word`], and what stands between the parts of a path.
    Path,
    /// Capitals and digits.
    Upper,
    /// Whatever: the prefix alone is enough.
    Any,
}

impl Letters {
    const fn has(self, byte: u8) -> bool {
        match self {
            Self::Alnum => byte.is_ascii_alphanumeric(),
            Self::Word => byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'),
            Self::Dotted => byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'),
            Self::Path => byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'/' | b'@'),
            Self::Upper => byte.is_ascii_uppercase() || byte.is_ascii_digit(),
            Self::Any => false,
        }
    }
}

/// What a kind of key looks like: its prefix, what follows, and how much of it at least.
struct Kind {
    name: &'static str,
    prefix: &'static str,
    letters: Letters,
    least: usize,
}

const fn kind(name: &'static str, prefix: &'static str, letters: Letters, least: usize) -> Kind {
    Kind {
        name,
        prefix,
        letters,
        least,
    }
}

/// As the services themselves document their keys.
const KINDS: [Kind; 46] = [
    kind("Anthropic API key", "sk-ant-", Letters::Word, 16),
    kind("OpenAI API key", "sk-proj-", Letters::Word, 16),
    kind("OpenAI API key", "sk-svcacct-", Letters::Word, 16),
    kind("GitHub token", "ghp_", Letters::Alnum, 36),
    kind("GitHub token", "gho_", Letters::Alnum, 36),
    kind("GitHub token", "ghu_", Letters::Alnum, 36),
    kind("GitHub token", "ghs_", Letters::Alnum, 36),
    kind("GitHub token", "ghr_", Letters::Alnum, 36),
    kind("GitHub token", "github_pat_", Letters::Word, 36),
    kind("GitLab token", "glpat-", Letters::Word, 20),
    kind("GitLab token", "gldt-", Letters::Word, 20),
    kind("GitLab token", "glrt-", Letters::Word, 20),
    kind("Slack token", "xoxb-", Letters::Word, 20),
    kind("Slack token", "xoxp-", Letters::Word, 20),
    kind("Slack token", "xoxs-", Letters::Word, 20),
    kind("Slack token", "xapp-", Letters::Word, 20),
    kind("Slack webhook", "hooks.slack.com/services/T", Letters::Path, 24),
    kind("Slack webhook", "hooks.slack.com/workflows/T", Letters::Path, 24),
    kind("Slack webhook", "hooks.slack.com/triggers/T", Letters::Path, 24),
    kind("Discord webhook", "discord.com/api/webhooks/", Letters::Path, 60),
    kind("Discord webhook", "discordapp.com/api/webhooks/", Letters::Path, 60),
    kind("Teams webhook", "webhook.office.com/webhook/", Letters::Path, 60),
    kind("Teams webhook", "webhook.office.com/webhookb2/", Letters::Path, 60),
    kind("Teams webhook", "outlook.office.com/webhook/", Letters::Path, 60),
    kind("Teams webhook", "outlook.office.com/webhookb2/", Letters::Path, 60),
    kind("Stripe key", "sk_live_", Letters::Alnum, 16),
    kind("Stripe key", "rk_live_", Letters::Alnum, 16),
    kind("webhook secret", "whsec_", Letters::Alnum, 24),
    kind("AWS access key", "AKIA", Letters::Upper, 16),
    kind("AWS access key", "ASIA", Letters::Upper, 16),
    kind("Google API key", "AIza", Letters::Word, 35),
    kind("Google OAuth secret", "GOCSPX-", Letters::Word, 24),
    kind("SendGrid key", "SG.", Letters::Dotted, 60),
    kind("npm token", "npm_", Letters::Alnum, 36),
    kind("PyPI token", "pypi-AgE", Letters::Word, 40),
    kind("Hugging Face token", "hf_", Letters::Alnum, 30),
    kind("Vault token", "hvs.", Letters::Word, 20),
    kind("Vault token", "hvb.", Letters::Word, 20),
    kind("DigitalOcean token", "dop_v1_", Letters::Alnum, 60),
    kind("Shopify token", "shpat_", Letters::Alnum, 32),
    kind("age key", "AGE-SECRET-KEY-1", Letters::Upper, 50),
    kind("private key", "-----BEGIN PRIVATE KEY-----", Letters::Any, 0),
    kind("private key", "-----BEGIN ENCRYPTED PRIVATE KEY-----", Letters::Any, 0),
    kind("private key", "-----BEGIN RSA PRIVATE KEY-----", Letters::Any, 0),
    kind("private key", "-----BEGIN EC PRIVATE KEY-----", Letters::Any, 0),
    kind("private key", "-----BEGIN OPENSSH PRIVATE KEY-----", Letters::Any, 0),
];

/// Finds the prefixes. They are few and short, so it can be made.
static SEARCH: LazyLock<Option<AhoCorasick>> = LazyLock::new(|| {
    let prefixes = KINDS.iter().map(|kind| kind.prefix);
    AhoCorasick::builder()
        .match_kind(MatchKind::LeftmostLongest)
        .build(prefixes)
        .ok()
});

/// The longest that a key is looked at: no kind needs more.
pub const KEY_BYTES_MAX: usize = 256;

/// Something that looks like a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Detected {
    /// What it is.
    pub kind: &'static str,
    /// Where it is in the text.
    pub at: Range<usize>,
}

/// Finds what looks like a key.
pub fn find(text: &[u8]) -> impl Iterator<Item = Detected> {
    let search = SEARCH.as_ref().into_iter();
    search
        .flat_map(move |search| search.find_iter(text))
        .filter_map(move |found| {
            let kind = KINDS.get(found.pattern().as_usize())?;
            // In the middle of a longer word it is something else.
            let before = found.start().checked_sub(1).and_then(|at| text.get(at));
            let begins = before.is_none_or(|byte| !byte.is_ascii_alphanumeric());
            let rest = text.get(found.end()..).unwrap_or_default();
            let length = rest
                .iter()
                .take(KEY_BYTES_MAX)
                .take_while(|byte| kind.letters.has(**byte))
                .count();
            (begins && length >= kind.least).then_some(Detected {
                kind: kind.name,
                at: found.start()..found.end() + length,
            })
        })
}

/// Tells what kind of key is in a path or query, as it is or percent-encoded. Behind some hosts the path is the key: a webhook's.
pub(crate) fn in_url(host: &str, target: &[u8]) -> Option<&'static str> {
    let kind = |text: &[u8]| find(text).next().map(|found| found.kind);
    let hooks = HOOK_HOSTS.iter().any(|hooks| host.ends_with(hooks));
    as_it_is_or_decoded(target, |text| {
        kind(text).or_else(|| hooks.then(|| kind(&[host.as_bytes(), text].concat())).flatten())
    })
}

/// Looks at a text, and then at what it says where it is percent-encoded.
pub(crate) fn as_it_is_or_decoded<T>(text: &[u8], look: impl Fn(&[u8]) -> Option<T>) -> Option<T> {
    let found = look(text);
    if found.is_some() || !text.contains(&b'%') {
        return found;
    }
    look(&percent::decode(text, Plus::Space))
}

/// How the hosts of webhooks end whose paths are known by their looks.
const HOOK_HOSTS: [&str; 5] = [
    "hooks.slack.com",
    "discord.com",
    "discordapp.com",
    "webhook.office.com",
    "outlook.office.com",
];

#[cfg(test)]
mod tests {
    use super::*;

    /// Keys are put together here, so that nobody who looks for keys finds one in this file.
    fn key(prefix: &str, letters: usize) -> String {
        let rest = "0123456789ABCDEFGHIJ0123456789ABCDEFGHIJ0123456789ABCDEFGHIJ0123456789";
        prefix.chars().chain(rest.chars().take(letters)).collect()
    }

    fn kinds(text: &str) -> Vec<&'static str> {
        find(text.as_bytes()).map(|found| found.kind).collect()
    }

    #[test]
    fn every_kind_is_found_at_its_shortest_and_not_below() {
        for kind in &KINDS {
            let whole = key(kind.prefix, kind.least);
            assert_eq!(kinds(&whole), [kind.name], "{whole}");
            assert_eq!(
                kinds(&format!("x{whole}")),
                [] as [&str; 0],
                "a word that ends so is another"
            );
            if kind.least > 0 {
                let short = key(kind.prefix, kind.least - 1);
                assert_eq!(kinds(&short), [] as [&str; 0], "{short}");
            }
        }
    }

    #[test]
    fn words_that_only_begin_so_are_no_keys() {
        for text in [
            "",
            "npm_install",
            "hf_hub_download_and_more",
            "AKIAabcdefghijklmnop",
            "-----BEGIN CERTIFICATE-----",
            "-----BEGIN PUBLIC KEY-----",
            "/orders/17?page=2",
        ] {
            assert_eq!(kinds(text), [] as [&str; 0], "{text}");
        }
    }

    #[test]
    fn where_a_key_is_is_told_to_the_byte() {
        let (one, two) = (key("sk-ant-", 20), key("AKIA", 16));
        let text = format!("a={one}&b {two}.");
        let found: Vec<_> = find(text.as_bytes()).collect();
        let texts: Vec<_> = found.iter().map(|found| &text.as_bytes()[found.at.clone()]).collect();
        assert_eq!(texts, [one.as_bytes(), two.as_bytes()]);
    }

    #[test]
    fn behind_the_host_of_webhooks_the_path_is_a_key() {
        let paths = [
            (
                "hooks.slack.com",
                "Slack webhook",
                key("/services/T00000000/B00000000/", 24),
            ),
            (
                "discord.com",
                "Discord webhook",
                key("/api/webhooks/1234567890123456789/", 68),
            ),
            ("acme.webhook.office.com", "Teams webhook", key("/webhookb2/", 70)),
        ];
        for (host, kind, path) in paths {
            assert_eq!(in_url(host, path.as_bytes()), Some(kind), "{host}{path}");
            let encoded = path.replacen("/w", "/%77", 1).replacen("/s", "/%73", 1);
            assert_eq!(in_url(host, encoded.as_bytes()), Some(kind), "{host}{encoded}");
            assert_eq!(
                in_url("other.example.com", path.as_bytes()),
                None,
                "a path like any other"
            );
            assert_eq!(kinds(&format!("see https://{host}{path} for it")), [kind]);
        }
        assert_eq!(in_url("discord.com", b"/api/users/@me"), None);
        assert_eq!(
            kinds("https://hooks.slack.com/services/T000/B000/xxxx"),
            [] as [&str; 0],
            "as pages write it"
        );
    }

    #[test]
    fn a_url_hides_nothing_by_encoding_it() {
        let key = key("sk-ant-", 20);
        let in_url = |text: &[u8]| in_url("api.example.com", text);
        assert_eq!(in_url(format!("/v1/{key}/x").as_bytes()), Some("Anthropic API key"));
        let encoded = key.replace('-', "%2D").replace('k', "%6b");
        assert_eq!(
            in_url(format!("/v1?key={encoded}").as_bytes()),
            Some("Anthropic API key")
        );
        assert_eq!(in_url(b"/orders/17?page=2&q=100%25"), None);
    }
}
