"""A bot with one TCP connection by its proxy. Arguments: HOST:PORT or unix:PATH, and the authority of a CONNECT where it is one.

For each order, a line of JSON, it says what came of it in one line of JSON.
"""
import hashlib
import json
import select
import socket
import struct
import sys
import time

where = sys.argv[1]
conn = None


def connect(early=""):
    global conn
    if where.startswith("unix:"):
        conn = socket.socket(socket.AF_UNIX)
        conn.connect(where[5:])
    else:
        host, port = where.rsplit(":", 1)
        conn = socket.create_connection((host, int(port)))
    conn.settimeout(25)
    head = b""
    if len(sys.argv) > 2:
        conn.sendall(f"CONNECT {sys.argv[2]} HTTP/1.1\r\nHost: {sys.argv[2]}\r\n\r\n{early}".encode())
        while not head.endswith(b"\r\n\r\n"):
            more = conn.recv(1)
            if not more:
                break
            head += more
    return {"head": head.decode()}


def receive(until=None, count=None):
    """Reads until `until` has come, or so many bytes, or to the end; says what came and why it ended."""
    kept, total, digest, why = b"", 0, hashlib.sha256(), "enough"
    while not (until and until.encode() in kept) and not (count is not None and total >= count):
        try:
            more = conn.recv(1 << 16 if count is None else min(1 << 16, count - total))
        except OSError as e:
            why = type(e).__name__
            break
        if not more:
            why = "end"
            break
        total += len(more)
        digest.update(more)
        kept = (kept + more)[-65536:]
    return {"text": kept.decode("latin-1") if total <= 65536 else "", "bytes": total, "sha256": digest.hexdigest(), "why": why, "at_ms": int(time.time() * 1000)}


def send(text=None, count=None):
    try:
        if text is not None:
            conn.sendall(text.encode())
        block, digest, left = bytes(range(256)) * 256, hashlib.sha256(), count or 0
        while left:
            piece = block[: min(left, len(block))]
            conn.sendall(piece)
            digest.update(piece)
            left -= len(piece)
        return {"sha256": digest.hexdigest()}
    except OSError as e:
        return {"error": type(e).__name__}


def flood(most):
    """Sends until nothing has been taken for a second."""
    conn.setblocking(False)
    sent, block = 0, bytes(1 << 16)
    while sent < most and select.select([], [conn], [], 1)[1]:
        sent += conn.send(block)
    conn.settimeout(25)
    return {"bytes": sent}


def shutdown():
    conn.shutdown(socket.SHUT_WR)
    return {}


def reset():
    conn.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    conn.close()
    return {}


for text in sys.stdin:
    order = json.loads(text)
    what = {"connect": connect, "receive": receive, "send": send, "flood": flood, "shutdown": shutdown, "reset": reset}[order.pop("do")]
    print(json.dumps(what(**order)), flush=True)
