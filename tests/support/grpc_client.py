"""A bot that calls acme.Echo with grpcio and raw bytes. Arguments: the target of the channel, perhaps `via PROXY` for grpc_proxy, perhaps options NAME=VALUE.

Reads one JSON object per line and writes one. {"do", "method", "send", "timeout", "metadata"}; `do` is unary, server, client, bidi, hold, cancel, count or burst.
`send` is text, or a number of bytes, or a list of them. Answers hold code, details, messages (their sizes where they are long), initial and trailing metadata, seconds.
"hold" begins a stream of responses and answers with its first message; "end" waits for its end; "cancel" cancels it.
"""
import json
import os
import sys
import time

target, rest = sys.argv[1], sys.argv[2:]
if rest[:1] == ["via"]:
    os.environ["grpc_proxy"], rest = rest[1], rest[2:]
else:
    os.environ.pop("grpc_proxy", None)
import grpc

options = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1), ("grpc.max_metadata_size", 65536)]
for option in rest:
    name, value = option.split("=")
    options.append((name, int(value) if value.lstrip("-").isdigit() else value))
channel = grpc.insecure_channel(target, options=options)
held = None


def data(item):
    return b"m" * item if isinstance(item, int) else item.encode()


def shown(message):
    return len(message) if len(message) > 2000 else message.decode("latin-1")


def pairs(metadata):
    return [[k, v if isinstance(v, str) else v.hex()] for k, v in metadata or ()]


def told(call, messages, began):
    return {
        "code": call.code().name,
        "details": call.details(),
        "messages": [shown(m) for m in messages] if len(messages) < 100 else len(messages),
        "initial": pairs(call.initial_metadata()),
        "trailing": pairs(call.trailing_metadata()),
        "seconds": time.monotonic() - began,
    }


def do(order):
    global held
    began = time.monotonic()
    method = "/" + order.get("method", "acme.Echo/Get")
    also = {"timeout": order.get("timeout"), "metadata": [(k, v.encode() if k.endswith("-bin") else v) for k, v in order.get("metadata", [])]}
    send = order.get("send", "hi")
    many = [data(item) for item in send] if isinstance(send, list) else [data(send)]
    kind = order["do"]
    if kind == "unary":
        try:
            message, call = channel.unary_unary(method).with_call(many[0], **also)
            return told(call, [message], began)
        except grpc.RpcError as error:
            return told(error, [], began)
    if kind == "client":
        try:
            message, call = channel.stream_unary(method).with_call(iter(many * order.get("times", 1)), **also)
            return told(call, [message], began)
        except grpc.RpcError as error:
            return told(error, [], began)
    if kind in ("server", "bidi"):
        if kind == "server":
            call = channel.unary_stream(method)(many[0], **also)
        else:
            call = channel.stream_stream(method)(iter(many * order.get("times", 1)), **also)
        messages = []
        try:
            for message in call:
                messages.append(message)
        except grpc.RpcError:
            pass
        return told(call, messages, began)
    if kind == "turns":
        # Each message is sent only once the one before was answered.
        import queue

        waiting, messages = queue.Queue(), []
        waiting.put(many.pop(0))
        call = channel.stream_stream(method)(iter(waiting.get, None), **also)
        for message in call:
            messages.append(message)
            waiting.put(many.pop(0) if many else None)
        return told(call, messages, began)
    if kind == "hold":
        held = channel.unary_stream(method)(many[0], **also)
        try:
            return {"first": shown(next(held))}
        except grpc.RpcError:
            return told(held, [], began)
    if kind == "end":
        messages = []
        try:
            for message in held:
                messages.append(message)
        except grpc.RpcError:
            pass
        return told(held, messages, began)
    if kind == "cancel":
        held.cancel()
        return told(held, [], began)
    if kind == "burst":
        call, codes = channel.unary_unary(method), {}
        for number in range(order["times"]):
            try:
                same = call(str(number).encode()) == str(number).encode()
                code = "OK" if same else "OTHER"
            except grpc.RpcError as error:
                code = error.code().name
            codes[code] = codes.get(code, 0) + 1
        return {"codes": codes, "seconds": time.monotonic() - began}
    raise ValueError(kind)


for line in sys.stdin:
    print(json.dumps(do(json.loads(line))), flush=True)
