"""Calls that are refused, as fast as they are answered. Arguments: unix:PATH of the proxy, how many, the reason that each must have.

Says "so far N" after each fifty, which are sent at once.
"""
import socket
import sys

where, count, reason = sys.argv[1], int(sys.argv[2]), sys.argv[3]
request = b"DELETE /orders/17 HTTP/1.1\r\nHost: orders.prod.mesh\r\n\r\n"
word = f'"reason":"{reason}"'.encode()
done, conn, got = 0, None, b""
while done < count:
    if conn is None:
        conn = socket.socket(socket.AF_UNIX)
        conn.connect(where[5:])
        conn.settimeout(30)
    batch, seen, got = min(50, count - done), 0, b""
    conn.sendall(request * batch)
    while seen < batch:
        more = conn.recv(1 << 20)
        if not more:
            break
        got += more
        seen = got.count(word)
    if got.count(b"HTTP/1.1 403 ") != seen:
        print("other", got, flush=True)
        sys.exit(1)
    if seen < batch:
        conn.close()
        conn = None
    done += seen
    print("so far", done, flush=True)
