"""Providers outside of the mesh that federate, and services behind them: a stand-in, which verifies as they do. Arguments: ADDRESS PORT PEM
KEYS ISSUER FOLDER; what they do is lines of standard input.

`sts.example.com` exchanges JWT-SVIDs for tokens: at /token by RFC 8693 as a form, at /rule by RFC 7523 §2.1 as JSON with `federation_rule_id`
fdrl_1, each JWT once, at /client by RFC 7523 §2.2 for the client bot-9. PyJWT verifies each by the keys at the URL KEYS: who signed it, `iss`,
`aud`, that it lives five minutes at most and has not ended. `bearer.example.com` takes a JWT-SVID itself; every other name takes tokens.
`ahead SECONDS` is how far the mesh's clock is before this one; `life SECONDS` how long tokens are said to live; `mode down` has it answer 503.
What was shown is written to FOLDER/seen, for the test to look for it elsewhere; what it says has no token in it.
"""
import json
import socketserver
import ssl
import sys
import threading
import time
import urllib.parse
import urllib.request
from http.server import BaseHTTPRequestHandler

import jwt

address, port, pem, keys_url, issuer, folder = sys.argv[1], int(sys.argv[2]), *sys.argv[3:7]
lock = threading.Lock()
state = {"ahead": "0", "life": "300", "mode": "good"}
valid, used, given, known = {}, set(), 0, {}
TYPE = "urn:ietf:params:oauth:token-type:jwt"
AUDIENCES = {"/token": "//sts.example.com/pool", "/rule": "https://sts.example.com", "/client": "api://Exchange"}
GRANTS = {
    "/token": ("urn:ietf:params:oauth:grant-type:token-exchange", "subject_token"),
    "/rule": ("urn:ietf:params:oauth:grant-type:jwt-bearer", "assertion"),
    "/client": ("client_credentials", "client_assertion"),
}


def say(*words):
    with lock:
        print(*words, flush=True)


def read_lines():
    for line in sys.stdin:
        word, _, value = line.rstrip("\n").partition(" ")
        state[word] = value
        say("set", word)


def saw(token):
    with lock, open(f"{folder}/seen", "a") as file:
        file.write(token + "\n")


def key_of(token):
    """The key that it says it is signed with: of the keys that are published, or that were when they were last read, as providers keep them."""
    name = jwt.get_unverified_header(token)["kid"]
    if name not in known:
        with urllib.request.urlopen(keys_url, timeout=5) as answer:
            known.update({key.key_id: key.key for key in jwt.PyJWKSet.from_dict(json.load(answer)).keys})
    return known[name]


def verified(token, audience):
    """The claims of a token that is good here now, or what is wrong with it."""
    saw(token)
    try:
        claims = jwt.decode(
            token,
            key_of(token),
            algorithms=["ES256"],
            audience=audience,
            issuer=issuer,
            # By the clock of the mesh, which a test moves.
            options={"require": ["exp", "iat", "iss", "aud", "sub", "jti"], "verify_exp": False, "verify_iat": False},
        )
    except (jwt.PyJWTError, KeyError) as error:
        return None, type(error).__name__
    now = time.time() + float(state["ahead"])
    if not (claims["iat"] <= now + 5 and now < claims["exp"] and claims["exp"] - claims["iat"] <= 300):
        return None, "times"
    return claims, "good"


class Both(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def answer(self, status, told):
        body = json.dumps(told).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def asked(self):
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        if self.headers["Content-Type"] == "application/json":
            return json.loads(body)
        return {name: values[0] for name, values in urllib.parse.parse_qs(body, strict_parsing=True).items()}

    def wrong(self, asked):
        """What is missing of what this provider wants to be told."""
        grant, place = GRANTS[self.path]
        json_wanted = self.path == "/rule"
        if (self.headers["Content-Type"] == "application/json") != json_wanted or "Authorization" in self.headers:
            return "encoding"
        if asked.get("grant_type") != grant or place not in asked:
            return "grant"
        if self.path == "/token" and (asked.get("subject_token_type"), asked.get("audience")) != (TYPE, "data"):
            return "subject_token_type"
        if self.path == "/rule" and asked.get("federation_rule_id") != "fdrl_1":
            return "federation_rule_id"
        if self.path == "/client" and (asked.get("client_id"), asked.get("client_assertion_type")) != (
            "bot-9",
            "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
        ):
            return "client"
        return None

    def do_POST(self):
        global given
        asked = self.asked()
        if state["mode"] == "down":
            say("token", self.path, "down")
            return self.answer(503, {})
        wrong = self.wrong(asked)
        if wrong:
            say("token", self.path, wrong)
            return self.answer(400, {"error": "invalid_request"})
        claims, why = verified(asked[GRANTS[self.path][1]], AUDIENCES[self.path])
        if claims and self.path == "/rule" and claims["jti"] in used:
            claims, why = None, "replayed"
        say("token", self.path, claims["sub"] if claims else "-", why)
        if not claims:
            return self.answer(400, {"error": "invalid_grant"})
        used.add(claims["jti"])
        given += 1
        token = f"at-fedcba9876543210-{given:04}"
        valid[token] = claims["sub"]
        saw(token)
        self.answer(
            200,
            {"access_token": token, "token_type": "Bearer", "expires_in": int(state["life"]), "issued_token_type": TYPE},
        )

    def do_GET(self):
        host = self.headers["Host"].split(":")[0]
        authorization = self.headers.get("Authorization", "")
        token = authorization.removeprefix("Bearer ")
        if host == "bearer.example.com":
            claims, why = verified(token, "inner")
            sub = claims["sub"] if claims else None
        else:
            sub, why = valid.get(token), "good" if token in valid else "unknown"
        say("request", host, sub or "-", why)
        self.answer(200 if sub else 401, {"sub": sub, "authorization": authorization})


class Server(socketserver.ThreadingMixIn, socketserver.TCPServer):
    allow_reuse_address = True
    daemon_threads = True

    def get_request(self):
        connection, peer = super().get_request()
        return context.wrap_socket(connection, server_side=True, do_handshake_on_connect=False), peer


context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(pem)
threading.Thread(target=read_lines, daemon=True).start()
server = Server((address, port), Both)
say("ready")
server.serve_forever()
