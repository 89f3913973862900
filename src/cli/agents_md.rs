//! `agents-md`: what a coding agent must know to write a bot that calls through botmesh, in twenty lines.

use anyhow::Result;

use crate::exit::Exit;
use crate::output::Screen;

/// Append it to AGENTS.md, or whatever file the agent reads.
const TEXT: &str = "\
## Calling other bots through botmesh

1. This program is a *bot* `a/b` (for example `prod/checkout`). Who it is comes from the kernel; it holds no key, token or certificate. Add none: where a service demands one, the proxy adds it.
2. The bot `a/b` is called as `http://b.a.mesh/` (`prod/orders` is `http://orders.prod.mesh/`), plain `http`, port 80. The proxy does the TLS.
3. Use the environment's proxy: `http_proxy=http://127.0.0.1:15080` is set by `botmesh run --as a/b -- COMMAND`. Never set `no_proxy` for `.mesh`.
4. Python requests, Go, Ruby and curl read `http_proxy`. Node needs `NODE_USE_ENV_PROXY=1` (24 or newer), or a base URL with a `Host` header.
5. Better, where the client can: the Unix socket, `curl --unix-socket /run/botmesh/bot.sock http://orders.prod.mesh/orders/17`.
6. Ask who you are: `botmesh whoami`. Nobody? `botmesh whois PID` prints what the proxy sees and an entry to paste.
7. All is refused unless a rule in mesh.yaml allows it. Rules name method and exact path: `http: [GET /orders/*]`; `*` is one segment, `**` (last) any number.
8. Ask before you call: `botmesh policy explain prod/checkout prod/orders 'GET /orders/17' --mesh mesh.yaml -o json`.
9. A refusal by the proxy has the header `botmesh-denied: CALL-ID` and a body `application/problem+json` with `reason`. A 403 without it is the callee's own.
10. `no_rule`: no rule allows it; the body names the nearest. `denied_by_rule`: a deny rule forbids it; do not work around it, ask its owner.
11. `unknown_caller`: the proxy does not know this process. `rule_expired`: the rule's `until` has passed. `bad_path`: `..`, `//`, `;`, `%2f` are refused.
12. Do not retry a 403, 400, 404 or 421. Retry a 503 or 504 with backoff, and only calls that may be repeated.
13. Never send `Origin` or `Sec-Fetch-*`: browser-shaped calls are refused.
14. To *be* called, listen on the Unix socket or loopback port that `serve:` of your entry names. Answer plain HTTP/1.1, or gRPC where it says `grpc`.
15. Trust only `x-botmesh-caller` (the caller's SPIFFE ID). The proxy removes every such header that a caller sends.
16. To ask for a new right, add the smallest rule to mesh.yaml, with an `id`, and a test beside it. Never use `**` to save a line.
17. Check it: `botmesh policy check mesh.yaml && botmesh policy test mesh.yaml`. Live it goes by `botmesh apply mesh.yaml`: leave that to a person.
18. Every answer has `botmesh-call: CALL-ID`; log it. `botmesh audit query 'id=CALL-ID'` shows what both proxies recorded.
";

/// Prints it.
pub(crate) fn run(screen: &Screen) -> Result<Exit> {
    screen.line(TEXT.trim_end())?;
    Ok(Exit::Fine)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_twenty_lines() {
        assert_eq!(TEXT.lines().count(), 20);
    }
}
