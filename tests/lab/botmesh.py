# botmesh as a subject of the lab: a CA (not counted), an outbound proxy on host `out`, an inbound proxy on host `in`.
# Everything on: LAB_RULES rules (1 000), ledger, metrics, both decisions, full mTLS hop. Copy it over the lab's own plug-in of that name.
# One worker thread for calls per process (LAB_WORKERS), as every other peer has.
import glob, os, re, subprocess, time, sys

os.environ.setdefault("TOKIO_WORKER_THREADS", os.environ.get("LAB_WORKERS", "1"))
RULES = int(os.environ.get("LAB_RULES", "1000"))

class Botmesh(Subject):
    name, caps = "botmesh", {"h1", "h2", "log", "full", "e", "idle"}
    note = "policy with %d rules, ledger, metrics on; CA not counted; d: HTTP/1.1 to the callee" % RULES
    nocert_ok = "its own CA: the lab's certificates are strangers to it"
    host = "backend.lab.mesh"
    bin = os.environ.get("BOTMESH_BIN", "")
    extra = "local_hop: mtls"
    callee_host = "in"
    def callee_port(self, e):
        """Bots that serve HTTP are asked by HTTP/1.1, so with HTTP/2 in and on the hop (case d) the callee is the backend's other port."""
        if not e.mode["h2"]: return e.backend
        conf = max(glob.glob(os.path.join(os.path.dirname(e.dir), "backend-*", "**", "*.conf"), recursive=True), key=os.path.getmtime)
        return re.search(r"listen 127\.0\.0\.1:(\d+) backlog", open(conf).read()).group(1)
    def missing(self): return None if os.path.exists(self.bin) else "BOTMESH_BIN not set"
    def version(self): return ver(self.bin, "--version")
    def launch(self, e):
        d, node, dash = e.dir, port(), port()
        sock = f"{d}/ca.sock"
        ca = e.write("ca.yaml", f"trust_domain: lab.internal\nstate_dir: {d}/ca\nnode_api: {{listen: 127.0.0.1:{node}}}\nadmin: {{socket: {sock}, operators: [root]}}\ndashboard: {{listen: 127.0.0.1:{dash}}}\n")
        subprocess.run([self.bin, "ca", "init", "--config", ca], check=True, capture_output=True)
        c = e.spawn([self.bin, "ca", "run", "--config", ca], "ca"); e.exclude = [c.pid]
        for _ in range(200):
            r = subprocess.run([self.bin, "host", "token", "out", "--server", f"unix:{sock}"], capture_output=True, text=True)
            if r.returncode == 0: break
            time.sleep(0.1)
        tokens = {"out": r.stdout.strip(), "in": subprocess.run([self.bin, "host", "token", "in", "--server", f"unix:{sock}"], capture_output=True, text=True, check=True).stdout.strip()}
        reuse = "true" if e.mode["pool"] else "false"
        for h, mesh in (("in", e.p_in), ("out", e.p_in if self.callee_host == "out" else port())):
            if h == "in" and self.callee_host == "out": continue
            tok = e.write(f"{h}.token", tokens[h])
            lst = f"listeners: [{{listen: \"127.0.0.1:{e.p_out}\", to: lab/backend}}]\n" if h == "out" else ""
            cfg = e.write(f"{h}.yaml", f"trust_domain: lab.internal\nhost: {h}\nuser: root\nstate_dir: {d}/{h}\nca: {{addresses: [\"127.0.0.1:{node}\"]}}\njoin: {{token_file: {tok}}}\nbots: {{listen: 127.0.0.1:{port()}, socket: {d}/{h}.bot.sock}}\n"
                f"mesh: {{listen: 127.0.0.1:{mesh}, advertise: \"127.0.0.1:{mesh}\", reuse: {reuse}}}\nadmin: {{socket: {d}/{h}.sock, operators: [root]}}\nmetrics: {{listen: 127.0.0.1:{port()}}}\nledger: {{dir: {d}/{h}.ledger}}\n{lst}{self.extra}\n")
            e.spawn([self.bin, "proxy", "run", "--config", cfg], h)
        exes = sorted({os.path.realpath(p) for p in (BIN("wrk"), BIN("oha"), BIN("h2load"), BIN("curl"), sys.executable) if p})
        filler = "".join(f"  - {{id: filler-{i}, from: lab/client, to: lab/backend, http: [GET /filler/{i}/*]}}\n" for i in range(RULES - 1))
        mesh = e.write("mesh.yaml", "version: 1\ntrust_domain: lab.internal\nbots:\n"
            "  lab/client: {owner: lab@lab.internal, hosts: [out], attest: [" + ", ".join(f"{{uid: 0, exe: {x}}}" for x in exes) + "]}\n"
            f"  lab/backend: {{owner: lab@lab.internal, hosts: [{self.callee_host}], attest: {{uid: 0, exe: {os.path.realpath(BIN('nginx'))}}}, serve: {{http: {self.callee_port(e)}}}}}\n"
            "allow:\n  - {id: lab, from: lab/client, to: lab/backend, http: [GET /, GET /big]}\n" + filler)
        r = subprocess.run([self.bin, "apply", mesh, "--server", f"unix:{sock}"], capture_output=True, text=True)
        if r.returncode: raise RuntimeError("apply: " + r.stderr)

class BotmeshLocal(Botmesh):
    name, caps, extra, callee_host = "botmesh-local", {"h1"}, "local_hop: direct", "out"
    note = "one proxy plays both ends (same-host hop, nothing is encrypted to itself)"

SUBJECTS = [Botmesh, BotmeshLocal]
