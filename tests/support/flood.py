"""Opens many connections, one request each, from source ports that other users also use. Arguments: PORT COUNT FIRST_PORT PORTS BOT.

Prints a JSON object: how many were answered, refused, and answered in another bot's name.
"""
import json
import os
import random
import socket
import struct
import sys

port, count, first, ports = map(int, sys.argv[1:5])
bot = sys.argv[5]
me = str(os.getuid())
answered = other = refused = busy = 0
while answered + refused < count:
    s = socket.socket()
    s.settimeout(20)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    # Closing resets, so that the port is free for the next user at once.
    s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    try:
        s.bind(("127.0.0.1", first + random.randrange(ports)))
        s.connect(("127.0.0.1", port))
    except OSError:
        busy += 1
        s.close()
        continue
    try:
        s.sendall(f"POST /echo HTTP/1.1\r\nHost: orders.prod.mesh\r\nContent-Length: {len(me)}\r\n\r\n{me}".encode())
        data = b""
        while b"\r\n\r\n" not in data:
            data += s.recv(65536) or (_ for _ in ()).throw(EOFError())
        head, body = data.split(b"\r\n\r\n", 1)
        length = next(int(l.split(b":")[1]) for l in head.split(b"\r\n") if l.lower().startswith(b"content-length:"))
        while len(body) < length:
            body += s.recv(65536) or (_ for _ in ()).throw(EOFError())
        if head.split()[1] != b"200":
            refused += 1
            print(body.decode(), file=sys.stderr)
        else:
            told = json.loads(body)
            callers = [v for k, v in told["headers"] if k == "x-botmesh-caller"]
            answered += 1
            if told["body"] != me or callers != [f"spiffe://acme.internal/{bot}"]:
                other += 1
                print(f"{me}: {callers} {told['body']}", file=sys.stderr)
    except (OSError, EOFError) as e:
        refused += 1
        print(f"{type(e).__name__}: {e}", file=sys.stderr)
    s.close()
print(json.dumps({"answered": answered, "refused": refused, "other": other, "busy": busy}))
