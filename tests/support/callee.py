"""A bot that answers every request with what it was told, as JSON. Arguments: a port, or unix:PATH."""
import http.server
import json
import os
import socket
import socketserver
import sys
import time


# The suite looks for this in all that is written of the calls.
ANSWER = "planted-answer/Lr3dG6hJq8+Xy1Uo5"


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Head and body in one write: two would wait for each other (Nagle, delayed ACK).
    wbufsize = -1

    def ticks(self):
        """An answer without an end: one chunk, and with -fast one more every few milliseconds."""
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        try:
            self.wfile.write(b"4\r\ntick\r\n")
            self.wfile.flush()
            if self.path.endswith("-fast"):
                while True:
                    self.wfile.write(b"4\r\ntick\r\n")
                    self.wfile.flush()
                    time.sleep(0.005)
            self.rfile.read(1)
        except OSError:
            pass
        self.close_connection = True

    def chunk(self):
        size = int(self.rfile.readline().strip() or b"0", 16)
        body = self.rfile.read(size)
        self.rfile.readline()
        return body

    def echo(self):
        """Answers at once, and each chunk with the same."""
        self.send_response(200)
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        self.wfile.flush()
        try:
            while body := self.chunk():
                self.wfile.write(b"%x\r\n%s\r\n" % (len(body), body))
                self.wfile.flush()
            self.wfile.write(b"0\r\n\r\n")
        except OSError:
            pass
        self.close_connection = True

    def upgraded(self):
        """Switches to the protocol of saying the same again; ends its half when the other ends."""
        self.send_response(101)
        self.send_header("connection", "Upgrade")
        self.send_header("upgrade", self.headers["upgrade"])
        self.end_headers()
        self.wfile.flush()
        try:
            while body := self.rfile.read1(65536):
                self.wfile.write(body)
                self.wfile.flush()
            self.wfile.write(b"bye")
        except OSError:
            pass
        self.close_connection = True

    def answer(self):
        if self.path.startswith("/orders/echo"):
            return self.echo()
        if self.path.startswith("/orders/ws") and self.headers.get("upgrade"):
            return self.upgraded()
        if self.path.startswith("/orders/ticks"):
            return self.ticks()
        if self.path.endswith("/never"):
            # No answer, until the other end gives up.
            self.rfile.read(1)
            self.close_connection = True
            return
        length = int(self.headers.get("content-length") or 0)
        if self.headers.get("transfer-encoding") == "chunked":
            body = b""
            while True:
                size = int(self.rfile.readline().strip(), 16)
                body += self.rfile.read(size)
                self.rfile.readline()
                if size == 0:
                    break
        else:
            body = self.rfile.read(length)
        self.server.number += 1
        told = {
            "number": self.server.number,
            "method": self.command,
            "path": self.path,
            "headers": [[k.lower(), v] for k, v in self.headers.items()],
            "body": body.decode("utf-8", "replace"),
            "uid": os.getuid(),
            "planted": ANSWER,
        }
        out = json.dumps(told).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(out)))
        self.send_header("x-planted", ANSWER)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(out)

    do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = do_HEAD = do_OPTIONS = answer

    def log_message(self, *_):
        pass

    def address_string(self):
        return "local"


class Threads(socketserver.ThreadingMixIn, http.server.HTTPServer):
    daemon_threads = True
    request_queue_size = 1024
    number = 0

    def server_bind(self):
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = "localhost", 0


class UnixThreads(Threads):
    address_family = socket.AF_UNIX

    def get_request(self):
        request, _ = super().get_request()
        return request, ("local", 0)


where = sys.argv[1]
if where.startswith("unix:"):
    server = UnixThreads(where[5:], Handler)
    os.chmod(where[5:], 0o666)
else:
    server = Threads(("127.0.0.1", int(where)), Handler)
print("ready", flush=True)
server.serve_forever()
