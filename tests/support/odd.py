"""A bot that answers as its path says, with what HTTP has beside plain answers. Argument: a port. Prints `trailers LINES` of each request that has some."""
import socket
import sys
import threading

MIB = b"x" * (1 << 20)


def serve(conn):
    stream = conn.makefile("rwb")
    while True:
        line = stream.readline()
        if not line:
            return
        method, path, _ = line.decode().split(" ")
        fields = {}
        while (line := stream.readline()) not in (b"\r\n", b""):
            name, value = line.decode().split(":", 1)
            fields[name.lower()] = value.strip()
        size = body(stream, fields)
        answer(stream, method, path, fields, size)
        stream.flush()


def body(stream, fields):
    """Reads the body and forgets it; its length."""
    if fields.get("transfer-encoding") != "chunked":
        left = size = int(fields.get("content-length", 0))
        while left:
            left -= len(stream.read(min(left, 1 << 16)))
        return size
    total = 0
    while size := int(stream.readline(), 16):
        total += len(stream.read(size))
        stream.readline()
    trailers = []
    while (line := stream.readline()) not in (b"\r\n", b""):
        trailers.append(line.decode().strip())
    if trailers:
        print("trailers", "; ".join(trailers), flush=True)
    return total


def answer(stream, method, path, fields, size):
    def say(status, text, *more):
        lines = [f"HTTP/1.1 {status} x", f"content-length: {len(text)}", *more]
        stream.write("\r\n".join(lines).encode() + b"\r\n\r\n" + text)

    if path == "/orders/head":
        stream.write(b"HTTP/1.1 200 x\r\ncontent-length: 1234\r\n\r\n")
        if method != "HEAD":
            stream.write(b"x" * 1234)
    elif path == "/orders/range":
        whole, asked = b"0123456789", fields["range"].removeprefix("bytes=").split("-")
        first = int(asked[0])
        if first >= len(whole):
            say(416, b"", f"content-range: bytes */{len(whole)}")
        else:
            last = int(asked[1])
            say(206, whole[first : last + 1], f"content-range: bytes {first}-{last}/{len(whole)}")
    elif path == "/orders/early":
        stream.write(b"HTTP/1.1 103 Early Hints\r\nlink: </a>; rel=preload\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n")
        stream.flush()
        say(200, b"late")
    elif path == "/orders/trailers" and method == "GET":
        stream.write(b"HTTP/1.1 200 x\r\ntransfer-encoding: chunked\r\ntrailer: x-sum\r\n\r\n2\r\nhi\r\n0\r\nx-sum: 7\r\nx-botmesh-caller: forged\r\n\r\n")
    elif path.startswith("/orders/give-"):
        count = int(path.removeprefix("/orders/give-"))
        stream.write(f"HTTP/1.1 200 x\r\ncontent-length: {count << 20}\r\n\r\n".encode())
        for _ in range(count):
            stream.write(MIB)
    elif path == "/orders/take":
        say(200, str(size).encode())
    else:
        say(200, b"plain")


def safely(conn):
    try:
        serve(conn)
    except OSError:
        pass
    conn.close()


server = socket.create_server(("127.0.0.1", int(sys.argv[1])), backlog=64)
print("ready", flush=True)
while True:
    conn, _ = server.accept()
    threading.Thread(target=safely, args=(conn,), daemon=True).start()
