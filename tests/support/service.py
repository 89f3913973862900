"""A service outside of the mesh that demands a key. Arguments: ADDRESS PORT PEM; the keys that it takes are lines of standard input,
NAME VALUE, of which the last of a name holds. NAME+ VALUE is taken beside it, until NAME- VALUE; NAME@PATH VALUE on that path alone.

It takes the key `x` in X-Api-Key, `bearer` as a bearer token, `basic` as the password of `robot`, and `query` as the parameter
key; without any it answers 401. Signed paths are judged by Python's hmac (/hook) and by botocore (/s3/), with the keys `hmac` and
`sigv4`. /echo answers with all that it was sent, /forms with the key in every form, in pieces of one byte, /error with a page that
quotes it, /zip compressed. What is called below /services/ is a webhook, whose address is the key `webhook`, path and query: it
says how it was called, or what its body asks for. What it says on standard output is what it saw, keys by the first digits of their SHA-256.
"""
import base64
import gzip
import hashlib
import hmac
import json
import socketserver
import ssl
import sys
import threading
import urllib.parse
from http.server import BaseHTTPRequestHandler

address, port, pem = sys.argv[1], int(sys.argv[2]), sys.argv[3]
saying = threading.Lock()
keys = {}
beside = set()


def say(*words):
    """Says one line whole, whatever other threads say meanwhile."""
    with saying:
        print(*words, flush=True)


def read_keys():
    for line in sys.stdin:
        name, value = line.rstrip("\n").split(" ", 1)
        if name.endswith("+"):
            beside.add((name[:-1], value))
        elif name.endswith("-"):
            beside.discard((name[:-1], value))
        elif "@" in name:
            beside.add((name, value))
        else:
            keys[name] = value
        say("key", name)


def short(text):
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def signed_by_botocore(method, host, path, query, headers, body):
    from datetime import datetime
    from botocore.auth import S3SigV4Auth, SigV4Auth
    from botocore.awsrequest import AWSRequest
    from botocore.credentials import Credentials
    access, secret = keys["sigv4"].split(":")[:2]
    scope = headers["Authorization"].split("Credential=")[1].split(",")[0].split("/")
    _, day, region, service, _ = scope
    kind = S3SigV4Auth if service == "s3" else SigV4Auth
    auth = kind(Credentials(access, secret), service, region)
    request = AWSRequest(method, f"https://{host}{path}" + (f"?{query}" if query else ""), data=body)
    request.headers["X-Amz-Date"] = headers["X-Amz-Date"]
    request.headers["X-Amz-Content-SHA256"] = hashlib.sha256(body).hexdigest()
    for name, value in headers.items():
        if name.lower().startswith("x-amz-meta-"):
            request.headers[name] = value
    request.headers["host"] = host
    request.context["timestamp"] = headers["X-Amz-Date"]
    request.context["payload_signing_enabled"] = True
    canonical = auth.canonical_request(request)
    signature = auth.signature(auth.string_to_sign(request, canonical), request)
    return signature, canonical


