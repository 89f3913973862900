"""Says a start-up by hand, with the parameters NAME=VALUE, and shows what comes back: an error's fields, or the key.

With HOLD as the first word it sleeps in a statement then, until its connection or the statement ends; with MINOR and a number
it asks for that version after 3; with RAW and bytes in hexadecimal it says those, nothing more, and shows what comes back.
"""

import socket
import struct
import sys

host, port = sys.argv[1], int(sys.argv[2])
words = sys.argv[3:]
hold = words[:1] == ["HOLD"]
minor = int(words[1]) if words[:1] == ["MINOR"] else 0
connection = socket.create_connection((host, port), timeout=60)
if words[:1] == ["RAW"]:
    connection.sendall(bytes.fromhex(words[1]))
    connection.shutdown(socket.SHUT_WR)
    said = b""
    while more := connection.recv(65536):
        said += more
    print(said, flush=True)
    sys.exit(0)
for code in (80877104, 80877103):
    connection.sendall(struct.pack("!II", 8, code))
    assert connection.recv(1) == b"N"
body = struct.pack("!I", 196608 + minor)
for word in words[1 if hold else 2 if minor else 0 :]:
    name, value = word.split("=", 1)
    body += name.encode() + b"\0" + value.encode() + b"\0"
body += b"\0"
connection.sendall(struct.pack("!I", len(body) + 4) + body)


def exactly(count):
    data = b""
    while len(data) < count:
        more = connection.recv(count - len(data))
        if not more:
            print("end", flush=True)
            sys.exit(0)
        data += more
    return data


while True:
    kind = exactly(1)
    data = exactly(struct.unpack("!I", exactly(4))[0] - 4)
    if kind == b"E":
        for field in data.split(b"\0"):
            if field:
                print(field.decode(), flush=True)
    elif kind == b"v":
        print("negotiated", data.hex(), flush=True)
    elif kind == b"K":
        print("key", data.hex(), flush=True)
    elif kind == b"Z":
        if not hold:
            print("ready", flush=True)
            sys.exit(0)
        hold = False
        query = b"select pg_sleep(60)\0"
        connection.sendall(b"Q" + struct.pack("!I", len(query) + 4) + query)
