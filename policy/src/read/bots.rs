//! The section `bots`.

use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use spiffe::id::HostPattern;
use spiffe::selector::SelectorSet;

use super::{ATTEST, BOT, BotDraft, Reader};
use crate::code;
use crate::diagnostics::Draft;
use crate::source::Span;
use crate::yaml::{Node, Value};

/// The life of an SVID where the bot does not say.
const SVID_TTL_DEFAULT: Duration = Duration::from_secs(60 * 60);
/// `PATH_MAX` of Linux is 4096 with the final NUL.
const EXE_BYTES_MAX: usize = 4095;
/// The longest name of a unit, in bytes: `UNIT_NAME_MAX` of systemd is 256 with the final NUL.
const UNIT_BYTES_MAX: usize = 255;
/// The longest user name, in bytes: `LOGIN_NAME_MAX` of Linux is 256 with the final NUL.
const USER_BYTES_MAX: usize = 255;

impl Reader {
    pub(super) fn bots(&mut self, node: Option<&Node>) {
        for (key, value) in self.section(node, "bots", self.most.bots, self.draft.bots.len()) {
            let name = self.bot_name(key);
            let bot = self.bot(key.span, value);
            let Some(name) = name else {
                continue;
            };
            if let Some(first) = self.draft.bots.get(&name) {
                let first = first.span;
                self.duplicate("bot", name.as_str(), key.span, first);
            } else {
                self.draft.bots.insert(name, bot);
            }
        }
    }

    /// Reads one bot. What is wrong gets a default: the error is told, and the name stays known to the rules.
    fn bot(&mut self, span: Span, node: &Node) -> BotDraft {
        let mut bot = BotDraft {
            span,
            owner: String::new(),
            hosts: Vec::new(),
            attest: None,
            attest_span: None,
            serve: None,
            svid_ttl: SVID_TTL_DEFAULT,
        };
        let Some(fields) = self.fields(node, &BOT) else {
            bot.attest = Some(Vec::new());
            return bot;
        };
        if let Some(owner) = self
            .required(&fields, "owner", span)
            .and_then(|node| self.shown_text(node, code::OWNER))
        {
            bot.owner = owner.to_string();
        }
        if let Some(hosts) = self.required(&fields, "hosts", span) {
            bot.hosts = self.hosts(hosts);
        }
        if let Some(attest) = fields.get("attest") {
            bot.attest_span = Some(attest.span);
            let maps = self.attest(attest);
            self.sockets(attest.span, &maps, fields.get("serve").is_some());
            bot.attest = Some(maps);
        }
        if let Some(serve) = fields.get("serve") {
            bot.serve = Some((self.serve(serve), serve.span));
        }
        if let Some(ttl) = fields.get("svid_ttl").and_then(|node| self.svid_ttl(node)) {
            bot.svid_ttl = ttl;
        }
        if let Some(keys) = fields.get("keys") {
            self.keys(keys);
        }
        bot
    }

    fn hosts(&mut self, node: &Node) -> Vec<HostPattern> {
        if matches!(&node.value, Value::List(items) if items.is_empty()) {
            self.later(node.span, "a bot without hosts, which joins by itself,");
        }
        self.items(node)
            .into_iter()
            .filter_map(|item| {
                let text = self.text(item)?;
                match HostPattern::parse(text) {
                    Ok(pattern) => Some(pattern),
                    Err(error) => {
                        self.error(code::HOSTS, item.span, error.to_string(), "not a host pattern");
                        None
                    }
                }
            })
            .collect()
    }

    /// Accepts `keys: proxy`, which is what this version does for every bot.
    fn keys(&mut self, node: &Node) {
        match self.text(node) {
            Some("proxy") | None => {}
            Some("bot") => self.later(node.span, "`keys: bot`"),
            Some(_) => self.error(code::WRONG_KIND, node.span, "`keys` is `proxy`", "unknown"),
        }
    }

    fn attest(&mut self, node: &Node) -> Vec<(SelectorSet, Span)> {
        let maps = self.items(node);
        if maps.is_empty() {
            self.error(
                code::NO_BOUNDARY,
                node.span,
                "no process can be this bot",
                "no way to attest",
            );
        }
        maps.into_iter()
            .filter_map(|map| self.selectors(map).map(|set| (set, map.span)))
            .collect()
    }

