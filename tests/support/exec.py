"""A bot that calls once and becomes another program. Arguments: SOCKET HOST."""
import os
import socket
import sys

proxy = socket.socket(socket.AF_UNIX)
proxy.connect(sys.argv[1])
proxy.sendall(f"GET / HTTP/1.1\r\nHost: {sys.argv[2]}\r\n\r\n".encode())
print(proxy.recv(65536).decode().split("\r\n")[0], flush=True)
sys.stdin.readline()
os.execv("/bin/sleep", ["sleep", "60"])
