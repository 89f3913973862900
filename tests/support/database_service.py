"""A service outside of the mesh that has no users of its own: it logs in to PostgreSQL as whoever calls, and says as whom it did.
Arguments: ADDRESS PORT PEM PSQL DATABASE_ADDRESS.
"""
import base64
import os
import socketserver
import ssl
import subprocess
import sys
from http.server import BaseHTTPRequestHandler

address, port, pem, psql, database = sys.argv[1], int(sys.argv[2]), *sys.argv[3:]


class Service(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        kind, _, pair = self.headers.get("Authorization", "").partition(" ")
        user, _, password = base64.b64decode(pair).decode().partition(":") if kind == "Basic" else ("", "", "")
        words = [psql, "-X", "-q", "-A", "-t", "-w", "-h", database, "-U", user, "-d", "postgres", "-c", "select current_user"]
        told = subprocess.run(words, env={**os.environ, "PGPASSWORD": password}, capture_output=True, text=True)
        body = (told.stdout or told.stderr).strip().encode()
        self.send_response(200 if told.returncode == 0 else 401)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *words):
        pass


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True


server = Server((address, port), Service)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(pem)
server.socket = context.wrap_socket(server.socket, server_side=True)
print("ready", flush=True)
server.serve_forever()
