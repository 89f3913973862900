"""A bot with one long call under way. Arguments: unix:PATH of its proxy, host, and `sse`, `duplex`, `upgrade` or `h2`.

Says "open" once bytes come back. For each line that it is told it makes a byte go the whole way again (sse: waits for one that comes later) and says "pong UNIX-MILLISECONDS". Told "end", it ends its half. Says "closed UNIX-MILLISECONDS WHY TAIL" once the call was ended by the other side.
"""
import socket
import sys
import threading
import time

where, host, kind = sys.argv[1:4]
conn = socket.socket(socket.AF_UNIX)
conn.connect(where[5:])
HEADS = {
    "sse": f"GET /orders/ticks-fast HTTP/1.1\r\nHost: {host}\r\n\r\n",
    "duplex": f"POST /orders/echo HTTP/1.1\r\nHost: {host}\r\nTransfer-Encoding: chunked\r\n\r\n",
    "upgrade": f"GET /orders/ws HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
}
WANTED = {"sse": b"HTTP/1.1 200 ", "duplex": b"HTTP/1.1 200 ", "upgrade": b"HTTP/1.1 101 ", "h2": b"200"}
lock = threading.Lock()


def say(*words):
    with lock:
        print(*words, flush=True)


def ping():
    if kind == "duplex":
        conn.sendall(b"4\r\nping\r\n")
    elif kind in ("upgrade", "h2"):
        conn.sendall(b"ping")


class Stream:
    """One stream of HTTP/2 both ways, in the form of a socket: the status comes first, as a line."""

    def __init__(self):
        import h2.config
        import h2.connection

        self.lock, self.ended = threading.Lock(), False
        self.state = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="latin-1"))
        self.state.initiate_connection()
        self.number = self.state.get_next_available_stream_id()
        head = [(":method", "POST"), (":scheme", "http"), (":authority", host), (":path", "/orders/echo")]
        self.state.send_headers(self.number, head)
        wire.sendall(self.state.data_to_send())

    def sendall(self, data):
        with self.lock:
            self.state.send_data(self.number, data)
            wire.sendall(self.state.data_to_send())

    def shutdown(self, _half):
        with self.lock:
            self.state.end_stream(self.number)
            wire.sendall(self.state.data_to_send())

    def recv(self, size):
        import h2.events as events

        out = b""
        while not out and not self.ended:
            data = wire.recv(size)
            if not data:
                return b""
            with self.lock:
                for event in self.state.receive_data(data):
                    if isinstance(event, events.ResponseReceived):
                        out += dict(event.headers)[":status"].encode() + b"\r\n\r\n"
                    elif isinstance(event, events.DataReceived):
                        out += event.data
                        self.state.acknowledge_received_data(event.flow_controlled_length, self.number)
                    elif isinstance(event, (events.StreamReset, events.StreamEnded, events.ConnectionTerminated)):
                        self.ended = True
                wire.sendall(self.state.data_to_send())
        return out


if kind == "h2":
    wire = conn
    conn = Stream()
else:
    conn.sendall(HEADS[kind].encode())
head = b""
if kind in ("duplex", "h2"):
    ping()
while b"\r\n\r\n" not in head:
    more = conn.recv(65536)
    if not more:
        say("refused", head)
        sys.exit(1)
    head += more
if not head.startswith(WANTED[kind]):
    say("refused", head)
    sys.exit(1)
count = 0
arrived = threading.Condition()


def read():
    global count
    why, tail = "end", b""
    try:
        while True:
            more = conn.recv(65536)
            if not more:
                break
            tail = (tail + more)[-8:]
            with arrived:
                count += 1
                arrived.notify_all()
    except OSError as e:
        why = type(e).__name__
    say("closed", int(time.time() * 1000), why, tail.decode("latin-1"))


threading.Thread(target=read, daemon=True).start()
say("open")
for line in sys.stdin:
    if line == "end\n":
        conn.shutdown(socket.SHUT_WR)
        continue
    with arrived:
        before = count
        try:
            ping()
        except OSError:
            continue
        arrived.wait_for(lambda: count > before, timeout=20)
        if count > before:
            say("pong", int(time.time() * 1000))
