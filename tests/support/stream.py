"""A bot with one call under way. Arguments: unix:PATH of its proxy, host, path, and `get` or `upload`.

Says "open" once the answer begins (or, of an upload, once something was sent), and "closed UNIX-MILLISECONDS WHY" once the call was ended by the other side.
Without path and kind it reads one path per line, and has one call after the other.
"""
import socket
import sys
import time

where, host = sys.argv[1:3]


def get(conn, path):
    conn.sendall(f"GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
    got = b""
    while b"tick" not in got:
        more = conn.recv(65536)
        if not more:
            print("refused", got, flush=True)
            sys.exit(1)
        got += more
    print("open" if got.startswith(b"HTTP/1.1 200 ") else got, flush=True)
    try:
        while conn.recv(65536):
            pass
    except OSError as e:
        return type(e).__name__
    return "end"


def upload(conn, path):
    conn.sendall(f"POST {path} HTTP/1.1\r\nHost: {host}\r\nTransfer-Encoding: chunked\r\n\r\n".encode())
    conn.sendall(b"4\r\ntick\r\n" * 20)
    print("open", flush=True)
    conn.settimeout(0.02)
    try:
        while True:
            conn.sendall(b"4\r\ntick\r\n")
            try:
                answer = conn.recv(65536)
                return answer.split(b"\r\n")[0].decode() or "end"
            except TimeoutError:
                pass
    except OSError as e:
        return type(e).__name__


def one(kind, path):
    with socket.socket(socket.AF_UNIX) as conn:
        conn.connect(where[5:])
        why = kind(conn, path)
        print("closed", int(time.time() * 1000), why, flush=True)


if len(sys.argv) > 3:
    one(get if sys.argv[4] == "get" else upload, sys.argv[3])
else:
    for line in sys.stdin:
        one(get, line.strip())
