#!/usr/bin/env python3
"""What a credential costs a call to the outside: one proxy, an nginx with TLS 1.3 that answers 1 KiB, wrk at two listeners by turns.

    BOTMESH_BIN=target/lab/botmesh python3 tests/lab/inject.py [rounds] [seconds]

`plain` leads to a destination whose rule adds nothing, `inject` to one whose rule adds a header. CPU is the proxy's (seconds per 1 000
requests); the last line has the ratios of the medians. Needs nginx, wrk and openssl, and root.
"""
import os
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time

BIN = os.environ["BOTMESH_BIN"]
ROUNDS = int(sys.argv[1]) if len(sys.argv) > 1 else 5
SECS = int(sys.argv[2]) if len(sys.argv) > 2 else 5
HOSTS = {"plain": "plain.example.com", "inject": "inject.example.com"}
here, started = tempfile.mkdtemp(prefix="inject"), []


def port():
    with socket.create_server(("127.0.0.1", 0)) as s:
        return s.getsockname()[1]


def write(name, text):
    path = os.path.join(here, name)
    with open(path, "w") as file:
        file.write(text)
    return path


def run(*words, **more):
    return subprocess.run(words, check=True, capture_output=True, text=True, **more).stdout


def start(name, *words):
    log = open(os.path.join(here, name + ".log"), "w")
    started.append(subprocess.Popen(words, stdout=log, stderr=log, env={**os.environ, "TOKIO_WORKER_THREADS": "1"}))
    return started[-1]


def until(what, probe):
    for _ in range(200):
        try:
            if (found := probe()) is not None:
                return found
        except (OSError, subprocess.CalledProcessError):
            pass
        time.sleep(0.05)
    sys.exit(f"waited 10 s for {what}; see {here}")


def open_at(number):
    socket.create_connection(("127.0.0.1", number), 1).close()
    return number


def certificates():
    """An authority, and a certificate of both names."""
    names = ",".join("DNS:" + host for host in HOSTS.values())
    run("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2", "-subj", "/CN=lab",
        "-keyout", f"{here}/ca.key", "-out", f"{here}/ca.pem")
    run("openssl", "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=outside",
        "-keyout", f"{here}/tls.key", "-out", f"{here}/tls.csr")
    run("openssl", "x509", "-req", "-in", f"{here}/tls.csr", "-CA", f"{here}/ca.pem", "-CAkey", f"{here}/ca.key", "-days", "2",
        "-extfile", write("ext", f"subjectAltName={names}"), "-out", f"{here}/tls.pem")


def nginx(tls):
    write("index.html", "x" * 1024)
    start("nginx", "nginx", "-p", here, "-c", write("nginx.conf", f"""
        daemon off; worker_processes 1; pid {here}/nginx.pid; error_log {here}/nginx.err; user root;
        events {{ worker_connections 4096; }}
        http {{ access_log off; keepalive_requests 1000000000; root {here};
            server {{ listen 127.0.0.1:{tls} ssl; ssl_certificate {here}/tls.pem; ssl_certificate_key {here}/tls.key; ssl_protocols TLSv1.3; }} }}"""))
    until("nginx", lambda: open_at(tls))


