# SPDX-License-Identifier: Apache-2.0
"""A peerd by itself: certificates, records, a routed and workers made here.

What peerd meets in a fleet, it meets here from python: the cache is a file
written by these classes, routed and the workers speak proto/ipc.proto, the
other proxy is another Host or a python gRPC server or client.
"""

import itertools
import os
import re
import shutil
import socket
import sqlite3
import subprocess
import tempfile
import threading
import uuid
from pathlib import Path

import ctl
import stubs
from hosts import CLUSTER_NAME, SOURCE, Daemon, Network, yaml_text
from process import wait_for

SERVER_NAME = CLUSTER_NAME.encode().hex() + ".teleport.cluster.local"
DIAL = "/proto.ProxyService/DialNode"
PING = "/proto.ProxyService/Ping"


def openssl(*argv):
    subprocess.run(
        ["openssl", *map(str, argv)], check=True, capture_output=True
    )


class Pki:
    """A host CA and what it has signed."""

    def __init__(self, directory):
        self.dir = Path(directory)
        self.dir.mkdir(parents=True)
        self.ca = self.dir / "ca.pem"
        self.ca_key = self.dir / "ca.key"
        openssl(
            "req", "-x509", "-newkey", "ec", "-pkeyopt",
            "ec_paramgen_curve:P-256", "-nodes", "-keyout", self.ca_key,
            "-out", self.ca, "-days", "2", "-subj", "/CN=host CA",
        )

    def issue(self, host_id, role="Proxy", server=True, cluster=CLUSTER_NAME):
        """A directory as routed writes it; gives its path."""
        out = Path(tempfile.mkdtemp(dir=self.dir))
        openssl(
            "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
            "-nodes", "-keyout", out / "key.pem", "-out", out / "csr",
            "-subj", f"/O={role}/CN={host_id}.{cluster}",
        )
        usage = "clientAuth" + (",serverAuth" if server else "")
        extensions = f"extendedKeyUsage={usage}\n"
        if server:
            name = cluster.encode().hex() + ".teleport.cluster.local"
            extensions += f"subjectAltName=DNS:{name},DNS:*.teleport.cluster.local\n"
        (out / "ext").write_text(extensions)
        openssl(
            "x509", "-req", "-in", out / "csr", "-CA", self.ca, "-CAkey",
            self.ca_key, "-CAcreateserial", "-days", "2", "-out",
            out / "leaf.pem", "-extfile", out / "ext",
        )
        chain = (out / "leaf.pem").read_text() + self.ca.read_text()
        (out / "cert.pem").write_text(chain)
        shutil.copy(self.ca, out / "host_ca.pem")
        return out


def _schema():
    """The cache's schema, from the program's own source."""
    text = (SOURCE / "shared" / "cache.c").read_text()
    body = re.search(r"cache_schema_sql\[\] =\n(.*?);\n\n", text, re.S)[1]
    version = re.search(
        r"#define CACHE_SCHEMA (\d+)",
        (SOURCE / "shared" / "cache.h").read_text(),
    )[1]
    statements = "".join(re.findall(r'"(.*?)"', body))
    return f"{statements}PRAGMA user_version = {version};"


