"""What a program may do with a connection that it, or another, has opened. The one argument: HOST:PORT or unix:PATH."""
import json
import os
import socket
import sys
import time

WHERE = sys.argv[1]
ASK = b"GET /echo HTTP/1.1\r\nHost: orders.prod.mesh\r\n\r\n"


def connect():
    if WHERE.startswith("unix:"):
        s = socket.socket(socket.AF_UNIX)
        s.connect(WHERE[5:])
    else:
        host, port = WHERE.rsplit(":", 1)
        s = socket.create_connection((host, int(port)))
    s.settimeout(20)
    return s


def ask(s):
    """The reason of the answer, `ok`, or `closed`."""
    try:
        s.sendall(ASK)
        data = b""
        while b"\r\n\r\n" not in data:
            more = s.recv(65536)
            if not more:
                return "closed"
            data += more
        head, body = data.split(b"\r\n\r\n", 1)
        length = next(int(l.split(b":")[1]) for l in head.split(b"\r\n") if l.lower().startswith(b"content-length:"))
        while len(body) < length:
            body += s.recv(65536)
        return json.loads(body).get("reason", "ok")
    except OSError:
        return "closed"


AFTER = """
import socket, sys
s = socket.socket(fileno=int(sys.argv[1]))
s.settimeout(20)
try:
    s.sendall(b"GET /echo HTTP/1.1\\r\\nHost: orders.prod.mesh\\r\\n\\r\\n")
    data = s.recv(65536)
    while data and b"}" not in data.split(b"\\r\\n\\r\\n", 1)[-1][-2:]:
        more = s.recv(65536)
        if not more:
            break
        data += more
    if not data:
        print("closed")
    else:
        import json
        print(json.loads(data.split(b"\\r\\n\\r\\n", 1)[1]).get("reason", "ok"))
except OSError:
    print("closed")
"""


def exec_same(s):
    """The same file again, as a new program."""
    sys.stdout.flush()
    os.set_inheritable(s.fileno(), True)
    os.execv(sys.executable, [sys.executable, "-c", AFTER, str(s.fileno())])


def exec_other(s):
    """Another file: curl cannot take a socket over, a shell's redirection can."""
    sys.stdout.flush()
    os.set_inheritable(s.fileno(), True)
    fd = s.fileno()
    script = f"""
        printf 'GET /echo HTTP/1.1\\r\\nHost: orders.prod.mesh\\r\\nConnection: close\\r\\n\\r\\n' >&{fd} 2>/dev/null
        answer=$(cat <&{fd} 2>/dev/null)
        case "$answer" in
            "") echo closed ;;
            *unknown_caller*) echo unknown_caller ;;
            *) echo ok ;;
        esac"""
    os.execv("/bin/bash", ["bash", "-c", script])


def fork_and_exit(s):
    """The opener ends; a child goes on with the socket and waits until it is an orphan."""
    sys.stdout.flush()
    parent = os.getpid()
    if os.fork() == 0:
        while os.getppid() == parent:
            time.sleep(0.001)
        print(ask(s), flush=True)
        os._exit(0)
    os._exit(0)


def hand_over(owner, taker, first):
    """One user opens the connection and hands it to a process of another, while both live."""
    left, right = socket.socketpair()
    done_r, done_w = os.pipe()
    if os.fork() == 0:
        os.setgid(owner)
        os.setuid(owner)
        s = connect()
        if first:
            assert ask(s) == "ok", "the owner's own request"
        socket.send_fds(left, [b"x"], [s.fileno()])
        os.read(done_r, 1)
        os._exit(0)
    child = os.fork()
    if child == 0:
        os.setgid(taker)
        os.setuid(taker)
        _, fds, _, _ = socket.recv_fds(right, 1, 1)
        s = socket.socket(fileno=fds[0])
        s.settimeout(20)
        # Over TCP only the regular look at who holds a socket finds this out: within about a second.
        last, tries = ask(s), 0
        while last == "ok" and tries < 100:
            time.sleep(0.05)
            last, tries = ask(s), tries + 1
        print(last, flush=True)
        os.write(done_w, b"x")
        os._exit(0)
    os.waitpid(child, 0)
    os.wait()
