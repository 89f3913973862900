"""Bots of one user that call without a break, as ordinary clients do. Arguments: calls per second, HOST:PORT, PATH of the proxy.

Each thread has one way to call: over the port or the socket; a connection that is kept or a new one each time; GET or POST. A client
retries what RFC 9110 section 9.2.2 lets it: a GET, once, on a kept connection that was closed before a byte of an answer came. A
connection whose end it has seen is no longer used. Everything else that is not 200 with the right body is a failure.

One line of JSON each time a line is read, and at the end: {"calls", "failed", "failures", "retried", "connects", "milliseconds": [p50,
p99, max], "paused"} since the start; "paused" is the longest time in which no call at all ended.
"""
import json
import random
import select
import socket
import sys
import threading
import time

# The suite looks for these in all that is written of the calls.
HEADER, BODY = "planted-header/Qv7mT2xR9s+Kd4Lw8", b"planted-body/Zc5nB8uYf3+Hj6Pa1"
QUERY = "planted-query-We4kN0gMx7-Tb2Vs9"

rate, port, path = float(sys.argv[1]), int(sys.argv[2].rpartition(":")[2]), sys.argv[3]
WAYS = [(over, kept, method) for over in ("unix", "tcp") for kept in (True, True, True, False) for method in ("GET", "GET", "POST")]
THREADS = len(WAYS)
lock = threading.Lock()
failures, times = [], []
totals = {"calls": 0, "failed": 0, "retried": 0, "connects": 0, "paused": 0}
last = time.monotonic()
over = threading.Event()


class Closed(Exception):
    """Closed by the other side before a byte of an answer."""


def connect(way):
    if way == "unix":
        s = socket.socket(socket.AF_UNIX)
        s.settimeout(30)
        s.connect(path)
    else:
        s = socket.create_connection(("127.0.0.1", port), timeout=30)
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    with lock:
        totals["connects"] += 1
    return s


def exchange(s, method, target):
    """The status, the body, and whether the connection ends."""
    body = b"Content-Length: %d\r\n\r\n%s" % (len(BODY), BODY) if method == "POST" else b"\r\n"
    data = b""
    try:
        s.sendall(f"{method} {target} HTTP/1.1\r\nHost: orders.prod.mesh\r\nX-Planted: {HEADER}\r\n".encode() + body)
        while b"\r\n\r\n" not in data:
            more = s.recv(65536)
            if not more:
                raise ConnectionResetError("closed")
            data += more
    except (ConnectionResetError, BrokenPipeError) as error:
        if data:
            raise
        raise Closed(str(error)) from error
    head, _, rest = data.partition(b"\r\n\r\n")
    fields = [line.lower() for line in head.split(b"\r\n")[1:]]
    length = next(int(f[15:]) for f in fields if f.startswith(b"content-length:"))
    while len(rest) < length:
        more = s.recv(65536)
        if not more:
            raise ConnectionResetError("closed in a body")
        rest += more
    return int(head.split(b" ", 2)[1]), rest.decode(), b"connection: close" in fields


def ended(s):
    """Whether the other side has closed, as every pool looks before it takes a connection."""
    return bool(select.select([s], [], [], 0)[0])


def call(way, kept, method, s, token):
    target = f"/refunds?{token}&q={QUERY}" if method == "POST" else f"/orders/17?{token}&q={QUERY}"
    if s and ended(s):
        s.close()
        s = None
    old = s is not None
    if not s:
        s = connect(way)
    try:
        status, body, closes = exchange(s, method, target)
    except Closed:
        if not old or method == "POST":
            raise
        with lock:
            totals["retried"] += 1
        s.close()
        s = connect(way)
        status, body, closes = exchange(s, method, target)
    if status != 200 or body != f"{method} {target}":
        raise ValueError(f"{status} {body[:400]}")
    if closes or not kept:
        s.close()
        s = None
    return s


def client(number):
    global last
    way, kept, method = WAYS[number]
    s, count = None, 0
    due = time.monotonic() + random.random() * THREADS / rate
    while not over.is_set():
        wait = due - time.monotonic()
        if wait > 0:
            time.sleep(wait)
        due = max(due + THREADS / rate, time.monotonic() - 1)
        count += 1
        began, failure = time.monotonic(), None
        try:
            s = call(way, kept, method, s, f"{number}-{count}")
        except Exception as error:
            failure, s = f"{time.time():.3f} {way} {'kept' if kept else 'new'} {method} after {time.monotonic() - began:.3f}s: {type(error).__name__} {error}", None
        now = time.monotonic()
        with lock:
            totals["calls"] += 1
            totals["paused"] = max(totals["paused"], int((now - last) * 1000))
            last = now
            if len(times) < 1 << 20:
                times.append(now - began)
            else:
                times[random.randrange(len(times))] = now - began
            if failure:
                totals["failed"] += 1
                if len(failures) < 20:
                    failures.append(failure)


def tell():
    with lock:
        ordered = sorted(times) or [0]
        at = lambda share: round(ordered[min(int(len(ordered) * share), len(ordered) - 1)] * 1000, 1)
        print(json.dumps(totals | {"failures": failures, "milliseconds": [at(0.5), at(0.99), at(1)]}), flush=True)


threads = [threading.Thread(target=client, args=(n,), daemon=True) for n in range(THREADS)]
for thread in threads:
    thread.start()
for line in sys.stdin:
    tell()
over.set()
for thread in threads:
    thread.join(40)
tell()
