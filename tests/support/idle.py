"""Connections that make one call each and then stand still. Arguments: a way, how many, the host to call, a path.

The way is a port, `unix:PATH`, or `tls:PORT:SNI:ALPN:CHAIN:KEY`. Says one JSON line when all are open: how many were
answered with 200 and what else came; ends when its input does.
"""
import collections
import concurrent.futures
import json
import socket
import ssl
import sys

import h2.config
import h2.connection
import h2.events

way, count, host, path = sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4]
tls = way.split(":")[1:] if way.startswith("tls:") else None
context = None
if tls:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.load_cert_chain(tls[3], tls[4])
    context.set_alpn_protocols([tls[2]])


def connect(number):
    if way.startswith("unix:"):
        s = socket.socket(socket.AF_UNIX)
        s.settimeout(60)
        s.connect(way[5:])
        return s
    s = socket.socket()
    s.settimeout(60)
    if not tls:
        s.connect(("127.0.0.1", int(way)))
        return s
    # A port of one address leads to few connections of one peer at a time.
    s.bind((f"127.0.{1 + number // 200}.9", 0))
    s.connect(("127.0.0.1", int(tls[0])))
    return context.wrap_socket(s, server_hostname=tls[1])


def http1(s):
    s.sendall(f"GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
    came = b""
    while b"\r\n\r\n" not in came:
        data = s.recv(65536)
        if not data:
            return "closed"
        came += data
    head, _, body = came.partition(b"\r\n\r\n")
    length = next(int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
    while len(body) < length:
        body += s.recv(65536)
    return head[9:12].decode()


def http2(s):
    talk = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))
    talk.initiate_connection()
    fields = [(":method", "GET"), (":scheme", "https"), (":authority", host), (":path", path)]
    talk.send_headers(1, fields, end_stream=True)
    s.sendall(talk.data_to_send())
    status = "closed"
    while True:
        data = s.recv(65536)
        if not data:
            return status
        for event in talk.receive_data(data):
            if isinstance(event, h2.events.ResponseReceived):
                status = dict(event.headers)[b":status"].decode()
            if isinstance(event, h2.events.StreamEnded):
                s.sendall(talk.data_to_send())
                return status
        s.sendall(talk.data_to_send())


def hop(s):
    """As a proxy calls another: how much may be under way, and a head that is all of the call."""
    def frame(kind, stream, payload):
        return bytes([kind]) + len(payload).to_bytes(3, "big") + stream.to_bytes(4, "big") + payload
    room = (65535).to_bytes(4, "big") + (16383).to_bytes(4, "big")
    head = f"GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()
    s.sendall(frame(12, 0, room) + frame(2, 256, head))
    came, status = b"", "closed"
    while True:
        while len(came) >= 8 and len(came) >= 8 + int.from_bytes(came[1:4], "big"):
            kind, end = came[0], 8 + int.from_bytes(came[1:4], "big")
            if kind in (1, 2):
                status = came[8:end][9:12].decode()
            if kind in (2, 4, 5, 6):
                return status if kind != 6 else "reset"
            came = came[end:]
        data = s.recv(65536)
        if not data:
            return status
        came += data


def call(number):
    try:
        s = connect(number)
        spoken = {"h2": http2, "botmesh-hop/1": hop}.get(tls[2] if tls else "", http1)
        return s, spoken(s)
    except OSError as error:
        return None, f"{type(error).__name__}: {error}"


# Side by side, so that the last is open before the first has stood still for too long.
with concurrent.futures.ThreadPoolExecutor(8) as pool:
    held = list(pool.map(call, range(count)))
told = collections.Counter(status for _, status in held)
print(json.dumps({"answered": told.pop("200", 0), "else": dict(told)}), flush=True)
sys.stdin.read()
