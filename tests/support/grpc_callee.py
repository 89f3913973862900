"""A bot that serves gRPC with grpcio and raw bytes, as acme.Echo. Arguments: PORT or unix:PATH, and perhaps options NAME=VALUE of the server.

Get answers what it got; Many answers as many messages of as many bytes as it is asked for (COUNT SIZE); Collect says how many bytes came; Chat answers
message by message; Fail ends with the code and the text that it gets; Meta tells what metadata it saw, and gives some back; Wait never answers, and
Cancelled says how many waited in vain; Abort resets, by raising, without a status of its own; Early ends a stream of requests at the first.
"""
import json
import sys
import threading
from concurrent import futures

import grpc

cancelled, waiting = 0, 0
lock = threading.Lock()


def get(request, context):
    return request


def many(request, context):
    count, size = (int(n) for n in request.split())
    for _ in range(count):
        yield b"x" * size


def collect(requests, context):
    count = total = 0
    for request in requests:
        count, total = count + 1, total + len(request)
    return f"{count} {total}".encode()


def chat(requests, context):
    for request in requests:
        yield b"re: " + request


def fail(request, context):
    code, text = request.decode().split(" ", 1)
    context.set_trailing_metadata((("why", "because"),))
    context.abort(grpc.StatusCode[code], text)


def meta(request, context):
    seen = [(key, value if isinstance(value, str) else value.hex()) for key, value in context.invocation_metadata()]
    context.send_initial_metadata((("first", "1"), ("big", "b" * int(request or 0))))
    context.set_trailing_metadata((("last", "2"), ("last-bin", b"\x00\xff")))
    return json.dumps({"metadata": seen, "left": context.time_remaining()}).encode()


def wait(request, context):
    global waiting
    gone = threading.Event()

    def ended():
        global cancelled
        with lock:
            cancelled += 1
        gone.set()

    context.add_callback(ended)
    with lock:
        waiting += 1
    if request == b"first":
        yield b"here"
    gone.wait(60)


def count(request, context):
    return f"{waiting} {cancelled}".encode()


def early(requests, context):
    next(requests)
    return b"enough"


def hang(request, context):
    raise RuntimeError("broken")


kinds = {
    "Get": grpc.unary_unary_rpc_method_handler(get),
    "Fail": grpc.unary_unary_rpc_method_handler(fail),
    "Meta": grpc.unary_unary_rpc_method_handler(meta),
    "Count": grpc.unary_unary_rpc_method_handler(count),
    "Broken": grpc.unary_unary_rpc_method_handler(hang),
    "Many": grpc.unary_stream_rpc_method_handler(many),
    "Wait": grpc.unary_stream_rpc_method_handler(wait),
    "Collect": grpc.stream_unary_rpc_method_handler(collect),
    "Early": grpc.stream_unary_rpc_method_handler(early),
    "Chat": grpc.stream_stream_rpc_method_handler(chat),
}
options = [("grpc.max_receive_message_length", -1), ("grpc.max_metadata_size", 65536)]
for option in sys.argv[2:]:
    name, value = option.split("=")
    options.append((name, int(value)))
server = grpc.server(futures.ThreadPoolExecutor(max_workers=64), options=options)
server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("acme.Echo", kinds),))
at = sys.argv[1] if sys.argv[1].startswith("unix:") else f"127.0.0.1:{sys.argv[1]}"
if not server.add_insecure_port(at):
    sys.exit(f"cannot bind {at}")
server.start()
if at.startswith("unix:"):
    import os

    os.chmod(at[5:], 0o666)
print("ready", flush=True)
server.wait_for_termination()
