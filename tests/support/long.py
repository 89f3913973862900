"""A bot with one long call under way. Arguments: unix:PATH of its proxy, host, and `sse`, `duplex` or `upgrade`.

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
WANTED = {"sse": b"HTTP/1.1 200 ", "duplex": b"HTTP/1.1 200 ", "upgrade": b"HTTP/1.1 101 "}
lock = threading.Lock()


def say(*words):
    with lock:
        print(*words, flush=True)


def ping():
    if kind == "duplex":
        conn.sendall(b"4\r\nping\r\n")
    elif kind == "upgrade":
        conn.sendall(b"ping")


conn.sendall(HEADS[kind].encode())
head = b""
if kind == "duplex":
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
