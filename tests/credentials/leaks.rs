//! What a service answers, and what of it the bot reads; and what is in the bot.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, Stdio};

use super::scene::{KEYS, Service, X_KEY, no_key_in};
use crate::spine::CHECKOUT;
use crate::support::{PYTHON, as_user, root_or_skip};

#[test]
fn a_service_that_says_the_key_in_any_form_is_not_heard_saying_it() {
    if !root_or_skip("credentials") {
        return;
    }
    let service = Service::start("");
    for (name, value) in KEYS {
        service.put(name, value);
    }
    let mut checkout = service.scene.checkout();
    for (rule, _, _) in super::scene::RULES {
        let host = format!("{rule}.example.com");
        for path in ["/forms", "/error", "/echo"] {
            let answer = checkout.call("GET", &host, path);
            let text = format!("{}{}", answer.head(), answer.body);
            no_key_in(&format!("the answer to {rule} {path}"), text.as_bytes());
            assert!(text.contains("********"), "{rule} {path}: {text}");
        }
    }
    let error = checkout.call("GET", "header.example.com", "/error");
    let asterisks = "*".repeat(X_KEY.len());
    assert_eq!(
        error.body,
        format!("<h1>500</h1> the key {asterisks} is not known here")
    );
    assert_eq!(error.header("x-debug"), Some(format!("key={asterisks}").as_str()));
    let zip = checkout.call("GET", "header.example.com", "/zip");
    assert_eq!(
        (zip.status, zip.reason().as_str()),
        (502, "peer_unreachable"),
        "{}",
        zip.body
    );
    assert!(
        zip.body.contains("compressed although it was asked not to"),
        "{}",
        zip.body
    );
    let head = checkout.call("HEAD", "header.example.com", "/zip");
    assert_eq!(
        (head.status, head.body.as_str()),
        (200, ""),
        "there is nothing to look through"
    );
    service.nobody_has_a_key();
    let (_, metrics) = crate::support::http_get(service.scene.host().ports.metrics, "/metrics").unwrap();
    let masked = metrics
        .lines()
        .find(|line| line.starts_with(r#"botmesh_credential_masked_total{credential="x-key"}"#));
    assert!(masked.is_some_and(|line| !line.ends_with(" 0")), "{masked:?}");
}

#[test]
fn no_redirect_and_no_other_host_takes_a_key_along() {
    if !root_or_skip("credentials") {
        return;
    }
    let service = Service::start("");
    service.put("x-key", X_KEY);
    let mut checkout = service.scene.checkout();
    let answer = checkout.call("GET", "header.example.com", "/away");
    assert_eq!(answer.status, 302);
    assert_eq!(answer.header("location"), Some("https://other.example.com/echo"));
    assert_eq!(service.server.said("request GET /echo"), 0, "nobody followed it");
    // The bot does, by itself: that is another call, whose rule adds nothing.
    assert_eq!(checkout.call("GET", "other.example.com", "/echo").status, 401);
    assert!(
        service.server.log().contains("request GET /echo none"),
        "{}",
        service.server.log()
    );
}

#[test]
fn a_key_in_an_address_is_refused_before_it_is_written_down_anywhere() {
    if !root_or_skip("credentials") {
        return;
    }
    let service = Service::start("");
    let mut checkout = service.scene.checkout();
    // Nobody knows this one: it only looks like a key. It is put together here so that nobody finds one in this file.
    let key = ["sk-ant-", "api03-0123456789abcdefghij"].concat();
    let encoded = key.replace('-', "%2D");
    for target in [
        format!("/echo?key={key}"),
        format!("/echo?{key}"),
        format!("/echo/{key}/x"),
        format!("/echo?key={encoded}"),
        format!("http://other.example.com/echo?key={key}"),
        format!("/%zz/{key}"),
    ] {
        for host in ["other.example.com", "nobody.example.com", "stock.prod.mesh"] {
            let answer = checkout.call("GET", host, &target);
            assert_ne!(answer.status, 200, "{host} {target}: {}", answer.body);
            assert!(
                !answer.body.contains(&key) && !answer.body.contains(&encoded),
                "{}",
                answer.body
            );
        }
        let answer = checkout.call("GET", "other.example.com", &target);
        assert_eq!(
            (answer.status, answer.reason().as_str()),
            (403, "secret_in_url"),
            "{target}: {}",
            answer.body
        );
    }
    assert_eq!(service.server.said("request"), 0, "nothing was sent");
    let calls = service.scene.host().query("kind=call reason=secret_in_url");
    assert!(
        !calls.is_empty() && calls.iter().all(|call| call["path"] == "/"),
        "{calls:?}"
    );
    nobody_wrote(&service, &[&key, &encoded]);
}

#[test]
fn a_host_that_only_flags_a_key_in_an_address_carries_the_call_and_writes_down_nothing_of_it() {
    if !root_or_skip("credentials") {
        return;
    }
    let service = Service::start("secret_in_url: flag\n");
    let mut checkout = service.scene.checkout();
    let key = ["sk-ant-", "api03-0123456789abcdefghij"].concat();
    let encoded = key.replace('-', "%2D");
    let target = format!("/echo/{encoded}?key={key}");
    // The service has no such key, so it refuses: what matters is that it was asked.
    assert_eq!(checkout.call("GET", "other.example.com", &target).status, 401);
    assert_eq!(service.server.said("request GET /echo/"), 1, "{}", service.server.log());
    let call = service.last_call("reason=secret_in_url");
    assert_eq!(
        (&call["verdict"], &call["path"]),
        (&"allow".into(), &"/".into()),
        "{call}"
    );
    assert!(call.get("query").is_none(), "{call}");
    // Rules hold as ever, and what they say has nothing of it either.
    let refused = service.scene.report().call("GET", "bearer.example.com", &target);
    assert_eq!(refused.reason(), "outside_forbidden", "{}", refused.body);
    assert_eq!(checkout.call("GET", "stock.prod.mesh", &target).status, 403);
    assert_eq!(
        checkout
            .call("GET", "other.example.com", &format!("/%zz/{key}"))
            .reason(),
        "bad_path"
    );
    nobody_wrote(&service, &[&key, &encoded]);
}

/// Looks for texts in everything that the mesh has written.
fn nobody_wrote(service: &Service, texts: &[&str]) {
    let mut grep = std::process::Command::new("grep");
    grep.arg("-rF");
    for text in texts {
        grep.args(["-e", text]);
    }
    let found = grep.arg(service.scene.mesh.dir()).output().unwrap();
    assert!(found.stdout.is_empty(), "{}", String::from_utf8_lossy(&found.stdout));
}

#[test]
fn a_credential_of_this_host_is_sent_to_nobody_by_a_bot() {
    if !root_or_skip("credentials") {
        return;
    }
    let service = Service::start("");
    service.put("x-key", X_KEY);
    let mut checkout = service.scene.checkout();
    assert_eq!(checkout.call("GET", "header.example.com", "/echo").status, 200);
    let sent = service.server.said("request");
    // However a bot came by it, and wherever it would send it.
    let hex: String = X_KEY.bytes().map(|byte| format!("{byte:02x}")).collect();
    for (headers, target, body) in [
        (vec![["X-Note", X_KEY]], "/echo".to_owned(), ""),
        (vec![["X-Note", &hex]], "/echo".to_owned(), ""),
        (vec![], format!("/echo?note={hex}"), ""),
        (vec![], format!("/{hex}"), ""),
        (vec![], "/echo".to_owned(), X_KEY),
        (vec![], "/echo".to_owned(), &hex),
    ] {
        for host in ["other.example.com", "header.example.com"] {
            let mut all = vec![["Host", host]];
            all.extend(headers.iter().copied());
            let order = serde_json::json!({"method": "POST", "target": target, "headers": all, "body": body});
            let answer = checkout.order(&order).unwrap();
            assert_eq!(
                (answer.status, answer.reason().as_str()),
                (403, "secret_in_request"),
                "{order}: {}",
                answer.body
            );
        }
    }
    assert_eq!(service.server.said("request"), sent, "nothing was sent");
    // In pieces, after the head has left: the body ends before it.
    let (one, two) = X_KEY.split_at(9);
    let chunk = |text: &str| format!("{:x}\r\n{text}\r\n", text.len());
    let head = "POST /echo HTTP/1.1\r\nHost: other.example.com\r\nTransfer-Encoding: chunked\r\n\r\n";
    let raw = format!("{head}{}{}{}0\r\n\r\n", chunk("a=1&b="), chunk(one), chunk(two));
    let answer = checkout.order(&serde_json::json!({"raw": raw})).unwrap();
    assert_eq!(
        (answer.status, answer.reason().as_str()),
        (403, "secret_in_request"),
        "{}",
        answer.body
    );
    assert_eq!(service.server.said("request"), sent, "no whole request came");
}

const BOT: &str = "
import sys, requests
session = requests.Session()
for line in sys.stdin:
    answer = session.get('http://header.example.com' + line.strip())
    print(answer.status_code, len(answer.text), flush=True)
";

/// A bot that keeps running.
struct Running(Child);

impl Running {
    fn start(proxy: &str) -> Self {
        let mut command = as_user(PYTHON, CHECKOUT);
        command.args(["-c", BOT]).env("http_proxy", proxy);
        Self(command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap())
    }

    fn get(&mut self, path: &str) {
        writeln!(self.0.stdin.as_mut().unwrap(), "{path}").unwrap();
        let mut line = String::new();
        BufReader::new(self.0.stdout.as_mut().unwrap())
            .read_line(&mut line)
            .unwrap();
        let status: u16 = line
            .split(' ')
            .next()
            .unwrap()
            .parse()
            .unwrap_or_else(|_| panic!("{line:?}"));
        assert!(matches!(status, 200 | 500), "{path}: {line}");
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// All memory of a process that can be read.
pub(crate) fn memory(pid: u32) -> Vec<u8> {
    use std::os::unix::fs::FileExt as _;
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
    let file = std::fs::File::open(format!("/proc/{pid}/mem")).unwrap();
    let mut all = Vec::new();
    for line in maps
        .lines()
        .filter(|line| line.split(' ').nth(1).is_some_and(|may| may.starts_with('r')))
    {
        let (from, to) = line.split(' ').next().unwrap().split_once('-').unwrap();
        let [from, to] = [from, to].map(|number| u64::from_str_radix(number, 16).unwrap());
        let mut part = vec![0; usize::try_from(to - from).unwrap()];
        // Some pages, such as those of the kernel's own clock, cannot be read.
        if file.read_exact_at(&mut part, from).is_ok() {
            all.extend(part);
        }
    }
    all
}

#[test]
fn a_bot_that_calls_with_a_key_has_it_nowhere() {
    if !root_or_skip("credentials") {
        return;
    }
    let service = Service::start("");
    service.put("x-key", X_KEY);
    let mut bot = Running::start(&format!("http://{}", service.scene.host().bot_tcp()));
    for path in ["/echo", "/forms", "/error", "/echo"] {
        bot.get(path);
    }
    let pid = bot.0.id();
    for name in ["environ", "cmdline", "maps", "status", "stat"] {
        no_key_in(name, &std::fs::read(format!("/proc/{pid}/{name}")).unwrap());
    }
    for entry in std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap() {
        let path = entry.unwrap().path();
        if std::fs::metadata(&path).is_ok_and(|found| found.is_file()) {
            no_key_in("a file of the bot", &std::fs::read(&path).unwrap());
        }
    }
    let found = memory(pid);
    assert!(found.len() > 1_000_000 && memchr::memmem::find(&found, b"header.example.com").is_some());
    no_key_in("the memory of the bot", &found);
    service.nobody_has_a_key();
    // The proxy's own is closed to all but root, and never written to a core file.
    let proxy = service.scene.host().process.child.id();
    let owner = std::os::unix::fs::MetadataExt::uid(&std::fs::metadata(format!("/proc/{proxy}/mem")).unwrap());
    assert_eq!(owner, 0, "it is not dumpable, so its files in /proc are root's");
}
