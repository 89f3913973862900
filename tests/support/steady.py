"""A bot that calls at a steady rate until its standard input ends. Arguments: unix:PATH of its proxy, host, path, calls per second, and perhaps how many.

Says "calls" after the first, and at the end one JSON object: the milliseconds of each call in order, and what was not 200.
"""
import json
import select
import socket
import sys
import time

where, host, path, rate = sys.argv[1:5]
most = int(sys.argv[5]) if len(sys.argv) > 5 else None
request = f"GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()
conn = socket.socket(socket.AF_UNIX)
conn.connect(where[5:])
conn.settimeout(20)
took, failed = [], []
at = time.monotonic()
while True:
    begin = time.monotonic()
    try:
        conn.sendall(request)
        got = b""
        while b"\r\n\r\n" not in got:
            got += conn.recv(65536) or (_ for _ in ()).throw(EOFError("closed"))
        head, body = got.split(b"\r\n\r\n", 1)
        length = next(int(l.split(b":")[1]) for l in head.split(b"\r\n") if l.lower().startswith(b"content-length:"))
        while len(body) < length:
            body += conn.recv(65536) or (_ for _ in ()).throw(EOFError("closed"))
        if head.split()[1] != b"200":
            failed.append(body.decode())
    except (OSError, EOFError) as e:
        failed.append(f"{type(e).__name__}: {e}")
        break
    took.append((time.monotonic() - begin) * 1000)
    if len(took) == 1:
        print("calls", flush=True)
    if len(took) == most:
        break
    at += 1 / float(rate)
    # The pause to the next call ends at once when the test wants the figures.
    if select.select([sys.stdin], [], [], max(0, at - time.monotonic()))[0]:
        break
print(json.dumps({"took": took, "failed": failed}))