class Cache:
    """The records that peerd reads."""

    def __init__(self, directory, peering=True):
        self.path = Path(directory) / "cache-1.db"
        self.record = stubs.load("record_pb2")
        self.db = sqlite3.connect(self.path, check_same_thread=False)
        self.db.execute("PRAGMA journal_mode=WAL")
        self.db.executescript(_schema())
        strategy = self.strategy(peering)
        config = self.record.ClusterConfig(
            cluster_name=CLUSTER_NAME, strategy=strategy
        )
        self.db.execute("INSERT INTO meta VALUES('store_id', 'test')")
        self.db.execute("INSERT INTO meta VALUES('revision', 1)")
        self.db.execute(
            "INSERT INTO config VALUES(1, ?)", [config.SerializeToString()]
        )
        self.db.commit()

    def strategy(self, peering):
        return self.record.TunnelStrategy(
            type="PROXY_PEERING" if peering else "AGENT_MESH",
            agent_connection_count=1,
        )

    def put_proxy(self, host_id, addr, peering=True):
        record = self.record.ProxyRecord(
            id=host_id,
            hostname="host-" + host_id[:4],
            peer_addr=addr,
            strategy=self.strategy(peering),
        )
        self.db.execute(
            "REPLACE INTO proxy VALUES(?, ?, 0, ?)",
            [host_id, addr, record.SerializeToString()],
        )
        self.db.commit()

    def remove_proxy(self, host_id):
        self.db.execute("DELETE FROM proxy WHERE id = ?", [host_id])
        self.db.commit()

    def put_tunnel(self, agent_id, proxy_id):
        record = self.record.TunnelRecord(
            agent_id=agent_id, proxy_id=proxy_id, name="agent"
        )
        self.db.execute(
            "REPLACE INTO tunnel(agent_id, proxy_id, name, since_ms, record)"
            " VALUES(?, ?, 'agent', 0, ?)",
            [agent_id, proxy_id, record.SerializeToString()],
        )
        self.db.commit()

    def close(self):
        self.db.close()


class Routed:
    """routed's side of its socket: announces, and answers lookups from holders
    (agent id -> proxy ids; no entry: an error)."""

    def __init__(self, run_dir, cache, identity):
        self.cache = cache
        self.identity = identity
        self.holders = {}
        self.links = []
        self.ipc = stubs.load("ipc_pb2")
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.listener.bind(str(Path(run_dir) / "routed.sock"))
        self.listener.listen()
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                peer, _ = self.listener.accept()
            except OSError:
                return
            link = ctl.Link.__new__(ctl.Link)
            link.socket = peer
            link.hello("PEER_ROUTED")
            self.links.append(link)
            self._announce(link)
            threading.Thread(target=self._serve, args=[link], daemon=True).start()

    def _announce(self, link):
        link.send(
            "IPC_CACHE",
            self.ipc.Cache(
                path=str(self.cache.path),
                store_id="test",
                revision=1,
                proxies_changed=True,
                strategy_decided=True,
            ),
        )
        link.send("IPC_IDENTITY", self.ipc.Identity(directory=str(self.identity)))

    def announce(self, identity=None):
        """Tells that records have changed, and a new identity if given."""
        if identity:
            self.identity = identity
        for link in self.links:
            try:
                self._announce(link)
            except OSError:
                pass

    def _serve(self, link):
        try:
            while True:
                question = self.ipc.Lookup.FromString(
                    link.receive_type("IPC_LOOKUP")
                )
                proxies = self.holders.get(question.agent_id)
                link.send(
                    "IPC_LOOKUP_REPLY",
                    self.ipc.LookupReply(
                        id=question.id,
                        error="" if proxies is not None else "authd is away",
                        tunnels=[
                            {"agent_id": question.agent_id, "proxy_id": proxy}
                            for proxy in proxies or []
                        ],
                    ),
                )
        except (OSError, AssertionError):
            link.close()

    def close(self):
        # a thread that waits in one of them would keep it open
        for end in [self.listener, *(link.socket for link in self.links)]:
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            end.close()


def echo(fd):
    """Sends back what comes until either side ends; takes fd."""
    with socket.socket(fileno=fd) as end:
        end.setblocking(True)
        try:
            while data := end.recv(65536):
                end.sendall(data)
        except OSError:
            pass


def part(end):
    """The orderly end of an end of a pair: says it, and closes it when the
    other direction has ended too. (Closed earlier, the stream is torn.)"""
    end.settimeout(30)
    end.shutdown(socket.SHUT_WR)
    while end.recv(65536):
        pass
    end.close()


