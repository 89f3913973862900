"""Listens where a bot should. Arguments: `unix:PATH`, or a port and a form of address (0.0.0.0, ::, ::only, ::1, ...).

Says "holds" once it listens, or "refused WHY" and ends. Then "connection N" for each connection, and "read BYTES" once that one has ended.
"""
import os
import socket
import sys

where = sys.argv[1]
try:
    if where.startswith("unix:"):
        server = socket.socket(socket.AF_UNIX)
        server.bind(where[5:])
        os.chmod(where[5:], 0o666)
    else:
        form = sys.argv[2]
        server = socket.socket(socket.AF_INET6 if ":" in form else socket.AF_INET)
        # Whatever helps to get in beside another.
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if ":" in form:
            server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, form == "::only")
        server.bind((form.removesuffix("only"), int(where)))
    server.listen(64)
except OSError as e:
    print("refused", e.strerror, flush=True)
    sys.exit(0)
print("holds", flush=True)
number = 0
while True:
    conn, _ = server.accept()
    number += 1
    print("connection", number, flush=True)
    read = 0
    # Says nothing, as who wants to hear would: a proxy that sends first would be heard here.
    try:
        while data := conn.recv(65536):
            read += len(data)
    except OSError:
        pass
    print("read", read, flush=True)
    conn.close()
