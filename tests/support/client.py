"""A bot that sends what it is told. Arguments: HOST:PORT or unix:PATH of its proxy.

Reads one JSON object per line: {"method", "target", "headers": [[name, value]], "body", "fresh": bool}; "raw" (latin-1 text) sends bytes as they are.
Writes one per line: {"status", "headers", "body"} or {"error"}. Keeps its connection unless "fresh".
"""
import json
import socket
import sys

where = sys.argv[1]
conn = None


def connect():
    if where.startswith("unix:"):
        s = socket.socket(socket.AF_UNIX)
        s.connect(where[5:])
    else:
        host, port = where.rsplit(":", 1)
        s = socket.create_connection((host, int(port)))
    s.settimeout(20)
    return s


class Reader:
    def __init__(self, sock):
        self.sock, self.buffer = sock, b""

    def until(self, mark):
        while mark not in self.buffer:
            more = self.sock.recv(65536)
            if not more:
                raise EOFError("connection closed")
            self.buffer += more
        head, self.buffer = self.buffer.split(mark, 1)
        return head

    def exactly(self, n):
        while len(self.buffer) < n:
            more = self.sock.recv(65536)
            if not more:
                raise EOFError("connection closed in a body")
            self.buffer += more
        out, self.buffer = self.buffer[:n], self.buffer[n:]
        return out

    def rest(self):
        while True:
            more = self.sock.recv(65536)
            if not more:
                break
            self.buffer += more
        out, self.buffer = self.buffer, b""
        return out


def answer(reader, method):
    while True:
        lines = reader.until(b"\r\n\r\n").decode("latin-1").split("\r\n")
        status = int(lines[0].split()[1])
        if status != 100:
            break
    headers = [[k.strip().lower(), v.strip()] for k, v in (l.split(":", 1) for l in lines[1:])]
    get = dict(headers).get
    if method == "HEAD" or status in (204, 304):
        body = b""
    elif get("transfer-encoding") == "chunked":
        body = b""
        while True:
            size = int(reader.until(b"\r\n").split(b";")[0], 16)
            if size == 0:
                while reader.until(b"\r\n"):
                    pass
                break
            body += reader.exactly(size)
            reader.exactly(2)
    elif get("content-length") is not None:
        body = reader.exactly(int(get("content-length")))
    else:
        body = reader.rest()
    return {"status": status, "headers": headers, "body": body.decode("utf-8", "replace")}, get("connection") == "close"


for line in sys.stdin:
    order = json.loads(line)
    out, close = None, True
    for attempt in (1, 2):
        try:
            kept = conn is not None and not order.get("fresh")
            if not kept:
                if conn:
                    conn.sock.close()
                conn = Reader(connect())
            method = order.get("method", "GET")
            if "raw" in order:
                data = order["raw"].encode("latin-1")
            else:
                body = (order.get("body") or "").encode()
                head = f"{method} {order['target']} HTTP/1.1\r\n"
                head += "".join(f"{k}: {v}\r\n" for k, v in order.get("headers", []))
                if body:
                    head += f"Content-Length: {len(body)}\r\n"
                data = head.encode("latin-1") + b"\r\n" + body
            conn.sock.sendall(data)
            out, close = answer(conn, method)
            break
        except (OSError, EOFError) as e:
            out, conn = {"error": f"{type(e).__name__}: {e}"}, None
            if not kept:
                break
    if close or "raw" in order:
        if conn:
            conn.sock.close()
        conn = None
    print(json.dumps(out), flush=True)