    /// A bot has one socket, which is one user's, and nothing that it serves comes over it.
    fn sockets(&mut self, span: Span, maps: &[(SelectorSet, Span)], serves: bool) {
        let own: Vec<&SelectorSet> = maps.iter().map(|(set, _)| set).filter(|set| set.socket).collect();
        if own
            .windows(2)
            .any(|pair| matches!(pair, [one, other] if (&one.uid, &one.user) != (&other.uid, &other.user)))
        {
            let message = "all maps with `socket` name the same user: the bot has one socket";
            self.error(code::SELECTOR, span, message, "two owners");
        }
        if serves && !own.is_empty() && own.len() == maps.len() {
            let draft = Draft::new(
                code::SELECTOR,
                span,
                "a bot that serves needs a map without `socket`",
                "only tells who calls",
            );
            self.push(
                draft.help("nobody connects over the bot's own socket to call it, so it would never be found there"),
            );
        }
    }

    fn selectors(&mut self, node: &Node) -> Option<SelectorSet> {
        let fields = self.fields(node, &ATTEST)?;
        let before = self.collector.errors();
        let set = SelectorSet {
            user: fields.get("user").and_then(|node| self.user(node)),
            uid: fields.get("uid").and_then(|node| self.number(node, "uid")),
            exe: fields.get("exe").and_then(|node| self.plain_path(node, "exe")),
            exe_sha256: fields.get("exe_sha256").and_then(|node| self.sha256(node)),
            run_by: fields.get("run_by").map(|node| self.run_by(node)).unwrap_or_default(),
            unit: fields.get("unit").and_then(|node| self.unit(node)),
            cgroup: fields.get("cgroup").and_then(|node| self.plain_path(node, "cgroup")),
            group: fields.get("group").and_then(|node| self.group(node)),
            gid: fields.get("gid").and_then(|node| self.number(node, "gid")),
            socket: fields.get("socket").is_some_and(|node| self.socket(node)),
        };
        let is_owned = set.user.is_some() || set.uid.is_some();
        if set.socket && !is_owned && self.collector.errors() == before {
            let draft = Draft::new(
                code::SELECTOR,
                node.span,
                "`socket` needs `user` or `uid` beside it",
                "whose socket?",
            );
            self.push(draft.help("the bot's socket belongs to that user, and no other can connect to it"));
        }
        if !set.is_bounded() && !fields.refused() && self.collector.errors() == before {
            let draft = Draft::new(
                code::NO_BOUNDARY,
                node.span,
                "an attest map needs `user`, `uid`, `unit` or `run_by`",
                "any local process could match",
            );
            self.push(draft.help("the other keys only narrow; give the bot a user of its own"));
        }
        Some(set)
    }

    fn user(&mut self, node: &Node) -> Option<String> {
        let text = self.text(node)?;
        let digits = text.bytes().all(|byte| byte.is_ascii_digit());
        if digits || !is_user(text) {
            let draft = Draft::new(code::SELECTOR, node.span, "not the name of a user", "not a user name");
            self.push(draft.maybe_help(digits.then(|| "write `uid:` for a number".to_owned())));
            return None;
        }
        Some(text.to_owned())
    }

    fn group(&mut self, node: &Node) -> Option<String> {
        let text = self.text(node)?;
        let digits = text.bytes().all(|byte| byte.is_ascii_digit());
        if digits || !is_user(text) {
            let draft = Draft::new(code::SELECTOR, node.span, "not the name of a group", "not a group name");
            self.push(draft.maybe_help(digits.then(|| "write `gid:` for a number".to_owned())));
            return None;
        }
        Some(text.to_owned())
    }

    fn unit(&mut self, node: &Node) -> Option<String> {
        let text = self.text(node)?;
        if !is_service(text) {
            let message = "`unit` is the whole name of a service of the system, such as orders.service";
            self.error(code::SELECTOR, node.span, message, "not a service");
            return None;
        }
        Some(text.to_owned())
    }

    fn socket(&mut self, node: &Node) -> bool {
        let asked = node.value == Value::Bool(true);
        if !asked {
            let message = "`socket` is `true` or left out";
            self.error(code::SELECTOR, node.span, message, "not `true`");
        }
        asked
    }

    /// Reads the number of a user or of a group.
    fn number(&mut self, node: &Node, key: &str) -> Option<u32> {
        // The highest value of uid_t and gid_t is -1, which stands for "no change" in setreuid(2) and setregid(2).
        let number = if let Value::Integer(number) = node.value {
            Some(number)
        } else {
            None
        };
        let found = number
            .and_then(|number| u32::try_from(number).ok())
            .filter(|uid| *uid != u32::MAX);
        if found.is_none() {
            self.error(
                code::SELECTOR,
                node.span,
                format!("`{key}` is a number from 0 to 4294967294"),
                if key == "gid" { "not a gid" } else { "not a uid" },
            );
        }
        found
    }

