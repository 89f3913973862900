//! Clients of language models as their makers ship them, with a dummy key.
//!
//! They are not in Debian: `BOTMESH_SDKS=VENV/bin/python` names a Python that has `anthropic`, `openai` and `requests`, all others run the
//! same calls by `requests` alone.

use super::scene::{KEYS, Service};
use crate::spine::CHECKOUT;
use crate::support::{PYTHON, as_user, ok, root_or_skip};

const CALLS: &str = "
import json, sys
listener, proxied = sys.argv[1], sys.argv[2]
import requests
answer = requests.post(proxied + '/v1/messages', json={'a': 1}, headers={'x-api-key': 'dummy'})
print('requests', answer.status_code, answer.json()['content'][0]['text'])
try:
    import anthropic, openai
except ImportError:
    sys.exit()
for url in (listener, proxied):
    client = anthropic.Anthropic(api_key='dummy', base_url=url, max_retries=0)
    message = client.messages.create(model='m', max_tokens=5, messages=[{'role': 'user', 'content': 'hi'}])
    print('anthropic', anthropic.__version__, message.content[0].text)
client = openai.OpenAI(api_key='dummy', base_url='http://bearer.example.com/v1', max_retries=0)
choice = client.chat.completions.create(model='m', messages=[{'role': 'user', 'content': 'hi'}]).choices[0]
print('openai', openai.__version__, choice.message.content)
";

#[test]
fn unmodified_clients_with_a_dummy_key_reach_services_that_demand_the_real_one() {
    if !root_or_skip("clients of language models") {
        return;
    }
    let service = Service::start("");
    for (name, value) in KEYS {
        service.put(name, value);
    }
    let sdks = std::env::var("BOTMESH_SDKS");
    let mut python = as_user(sdks.as_deref().unwrap_or(PYTHON), CHECKOUT);
    let listener = service.scene.listener("https://header.example.com");
    python.args(["-c", CALLS, &format!("http://{listener}"), "http://header.example.com"]);
    python.env("http_proxy", format!("http://{}", service.scene.host().bot_tcp()));
    python.env("no_proxy", "127.0.0.1");
    let told = ok(&mut python);
    print!("{told}");
    assert!(told.starts_with("requests 200 hello\n"), "{told}");
    if sdks.is_ok() {
        let hello = |name: &str| {
            told.lines()
                .filter(|line| line.starts_with(name) && line.ends_with(" hello"))
                .count()
        };
        assert_eq!((hello("anthropic"), hello("openai")), (2, 1), "{told}");
    }
    let requests = service.server.log();
    let mut requests = requests.lines().filter(|line| line.starts_with("request"));
    assert!(requests.all(|line| line.ends_with("True")), "{}", service.server.log());
}
