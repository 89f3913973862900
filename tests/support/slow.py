"""A bot that answers when it is told to. The one argument: the port on loopback.

What is asked below /wait/ is answered once somebody has asked for /open; everything else at once. Each answer says how often each request
came, as JSON; /seen is none of them.
"""
import asyncio
import collections
import json
import sys

opened = asyncio.Event()
seen = collections.Counter()


async def serve(reader, writer):
    try:
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            line, *fields = head.split("\r\n")
            length = next((int(f[15:]) for f in fields if f.lower().startswith("content-length:")), 0)
            await reader.readexactly(length)
            method, target, _ = line.split(" ")
            if target == "/open":
                opened.set()
            elif target != "/seen":
                seen[f"{method} {target}"] += 1
                if target.startswith("/wait/"):
                    await opened.wait()
            body = json.dumps(seen).encode()
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
            await writer.drain()
            if "connection: close" in head.lower():
                return
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        writer.close()


async def main():
    server = await asyncio.start_server(serve, "127.0.0.1", int(sys.argv[1]), backlog=1024)
    print("ready", flush=True)
    await server.serve_forever()


asyncio.run(main())
