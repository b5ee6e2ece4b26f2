# SPDX-License-Identifier: Apache-2.0
"""Draining a proxy host loses no dial: agents have their new tunnel, known to
all, before they give up the old one. Sessions run to their end or to
drain_timeout."""

import json
import os
import signal
import subprocess
import threading

import pytest

from hosts import SLOW, START_TIMEOUT
from process import wait_for
from suite import binary
from traffic import Beat, Dialer, check_route, echo_once

RATE = 50 / SLOW


@pytest.fixture
def fleet(make_cluster, echo):
    """Three proxies, one tunnel an agent, plenty of time to drain."""

    def make(drain_timeout="60s", **kwargs):
        cluster = make_cluster(
            proxies=3, agents=["db-1", "db-2"], services=echo.services(),
            **kwargs
        )
        for proxy in cluster.proxies:
            proxy.config["proxy_service"]["drain_timeout"] = drain_timeout
        return cluster.start()

    return make


def wait_elsewhere(cluster, holder, agents=("db-1", "db-2")):
    """Until no proxy knows a tunnel of the agents at holder, and each is
    somewhere."""

    def elsewhere(proxy):
        seen = proxy.agents()
        return all(
            seen.get(a) and holder.uuid not in seen[a] for a in agents
        )

    for proxy in cluster.proxies:
        if proxy.routed.running():
            wait_for(
                lambda: elsewhere(proxy),
                START_TIMEOUT,
                f"{proxy.name} knows the agents elsewhere",
            )


def peer_state(proxy, other):
    for peer in proxy.peerd.status()["peers"]:
        if peer["id"] == other.uuid:
            return peer["state"]
    return None


def test_no_dial_fails_while_a_host_drains_and_stops(fleet):
    cluster = fleet()
    holder = cluster.holder("db-1")
    others = cluster.others(holder)
    beat = Beat("session", others[0].dial("echo.db-1"))
    dialer = Dialer(others, ["echo.db-1", "echo.db-2"], RATE)
    dialer.wait_more(20)

    answer = cluster.peerctl("drain", host=holder)
    assert "draining: " in answer
    status, text = holder.proxy.http("/readyz")
    assert status == 503 and text.startswith("draining: tunnels="), text
    assert holder.proxy.metric("peerway_proxy_draining") == 1
    for other in others:
        wait_for(
            lambda: peer_state(other, holder) == "draining",
            START_TIMEOUT,
            f"{other.name} sees the drain",
        )
        assert "draining" in cluster.peerctl("status", host=other)
    wait_elsewhere(cluster, holder)

    # What was in flight goes on, and is counted.
    beat.check_alive()
    assert holder.proxy.status()["sessions"] == 1
    shown = cluster.peerctl("status", host=holder)
    assert "! this host drains: 0 tunnels, 1 sessions, " in shown
    dialer.wait_more(50)
    beat.stop()
    waited = cluster.peerctl("drain", "--wait", host=holder)
    assert "draining: 0 tunnels, 0 sessions, 0 clients" in waited
    answer = json.loads(
        cluster.peerctl("drain", "--wait", "--format", "json", host=holder)
    )
    assert answer["draining"] and answer["tunnels"] == 0

    holder.stop()
    dialer.wait_more(50)
    dialer.check()
    assert set(dialer.routes) <= {"local", "peer"}


def watch_readyz(proxy, seen):
    """What /readyz says until nobody answers any more."""
    while True:
        try:
            text = proxy.proxy.http("/readyz")[1]
        except OSError:
            return
        if text not in seen:
            seen.append(text)


def test_a_second_sigterm_ends_it_at_once(fleet):
    cluster = fleet()
    holder = cluster.holder("db-1")
    beat = Beat("session", cluster.others(holder)[0].dial("echo.db-1"))
    beat.check_alive()
    mark = holder.proxy.log_mark()
    for _ in range(2):
        holder.proxy.send_signal(signal.SIGTERM)
        holder.proxy.wait_log("stopping", mark=mark)
        mark = holder.proxy.log_mark()
    holder.proxy.expected_end = True
    assert holder.proxy.popen.wait(10 * SLOW) == 0
    beat.wait_ended(10 * SLOW)


def test_no_dial_fails_while_all_members_of_a_host_get_sigterm(fleet):
    cluster = fleet()
    holder = cluster.holder("db-1")
    others = cluster.others(holder)
    dialer = Dialer(others, ["echo.db-1", "echo.db-2"], RATE)
    dialer.wait_more(20)
    seen = []
    watch = threading.Thread(target=watch_readyz, args=(holder, seen))
    watch.start()
    holder.stop()
    watch.join()
    assert any(text.startswith("draining: tunnels=") for text in seen), seen
    dialer.wait_more(50)
    dialer.check()
    # It went because its agents had another way, not because time was over.
    assert holder.proxy.log_matches(r"drained: .*left_ms=[1-9]")
    assert not holder.proxy.log_matches("drain_timeout is over")
    for name in ("db-1", "db-2"):
        assert holder.uuid not in others[0].agents()[name]


