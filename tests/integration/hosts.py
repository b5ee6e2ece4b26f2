# SPDX-License-Identifier: Apache-2.0
"""Hosts of a fleet: their directories, configuration and daemons.

A host belongs to a Cluster (suite.py), which knows authd, tokens and users.
"""

import json
import os
import random
import shutil
import socket
import urllib.error
import urllib.request
from pathlib import Path

import connect
import ctl
from process import Process, wait_for

SOURCE = Path(__file__).resolve().parents[2]
BUILD = Path(os.environ.get("PEERWAY_BUILD", SOURCE / "build")).resolve()
CLUSTER_NAME = "example"
# How much longer everything takes under sanitizers or valgrind.
SLOW = float(os.environ.get("PEERWAY_TEST_SLOW", "1"))
START_TIMEOUT = 20 * SLOW
ROUTES_TIMEOUT = 5 * SLOW  # "all routes right within 5 s"


def binary(name):
    return BUILD / ("auth" if name == "authd" else name) / name


def yaml_text(value, indent=0):
    """Block YAML of dicts, lists and scalars; strings always quoted."""
    pad = "  " * indent
    lines = []
    for key, item in value.items():
        if isinstance(item, dict) and item:
            lines.append(f"{pad}{key}:\n{yaml_text(item, indent + 1)}")
        elif isinstance(item, list):
            lines.append(f"{pad}{key}: {json.dumps(item)}\n")
        elif isinstance(item, str):
            lines.append(f"{pad}{key}: {json.dumps(item)}\n")
        elif isinstance(item, bool):
            lines.append(f"{pad}{key}: {'yes' if item else 'no'}\n")
        elif not isinstance(item, dict):
            lines.append(f"{pad}{key}: {item}\n")
    return "".join(lines)


def merge(base, extra):
    """extra's values over base's, section by section."""
    for key, value in (extra or {}).items():
        if isinstance(value, dict) and isinstance(base.get(key), dict):
            merge(base[key], value)
        else:
            base[key] = value
    return base


PORTS_GIVEN = set()


class Network:
    """A /24 of loopback addresses that no other test uses meanwhile."""

    def __init__(self):
        while True:
            self.prefix = f"127.{random.randint(16, 250)}." + str(
                random.randint(0, 255)
            )
            self._lock = socket.socket()
            try:
                self._lock.bind((self.prefix + ".254", 1))
                self._lock.listen(1)
                break
            except OSError:
                self._lock.close()

    def address(self, last):
        return f"{self.prefix}.{last}"

    @staticmethod
    def free_port(address):
        """Below the range from which the kernel takes ports for those who
        connect, and never the same one twice."""
        while True:
            port = random.randint(10000, 32000)
            if (address, port) in PORTS_GIVEN:
                continue
            try:
                with socket.socket() as probe:
                    probe.bind((address, port))
            except OSError:
                continue
            PORTS_GIVEN.add((address, port))
            return port

    def close(self):
        self._lock.close()


class Daemon(Process):
    """A Peerway daemon: a Process with diagnostics and a control socket."""

    def __init__(self, host, name):
        super().__init__(
            f"{host.name}.{name}",
            [binary(name), "-c", host.config_path],
            host.dir / f"{name}.log",
            user=host.users.get(name),
        )
        self.host = host
        self.diag = host.diag[name]
        self.socket = host.run_dir / f"{name}.sock"

    def http(self, path):
        """(status, text) of the diagnostic address."""
        try:
            with urllib.request.urlopen(
                f"http://{self.diag}{path}", timeout=5
            ) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def is_ready(self):
        self.check_running()
        return self.http("/readyz")[0] == 200

    def wait_ready(self, timeout=START_TIMEOUT):
        try:
            wait_for(self.is_ready, timeout, f"{self.name} is ready")
        except AssertionError as error:
            missing = self.http("/readyz") if self.running() else ""
            raise AssertionError(f"{error} {missing}") from None
        return self

    def metrics(self):
        """Series (as written) -> value."""
        series = {}
        for line in self.http("/metrics")[1].splitlines():
            if line and not line.startswith("#"):
                name, _, value = line.rpartition(" ")
                series[name] = float(value)
        return series

    def metric(self, name):
        """The sum over all series of that name."""
        return sum(
            value
            for key, value in self.metrics().items()
            if key.partition("{")[0] == name
        )

    def ask(self, verb, args=None, timeout=10):
        return ctl.ask(self.socket, verb, args, timeout)

    def status(self):
        return self.ask("status")


