# SPDX-License-Identifier: Apache-2.0
"""Tunnels without agents: tests/tools/workers plays a worker of each host to its
routed. From routed on everything is real."""

import json
import subprocess

from hosts import BUILD, SLOW
from process import wait_for


class Workers:
    """tunnels for each of hosts (whose routed runs). Of the changes that it
    makes, one in watch is looked for in every cache."""

    def __init__(self, hosts, tunnels, watch=1):
        self.hosts = hosts
        self.tunnels = tunnels
        sockets = [host.run_dir / "routed.sock" for host in hosts]
        self._process = subprocess.Popen(
            [BUILD / "tests/tools/workers", "--tunnels", str(tunnels),
             "--watch", str(watch), *sockets],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            start_new_session=True,
        )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    @property
    def pid(self):
        return self._process.pid

    def _say(self, line):
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def counts(self):
        """links, tunnels that are up, commits announced, unseen changes."""
        return self._say("counts")

    def flow(self, rate):
        """So many changes a second from now on."""
        self._say(f"flow {rate}")

    def result(self, timeout=30):
        """Of the changes since the last one, when all have arrived: milliseconds
        until each cache had one (each_ms), and until all had it (all_ms)."""
        self.flow(0)
        wait_for(
            lambda: self.counts()["unseen"] == 0,
            timeout * SLOW,
            "all changes have arrived everywhere",
        )
        return self._say("result")

    def wait_published(self, timeout=30):
        """Until authd has all tunnels and every cache what authd has."""
        wait_for(
            lambda: self.counts()["links"] == len(self.hosts),
            10 * SLOW,
            "all routeds have a worker",
        )
        wait_for(
            lambda: all(map(self._is_published, self.hosts)),
            timeout * SLOW,
            "all tunnels are published",
            interval=0.2,
        )
        wait_for(
            lambda: is_mirrored(self.hosts), timeout * SLOW,
            "all caches are up to date",
        )

    def _is_published(self, host):
        metrics = host.routed.metrics()
        return (
            metrics["peerway_routed_tunnels_published"]
            and metrics["peerway_routed_tunnels_pending"] == 0
        )

    def close(self):
        if self._process.stdin.closed:
            return
        self._process.stdin.close()
        try:
            status = self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            raise
        finally:
            self._process.stdout.close()
        assert status == 0, f"workers ended with {status}"


def revision(cluster):
    """Of authd's store."""
    return cluster.auth.authd.metric("peerway_authd_store_revision")


def is_mirrored(hosts):
    """Whether every cache has got as far as authd's store has now. (The last
    revisions may be of secrets; authd tells so only every 5 s.)"""
    wanted = revision(hosts[0].cluster)
    return all(
        host.routed.metric("peerway_routed_cache_revision") >= wanted
        for host in hosts
    )
