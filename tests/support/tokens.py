"""An authorization server and a service outside of the mesh. Arguments: ADDRESS PORT PEM; what they do is lines of standard input.

`login.example.com` gives tokens at /token (RFC 6749) to the client `bot-7`, whose secret the line `secret VALUE` says, and for the
refresh token of `refresh VALUE`, which it replaces each time and takes for stolen when it comes again. `mode WORD` bends its answers,
`life SECONDS` is how long it says that tokens live. Every other name is the service, which takes tokens until the line `revoke`.
`github.example.com` gives tokens of an installation to the app 12345, whose public key is in the file that the line `github` names: its
own token is verified by openssl. What it says on standard output is what it saw; tokens and keys by number, never as they are.
"""
import base64
import json
import socketserver
import ssl
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse
from datetime import datetime, timedelta, timezone
from http.server import BaseHTTPRequestHandler

address, port, pem = sys.argv[1], int(sys.argv[2]), sys.argv[3]
saying = threading.Lock()
lock = threading.Lock()
state = {"mode": "good", "life": "300", "secret": "", "refresh": "", "github": ""}
valid, given, refreshed = set(), 0, 0


def say(*words):
    """Says one line whole, whatever other threads say meanwhile."""
    with saying:
        print(*words, flush=True)


def read_lines():
    global valid
    for line in sys.stdin:
        word, _, value = line.rstrip("\n").partition(" ")
        with lock:
            if word == "revoke":
                valid = set()
            else:
                state[word] = value
        say("set", word)


def form(text):
    return {name: values[0] for name, values in urllib.parse.parse_qs(text, strict_parsing=True).items()}


def decoded(part):
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))


def says_who(token):
    """What is wrong with the token of an app, or nothing."""
    head, claims, signature = token.split(".")
    with tempfile.NamedTemporaryFile() as file:
        file.write(decoded(signature))
        file.flush()
        verify = ["openssl", "dgst", "-sha256", "-verify", state["github"], "-signature", file.name]
        if subprocess.run(verify, input=f"{head}.{claims}".encode(), capture_output=True).returncode:
            return "signature"
    head, claims, now = json.loads(decoded(head)), json.loads(decoded(claims)), time.time()
    if head != {"alg": "RS256", "typ": "JWT"} or claims["iss"] != "12345":
        return "claims"
    if not claims["iat"] <= now <= claims["exp"] <= claims["iat"] + 600:
        return "times"
    return None


class Both(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def answer(self, status, body, headers=(("Content-Type", "application/json"),)):
        body = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def client(self, asked):
        """How the client said who it is, and whether it is."""
        authorization = self.headers.get("Authorization", "")
        if authorization.startswith("Basic "):
            name, secret = base64.b64decode(authorization[6:]).decode().split(":")
            pair = urllib.parse.unquote_plus(name), urllib.parse.unquote_plus(secret)
            return "basic", pair == ("bot-7", state["secret"])
        if "client_secret" in asked:
            return "post", (asked["client_id"], asked["client_secret"]) == ("bot-7", state["secret"])
        return "none", asked.get("client_id") == "bot-7" and asked["grant_type"] == "refresh_token"

    def token(self):
        global given, refreshed
        asked = form(self.rfile.read(int(self.headers["Content-Length"])).decode())
        how, good = self.client(asked)
        plain = self.headers["Content-Type"] == "application/x-www-form-urlencoded"
        more = " ".join(f"{name}={asked[name]}" for name in ("scope", "audience", "resource") if name in asked)
        with lock:
            mode, old = state["mode"], state["refresh"]
            say("token", asked["grant_type"], how, good and plain, mode, more)
            if mode != "good" and self.bent(mode):
                return None
            if not good:
                return self.answer(401, {"error": "invalid_client"})
            if asked["grant_type"] == "refresh_token":
                if asked["refresh_token"] != old:
                    say("stolen")
                    return self.answer(400, {"error": "invalid_grant"})
                refreshed += 1
                state["refresh"] = f"rt-0123456789abcdef-{refreshed:04}"
            given += 1
            token = f"at-0123456789abcdef-{given:04}"
            valid.add(token)
        told = {"access_token": token, "token_type": "Bearer", "expires_in": int(state["life"])}
        if asked["grant_type"] == "refresh_token":
            told["refresh_token"] = state["refresh"]
        if mode == "no-life":
            del told["expires_in"]
        if mode == "huge":
            told["expires_in"] = 10**15
        if mode == "mac":
            told["token_type"] = "mac"
        if mode == "type":
            return self.answer(200, told, [("Content-Type", "text/plain")])
        self.answer(200, told)

    def bent(self, mode):
        """Answers in another way; says whether it did."""
        secret = state["secret"]
        if mode == "500":
            self.answer(500, b"<h1>500</h1> " + secret.encode(), [("Content-Type", "text/html")])
        elif mode == "invalid_client":
            self.answer(400, {"error": "invalid_client", "error_description": "not " + secret})
        elif mode == "word":
            self.answer(400, {"error": "the secret " + secret + " is wrong"})
        elif mode == "html":
            self.answer(200, b"<html>" + secret.encode() + b"</html>", [("Content-Type", "text/html")])
        elif mode == "no-json":
            self.answer(200, b"access_token=at-0123456789abcdef-x&token_type=bearer")
        elif mode == "redirect":
            self.answer(307, b"", [("Location", "https://api.example.com/stolen")])
        elif mode == "endless":
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.close_connection = True
            try:
                while True:
                    self.wfile.write(b" " * 4096)
            except OSError:
                say("hung up")
        elif mode == "slow":
            self.close_connection = True
            time.sleep(3)
        elif mode == "cut":
            self.close_connection = True
        else:
            return False
        return True

    def installation(self):
        global given
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        wrong = says_who(self.headers["Authorization"].removeprefix("Bearer "))
        form = self.headers["Accept"] == "application/vnd.github+json" and self.headers["User-Agent"] and json.loads(body) == {}
        with lock:
            say("installation", self.command, self.path, wrong, bool(form))
            if state["mode"] != "good" and self.bent(state["mode"]):
                return None
            if wrong or self.path != "/api/v3/app/installations/7/access_tokens":
                return self.answer(401, {"message": "not " + self.headers["Authorization"]})
            given += 1
            token = f"at-0123456789abcdef-{given:04}"
            valid.add(token)
        end = datetime.now(timezone.utc) + timedelta(hours=1)
        self.answer(201, {"token": token, "expires_at": end.strftime("%Y-%m-%dT%H:%M:%SZ"), "permissions": {"contents": "read"}})

    def handle_any(self):
        if self.headers["Host"] == "github.example.com":
            return self.installation()
        if self.headers["Host"] == "login.example.com":
            return self.token()
        length = int(self.headers.get("Content-Length", 0))
        body = self.rfile.read(length).decode()
        authorization = self.headers.get("Authorization", "")
        with lock:
            good = authorization.removeprefix("Bearer ") in valid
        say("request", self.command, self.path, authorization[-4:] if good else "-", good)
        told = {"headers": [list(pair) for pair in self.headers.items()], "body": body}
        self.answer(200 if good else 401, told)

    do_GET = do_POST = handle_any


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 64

    def handle_error(self, *_):
        pass


context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(pem)
server = Server((address, port), Both)
server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
threading.Thread(target=read_lines, daemon=True).start()
say("ready")
server.serve_forever()
