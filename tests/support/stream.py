"""A bot with one call under way. Arguments: unix:PATH of its proxy, host, path, and `get` or `upload`.

Says "open" once the answer begins (or, of an upload, once something was sent), and "closed UNIX-MILLISECONDS WHY" once the call was ended by the other side.
"""
import socket
import sys
import time

where, host, path, kind = sys.argv[1:5]
conn = socket.socket(socket.AF_UNIX)
conn.connect(where[5:])
if kind == "get":
    conn.sendall(f"GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
    got = b""
    while b"tick" not in got:
        more = conn.recv(65536)
        if not more:
            print("refused", got, flush=True)
            sys.exit(1)
        got += more
    print("open" if got.startswith(b"HTTP/1.1 200 ") else got, flush=True)
    why = "end"
    try:
        while conn.recv(65536):
            pass
    except OSError as e:
        why = type(e).__name__
else:
    conn.sendall(f"POST {path} HTTP/1.1\r\nHost: {host}\r\nTransfer-Encoding: chunked\r\n\r\n".encode())
    conn.sendall(b"4\r\ntick\r\n" * 20)
    print("open", flush=True)
    why = "end"
    conn.settimeout(0.02)
    try:
        while True:
            conn.sendall(b"4\r\ntick\r\n")
            try:
                answer = conn.recv(65536)
                why = answer.split(b"\r\n")[0].decode() or "end"
                break
            except TimeoutError:
                pass
    except OSError as e:
        why = type(e).__name__
print("closed", int(time.time() * 1000), why, flush=True)