    fn plain_path(&mut self, node: &Node, key: &str) -> Option<String> {
        let text = self.text(node)?;
        if !is_plain_path(text) || text.len() > EXE_BYTES_MAX {
            let message = format!("`{key}` is an absolute path without `.`, `..`, `//` and a final `/`");
            self.error(code::SELECTOR, node.span, message, "not such a path");
            return None;
        }
        Some(text.to_owned())
    }

    fn sha256(&mut self, node: &Node) -> Option<String> {
        let text = self.text(node)?;
        let hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        if text.len() != 64 || !text.bytes().all(hex) {
            let message = "`exe_sha256` is 64 lower-case hex digits";
            self.error(code::SELECTOR, node.span, message, "not a SHA-256");
            return None;
        }
        Some(text.to_owned())
    }

    /// Reads operators: user names, or uids as numbers.
    fn run_by(&mut self, node: &Node) -> Vec<String> {
        let items = self.items(node);
        if items.is_empty() {
            self.error(
                code::SELECTOR,
                node.span,
                "`run_by` names at least one operator",
                "nobody",
            );
        }
        items
            .into_iter()
            .filter_map(|item| {
                if matches!(item.value, Value::Integer(_)) {
                    return self.number(item, "uid").map(|uid| uid.to_string());
                }
                let text = self.text(item)?;
                if !is_user(text) {
                    self.error(
                        code::SELECTOR,
                        item.span,
                        "not the name of an operator",
                        "not a user name",
                    );
                    return None;
                }
                Some(text.to_owned())
            })
            .collect()
    }
}

/// What `/etc/passwd` can hold in a name and what is safe to show; domains as in `AD\user` and `user@ad` are kept.
fn is_user(text: &str) -> bool {
    (1..=USER_BYTES_MAX).contains(&text.len())
        && !text.starts_with('-')
        && text
            .bytes()
            .all(|byte| byte.is_ascii_graphic() && !matches!(byte, b':' | b'/' | b','))
}

/// Says whether a text is the name of a service as systemd.unit(5) allows it, with its type.
fn is_service(text: &str) -> bool {
    let stem = text.strip_suffix(".service").unwrap_or_default();
    let known = |byte: u8| byte.is_ascii_alphanumeric() || b":-_.\\@".contains(&byte);
    !stem.is_empty() && text.len() <= UNIT_BYTES_MAX && stem.bytes().all(known)
}

/// Says whether a path is absolute and is its own shortest form, so that two spellings never mean one file.
pub(super) fn is_plain_path(text: &str) -> bool {
    let path = Path::new(text);
    let rebuilt: PathBuf = path.components().collect();
    let normal = path
        .components()
        .all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
    path.is_absolute() && normal && rebuilt.as_os_str() == text && text != "/" && !text.chars().any(char::is_control)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_paths_are_absolute_and_shortest() {
        for text in ["/a", "/srv/orders/bin/orders", "/a b", "/.a", "/a..b"] {
            assert!(is_plain_path(text), "{text}");
        }
        for text in [
            "", "/", "a", "./a", "/a/", "/a//b", "//a", "/a/./b", "/a/../b", "/..", "/a\nb", "/a\0",
        ] {
            assert!(!is_plain_path(text), "{text:?}");
        }
    }

    #[test]
    fn a_unit_is_named_whole_and_is_a_service() {
        for text in [
            "orders.service",
            "orders@1.service",
            "a-b_c:d.e.service",
            "dev-\\x2d.service",
        ] {
            assert!(is_service(text), "{text}");
        }
        let long = format!("{}.service", "a".repeat(248));
        for text in [
            "orders",
            ".service",
            "orders.slice",
            "a/b.service",
            "a b.service",
            "orders.service ",
            "*.service",
            long.as_str(),
        ] {
            assert!(!is_service(text), "{text}");
        }
    }

    #[test]
    fn user_names_are_what_passwd_can_hold() {
        for text in [
            "root",
            "_apt",
            "svc$",
            "AD\\orders",
            "orders@ad",
            "a.b-c",
            &"a".repeat(255),
        ] {
            assert!(is_user(text), "{text}");
        }
        for text in ["", "-a", "a b", "a:b", "a/b", "a,b", "\u{e9}", "a\n", &"a".repeat(256)] {
            assert!(!is_user(text), "{text:?}");
        }
    }
}