class Host:
    """Directory, configuration and daemons of one host."""

    daemon_names = ()

    def __init__(self, cluster, name, address, users=None):
        self.cluster = cluster
        self.name = name
        self.address = address
        self.users = users or {}
        self.dir = cluster.dir / name
        self.run_dir = self.dir / "run"
        self.data_dir = self.dir / "data"
        for path in (self.dir, self.run_dir, self.data_dir):
            path.mkdir(mode=0o755)
        for path in (self.run_dir, self.data_dir) if self.users else ():
            # As deploy does it: the group's, and so is all that is made there.
            shutil.chown(path, group=next(iter(self.users.values()))[1])
            path.chmod(0o2770)
        self.config_path = self.dir / "peerway.yaml"
        self.diag = {
            daemon: f"{address}:{Network.free_port(address)}"
            for daemon in self.daemon_names
        }
        self.common = {
            "cluster_name": CLUSTER_NAME,
            "data_dir": str(self.data_dir),
            "run_dir": str(self.run_dir),
            "log": {"level": os.environ.get("PEERWAY_TEST_LOG", "info")},
            "diag": dict(self.diag),
        }
        self.config = {"peerway": self.common}

    def make_daemons(self, make=Daemon):
        """make(host, name): somebody else may run them."""
        self.daemons = [make(self, name) for name in self.daemon_names]
        for name, daemon in zip(self.daemon_names, self.daemons):
            setattr(self, name, daemon)

    def write_config(self, extra=None):
        merge(self.config, extra)
        self.config_path.write_text(yaml_text(self.config))

    def port(self):
        return f"{self.address}:{Network.free_port(self.address)}"

    def start(self):
        for daemon in self.daemons:
            daemon.start()
        return self

    def wait_ready(self):
        for daemon in self.daemons:
            daemon.wait_ready()
        return self

    def kill(self):
        """The host loses power."""
        for daemon in self.daemons:
            daemon.kill_group()

    def stop(self):
        """SIGTERM to all at once, as an init system would."""
        for daemon in self.daemons:
            if daemon.running():
                daemon.expected_end = True
                daemon.popen.terminate()
        for daemon in reversed(self.daemons):
            daemon.stop(told=True)

    def join_with(self, token, pin):
        path = self.dir / "token"
        path.touch(0o600)
        path.write_text(token + "\n")
        if self.users:
            reader = self.users.get("routed" if "routed" in self.daemon_names
                                    else self.daemon_names[0])
            os.chown(path, *reader)
        join = {"token_file": str(path), "ca_pin": pin}
        return {"peerway": {"join": join}}

    @property
    def uuid(self):
        return (self.data_dir / "host_uuid").read_text().strip()


class AuthHost(Host):
    daemon_names = ("authd",)

    def __init__(
        self, cluster, name, address, strategy, count, storage, **kwargs
    ):
        super().__init__(cluster, name, address, **kwargs)
        self.listen_addr = self.port()
        tunnel_strategy = {"type": strategy}
        if strategy == "proxy_peering":
            tunnel_strategy["agent_connection_count"] = count
        self.write_config(
            {
                "auth_service": {
                    "enabled": True,
                    "listen_addr": self.listen_addr,
                    "tunnel_strategy": tunnel_strategy,
                    "storage": storage,
                }
            }
        )
        self.make_daemons()

    @property
    def ca_key(self):
        """Where the key is that seals the CAs' keys in etcd."""
        return self.data_dir / "authd/ca.key"