class Worker:
    """A worker's side of peerd.sock.

    serve(dial, fd) is called in a thread of its own for each DIAL; it takes fd.
    refuse(dial), if set, gives (code, message) instead.
    """

    def __init__(self, run_dir, number=0, serve=None):
        self.ipc = stubs.load("ipc_pb2")
        self.number = number
        self.serve = serve or (lambda dial, fd: echo(fd))
        self.refuse = None
        self.silent = False  # keeps the descriptor and says nothing
        self.kept = []
        self.dials = []
        self.cancelled = []
        self.closed_tunnels = []
        self.answers = {}
        self.arrived = threading.Condition()
        self.ids = itertools.count(1)
        self.link = ctl.Link(Path(run_dir) / "peerd.sock", None)
        self.link.hello("PEER_WORKER", worker=number, workers=2)
        self.sending = threading.Lock()
        self.send(
            "IPC_TUNNEL_SYNC", self.ipc.TunnelSync(first=True, last=True)
        )
        threading.Thread(target=self._receive, daemon=True).start()

    def send(self, kind, payload, fds=()):
        with self.sending:
            self.link.send(kind, payload, fds)

    def tunnel_up(self, agent_id, tunnel_id=1, since_ms=1000):
        self.send(
            "IPC_TUNNEL_UP",
            self.ipc.TunnelUp(
                tunnel={
                    "tunnel_id": tunnel_id,
                    "record": {
                        "agent_id": agent_id,
                        "name": "agent",
                        "since_ms": since_ms,
                        "services": [
                            {"name": "echo", "type": "app", "port": 7}
                        ],
                    },
                    "remote_addr": "192.0.2.1:9",
                }
            ),
        )

    def tunnel_down(self, tunnel_id=1):
        self.send(
            "IPC_TUNNEL_DOWN",
            self.ipc.TunnelDown(tunnel_id=tunnel_id, reason="test"),
        )

    def dial(self, agent_id, fd, **fields):
        """Asks peerd to reach the agent; gives the id. fd stays the caller's."""
        dial_id = next(self.ids)
        fields.setdefault("service", "echo")
        fields.setdefault("type", "app")
        fields.setdefault("source", "192.0.2.7:4711")
        fields.setdefault("deadline_ms", 5000)
        fields.setdefault("connection_id", os.urandom(16))
        self.send(
            "IPC_DIAL",
            self.ipc.Dial(id=dial_id, agent_id=agent_id, **fields),
            [fd],
        )
        return dial_id

    def answer(self, dial_id, timeout=10):
        """DialOk or DialFailed."""
        with self.arrived:
            assert self.arrived.wait_for(
                lambda: dial_id in self.answers, timeout
            ), "no answer to the dial"
            return self.answers.pop(dial_id)

    def connect(self, agent_id, **fields):
        """Dials with one end of a pair; (answer, the other end)."""
        ours, theirs = socket.socketpair()
        with theirs:
            dial_id = self.dial(agent_id, theirs.fileno(), **fields)
        ours.settimeout(20)
        return self.answer(dial_id), ours

    def _receive(self):
        try:
            while message := self.link.receive():
                self._handle(*message)
        except OSError:
            pass

    def _handle(self, kind, payload, fds):
        if kind == ctl.TYPES["IPC_DIAL"]:
            self._handle_dial(self.ipc.Dial.FromString(payload), fds[0])
        elif kind == ctl.TYPES["IPC_DIAL_CANCEL"]:
            self.cancelled.append(self.ipc.DialCancel.FromString(payload).id)
            self.let_go()
        elif kind == ctl.TYPES["IPC_TUNNEL_CLOSE"]:
            self.closed_tunnels.append(
                self.ipc.TunnelClose.FromString(payload).tunnel_id
            )
        elif kind == ctl.TYPES["IPC_DIAL_OK"]:
            self._arrive(self.ipc.DialOk.FromString(payload))
        elif kind == ctl.TYPES["IPC_DIAL_FAILED"]:
            self._arrive(self.ipc.DialFailed.FromString(payload))

    def _arrive(self, answer):
        with self.arrived:
            self.answers[answer.id] = answer
            self.arrived.notify_all()

    def _handle_dial(self, dial, fd):
        self.dials.append(dial)
        if self.silent:
            self.kept.append(fd)
            return
        if self.refuse:
            os.close(fd)
            code, message = self.refuse(dial)
            self.send(
                "IPC_DIAL_FAILED",
                self.ipc.DialFailed(id=dial.id, code=code, message=message),
            )
            return
        self.send(
            "IPC_DIAL_OK", self.ipc.DialOk(id=dial.id, route="ROUTE_LOCAL")
        )
        threading.Thread(target=self.serve, args=[dial, fd], daemon=True).start()

    def let_go(self):
        """Closes what silence has kept."""
        while self.kept:
            os.close(self.kept.pop())

    def close(self):
        """The worker dies."""
        self.let_go()
        try:
            self.link.socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self.link.close()


