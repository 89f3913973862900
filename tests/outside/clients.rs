//! Clients as they are, by the environment variables that they read.

use std::process::Command;

use serde_json::{Value, json};

use super::scene::Scene;
use super::{API, API_HERE, PLAIN, PLAIN_HERE};
use crate::spine::CHECKOUT;
use crate::support::{PYTHON, as_user, ok, root_or_skip, run};

const URLLIB: &str = "
import sys, urllib.request, ssl
opener = urllib.request.build_opener(urllib.request.HTTPSHandler(context=ssl.create_default_context(cafile=sys.argv[2])))
print(opener.open(sys.argv[1]).read().decode())
";

const REQUESTS: &str = "
import sys, requests
print(requests.get(sys.argv[1], verify=sys.argv[2]).text)
";

/// The clients of this machine.
fn clients(url: &str, ca: &str) -> Vec<Command> {
    let mut curl = as_user("curl", CHECKOUT);
    curl.args(["-sS", "--fail-with-body", "--cacert", ca, url]);
    let mut clients = vec![curl];
    let has_requests = run(as_user(PYTHON, CHECKOUT).args(["-c", "import requests"]));
    if !has_requests.status.success() {
        println!("requests is not installed");
    }
    for (text, is_there) in [(URLLIB, true), (REQUESTS, has_requests.status.success())] {
        let mut python = as_user(PYTHON, CHECKOUT);
        python.args(["-c", text, url, ca]);
        clients.extend(is_there.then_some(python));
    }
    clients
}

fn by_proxy(scene: &Scene, mut command: Command) -> String {
    let proxy = format!("http://{}", scene.host().bot_tcp());
    ok(command.env("http_proxy", &proxy).env("https_proxy", &proxy))
}

#[test]
fn real_clients_reach_all_three_schemes() {
    if !root_or_skip("clients that call the outside") {
        return;
    }
    let scene = Scene::new("");
    let _tls = scene.tls(443, &["api.example.com", "www.news.example"]);
    let _plain = scene.plain(&scene.address, 80);
    scene.names(&[(&scene.address, "api.example.com plain.example.com www.news.example")]);
    let news = r#"id: news, from: prod/checkout, to: "tls://*.news.example", justify: "by name only""#;
    let news_here = r#""tls://*.news.example": {addresses: [HERE]}"#;
    scene.apply(&[API, PLAIN, news], &[API_HERE, PLAIN_HERE, news_here], "");
    let ca = scene.ca_file().display().to_string();
    let mut tunnels = 0;
    for url in [
        "http://api.example.com/v1/a",
        "http://plain.example.com/a",
        "https://www.news.example/a",
    ] {
        for client in clients(url, &ca) {
            let told: Value = serde_json::from_str(&by_proxy(&scene, client)).expect("JSON");
            assert_eq!(told["method"], "GET", "{url}: {told}");
            tunnels += usize::from(url.starts_with("https"));
        }
    }
    let calls = scene.host().query("kind=call protocol=tls");
    assert_eq!(calls.len(), tunnels, "{calls:?}");
    for call in &calls {
        assert_eq!(call["to"], json!({"outside": "tls://www.news.example"}), "{call}");
        assert_eq!((&call["port"], &call["rule"]), (&443.into(), &"news".into()), "{call}");
        let end = scene.end_of(call);
        assert_eq!(end["address"], format!("{}:443", scene.address), "{end}");
        assert!(
            end["response_bytes"].as_u64().is_some_and(|bytes| bytes > 1_000),
            "{end}"
        );
    }
    // Plain HTTP in a tunnel is read and decided request by request, as some clients send it.
    let mut curl = as_user("curl", CHECKOUT);
    let urls = ["http://api.example.com/v1/b", "http://api.example.com/secret"];
    curl.args(["-sS", "--proxytunnel"]).args(urls);
    let told = by_proxy(&scene, curl);
    assert!(told.contains("\"/v1/b\"") && told.contains("no_rule"), "{told}");
}
