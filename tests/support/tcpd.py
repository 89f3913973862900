"""A bot that serves TCP. Arguments: a port or unix:PATH, and `proxy` where it wants the PROXY protocol first.

It speaks first: one line of JSON with what it was told by the PROXY protocol, if anything. The first line that it hears says what it does then; see `serve`. It says "ready" once it listens, and a line for each thing that it sees: "N open", "N read BYTES", "N error NAME".
"""
import hashlib
import json
import os
import socket
import struct
import sys
import threading

where, wants_proxy = sys.argv[1], "proxy" in sys.argv[2:]
lock = threading.Lock()


def say(*words):
    with lock:
        print(*words, flush=True)


def exactly(conn, count):
    data = b""
    while len(data) < count:
        more = conn.recv(count - len(data))
        if not more:
            raise EOFError
        data += more
    return data


def proxy_header(conn):
    """Reads a header as the specification has it, and nothing that it does not have."""
    head = exactly(conn, 16)
    assert head[:12] == b"\r\n\r\n\x00\r\nQUIT\n", head
    assert head[12] == 0x21, "version 2, command PROXY"
    family, length = head[13], struct.unpack("!H", head[14:])[0]
    rest = exactly(conn, length)
    told = {"family": family}
    if family:
        size = {0x11: 4, 0x21: 16}[family]
        version = {0x11: socket.AF_INET, 0x21: socket.AF_INET6}[family]
        ends = [socket.inet_ntop(version, rest[n * size : (n + 1) * size]) for n in (0, 1)]
        told["from"], told["to"] = ([ip, port] for ip, port in zip(ends, struct.unpack("!HH", rest[2 * size : 2 * size + 4])))
        rest = rest[2 * size + 4 :]
    told["fields"] = []
    while rest:
        kind, size = struct.unpack("!BH", rest[:3])
        assert len(rest) >= 3 + size, "a field is longer than the header"
        told["fields"].append([kind, rest[3 : 3 + size].decode()])
        rest = rest[3 + size :]
    return told


def line(conn):
    data = b""
    while not data.endswith(b"\n"):
        data += exactly(conn, 1)
    return data.decode().split()


def read_all(conn, number):
    total, digest = 0, hashlib.sha256()
    while True:
        data = conn.recv(1 << 16)
        if not data:
            break
        total += len(data)
        digest.update(data)
    say(number, "read", total)
    return total, digest.hexdigest()


def pattern(count):
    block = bytes(range(256)) * 256
    while count:
        yield block[: min(count, len(block))]
        count -= min(count, len(block))


def serve(conn, number):
    told = proxy_header(conn) if wants_proxy else None
    conn.sendall(json.dumps({"proxy": told}).encode() + b"\n")
    words = line(conn)
    match words:
        case ["echo"]:  # Gives everything back, and after its end "bye".
            while data := conn.recv(1 << 16):
                conn.sendall(data)
            conn.sendall(b"bye")
        case ["half"]:  # Says "done" and no more, and goes on to read.
            conn.sendall(b"done")
            conn.shutdown(socket.SHUT_WR)
            read_all(conn, number)
        case ["give", count]:  # Sends so many bytes and ends.
            for block in pattern(int(count)):
                conn.sendall(block)
        case ["take"]:  # Reads to the end, and says how much that was.
            conn.sendall(json.dumps(read_all(conn, number)).encode())
        case ["reset"]:  # Breaks off, with the answer under way.
            conn.sendall(b"half of it")
            conn.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            conn.close()
        case ["stall"]:  # Reads nothing.
            threading.Event().wait()
        case ["pass", path]:  # Hands its end to another process, and lets go of it.
            with socket.socket(socket.AF_UNIX) as other:
                other.connect(path)
                socket.send_fds(other, [b"!"], [conn.fileno()])
                other.recv(1)


def meet(conn, number):
    say(number, "open")
    try:
        serve(conn, number)
    except (OSError, EOFError) as e:
        say(number, "error", type(e).__name__)
    conn.close()


if where.startswith("unix:"):
    server = socket.socket(socket.AF_UNIX)
    server.bind(where[5:])
    os.chmod(where[5:], 0o666)
else:
    server = socket.socket()
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    server.bind(("127.0.0.1", int(where)))
server.listen(64)
say("ready")
number = 0
while True:
    conn, _ = server.accept()
    number += 1
    threading.Thread(target=meet, args=(conn, number), daemon=True).start()
