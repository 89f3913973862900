"""A service manager that holds the listening sockets of one proxy and passes them to one process after another.

Arguments: a folder for its notification socket, a log, the sockets as words, `--`, the command. Sockets: tcp:HOST:PORT, unix:PATH,
bound:HOST:PORT (does not listen), udp:HOST:PORT, pipe, again (the one before, once more).
Reads orders, one per line, and answers each with one line: start -> pid; stop -> SIGTERM, exit status and milliseconds; kill -> the same by
SIGKILL; wait -> exit status of a process that ends by itself; told -> what the process said to NOTIFY_SOCKET since.
Variables of the test for the process: PID (another LISTEN_PID), FDS (another LISTEN_FDS).
"""
import os
import signal
import socket
import sys
import time

folder, log = sys.argv[1:3]
split = sys.argv.index("--")
words, command = sys.argv[3:split], sys.argv[split + 1 :]


def address(word):
    host, port = word.rsplit(":", 1)
    return host, int(port)


def make(word):
    kind, _, rest = word.partition(":")
    if kind == "unix":
        s = socket.socket(socket.AF_UNIX)
        if os.path.exists(rest):
            os.unlink(rest)
        s.bind(rest)
        os.chmod(rest, 0o622)
        s.listen(1024)
    elif kind == "pipe":
        return os.pipe()[0]
    else:
        s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM if kind == "udp" else socket.SOCK_STREAM)
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        s.bind(address(rest))
        if kind == "tcp":
            s.listen(1024)
    return s.detach()


fds = []
for word in words:
    fds.append(fds[-1] if word == "again" else make(word))
told = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
told.bind(f"{folder}/notify")
os.chmod(f"{folder}/notify", 0o666)
told.setblocking(False)
child = None


def start():
    pid = os.fork()
    if pid:
        return pid
    # Above all that will be 3 and up, so that none is overwritten before it is moved.
    high = [os.dup2(fd, 500 + number) for number, fd in enumerate(fds)]
    for number, fd in enumerate(high):
        os.dup2(fd, 3 + number, inheritable=True)
    os.closerange(3 + len(fds), 600)
    out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(out, 1)
    os.dup2(out, 2)
    env = dict(os.environ)
    env["LISTEN_PID"] = env.pop("PID", str(os.getpid()))
    env["LISTEN_FDS"] = env.pop("FDS", str(len(fds)))
    env["LISTEN_FDNAMES"] = ":".join(word.partition(":")[0] for word in words)
    env["NOTIFY_SOCKET"] = f"{folder}/notify"
    os.execve(command[0], command, env)


def ended(since):
    global child
    _, status = os.waitpid(child, 0)
    child = None
    return f"{os.waitstatus_to_exitcode(status)} {int((time.monotonic() - since) * 1000)}"


print("holds", flush=True)
for order in sys.stdin:
    order, now = order.strip(), time.monotonic()
    if order == "start":
        child = start()
        answer = str(child)
    elif order == "told":
        answer = ""
        while True:
            try:
                answer += told.recv(4096).decode().replace("\n", " ")
            except BlockingIOError:
                break
    else:
        if order != "wait":
            os.kill(child, signal.SIGTERM if order == "stop" else signal.SIGKILL)
        answer = ended(now)
    print(answer, flush=True)
if child:
    os.kill(child, signal.SIGKILL)