def test_undrain_at_any_time(fleet):
    cluster = fleet()
    holder = cluster.holder("db-1")
    cluster.peerctl("drain", host=holder)
    assert cluster.peerctl("undrain", host=holder) == "serving\n"
    assert holder.proxy.is_ready()
    assert holder.proxy.metric("peerway_proxy_draining") == 0
    cluster.peerctl("drain", host=holder)
    wait_elsewhere(cluster, holder)
    cluster.peerctl("undrain", host=holder)
    assert holder.proxy.is_ready()
    for other in cluster.others(holder):
        wait_for(
            lambda: peer_state(other, holder) == "ready",
            START_TIMEOUT,
            f"{other.name} sees the end of the drain",
        )
    # It is one to go to again.
    now = cluster.holder("db-1")
    for proxy in cluster.others(holder):
        cluster.peerctl("drain", host=proxy)
    wait_elsewhere(cluster, now)
    assert holder.tunnel_names() == ["db-1", "db-2"]
    check_route(holder, "db-1", "local")


def test_what_is_left_at_drain_timeout_is_cut(fleet):
    cluster = fleet(drain_timeout=f"{3 * SLOW:.0f}s")
    holder = cluster.holder("db-1")
    other = cluster.others(holder)[0]
    beat = Beat("session", other.dial("echo.db-1"))
    beat.check_alive()
    waiting = subprocess.Popen(
        [binary("peerctl"), "-c", holder.config_path, "drain", "--wait"],
        stdout=subprocess.PIPE, text=True,
    )
    beat.wait_ended(10 * SLOW)
    out, _ = waiting.communicate(timeout=20 * SLOW)
    assert waiting.returncode == 0, out
    assert "1 sessions" in out
    assert holder.proxy.log_matches("drain_timeout is over")
    wait_elsewhere(cluster, holder)
    with other.dial("echo.db-1") as connection:
        echo_once(connection)


def test_nobody_leaves_before_the_new_route_is_published(fleet):
    """With authd away the others cannot learn of new tunnels, so the old ones
    go on serving, and undrain finds everything as it was."""
    cluster = fleet()
    holder = cluster.holder("db-1")
    cluster.peerctl("drain", host=holder)
    wait_elsewhere(cluster, holder)
    now = cluster.holder("db-1")
    dialer = Dialer(cluster.others(now), ["echo.db-1"], RATE)
    cluster.auth.kill()
    cluster.peerctl("drain", host=now)
    dialer.wait_more(int(5 * RATE))  # agents leave after a second at most
    assert "db-1" in now.tunnel_names()
    cluster.peerctl("undrain", host=now)
    dialer.check()


def test_a_worker_that_starts_meanwhile_drains_too(fleet):
    cluster = fleet()
    holder = cluster.holder("db-1")
    cluster.peerctl("drain", host=holder)
    wait_elsewhere(cluster, holder)
    mark = holder.proxy.log_mark()
    os.kill(holder.worker_pids()[0], signal.SIGKILL)
    holder.proxy.wait_log("worker is up: worker=0", mark=mark)
    holder.proxy.wait_log(r"draining: tunnels=0", mark=mark)
    assert holder.proxy.http("/readyz")[0] == 503
    for other in cluster.others(holder):
        assert peer_state(other, holder) == "draining"


def test_the_last_proxy_of_a_fleet_stops_without_waiting(make_cluster, echo):
    cluster = make_cluster(
        proxies=1, agents=["db-1"], services=echo.services()
    )
    proxy = cluster.proxies[0]
    proxy.config["proxy_service"]["drain_timeout"] = "1h"
    cluster.start()
    proxy.stop()  # has a deadline of its own
    assert not proxy.proxy.log_matches("drain_timeout is over")


def test_who_is_stopped_alone_does_not_wait_for_the_workers(fleet):
    """routed or peerd started anew, long before drain_timeout: the workers that
    stay have no end to wait for, and what they carry goes on."""
    cluster = fleet(drain_timeout="10m")
    holder = cluster.holder("db-1")
    with holder.dial("echo.db-1") as connection:
        assert connection.route == "local"
        for daemon in (holder.routed, holder.peerd):
            assert daemon.stop(timeout=15 * SLOW) == 0
            daemon.start().wait_ready()
        connection.sendall(b"hello")
        assert connection.recv_exactly(5) == b"hello"
    cluster.wait_agents()
    cluster.wait_peers()
    check_route(cluster.others(holder)[0], "db-1", "peer")
