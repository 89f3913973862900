"""A bot that reads an answer without an end from outside. Arguments: unix:PATH or HOST:PORT of its proxy, and then

http HOST PATH        by the proxy's TLS, or in the clear
switch HOST PATH      to a protocol in which the other end says the same again
tls HOST:PORT NAME CA by its own TLS in a tunnel, asking for NAME (`-` for none), trusting the authority in the file CA
bytes HOST:PORT TEXT  by no TLS at all in a tunnel

It says `open` with the first piece of the answer, and `end MILLISECONDS WHY`; or `refused STATUS BODY`, or `tls WHY`.
"""
import socket
import ssl
import sys
import time

where, kind, target, *more = sys.argv[1:]


def say(*words):
    print(*words, flush=True)


def connect():
    if where.startswith("unix:"):
        conn = socket.socket(socket.AF_UNIX)
        conn.connect(where[5:])
    else:
        host, port = where.rsplit(":", 1)
        conn = socket.create_connection((host, int(port)))
    conn.settimeout(25)
    return conn


def head_of(conn):
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        byte = conn.recv(1)
        if not byte:
            break
        head += byte
    return head.decode()


def refused(head):
    length = [line.split(": ")[1] for line in head.split("\r\n") if line.lower().startswith("content-length: ")]
    say("refused", head.split(" ")[1], conn.recv(int(length[0])).decode() if length else "")
    sys.exit()


def to_the_end(conn):
    try:
        head = head_of(conn)
        if " 200 " not in head:
            refused(head)
        conn.recv(1)
        say("open")
        until, why = time.time() + 15, "end"
        while conn.recv(65536):
            if time.time() > until:
                why = "nothing ended it"
                break
    except OSError as error:
        why = type(error).__name__
    say("end", int(time.time() * 1000), why)


conn = connect()
if kind == "http":
    conn.sendall(f"GET {more[0]} HTTP/1.1\r\nHost: {target}\r\n\r\n".encode())
    to_the_end(conn)
    sys.exit()
if kind == "switch":
    conn.sendall(f"GET {more[0]} HTTP/1.1\r\nHost: {target}\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n".encode())
    head = head_of(conn)
    if " 101 " not in head:
        refused(head)
    conn.sendall(b"ping")
    say("open" if conn.recv(4) == b"ping" else "closed")
    sys.exit()
conn.sendall(f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n".encode())
head = head_of(conn)
if " 200 " not in head:
    refused(head)
if kind == "bytes":
    conn.sendall(more[0].encode("latin-1").decode("unicode_escape").encode("latin-1"))
    to_the_end(conn)
    sys.exit()
context = ssl.create_default_context(cafile=more[1])
context.check_hostname = False
try:
    conn = context.wrap_socket(conn, server_hostname=None if more[0] == "-" else more[0])
except OSError as error:
    say("tls", type(error).__name__, error)
    sys.exit()
conn.sendall(b"GET /ticks HTTP/1.1\r\nHost: " + target.encode() + b"\r\n\r\n")
to_the_end(conn)
