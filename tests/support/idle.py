"""Connections that make one call each and then stand still. Arguments: a way, how many, the host to call, a path.

The way is a port, `unix:PATH`, or `tls:PORT:SNI:ALPN:CHAIN:KEY`. Says one JSON line when all are open: how many were
answered with 200 and what else came; ends when its input does.
"""
import collections
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


held, told = [], collections.Counter()
for number in range(count):
    try:
        held.append(connect(number))
        told[http2(held[-1]) if tls and tls[2] == "h2" else http1(held[-1])] += 1
    except OSError as error:
        told[f"{type(error).__name__}: {error}"] += 1
print(json.dumps({"answered": told.pop("200", 0), "else": dict(told)}), flush=True)
sys.stdin.read()
