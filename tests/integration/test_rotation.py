# SPDX-License-Identifier: Apache-2.0
"""CAs are replaced under traffic: start, everything re-issued, finish, without
a lost stream or a failed dial; the same back; who was away hears why."""

import json
import threading

import pytest

from hosts import SLOW, START_TIMEOUT
from process import wait_for
from traffic import Beat

RENEW_TIMEOUT = 60 * SLOW


def rotate(cluster, verb, *args):
    """peerctl ca rotate; its answer."""
    return json.loads(
        cluster.peerctl("ca", "rotate", verb, *args, "--format", "json")
    )


def status(cluster):
    return rotate(cluster, "status")


def all_reissued(cluster):
    host = status(cluster)["host"]
    return host["remaining"] == []


def trusted(proxy):
    """How many host CAs a proxy host's daemons trust."""
    pem = (proxy.data_dir / "identity/current/host_ca.pem").read_text()
    return pem.count("BEGIN CERTIFICATE")


class Dials:
    """Dials through every proxy, one after another, until stop()."""

    def __init__(self, cluster, targets):
        self.failed = []
        self.counts = {proxy.name: 0 for proxy in cluster.proxies}
        self.user = "alice"
        self._cluster = cluster
        self._targets = targets
        self._stopping = threading.Event()
        self._threads = [
            threading.Thread(target=self._run, args=(proxy,), daemon=True)
            for proxy in cluster.proxies
        ]
        for thread in self._threads:
            thread.start()

    def _run(self, proxy):
        while not self._stopping.is_set():
            for target in self._targets:
                try:
                    with proxy.dial(target, self.user) as connection:
                        connection.sendall(b"x" * 100)
                        assert connection.recv_exactly(100) == b"x" * 100
                except Exception as error:
                    self.failed.append((proxy.name, target, repr(error)))
                self.counts[proxy.name] += 1
            self._stopping.wait(0.05)

    def use(self, user):
        """From now on as that user; returns when nobody else dials."""
        self.user = user
        before = dict(self.counts)
        wait_for(
            lambda: all(self.counts[n] > before[n] + 1 for n in before),
            30 * SLOW,
            f"all dial as {user}",
        )

    def stop(self):
        self._stopping.set()
        for thread in self._threads:
            thread.join(30)

    def check(self):
        assert not self.failed, self.failed[:5]


class Traffic:
    """A beat through each proxy to each agent, and dials."""

    def __init__(self, cluster):
        self.beats = []
        targets = [f"echo.{agent.name}" for agent in cluster.agents]
        for proxy in cluster.proxies:
            for target in targets:
                self.beats.append(
                    Beat(f"{proxy.name} to {target}", proxy.dial(target))
                )
        self.dials = Dials(cluster, targets)

    def check(self):
        for beat in self.beats:
            beat.check_alive(rounds=5, timeout=20 * SLOW)
        self.dials.check()

    def stop(self):
        self.check()
        self.dials.stop()
        for beat in self.beats:
            beat.stop()
        self.dials.check()
        assert all(count > 5 for count in self.dials.counts.values())


@pytest.fixture
def fleet(make_cluster, echo):
    cluster = make_cluster(
        proxies=3, agents=["db-1", "db-2"], services=echo.services()
    ).start()
    cluster.identity()
    return cluster


def wait_reissued(cluster):
    wait_for(
        lambda: all_reissued(cluster),
        RENEW_TIMEOUT,
        "all certificates are re-issued",
    )


def wait_trusted(cluster, count):
    for proxy in cluster.proxies:
        wait_for(
            lambda: trusted(proxy) == count,
            START_TIMEOUT,
            f"{proxy.name} trusts {count} CAs",
        )
    for agent in cluster.agents:
        path = agent.data_dir / "agent/host_ca.pem"
        if agent.agent.running():
            wait_for(
                lambda: path.read_text().count("BEGIN CERT") == count,
                START_TIMEOUT,
                f"{agent.name} trusts {count} CAs",
            )


def test_a_rotation_loses_nothing(fleet):
    before = status(fleet)
    assert before["host"]["phase"] == "standby"
    old = before["host"]["active"]["pin"]
    traffic = Traffic(fleet)
    started = rotate(fleet, "start", "--ca", "host")
    assert started["changed"] and started["host"]["phase"] == "rotating"
    assert started["host"]["other"]["pin"] == old
    assert not rotate(fleet, "start", "--ca", "host")["changed"]
    wait_reissued(fleet)
    wait_trusted(fleet, 2)
    now = status(fleet)["host"]
    assert now["proxies"] == {
        "total": 3, "reissued": 3, "online": 3, "online_reissued": 3
    }
    assert now["agents"]["reissued"] == 2
    traffic.check()
    # users of before know only the old CA, and are spoken for
    refused = fleet.peerctl_run("ca", "rotate", "finish", "--ca", "host")
    assert refused.returncode == 1
    assert "know only the host CA that goes, the last until" in refused.stderr
    assert "proxy" not in refused.stderr and "agent" not in refused.stderr
    fleet.identity("bob")
    traffic.dials.use("bob")
    finished = rotate(fleet, "finish", "--ca", "host", "--force")
    assert finished["host"]["phase"] == "standby"
    assert finished["host"]["active"]["pin"] not in ("", old)
    assert finished["host"]["other"] is None
    assert not rotate(fleet, "finish", "--ca", "host")["changed"]
    wait_trusted(fleet, 1)
    fleet.wait_peers()
    traffic.stop()
    for proxy in fleet.proxies:
        assert proxy.routed.status()["last_error"] is None
        assert proxy.peerd.status()["identity"]["last_error"] == ""
