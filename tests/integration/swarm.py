# SPDX-License-Identifier: Apache-2.0
"""Many agents as one program (tests/tools/swarm): each with a certificate and
connections of its own. They stand for as many machines, so they run at a low
priority. The program ends with its input, so also with the test."""

import json
import shutil
import sqlite3
import subprocess
from pathlib import Path

from hosts import BUILD, CLUSTER_NAME, START_TIMEOUT
from process import wait_for


class Swarm:
    """count agents, named <prefix><number>, each with a service "echo" at
    service ("host:port"), which begin at proxies (addresses)."""

    def __init__(self, cluster, service, count, proxies=None, prefix="s",
                 processes=2, nice=10, region=None, zone=None, first=0):
        self.names = [f"{prefix}{first + n}" for n in range(count)]
        self.uuids = [
            f"5aa7{ord(prefix[0]):04x}-0000-4000-8000-{first + n:012x}"
            for n in range(count)
        ]
        self.count = count
        cert, key = self._ca(cluster)
        argv = [
            BUILD / "tests/tools/swarm",
            "--cluster", CLUSTER_NAME, "--ca", cert, "--ca-key", key,
            "--service", service, "--count", str(count),
            "--first", str(first), "--prefix", prefix,
            "--processes", str(min(processes, count)), "--nice", str(nice),
            "--log", "error",
        ]
        for proxy in proxies or [cluster.proxies[0].listen_addr]:
            argv += ["--proxy", proxy]
        if region:
            argv += ["--region", region]
        if zone:
            argv += ["--zone", zone]
        self._log = open(cluster.dir / f"swarm-{prefix}{first}.log", "wb")
        self._process = subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=self._log, text=True, start_new_session=True,
        )
        # Where the kernel groups processes by session, a nice value counts
        # within a session only: the session's own is here (sched(7)).
        group = Path(f"/proc/{self._process.pid}/autogroup")
        if group.exists():
            group.write_text(str(nice))

    @staticmethod
    def _ca(cluster):
        """The host CA's files; no command gives the key away, so it is taken
        from a copy of authd's store, which is locked."""
        paths = []
        store = next(cluster.auth.data_dir.glob("**/*.db"))
        copy = cluster.dir / "swarm-store"
        copy.mkdir(exist_ok=True)
        for part in store.parent.glob(store.name + "*"):
            if not part.name.endswith("-shm"):
                shutil.copy(part, copy)
        with sqlite3.connect(copy / store.name) as db:
            for part in ("cert", "key"):
                row = db.execute(
                    "select value from kv where key = ?",
                    (f"secret/ca/host/{part}",),
                ).fetchone()
                path = cluster.dir / f"swarm-ca-{part}.pem"
                path.write_bytes(row[0])
                paths.append(path)
        return paths

    def counts(self):
        """agents, ready (with a tunnel), tunnels; opened, failed, busy since
        the start."""
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def wait_ready(self, timeout=START_TIMEOUT, count=None):
        """Until all (or so many) have a tunnel."""
        count = self.count if count is None else count
        wait_for(
            lambda: self.counts()["ready"] >= count,
            timeout,
            f"{count} agents have a tunnel",
        )
        return self

    def close(self):
        if self._process.stdin.closed:
            return
        self._process.stdin.close()
        try:
            status = self._process.wait(60)
        except subprocess.TimeoutExpired:
            self._process.kill()
            raise
        finally:
            self._process.stdout.close()
            self._log.close()
        assert status == 0, f"swarm ended with {status}"

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def spread(proxies):
    """How many tunnels each proxy holds, as its own host says."""
    return [int(p.proxy.metric("peerway_proxy_tunnels")) for p in proxies]


def known(proxy, swarm):
    """How many agents of the swarm this proxy's cache knows."""
    wanted = set(swarm.names)
    return sum(name in wanted for name in proxy.agents())
