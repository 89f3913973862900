"""Ends a statement by a key that somebody has found, as libpq asks for it."""

import socket
import struct
import sys

host, port, key = sys.argv[1], int(sys.argv[2]), bytes.fromhex(sys.argv[3])
with socket.create_connection((host, port), timeout=10) as connection:
    connection.sendall(struct.pack("!II", 16, 80877102) + key)
    assert connection.recv(1) == b""
print("asked")
