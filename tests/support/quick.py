"""A bot that answers fast, for load. The one argument: the port on loopback.

Says back the method and the target. A token (the query) that was posted before is answered 409: somebody sent it twice.
At /orders/events it sends server-sent events with numbers, ten a second, as long as somebody reads them.
"""
import asyncio
import itertools
import sys

posted = set()


class Connection(asyncio.Protocol):
    def __init__(self):
        self.buffer = b""

    def connection_made(self, transport):
        self.transport = transport

    async def events(self):
        head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
        self.transport.write(head)
        for number in itertools.count():
            if self.transport.is_closing():
                return
            event = b"id: %d\ndata: {\"price\": %d}\n\n" % (number, number % 100)
            self.transport.write(b"%x\r\n%s\r\n" % (len(event), event))
            await asyncio.sleep(0.1)

    def data_received(self, data):
        self.buffer += data
        while True:
            head, mark, rest = self.buffer.partition(b"\r\n\r\n")
            if not mark:
                return
            length = 0
            for line in head.split(b"\r\n")[1:]:
                if line[:15].lower() == b"content-length:":
                    length = int(line[15:])
            if len(rest) < length:
                return
            self.buffer = rest[length:]
            method, target, _ = head.split(b" ", 2)
            if target == b"/orders/events":
                self.streaming = asyncio.ensure_future(self.events())
                return
            status = b"200 OK"
            if method == b"POST":
                token = target.partition(b"?")[2]
                if token in posted:
                    status = b"409 Conflict"
                posted.add(token)
            body = method + b" " + target
            self.transport.write(b"HTTP/1.1 %s\r\nContent-Length: %d\r\n\r\n%s" % (status, len(body), body))


async def main():
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Connection, "127.0.0.1", int(sys.argv[1]), backlog=4096)
    print("ready", flush=True)
    await server.serve_forever()


asyncio.run(main())
