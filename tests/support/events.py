"""A bot that reads server-sent events as `requests` does, through the proxy that its environment names. Argument: a URL.

Says "open" with the first event. When its standard input ends it says how many events it has read and the longest pause
between two of them in milliseconds. Events that do not follow each other, and an end of the stream, are errors.
"""
import select
import sys
import time

import requests

read, pause, since = 0, 0.0, None
with requests.get(sys.argv[1], stream=True, timeout=10) as answer:
    answer.raise_for_status()
    assert answer.headers["content-type"] == "text/event-stream"
    for line in answer.iter_lines(chunk_size=1):
        if not line.startswith(b"id: "):
            continue
        if int(line[4:]) != read:
            sys.exit(f"event {int(line[4:])} came after {read} others")
        now = time.monotonic()
        if since is None:
            print("open", flush=True)
        else:
            pause = max(pause, now - since)
        read, since = read + 1, now
        if select.select([sys.stdin], [], [], 0)[0]:
            print(read, int(pause * 1000))
            sys.exit()
sys.exit(f"the stream ended after {read} events")
