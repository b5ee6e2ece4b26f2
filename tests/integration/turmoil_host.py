# SPDX-License-Identifier: Apache-2.0
"""Real hosts of turmoil.py: a routed with its cache, told of tunnels by a worker
that the test plays; and what is read from the caches meanwhile."""

import socket
import sqlite3
import threading

import ctl
from history import Reading, digest
from test_routed import Worker

READ_EVERY = 0.7
TUNNELS_MOST = 40


class RealHost:
    """relay: the network between its routed and authd."""

    def __init__(self, run, number, host, relay):
        self.run = run
        self.rng = run.rng(f"host {number}")
        self.host = host
        self.relay = relay
        self.agents = self.rng.sample(run.agents, 2 * TUNNELS_MOST)
        self.held = {}  # agent -> tunnel's number
        self.count = 0
        self.worker = None
        self.drain = None

    def play(self):
        self._connect({})
        while not self.run.over.is_set():
            self._attempt(self._change)
            self.run.pause(self.rng.uniform(0.03, 0.25))

    def settle(self):
        """The worker is linked, and authd has all of it."""
        while True:
            self.run.check_patience(f"{self.host.name} settles")
            if self._attempt(self._is_settled):
                return
            self.run.pause(0.1)

    def model(self):
        return {
            f"tunnel/{tunnel.record.agent_id}/{self.host.uuid}": self._value(tunnel)
            for tunnel in self.worker.tunnels.values()
        }

    def _value(self, tunnel):
        """As routed publishes it."""
        record = self.run.authd.record.TunnelRecord()
        record.CopyFrom(tunnel.record)
        record.proxy_id = self.host.uuid
        return digest(record.SerializeToString())

    def close(self):
        """The worker dies."""
        if self.worker:
            try:
                self.worker.link.socket.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            self.drain.join()
            self.worker.close()

    def _attempt(self, act):
        """routed may have been killed: its worker is still there, and says all
        that it holds to the next one."""
        try:
            return act()
        except (ctl.Failed, OSError):
            pass
        tunnels = self.worker.tunnels
        self.close()
        self._connect(tunnels)
        return None

    def _connect(self, tunnels):
        while True:
            self.run.check_patience(f"{self.host.name} has its worker")
            try:
                self.worker = Worker(self.host, tunnels=tunnels).sync()
                break
            except (OSError, AssertionError):
                self.run.pause(0.1)
        self.drain = threading.Thread(
            target=self._drain, args=[self.worker.link.socket], daemon=True
        )
        self.drain.start()

    @staticmethod
    def _drain(link):
        """What routed says to its workers is of no interest here, but read."""
        while True:
            try:
                data = link.recv(1 << 16)
            except socket.timeout:
                continue
            except OSError:
                return
            if not data:
                return

    def _change(self):
        agent = self.rng.choice(self.agents)
        number = self.held.get(agent)
        if self.rng.random() < 0.02:
            self.close()  # and another one begins with nothing
            self.held = {}
            self._connect({})
        elif number and self.rng.random() < 0.5:
            del self.held[agent]
            self.worker.down(number)
        elif number or len(self.held) < TUNNELS_MOST:
            if not number:
                self.count += 1
                number = self.held[agent] = self.count
            try:
                self.worker.up(number, f"agent-{agent[:8]}", agent)
            finally:  # if not to this routed, then to the next one
                value = self._value(self.worker.tunnels[number])
                self.run.history.said[value] = len(self.run.history.said) + 1

    def _is_settled(self):
        if not self.drain.is_alive():
            raise ConnectionError("the routed that the worker knew has gone")
        status = self.host.routed.status()
        if set(self.worker.tunnels) != set(self.held.values()):
            raise AssertionError("the test has lost count of its tunnels")
        return (
            status["auth_state"] == "connected"
            and status["lease"]["state"] == "held"
            and status["tunnels_pending"] == 0
            and status["tunnels_published"] == len(self.held)
        )


def read_cache(host):
    """(revision, state), or None while there is nothing to read."""
    directory = host.data_dir / "cache"
    paths = sorted(directory.glob("cache-*.db")) if directory.exists() else []
    if not paths:
        return None
    db = sqlite3.connect(paths[-1], timeout=5, isolation_level=None)
    try:
        db.execute("PRAGMA query_only = 1")
        db.execute("BEGIN")
        meta = dict(db.execute("SELECT key, value FROM meta"))
        if "revision" not in meta:
            return None
        state = {"config": digest(row[0])
                 for row in db.execute("SELECT record FROM config")}
        for proxy, record in db.execute("SELECT id, record FROM proxy"):
            state[f"proxy/{proxy}"] = digest(record)
        tunnels = db.execute("SELECT agent_id, proxy_id, record FROM tunnel")
        for agent, proxy, record in tunnels:
            state[f"tunnel/{agent}/{proxy}"] = digest(record)
        return int(meta["revision"]), state
    finally:
        db.close()


class CacheReader:
    """Looks into the caches all the while, as proxy and peerd do."""

    def __init__(self, run, hosts):
        self.run = run
        self.hosts = hosts

    def play(self):
        while not self.run.over.wait(READ_EVERY):
            for host in self.hosts:
                self.read(host)

    def read(self, host, last=False):
        begin = self.run.now()
        found = read_cache(host)
        if found:
            self.run.history.readings.append(Reading(
                f"cache of {host.name}", begin, self.run.now(), *found, last))
        return found
