"""Opens TLS for a client that has no certificate of its own. Arguments: HOST:PORT to listen on, HOST:PORT to go to, NAME, CERT, KEY.

Prints `ready`. What comes is passed on as it is, by ALPN `h2`.
"""
import select
import socket
import ssl
import sys
import threading

here, there, name, cert, key = sys.argv[1:6]
context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
context.load_cert_chain(cert, key)
context.set_alpn_protocols(["h2"])


def place(text):
    host, port = text.rsplit(":", 1)
    return host, int(port)


def relay(client):
    try:
        server = context.wrap_socket(socket.create_connection(place(there)), server_hostname=name)
        while True:
            ready = [server] if server.pending() else select.select([client, server], [], [])[0]
            for one in ready:
                data = one.recv(65536)
                if not data:
                    return
                (server if one is client else client).sendall(data)
    except OSError:
        pass
    finally:
        client.close()
        # Whatever was to come is of no use to anybody.
        if "server" in locals():
            server.close()


listener = socket.create_server(place(here), backlog=128)
print("ready", flush=True)
while True:
    client, _ = listener.accept()
    threading.Thread(target=relay, args=(client,), daemon=True).start()
