"""Handshakes that fail, from many addresses. Arguments: port, SNI of a bot, how many, how many sources.

Four kinds in turn: bytes that are no TLS, a hello for a name that nobody has, a hello that is not gone on with after
the server has signed its answer, and a whole handshake without a certificate. Says "done N" at the end.
"""
import socket
import ssl
import sys
import threading

port, sni, count, sources = int(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
context.set_alpn_protocols(["h2"])


def hello(name):
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context.wrap_bio(incoming, outgoing, server_hostname=name)
    try:
        tls.do_handshake()
    except ssl.SSLWantReadError:
        return outgoing.read()


SENT = [b"GET / HTTP/1.1\r\n\r\n", hello("nobody.example"), hello(sni), None]
lock, number = threading.Lock(), 0


def flood():
    global number
    while True:
        with lock:
            if number >= count:
                return
            mine, number = number, number + 1
        s = socket.socket()
        s.settimeout(20)
        at = mine % sources
        try:
            s.bind((f"127.{1 + at // 250 % 250}.{at % 250}.9", 0))
            s.connect(("127.0.0.1", port))
            sent = SENT[mine % 4]
            if sent is None:
                tls = context.wrap_socket(s, server_hostname=sni)
                tls.recv(1)
            else:
                s.sendall(sent)
                s.recv(65536)
        except OSError:
            pass
        s.close()


threads = [threading.Thread(target=flood) for _ in range(8)]
for t in threads:
    t.start()
for t in threads:
    t.join()
print("done", number, flush=True)
