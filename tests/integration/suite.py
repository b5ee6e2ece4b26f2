# SPDX-License-Identifier: Apache-2.0
"""A whole fleet on this machine: one authd, proxy hosts, agents.

    with Cluster(proxies=2, agents=["db-1"]) as cluster:
        cluster.start()
        with cluster.proxies[0].dial("echo.db-1") as connection:
            assert connection.route in ("local", "peer")

Every cluster has a /24 of 127.0.0.0/8 to itself, so its ports cannot be taken
by anything else on the machine, and a temporary directory with, for each host,
its configuration, data_dir, run_dir and logs.
"""

import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import connect
from hosts import (
    BUILD,
    CLUSTER_NAME,
    ROUTES_TIMEOUT,
    SLOW,
    SOURCE,
    START_TIMEOUT,
    AgentHost,
    AuthHost,
    Network,
    ProxyHost,
    binary,
)
from process import wait_for

__all__ = [
    "BUILD",
    "CLUSTER_NAME",
    "ROUTES_TIMEOUT",
    "SLOW",
    "SOURCE",
    "Cluster",
]

LIVE = []  # clusters not yet closed, for conftest.py's report


class Cluster:
    """Hosts are made at once, joined and started by start() or one by one."""

    def __init__(
        self,
        proxies=1,
        agents=(),
        workers=1,
        strategy="proxy_peering",
        count=1,
        services=None,
        agents_join=None,
        users=None,
        storage=None,
        auths=1,
    ):
        self.dir = Path(tempfile.mkdtemp(prefix="pw-"))
        self.dir.chmod(0o755)
        self.strategy = strategy
        self.network = Network()
        self.extra = []  # services that end with the cluster
        self.proxies = []
        self.agents = []
        self._users = {}
        self._identities = {}
        self._services = services or []
        self._daemon_users = users or {}
        self._workers = workers
        self._agents_join = agents_join
        self.auths = [
            AuthHost(
                self,
                "auth" if auths == 1 else f"auth{number}",
                self.network.address(number),
                strategy,
                count,
                storage or {"type": "sqlite"},
                users=users,
            )
            for number in range(1, auths + 1)
        ]
        self.auth = self.auths[0]
        LIVE.append(self)
        for _ in range(proxies):
            self.add_proxy()
        for name in agents:
            self.add_agent(name)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    # Hosts

    def add_proxy(self, workers=None):
        number = len(self.proxies) + 1
        host = ProxyHost(
            self,
            f"proxy{number}",
            self.network.address(10 + number),
            workers or self._workers,
            users=self._daemon_users,
        )
        self.proxies.append(host)
        return host

    def add_agent(self, name, proxies=None, services=None):
        """proxies: addresses to join through; by default the first proxy's."""
        join = proxies or self._agents_join or [self.proxies[0].listen_addr]
        host = AgentHost(
            self,
            name,
            self.network.address(100 + len(self.agents)),
            join,
            self._services if services is None else services,
            users=self._daemon_users,
        )
        self.agents.append(host)
        return host

    def hosts(self):
        return [*self.auths, *self.proxies, *self.agents]

    def daemons(self):
        return [daemon for host in self.hosts() for daemon in host.daemons]

    def start(self):
        """Starts all hosts and waits until every route is known everywhere."""
        self.start_auth()
        for proxy in self.proxies:
            proxy.join()
            proxy.start()
        for proxy in self.proxies:
            proxy.wait_ready()
        self.wait_peers()
        for agent in self.agents:
            agent.join()
            agent.start()
        self.wait_agents()
        return self

    def start_auth(self):
        """The first alone: it makes what the others share."""
        self.auth.start().wait_ready()
        for auth in self.auths[1:]:
            auth.ca_key.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(self.auth.ca_key, auth.ca_key)
            auth.start()
        for auth in self.auths[1:]:
            auth.wait_ready()
        self.pin = self.auth.authd.ask("ca")["pin"]
        return self

    def start_routeds(self):
        """Of proxy hosts that have nothing else."""
        for host in self.proxies:
            host.join()
            host.routed.start()
        for host in self.proxies:
            host.routed.wait_ready()

    def wait_peers(self, timeout=START_TIMEOUT):
        """Until every proxy's peerd has a connection to every other; in
        agent_mesh there are none."""
        if self.strategy != "proxy_peering":
            return
        ids = {proxy.uuid for proxy in self.proxies}
        for proxy in self.proxies:
            wait_for(
                lambda: ids - {proxy.uuid} <= proxy.ready_peers(),
                timeout,
                f"{proxy.name} has its peers",
            )

    def wait_agents(self, timeout=START_TIMEOUT, holders=None):
        """Until all running proxies know all running agents; with holders,
        until each agent is held by exactly so many proxies."""
        names = {a.name for a in self.agents if a.agent.running()}

        def known(proxy):
            seen = proxy.agents()
            return all(
                seen.get(name)
                and (holders is None or len(seen[name]) == holders)
                for name in names
            )

        for proxy in self.proxies:
            if proxy.routed.running():
                wait_for(
                    lambda: known(proxy),
                    timeout,
                    f"{proxy.name} knows the agents {sorted(names)}",
                )

    def holder(self, agent):
        """The only proxy host with a tunnel of the agent of that name."""
        found = [p for p in self.proxies if agent in p.tunnel_names()]
        assert len(found) == 1, f"{agent} is held by {found}"
        return found[0]

    def others(self, proxy):
        return [other for other in self.proxies if other is not proxy]

    # What peerctl gives

    def peerctl(self, *args, host=None, **kwargs):
        """Runs peerctl as on host (the auth host by default); gives stdout."""
        result = self.peerctl_run(*args, host=host, **kwargs)
        assert result.returncode == 0, f"peerctl {args}: {result.stderr}"
        return result.stdout

    def peerctl_run(self, *args, host=None, timeout=30, **kwargs):
        config = (host or self.auth).config_path
        return subprocess.run(
            [binary("peerctl"), "-c", config, *args],
            text=True,
            capture_output=True,
            stdin=subprocess.DEVNULL,
            timeout=timeout,
            check=False,
            **kwargs,
        )

    def token(self, role, names=(), ttl="1h"):
        args = ["token", "add", "--role", role, "--ttl", ttl]
        for name in names:
            args += ["--name", name]
        answer = self.peerctl(*args, "--format", "json")
        return json.loads(answer)["token"]

    def identity(self, user="alice", groups=()):
        """Certificate files of a user, issued when first asked for."""
        if user not in self._identities:
            out = self.dir / f"user-{user}"
            args = ["identity", "issue", user, "--out", out]
            for group in groups:
                args += ["--group", group]
            self.peerctl(*args)
            self._identities[user] = connect.Identity(
                out / "cert.pem", out / "key.pem", out / "host_ca.pem"
            )
        return self._identities[user]

    def connect_argv(self, addr, target, user="alice"):
        """peerctl connect to target through the proxy at addr."""
        directory = self.identity(user).cert.parent
        return [str(binary("peerctl")), "connect", "--proxy", addr,
                "--identity", str(directory), target]

    def proxy_command(self, proxy):
        """The same as OpenSSH's ProxyCommand."""
        return " ".join(self.connect_argv(proxy.listen_addr, "%h:%p"))

    # The end

    def add_service(self, service):
        """service.close() is called with the cluster's own end."""
        self.extra.append(service)
        return service

    def complaints(self):
        """Daemons that ended by themselves, and sanitizers' findings."""
        found = []
        for daemon in self.daemons():
            if not daemon.expected_end and not daemon.running():
                status = daemon.popen.returncode
                found.append(f"{daemon.name} ended by itself: {status}")
            text = daemon.log_text(whole=True)
            for sign in ("ERROR: AddressSanitizer", "runtime error:",
                         "ERROR: LeakSanitizer"):
                if sign in text:
                    found.append(f"{daemon.name}: {sign} (see its log)")
        return found

    def logs(self, lines=40):
        """(title, tail) of each process's log."""
        extra = [s.process for s in self.extra if hasattr(s, "process")]
        return [(p.name, p.tail(lines)) for p in self.daemons() + extra]

    def close(self):
        if self not in LIVE:
            return
        LIVE.remove(self)
        try:
            for host in reversed(self.hosts()):
                for daemon in host.daemons:
                    if daemon.running():
                        daemon.expected_end = True
                        daemon.popen.terminate()
            for host in reversed(self.hosts()):
                for daemon in reversed(host.daemons):
                    daemon.stop()
        finally:
            for daemon in self.daemons():
                daemon.kill_group()
            for service in reversed(self.extra):
                service.close()
            self.network.close()
            if os.environ.get("PEERWAY_TEST_KEEP"):
                print(f"kept {self.dir}")
            else:
                shutil.rmtree(self.dir, ignore_errors=True)
