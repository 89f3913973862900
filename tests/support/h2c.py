"""A bot that speaks HTTP/2 by prior knowledge. Arguments: HOST:PORT or unix:PATH of its proxy, and perhaps the host of a tunnel to open first.

Reads one JSON object per line: {"streams": [{"headers": [[name, value]], "body", "trailers": [[name, value]]}]}, which are sent as they are, all at once;
"until": "data" answers when each stream has had data. "exec" goes on as another program that says nothing; "fork" lets a child send the streams.
Writes {"answers": [{"status", "headers", "body", "trailers", "reset"}], "goaway", "closed"} per line. Keeps its connection.
"""
import json
import os
import socket
import sys

import h2.config
import h2.connection
import h2.events

where = sys.argv[1]
if where.startswith("unix:"):
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(where[5:])
else:
    host, port = where.rsplit(":", 1)
    sock = socket.create_connection((host, int(port)))
sock.settimeout(20)
if len(sys.argv) > 2:
    sock.sendall(f"CONNECT {sys.argv[2]} HTTP/1.1\r\nHost: {sys.argv[2]}\r\n\r\n".encode())
    got = b""
    while b"\r\n\r\n" not in got:
        got += sock.recv(1)
    assert got.startswith(b"HTTP/1.1 200 "), got
config = h2.config.H2Configuration(
    header_encoding="latin-1", validate_outbound_headers=False, normalize_outbound_headers=False
)
conn = h2.connection.H2Connection(config)
conn.initiate_connection()
closed, goaway = False, None


def flush():
    global closed
    try:
        sock.sendall(conn.data_to_send())
    except OSError:
        closed = True


def send(streams):
    answers = {}
    for stream in streams:
        number = conn.get_next_available_stream_id()
        answers[number] = {"status": None, "headers": [], "body": "", "trailers": [], "reset": None, "ended": False}
        body, trailers = stream.get("body"), stream.get("trailers")
        conn.send_headers(number, [tuple(pair) for pair in stream["headers"]], end_stream=body is None and not trailers)
        if body is not None:
            conn.send_data(number, body.encode(), end_stream=not trailers)
        if trailers:
            conn.send_headers(number, [tuple(pair) for pair in trailers], end_stream=True)
    return answers


def read(answers, until):
    global closed, goaway
    done = lambda a: a["ended"] or a["reset"] is not None or (until == "data" and a["body"])
    while not closed and not all(done(a) for a in answers.values()):
        try:
            data = sock.recv(65536)
        except ConnectionError:
            data = b""
        if not data:
            closed = True
            break
        for event in conn.receive_data(data):
            a = answers.get(getattr(event, "stream_id", None))
            if isinstance(event, h2.events.ConnectionTerminated):
                goaway = int(event.error_code)
            if a is None:
                continue
            if isinstance(event, h2.events.ResponseReceived):
                a["status"] = int(dict(event.headers)[":status"])
                a["headers"] = [list(pair) for pair in event.headers]
            elif isinstance(event, h2.events.DataReceived):
                a["body"] += event.data.decode("latin-1")
                conn.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            elif isinstance(event, h2.events.TrailersReceived):
                a["trailers"] = [list(pair) for pair in event.headers]
            elif isinstance(event, h2.events.StreamEnded):
                a["ended"] = True
            elif isinstance(event, h2.events.StreamReset):
                a["reset"] = int(event.error_code)
        flush()


SILENT = """
import json, socket, sys
s = socket.socket(fileno=int(sys.argv[1]))
s.settimeout(20)
if len(sys.argv) > 2: s.sendall(bytes.fromhex(sys.argv[2]))
try:
    while s.recv(65536): pass
except ConnectionError: pass
print(json.dumps({'answers': [], 'goaway': None, 'closed': True}), flush=True)
"""

for line in sys.stdin:
    order = json.loads(line)
    if "exec" in order:
        send(order["streams"])
        os.set_inheritable(sock.fileno(), True)
        data = conn.data_to_send().hex()
        os.execv(sys.executable, [sys.executable, "-c", SILENT, str(sock.fileno())] + [data] * bool(data))
    answers = send(order["streams"])
    if "fork" in order:
        child = os.fork()
        if child == 0:
            flush()
            os._exit(0)
        os.waitpid(child, 0)
        conn.clear_outbound_data_buffer()
    else:
        flush()
    read(answers, order.get("until"))
    print(json.dumps({"answers": list(answers.values()), "goaway": goaway, "closed": closed}), flush=True)