def mesh(tls):
    node, ways = port(), {name: port() for name in HOSTS}
    sock, exe = f"{here}/ca.sock", os.path.realpath(shutil.which("wrk"))
    config = write("ca.yaml", f"trust_domain: lab.internal\nstate_dir: {here}/ca\nnode_api: {{listen: 127.0.0.1:{node}}}\n"
                              f"admin: {{socket: {sock}, operators: [root]}}\ndashboard: {{listen: 127.0.0.1:{port()}}}\n")
    run(BIN, "ca", "init", "--config", config)
    start("ca", BIN, "ca", "run", "--config", config)
    token = until("the CA", lambda: run(BIN, "host", "token", "out", "--server", f"unix:{sock}"))
    listeners = ", ".join(f'{{listen: "127.0.0.1:{at}", to: "https://{HOSTS[name]}:{tls}"}}' for name, at in ways.items())
    hosts = write("hosts", f"127.0.0.1 {' '.join(HOSTS.values())}\n")
    config = write("proxy.yaml", f"trust_domain: lab.internal\nhost: out\nuser: root\nstate_dir: {here}/proxy\n"
        f"ca: {{addresses: [\"127.0.0.1:{node}\"]}}\njoin: {{token_file: {write('token', token)}}}\nlisteners: [{listeners}]\n"
        f"bots: {{listen: 127.0.0.1:{port()}, socket: {here}/bot.sock}}\nmesh: {{listen: 127.0.0.1:{port()}}}\noutside: {{hosts_file: {hosts}}}\n"
        f"admin: {{socket: {here}/proxy.sock, operators: [root]}}\nmetrics: {{listen: 127.0.0.1:{port()}}}\nledger: {{dir: {here}/ledger}}\n")
    proxy = start("proxy", BIN, "proxy", "run", "--config", config)
    pem = open(f"{here}/ca.pem").read().replace("\n", "\\n")
    said = "".join(f'  "https://{host}:{tls}": {{addresses: [127.0.0.1], ca: "{pem}"}}\n' for host in HOSTS.values())
    rules = "".join(f'  - {{id: {name}, from: lab/client, to: "https://{host}:{tls}", http: ["GET /**"]'
                    f'{", inject: key" if name == "inject" else ""}}}\n' for name, host in HOSTS.items())
    file = write("mesh.yaml", "version: 1\ntrust_domain: lab.internal\nbots:\n"
        f"  lab/client: {{owner: o@lab.internal, hosts: [out], attest: {{uid: 0, exe: {exe}}}}}\n"
        f"credentials:\n  key: {{header: x-api-key, owner: o@lab.internal}}\nallow:\n{rules}destinations:\n{said}")
    until("the proxy", lambda: open_at(ways["plain"]))
    run(BIN, "apply", file, "--server", f"unix:{sock}")
    # Once the host has the policy, which names the credential.
    until("the policy", lambda: run(BIN, "secret", "put", "key", "--server", f"unix:{here}/proxy.sock", input="sk-ant-0123456789abcdef0123456789"))
    return ways, proxy.pid


def cpu(pid):
    fields = open(f"/proc/{pid}/stat").read().rsplit(") ", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measure(at, pid, secs):
    before = cpu(pid)
    told = run("wrk", "-t1", "-c32", f"-d{secs}s", "--latency", f"http://127.0.0.1:{at}/index.html")
    used, count = cpu(pid) - before, int(re.search(r"(\d+) requests in", told)[1])
    if "Non-2xx" in told:
        sys.exit(told)
    number, unit = re.search(r"99%\s+([\d.]+)(us|ms|s)", told).groups()
    p99 = float(number) * {"us": 0.001, "ms": 1, "s": 1000}[unit]
    return used / count * 1000, p99, count / secs


try:
    certificates()
    tls = port()
    nginx(tls)
    ways, pid = mesh(tls)
    for name in ways:
        measure(ways[name], pid, 1)
    found = {name: [] for name in ways}
    for number in range(ROUNDS):
        for name in (list(ways) if number % 2 else list(ways)[::-1]):
            found[name].append(measure(ways[name], pid, SECS))
    middle = {name: [statistics.median(column) for column in zip(*rounds)] for name, rounds in found.items()}
    for name, (cpu_k, p99, rps) in middle.items():
        print(f"{name:7} {cpu_k:.4f} s of CPU per 1 000, p99 {p99:.2f} ms, {rps:.0f} requests per second")
    print("inject / plain: CPU {:.3f}, p99 {:.3f}, requests per second {:.3f}".format(
        *(middle["inject"][column] / middle["plain"][column] for column in range(3))))
finally:
    for process in started[::-1]:
        process.terminate()
        process.wait()
    shutil.rmtree(here, ignore_errors=True)
