"""A server that speaks PostgreSQL as far as a session begins, and is not to be believed.

It knows the password (of a file) and has a certificate. What it does wrong is its first word:

error    refuses the session with the password in its words, in two forms
notice   begins it, with the password in a notice and a setting
verifier proves that it knows another password
plain    asks for the password itself
after    asks for it once it was proved
turns    begins it, and counts who would end a statement of it at once
early    says something in the clear beside the `S` that begins TLS
flood    begins it, and never ends saying settings
silent   says nothing once TLS is there
"""

import base64
import hashlib
import hmac
import socket
import ssl
import struct
import sys

lie, address, pem = sys.argv[1], sys.argv[2], sys.argv[3]
with open(sys.argv[4], "rb") as file:
    password = file.read()
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(pem)
context.set_alpn_protocols(["postgresql"])


def mac(key, text):
    return hmac.new(key, text, hashlib.sha256).digest()


def message(kind, body):
    return kind + struct.pack("!I", len(body) + 4) + body


def exactly(stream, count):
    data = b""
    while len(data) < count:
        more = stream.recv(count - len(data))
        if not more:
            raise ConnectionError("the client is gone")
        data += more
    return data


def told(stream):
    kind = exactly(stream, 1)
    return kind, exactly(stream, struct.unpack("!I", exactly(stream, 4))[0] - 4)


def asks(kind, rest=b""):
    return message(b"R", struct.pack("!I", kind) + rest)


def prove(stream):
    stream.sendall(asks(10, b"SCRAM-SHA-256\0\0"))
    kind, body = told(stream)
    assert kind == b"p", kind
    mechanism, rest = body.split(b"\0", 1)
    first = rest[4:]
    print("chosen", mechanism.decode(), first[:3].decode(), flush=True)
    bare = first.split(b",", 2)[2]
    challenge = bare.split(b"r=")[1] + b"more"
    challenge = b"r=" + challenge + b",s=" + base64.b64encode(b"salt") + b",i=4096"
    stream.sendall(asks(11, challenge))
    _, last = told(stream)
    without_proof, proof = last.rsplit(b",p=", 1)
    known = password if lie != "verifier" else b"another"
    salted = hashlib.pbkdf2_hmac("sha256", known, b"salt", 4096)
    signed = b",".join([bare, challenge, without_proof])
    stream.sendall(asks(12, b"v=" + base64.b64encode(mac(mac(salted, b"Server Key"), signed))))
    stream.sendall(asks(0 if lie != "after" else 3))


def serve(plain):
    assert exactly(plain, 8) == struct.pack("!II", 8, 80877103)
    plain.sendall(b"S" if lie != "early" else b"S" + message(b"E", b"SFATAL\0Mearly\0\0"))
    stream = context.wrap_socket(plain, server_side=True)
    length = struct.unpack("!I", exactly(stream, 4))[0]
    print("alpn", stream.selected_alpn_protocol(), flush=True)
    print("startup", exactly(stream, length - 4)[4:], flush=True)
    if lie == "silent":
        stream.recv(1)
    if lie == "error":
        words = b"the password " + password + b" or " + base64.b64encode(b"x:" + password) + b" is wrong"
        stream.sendall(message(b"E", b"SFATAL\0C28P01\0M" + words + b"\0\0"))
        return
    if lie == "plain":
        stream.sendall(asks(3))
        print("heard", told(stream), flush=True)
        return
    prove(stream)
    setting = message(b"S", b"server_version\x0015 " + password + b"\0")
    stream.sendall(setting)
    if lie == "flood":
        while True:
            stream.sendall(setting * 100)
    stream.sendall(message(b"N", b"SNOTICE\0VNOTICE\0C00000\0Mwelcome " + password + b"\0\0"))
    stream.sendall(message(b"K", b"pid_secr") + message(b"Z", b"I"))
    if lie == "turns":
        return turns()
    print("heard", told(stream)[0], flush=True)


def turns():
    """The session goes on. One connection is let wait, and nobody else may come meanwhile."""
    first, _ = listening.accept()
    listening.settimeout(1)
    try:
        listening.accept()
        print("two at once", flush=True)
    except TimeoutError:
        print("one alone", flush=True)
    listening.settimeout(30)
    ends(first)
    ends(listening.accept()[0])


def ends(plain):
    assert exactly(plain, 8) == struct.pack("!II", 8, 80877103)
    plain.sendall(b"S")
    stream = context.wrap_socket(plain, server_side=True)
    print("cancelled", exactly(stream, 16)[8:].decode(), flush=True)


with socket.create_server((address, 5432)) as listening:
    print("ready", flush=True)
    while True:
        connection, _ = listening.accept()
        try:
            serve(connection)
        except (OSError, AssertionError) as error:
            print("broken", type(error).__name__, error, flush=True)
        finally:
            connection.close()
