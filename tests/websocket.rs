//! Python's `websockets` at both ends, neither of which knows of the mesh: the caller has `http_proxy`, the callee a port.

use std::process::Command;

use crate::spine::{CHECKOUT, ORDERS, REPORT, two_hosts};
use crate::support::{PYTHON, Process, as_user, eventually, free_port, ok, root_or_skip, run};

/// Talks to `/chat`: texts, a large message both ways, a ping, and the goodbye of RFC 6455 §7. Another path is refused before
/// anything is switched. Newer releases read `http_proxy` by themselves; for older ones it is read here, and the tunnel opened.
const CLIENT: &str = r#"
import asyncio, os, socket, sys, urllib.parse, websockets

def tunnel(host):
    proxy = urllib.parse.urlsplit(os.environ["http_proxy"])
    s = socket.create_connection((proxy.hostname, proxy.port))
    s.sendall(f"CONNECT {host}:80 HTTP/1.1\r\nHost: {host}:80\r\n\r\n".encode())
    got = b""
    while b"\r\n\r\n" not in got:
        more = s.recv(1)
        if not more: break
        got += more
    if not got.startswith(b"HTTP/1.1 200 "):
        print("refused", got.split(b" ")[1].decode()); sys.exit()
    return s

async def main():
    url = "ws://orders.prod.mesh" + sys.argv[1]
    major = int(websockets.version.version.split(".")[0])
    more = {} if major >= 15 else {"sock": tunnel("orders.prod.mesh")}
    try:
        talk = await websockets.connect(url, max_size=1 << 24, **more)
    except websockets.exceptions.InvalidHandshake as e:
        status = getattr(e, "status_code", None) or getattr(getattr(e, "response", None), "status_code", e)
        print("refused", status)
        return
    for text in ["hello", "", "\u00e9\u20ac", "x" * (4 << 20)]:
        await talk.send(text)
        assert await talk.recv() == text
    await talk.send(bytes(range(256)))
    assert await talk.recv() == bytes(range(256))
    await (await talk.ping())
    await talk.send("bye")
    try:
        while True: await talk.recv()
    except websockets.exceptions.ConnectionClosed as e:
        code = e.rcvd.code if hasattr(e, "rcvd") else e.code
        print("talked", code)
asyncio.run(main())
"#;

const SERVER: &str = r#"
import asyncio, sys, websockets

async def talk(socket, *_):
    async for message in socket:
        if message == "bye":
            await socket.close(4000, "as asked")
            return
        await socket.send(message)

async def main():
    async with websockets.serve(talk, "127.0.0.1", int(sys.argv[1]), max_size=1 << 24):
        print("ready", flush=True)
        await asyncio.Future()
asyncio.run(main())
"#;

#[test]
fn pythons_websockets_talk_through_the_environment_variable() {
    if !root_or_skip("websockets") {
        return;
    }
    // Another interpreter, with another release, by hand.
    let python = std::env::var("BOTMESH_WEBSOCKETS_PYTHON").unwrap_or_else(|_| PYTHON.to_owned());
    if !run(Command::new(&python).args(["-c", "import websockets"]))
        .status
        .success()
    {
        println!("skipped: websockets: python3-websockets is not installed");
        return;
    }
    let mesh = two_hosts("");
    let port = free_port();
    let mut command = as_user(PYTHON, ORDERS);
    command.args(["-c", SERVER, &port.to_string()]);
    let server = Process::spawn(command, mesh.dir().join("websocket.log"));
    eventually("the callee to listen", || server.log().contains("ready").then_some(()));
    let text = std::fs::read_to_string(mesh.mesh_file()).expect("the mesh file");
    let at = text.find("serve: {http: ").expect("the port of prod/orders");
    let end = at + text[at..].find('}').expect("its end");
    let text = format!("{}serve: {{http: {port}}}{}", &text[..at], &text[end + 1..]);
    let rule =
        "allow:\n  - {id: chat, from: prod/checkout, to: prod/orders, http: [GET /chat], upgrade: [websocket]}\n";
    mesh.apply(&text.replace("allow:\n", rule));
    let client = |uid: u32, path: &str| {
        let mut command = as_user(&python, uid);
        command.env("http_proxy", format!("http://{}", mesh.host("web-1").bot_tcp()));
        ok(command.args(["-c", CLIENT, path])).trim().to_owned()
    };
    assert_eq!(client(CHECKOUT, "/chat"), "talked 4000");
    assert_eq!(
        client(CHECKOUT, "/orders/17"),
        "refused 403",
        "a rule without the protocol"
    );
    assert_eq!(client(CHECKOUT, "/chat/17"), "refused 403", "another path");
    assert_eq!(client(REPORT, "/chat"), "refused 403", "another bot");
}