class ProxyHost(Host):
    daemon_names = ("routed", "peerd", "proxy")

    def __init__(self, cluster, name, address, workers=1, **kwargs):
        super().__init__(cluster, name, address, **kwargs)
        self.listen_addr = self.port()
        self.tunnel_addr = self.port()
        self.peer_addr = self.port()
        self.common["auth_servers"] = [
            auth.listen_addr for auth in cluster.auths
        ]
        self.config["proxy_service"] = {
            "enabled": True,
            "listen_addr": self.listen_addr,
            "tunnel_listen_addr": self.tunnel_addr,
            "peer_listen_addr": self.peer_addr,
            "peer_public_addr": self.peer_addr,
            "public_addr": [self.listen_addr],
            "workers": workers,
            "drain_timeout": "2s",
        }
        self.make_daemons()

    def join(self):
        token = self.cluster.token("proxy", names=[self.address])
        self.write_config(self.join_with(token, self.cluster.pin))

    def tcp_listener(self, target):
        """Adds a raw listener for target; gives its address."""
        listen = self.port()
        listeners = self.config["proxy_service"].setdefault("tcp_listeners", [])
        listeners.append({"listen": listen, "target": target})
        return listen

    def dial(self, target, user="alice", timeout=15 * SLOW, source=None):
        identity = self.cluster.identity(user)
        return connect.dial(
            self.listen_addr, target, identity, CLUSTER_NAME, timeout, source
        )

    def find(self):
        """What /webapi/find says, as text."""
        host_ca = self.cluster.identity().host_ca
        with connect.TlsStream(
            self.listen_addr,
            connect.client_context(connect.Identity(None, None, host_ca)),
            connect.server_name(CLUSTER_NAME),
        ) as stream:
            status, _, body = connect.request(
                stream, "GET /webapi/find HTTP/1.1\r\nHost: x\r\n\r\n"
            )
        assert status == 200, status
        return body.decode()

    def agents(self):
        """Agent name -> ids of the proxies that hold it, as this host knows."""
        answer = self.routed.ask("ls")
        return {
            agent["name"]: {proxy["id"] for proxy in agent["proxies"]}
            for agent in answer["agents"]
        }

    def holders(self, agent_id):
        """Ids of the proxies that hold the agent of that uuid."""
        return {
            proxy["id"]
            for agent in self.routed.ask("ls")["agents"]
            for proxy in agent["proxies"]
            if agent["agent_id"] == agent_id
        }

    def is_up_to_date(self):
        """Whether its routed runs and follows authd."""
        if not self.routed.running():
            return False
        return self.routed.status()["auth_state"] == "connected"

    def tunnels(self):
        """Names of the agents with a tunnel on this host, worker by worker."""
        found = {}
        for tunnel in self.peerd.ask("tunnels")["tunnels"]:
            found.setdefault(tunnel["worker"], []).append(tunnel["name"])
        return found

    def tunnel_names(self):
        return sorted(name for names in self.tunnels().values() for name in names)

    def ready_peers(self):
        return {
            peer["id"]
            for peer in self.peerd.status()["peers"]
            if peer["state"] == "ready"
        }

    def worker_pids(self):
        """Worker number -> pid."""
        workers = self.proxy.status()["workers"]
        return {worker["worker"]: worker["pid"] for worker in workers}


class AgentHost(Host):
    daemon_names = ("agent",)

    def __init__(self, cluster, name, address, proxies, services, **kwargs):
        super().__init__(cluster, name, address, **kwargs)
        self.config["agent_service"] = {
            "enabled": True,
            "name": name,
            "proxy_server": proxies,
            "labels": {"env": "test"},
            "services": services,
        }
        self.make_daemons()

    def join(self):
        token = self.cluster.token("node")
        self.write_config(self.join_with(token, self.cluster.pin))

    def stop(self):
        """Returns when its routes are gone everywhere, so that nobody takes
        them for those of its next life."""
        ran = self.agent.running()
        super().stop()
        for proxy in self.cluster.proxies if ran else ():
            if proxy.is_up_to_date():
                wait_for(
                    lambda: not proxy.holders(self.uuid),
                    START_TIMEOUT,
                    f"{proxy.name} forgets {self.name}",
                )
