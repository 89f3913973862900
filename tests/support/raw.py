"""Sends what it is told, byte by byte, and tells what came back. One JSON object per line, each a connection of its own:

"at": HOST:PORT or unix:PATH; "tunnel": the host of a CONNECT before all else; "tls": {"name", "cert", "key", "alpn"}; then either "bytes" of HTTP/1.1,
after which nothing more is sent, or "frames" of HTTP/2 with "after", the fields of a second stream, or what one proxy says to another on the "hop"
("ends": the connection is to end for it). Characters are bytes.

Writes {"status", "got"} of the first answer, "reset" and "goaway" where HTTP/2 refused, "ended" where a hop was, and "hung" where no end came.
"""
import json
import os
import socket
import ssl
import struct
import sys

import hpack

PATIENCE = 15
DATA, HEADERS, RST, SETTINGS, GOAWAY, CONTINUATION = 0, 1, 3, 4, 7, 9


def connect(order):
    where = order["at"]
    if where.startswith("unix:"):
        s = socket.socket(socket.AF_UNIX)
        s.connect(where[5:])
    else:
        host, port = where.rsplit(":", 1)
        s = socket.create_connection((host, int(port)))
    s.settimeout(PATIENCE)
    if order.get("tunnel"):
        s.sendall(f"CONNECT {order['tunnel']} HTTP/1.1\r\nHost: {order['tunnel']}\r\n\r\n".encode())
        got = b""
        while b"\r\n\r\n" not in got:
            got += s.recv(1) or sys.exit(f"no tunnel: {got}")
        assert got.startswith(b"HTTP/1.1 200 "), got
    if order.get("tls"):
        tls = order["tls"]
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.load_cert_chain(tls["cert"], tls["key"])
        context.set_alpn_protocols([tls["alpn"]])
        # The other proxy's end without a close_notify is an end too.
        s = context.wrap_socket(s, server_hostname=tls["name"], suppress_ragged_eofs=True)
        assert s.selected_alpn_protocol() == tls["alpn"], s.selected_alpn_protocol()
    return s


def say(s, data):
    """Sends; a proxy that has refused already takes no more."""
    try:
        s.sendall(data)
        return True
    except (ConnectionError, ssl.SSLError):
        return False


def hear(s):
    try:
        return s.recv(65536)
    except (ConnectionError, ssl.SSLError):
        return b""


def http1(s, order):
    told = {"status": None, "got": "", "hung": False}
    say(s, order["bytes"].encode("latin-1"))
    try:
        # Beneath TLS, which knows no half of a connection.
        half = socket.socket(fileno=os.dup(s.fileno()))
        half.shutdown(socket.SHUT_WR)
        half.close()
    except OSError:
        pass
    got = b""
    try:
        while data := hear(s):
            got += data
    except TimeoutError:
        told["hung"] = True
    # What was asked to be told `100 Continue` is told it before its answer.
    while got.startswith(b"HTTP/1.1 1"):
        got = got.split(b"\r\n\r\n", 1)[1]
    if got.startswith(b"HTTP/1."):
        told["status"] = int(got[9:12])
    told["got"] = got[:2000].decode("latin-1")
    return told


def frame(kind, flags, stream, payload=b""):
    return struct.pack("!I", len(payload))[1:] + bytes([kind, flags]) + struct.pack("!I", stream) + payload


def length(n):
    """RFC 7541 §5.1, with a prefix of 7 bits."""
    if n < 127:
        return bytes([n])
    out, n = b"\x7f", n - 127
    while n >= 128:
        out, n = out + bytes([n % 128 + 128]), n // 128
    return out + bytes([n])


def block(fields):
    pairs = [(n.encode("latin-1"), v.encode("latin-1")) for n, v in fields]
    return b"".join(b"\x00" + length(len(n)) + n + length(len(v)) + v for n, v in pairs)


def headers(stream, fields, end):
    whole = block(fields)
    parts = [whole[i : i + 16384] for i in range(0, len(whole), 16384)] or [b""]
    out = b""
    for n, part in enumerate(parts):
        flags = (1 if end and n == 0 else 0) | (4 if n == len(parts) - 1 else 0)
        out += frame(HEADERS if n == 0 else CONTINUATION, flags, stream, part)
    return out