class Host:
    """Directories, configuration, cache and peerd of one proxy host."""

    def __init__(self, directory, network, pki, number, peering=True, **proxy):
        self.id = str(uuid.uuid4())
        self.name = f"host-{number}"
        self.address = network.address(number)
        self.dir = Path(directory) / self.name
        self.run_dir = self.dir / "run"
        self.data_dir = self.dir / "data"
        for path in (self.dir, self.run_dir, self.data_dir):
            path.mkdir()
        self.users = {}
        self.peer_addr = f"{self.address}:{Network.free_port(self.address)}"
        diag = f"{self.address}:{Network.free_port(self.address)}"
        self.diag = {"peerd": diag}
        self.config_path = self.dir / "peerway.yaml"
        self.config_path.write_text(
            yaml_text(
                {
                    "peerway": {
                        "cluster_name": CLUSTER_NAME,
                        "data_dir": str(self.data_dir),
                        "run_dir": str(self.run_dir),
                        "host_uuid": self.id,
                        "auth_servers": ["127.0.0.1:9"],
                        "log": {"level": os.environ.get("PEERWAY_TEST_LOG", "info")},
                        "diag": self.diag,
                    },
                    "proxy_service": {
                        "enabled": True,
                        "listen_addr": f"{self.address}:9",
                        "tunnel_listen_addr": f"{self.address}:10",
                        "peer_listen_addr": self.peer_addr,
                        "drain_timeout": "2s",
                        **proxy,
                    },
                }
            )
        )
        self.pki = pki
        (self.data_dir / "cache").mkdir()
        self.cache = Cache(self.data_dir / "cache", peering)
        self.routed = Routed(self.run_dir, self.cache, pki.issue(self.id))
        self.peerd = Daemon(self, "peerd")

    def start(self):
        self.peerd.start().wait_ready()
        return self

    def know(self, *others):
        """Records of other proxies: Hosts, or (id, address)."""
        for other in others:
            if isinstance(other, Host):
                other = (other.id, other.peer_addr)
            self.cache.put_proxy(*other)
        self.routed.announce()

    def worker(self, number=0, **kwargs):
        worker = Worker(self.run_dir, number, **kwargs)
        wait_for(
            lambda: number
            in [w["worker"] for w in self.peerd.status()["workers"]],
            10,
            "the worker is linked",
        )
        return worker

    def wait_tunnel(self, agent_id, worker=None):
        def there():
            return [
                tunnel
                for tunnel in self.peerd.ask("tunnels")["tunnels"]
                if tunnel["agent_id"] == agent_id
                and worker in (None, tunnel["worker"])
            ]

        wait_for(there, 10, "peerd knows the tunnel")

    def wait_peer(self, host_id, state="ready", timeout=20):
        def there():
            return [
                peer
                for peer in self.peerd.status()["peers"]
                if peer["id"] == host_id and peer["state"] == state
            ]

        return wait_for(there, timeout, f"the peer is {state}")[0]

    def close(self):
        self.routed.close()
        self.peerd.kill_group()
        self.cache.close()
