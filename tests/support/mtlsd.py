"""A bot with mutual TLS of its own, which never heard of botmesh: HTTP/2 by `h2`, certificates by `ssl`.

Arguments: its chain, its key, the roots that it trusts. Says "ready PORT". Answers with what it read, as JSON: who calls by
the certificate of the connection, the fields, the body. Below /entries/denied it claims to be a proxy that refuses.
"""
import asyncio
import json
import ssl
import sys

import h2.config
import h2.connection
import h2.events

connections = 0


class Connection(asyncio.Protocol):
    def connection_made(self, transport):
        global connections
        connections += 1
        self.transport = transport
        names = transport.get_extra_info("peercert")["subjectAltName"]
        self.caller = [name for kind, name in names if kind == "URI"]
        self.requests = {}
        self.http2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False, header_encoding="utf-8"))
        self.http2.initiate_connection()
        self.flush()

    def flush(self):
        self.transport.write(self.http2.data_to_send())

    def data_received(self, data):
        for event in self.http2.receive_data(data):
            if isinstance(event, h2.events.RequestReceived):
                self.requests[event.stream_id] = [event.headers, b""]
            elif isinstance(event, h2.events.DataReceived):
                self.requests[event.stream_id][1] += event.data
                self.http2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            elif isinstance(event, h2.events.StreamEnded):
                self.answer(event.stream_id, *self.requests.pop(event.stream_id))
        self.flush()

    def answer(self, stream, fields, body):
        told = {"caller": self.caller, "fields": fields, "body": body.decode(), "connections": connections}
        head = [(":status", "200"), ("content-type", "application/json")]
        if dict(fields)[":path"].startswith("/entries/denied"):
            head = [(":status", "403"), ("botmesh-denied", "00000000000000000000000000"), ("x-botmesh-caller", "me")]
        self.http2.send_headers(stream, head)
        self.http2.send_data(stream, json.dumps(told).encode(), end_stream=True)


async def main():
    chain, key, roots = sys.argv[1:]
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_cert_chain(chain, key)
    context.load_verify_locations(roots)
    context.verify_mode = ssl.CERT_REQUIRED
    context.set_alpn_protocols(["h2"])
    server = await asyncio.get_running_loop().create_server(Connection, "127.0.0.1", 0, ssl=context)
    print("ready", server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


asyncio.run(main())
