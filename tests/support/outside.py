"""Somebody outside of the mesh. Arguments: ADDRESS PORT, and for TLS a PEM file with certificate and key.

Answers each request with what it was told, as JSON with the number of its connection, and prints what happens to it.
/redirect leads to a machine's credentials, /ticks never ends, /still stands still in the middle, /never does not answer,
/once ends the connection unasked after its answer.
"""
import json
import socket
import ssl
import sys
import threading
import time

address, port = sys.argv[1], int(sys.argv[2])
context = None
if len(sys.argv) > 3:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(sys.argv[3])


def say(*words):
    print(*words, flush=True)


def read_head(file):
    lines = []
    while True:
        line = file.readline()
        if not line:
            return None
        line = line.rstrip(b"\r\n").decode("latin-1")
        if not line:
            return lines
        lines.append(line)


def body_of(file, headers):
    said = {name.lower(): value for name, value in headers}
    if "content-length" in said:
        return file.read(int(said["content-length"])).decode("latin-1")
    body = b""
    if said.get("transfer-encoding") == "chunked":
        while True:
            size = int(file.readline(), 16)
            body += file.read(size)
            file.readline()
            if size == 0:
                break
    return body.decode("latin-1")


def answer(conn, file, number):
    lines = read_head(file)
    if lines is None:
        return False
    method, target, _ = lines[0].split(" ", 2)
    headers = [line.split(": ", 1) for line in lines[1:]]
    told = {"method": method, "target": target, "headers": headers, "connection": number}
    say("request", number, method, target)
    if target == "/still":
        conn.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\ntick\r\n")
        file.read(1)
        return False
    if target == "/never":
        file.read(1)
        return False
    if target == "/ticks":
        conn.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            conn.sendall(b"4\r\ntick\r\n")
            time.sleep(0.02)
    if any(name.lower() == "upgrade" for name, _ in headers):
        conn.sendall(b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n")
        while said := file.read1():
            conn.sendall(said)
        return False
    told["body"] = body_of(file, headers)
    body = json.dumps(told).encode()
    status, more = "200 OK", ""
    if target == "/redirect":
        status, more = "302 Found", "Location: http://credentials.example.com/latest/meta-data/\r\n"
    # What only a proxy of the mesh may say.
    more += "Botmesh-Denied: forged\r\nX-Botmesh-Caller: forged\r\n"
    conn.sendall(f"HTTP/1.1 {status}\r\n{more}Content-Length: {len(body)}\r\n\r\n".encode() + body)
    return target != "/once"


def serve(conn, number):
    try:
        if context:
            conn = context.wrap_socket(conn, server_side=True)
        say("ready", number)
        file = conn.makefile("rb")
        while answer(conn, file, number):
            pass
        say("end", number)
    except (OSError, ValueError) as error:
        say("error", number, type(error).__name__, error)
    finally:
        conn.close()


listener = socket.create_server((address, port), family=socket.AF_INET6 if ":" in address else socket.AF_INET, backlog=64)
say("ready")
count = 0
while True:
    conn, _ = listener.accept()
    count += 1
    say("connection", count)
    threading.Thread(target=serve, args=(conn, count), daemon=True).start()