class Service(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def body(self):
        if "Content-Length" in self.headers:
            return self.rfile.read(int(self.headers["Content-Length"]))
        out = b""
        if self.headers.get("Transfer-Encoding") == "chunked":
            while size := int(self.rfile.readline(), 16):
                out += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        return out

    def given(self):
        """The key that the request has, and the name of its kind."""
        query = urllib.parse.parse_qs(urllib.parse.urlsplit(self.path).query)
        authorization = self.headers.get("Authorization", "")
        if "X-Api-Key" in self.headers:
            return "x", self.headers["X-Api-Key"]
        if authorization.startswith("Bearer "):
            return "bearer", authorization[7:]
        if authorization.startswith("Basic "):
            return "basic", base64.b64decode(authorization[6:]).decode().split(":", 1)[1]
        if "key" in query:
            return "query", query["key"][-1]
        return "none", ""

    def answer(self, status, body, headers=()):
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def pieces(self, body, trailer):
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.send_header("Trailer", "X-Key")
        self.end_headers()
        for byte in body:
            self.wfile.write(b"1\r\n" + bytes([byte]) + b"\r\n")
        self.wfile.write(b"0\r\nX-Key: " + trailer + b"\r\n\r\n")

    def webhook(self, body):
        good = self.path == keys.get("webhook") or ("webhook", self.path) in beside
        print("webhook", self.command, self.headers["Host"], self.headers.get("Content-Type"), len(body), good, flush=True)
        address = f"https://{self.headers['Host']}{self.path}"
        key = self.path.rsplit("/", 1)[1]
        raw = self.path.encode()
        if not good:
            return self.answer(404, b"no_service " + raw)
        if body == b"error":
            page = f"<h1>500</h1> {address} is not well, nor is {key}"
            return self.answer(500, page.encode(), [("X-Key", key), ("Set-Cookie", "k=" + raw.hex())])
        if body == b"away":
            return self.answer(307, b"", [("Location", address), ("Content-Location", self.path)])
        if body == b"forms":
            forms = [form for text in (raw, key.encode(), address.encode()) for form in (
                text, base64.b64encode(text), base64.urlsafe_b64encode(b"x" + text), text.hex().encode(),
                urllib.parse.quote(text.decode(), safe="").encode(), json.dumps(text.decode()).encode())]
            return self.pieces(b" ".join(forms), raw)
        told = {"address": address, "key": key, "headers": [list(pair) for pair in self.headers.items()], "body": body.decode()}
        return self.answer(200, json.dumps(told).encode(), [("Content-Type", "application/json")])

    def handle_any(self):
        body = self.body()
        print("connection", self.client_address[1], flush=True)
        url = urllib.parse.urlsplit(self.path)
        if url.path.startswith("/services/"):
            return self.webhook(body)
        if url.path == "/hook":
            text = self.headers.get("X-Time", "").encode() + b"." + body
            expected = "v1=" + hmac.new(keys["hmac"].encode(), text, "sha256").hexdigest()
            good = hmac.compare_digest(expected, self.headers.get("X-Signature", ""))
            say("hook", good, len(body))
            return self.answer(200 if good else 401, b"{}")
        if url.path.startswith(("/s3/", "/api/")):
            signature, canonical = signed_by_botocore(
                self.command, self.headers["Host"], url.path, url.query, self.headers, body)
            good = self.headers["Authorization"].endswith("Signature=" + signature)
            say("sigv4", good)
            if not good:
                say(canonical, self.headers["Authorization"])
            packed = [("Content-Encoding", "gzip")] if url.path.endswith(".gz") else []
            return self.answer(200 if good else 403, b"{}", packed)
        kind, key = self.given()
        good = key == keys.get(kind) or bool({(kind, key), (f"{kind}@{url.path}", key)} & beside)
        say("request", self.command, url.path, kind, short(key), good)
        told = {"target": self.path, "headers": [list(pair) for pair in self.headers.items()], "body": body.decode()}
        if not good:
            return self.answer(401, json.dumps(told).encode())
        raw = key.encode()
        forms = [raw, base64.b64encode(raw), base64.urlsafe_b64encode(b"x" + raw), raw.hex().encode(),
                 raw.hex().upper().encode(), urllib.parse.quote(key, safe="").encode(), json.dumps(key).encode()]
        if url.path == "/forms":
            return self.pieces(b" ".join(forms), raw)
        if url.path == "/error":
            page = b"<h1>500</h1> the key " + raw + b" is not known here"
            return self.answer(500, page, [("X-Debug", "key=" + key), ("Set-Cookie", "k=" + raw.hex())])
        if url.path == "/zip":
            return self.answer(200, gzip.compress(raw), [("Content-Encoding", "gzip")])
        if url.path == "/away":
            return self.answer(302, b"", [("Location", "https://other.example.com/echo")])
        if url.path.startswith("/v1/"):
            # What clients of language models read.
            if url.path == "/v1/messages":
                told = {"id": "m", "type": "message", "role": "assistant", "model": "m", "stop_reason": "end_turn",
                        "content": [{"type": "text", "text": "hello"}], "usage": {"input_tokens": 1, "output_tokens": 1}}
            else:
                told = {"id": "c", "object": "chat.completion", "created": 1, "model": "m", "choices": [
                    {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "hello"}}]}
        return self.answer(200, json.dumps(told).encode(), [("Content-Type", "application/json")])

    do_GET = do_POST = do_PUT = do_HEAD = handle_any


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True


context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(pem)
server = Server((address, port), Service)
server.socket = context.wrap_socket(server.socket, server_side=True)
threading.Thread(target=read_keys, daemon=True).start()
say("ready")
server.serve_forever()