def bytes_of(piece):
    if "headers" in piece:
        return headers(1, piece["headers"], piece["end"])
    if "data" in piece:
        return frame(DATA, 1 if piece["end"] else 0, 1, piece["data"].encode("latin-1"))
    kind, flags, stream, payload = piece["frame"]
    return frame(kind, flags, stream, payload.encode("latin-1"))


class Http2:
    def __init__(self, s):
        self.s, self.received, self.closed = s, b"", False
        self.decoder, self.fields = hpack.Decoder(), b""
        self.status, self.reset, self.goaway, self.ended = {}, {}, None, set()

    def until(self, stream):
        """Reads until a stream or the connection has ended."""
        while stream not in self.ended and not self.closed:
            self.frames()
            if stream in self.ended or self.closed:
                break
            data = hear(self.s)
            self.closed = not data
            self.received += data
        self.frames()

    def frames(self):
        while len(self.received) >= 9:
            size = int.from_bytes(self.received[:3], "big")
            if len(self.received) < 9 + size:
                return
            kind, flags = self.received[3], self.received[4]
            stream = int.from_bytes(self.received[5:9], "big")
            payload, self.received = self.received[9 : 9 + size], self.received[9 + size :]
            if kind == SETTINGS and not flags & 1:
                say(self.s, frame(SETTINGS, 1, 0))
            elif kind == GOAWAY:
                self.goaway = int.from_bytes(payload[4:8], "big")
            elif kind == RST:
                self.reset[stream] = int.from_bytes(payload, "big")
                self.ended.add(stream)
            elif kind in (HEADERS, CONTINUATION):
                self.fields += payload
                if flags & 4:
                    fields = dict(self.decoder.decode(self.fields))
                    self.fields = b""
                    if ":status" in fields and not fields[":status"].startswith("1"):
                        self.status.setdefault(stream, int(fields[":status"]))
            if kind in (HEADERS, DATA) and flags & 1:
                self.ended.add(stream)


def http2(s, order):
    c, hung = Http2(s), False
    say(s, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(SETTINGS, 0, 0))
    say(s, b"".join(bytes_of(piece) for piece in order["frames"]))
    try:
        c.until(1)
        if not c.closed and say(s, headers(3, order["after"], True)):
            c.until(3)
    except TimeoutError:
        hung = True
    return {"status": c.status.get(1), "reset": c.reset.get(1), "goaway": c.goaway, "hung": hung, "got": ""}


def hop_frame(kind, stream, payload, length=None):
    payload = payload.encode("latin-1")
    size = len(payload) if length is None else length
    return bytes([kind]) + struct.pack("!I", size)[1:] + struct.pack("!I", stream) + payload


def hop_bytes(piece):
    if "bytes" in piece:
        return piece["bytes"].encode("latin-1")
    times = range(piece.get("repeat", 1))
    if "frame" in piece:
        return b"".join(hop_frame(*piece["frame"], piece.get("length")) for _ in times)
    return b"".join(hop_frame(k, s + n * piece["step"], p) for n in times for k, s, p in piece["frames"])


def hop(s, order):
    told = {"status": None, "reset": None, "ended": False, "hung": False, "got": ""}
    say(s, b"".join(hop_bytes(piece) for piece in order["hop"]))
    got = b""
    try:
        while True:
            while len(got) >= 8 and len(got) >= 8 + int.from_bytes(got[1:4], "big"):
                size = int.from_bytes(got[1:4], "big")
                kind, payload, got = got[0], got[8 : 8 + size], got[8 + size :]
                if kind in (1, 2) and told["status"] is None:
                    told["status"], told["got"] = int(payload[9:12]), payload[:2000].decode("latin-1")
                if kind == 6:
                    told["reset"] = payload[0]
                if kind == 9 and payload == b"that all":
                    return told
                # The answer is whole, or none comes.
                if kind in (2, 4, 5, 6) and not order.get("ends"):
                    return told
            data = hear(s)
            if not data:
                told["ended"] = True
                return told
            got += data
    except TimeoutError:
        told["hung"] = True
    return told


for line in sys.stdin:
    order = json.loads(line)
    s = connect(order)
    told = http1(s, order) if "bytes" in order else hop(s, order) if "hop" in order else http2(s, order)
    s.close()
    print(json.dumps(told), flush=True)
