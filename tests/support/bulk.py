"""A bot that sends or takes one large body. Arguments: HOST:PORT or unix:PATH, `up`, `up-chunked`, `down` or `slow-down`, MiB. Prints how many bytes arrived."""
import socket
import sys
import time

where, kind, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
if where.startswith("unix:"):
    s = socket.socket(socket.AF_UNIX)
    s.connect(where[5:])
else:
    host, port = where.rsplit(":", 1)
    s = socket.create_connection((host, int(port)))
s.settimeout(60)
MIB = b"x" * (1 << 20)
HOST = b"HTTP/1.1\r\nHost: orders.prod.mesh\r\nConnection: close\r\n"


def head():
    got = b""
    while b"\r\n\r\n" not in got:
        got += s.recv(1 << 16) or sys.exit("it ended")
    line, rest = got.split(b"\r\n\r\n", 1)
    assert line.startswith(b"HTTP/1.1 200 "), got
    return rest


if kind.startswith("up"):
    framing = b"Transfer-Encoding: chunked" if kind == "up-chunked" else b"Content-Length: %d" % (count << 20)
    s.sendall(b"POST /orders/take " + HOST + framing + b"\r\n\r\n")
    for _ in range(count):
        s.sendall(b"100000\r\n" + MIB + b"\r\n" if kind == "up-chunked" else MIB)
    if kind == "up-chunked":
        s.sendall(b"0\r\n\r\n")
    text = head()
    while more := s.recv(1 << 16):
        text += more
    print(text.decode(), "bytes")
else:
    s.sendall(b"GET /orders/give-%d " % count + HOST + b"\r\n")
    total = len(head())
    while more := s.recv(1 << 18):
        total += len(more)
        if kind == "slow-down":
            # Slower than anything between the two ends.
            time.sleep(0.001)
    print(total, "bytes")
