"""A bot that keeps the exact bytes that it gets. Argument: a port.

Answers each message with a short 200 once it is whole. Prints `open` when a connection begins, and `bytes HEX` with all that it brought when it ends.
"""
import socket
import sys
import threading

lock = threading.Lock()


def tell(line):
    with lock:
        print(line, flush=True)


def whole(data):
    """The length of the first message, by what its head says in the one form that our proxy writes; nothing before it is whole."""
    end = data.find(b"\r\n\r\n")
    if end < 0:
        return None
    head, at = data[:end].lower(), end + 4
    for line in head.split(b"\r\n"):
        if line.startswith(b"content-length: "):
            at += int(line[16:])
            return at if len(data) >= at else None
    if b"\r\ntransfer-encoding: chunked" not in head:
        return at
    while True:
        line_end = data.find(b"\r\n", at)
        if line_end < 0:
            return None
        size = int(data[at:line_end], 16)
        if size == 0:
            break
        at = line_end + 2 + size + 2
    while True:
        next_line = data.find(b"\r\n", line_end + 2)
        if next_line < 0:
            return None
        if next_line == line_end + 2:
            return next_line + 2
        line_end = next_line


def serve(connection):
    tell("open")
    data, answered = b"", 0
    try:
        while True:
            more = connection.recv(65536)
            if not more:
                break
            data += more
            while (length := whole(data[answered:])) is not None:
                body = b"" if data[answered:].startswith(b"HEAD ") else b"ok"
                answered += length
                connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n" + body)
    except (OSError, ValueError) as e:
        tell(f"broke {type(e).__name__}")
    tell(f"bytes {data.hex()}")
    connection.close()


server = socket.create_server(("127.0.0.1", int(sys.argv[1])), backlog=1024)
tell("ready")
while True:
    connection, _ = server.accept()
    threading.Thread(target=serve, args=(connection,), daemon=True).start()
