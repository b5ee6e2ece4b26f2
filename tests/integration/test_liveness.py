# SPDX-License-Identifier: Apache-2.0
"""A tunnel whose other end has fallen silent is found out by PINGs within
keep_alive_interval times keep_alive_count_max, at both ends, though TCP itself
would say nothing for many minutes."""

import os
import signal
import time

import pytest

import connect
import suite
from process import wait_for
from traffic import check_route

INTERVAL, COUNT = 1, 2


@pytest.fixture
def fleet(make_cluster, echo):
    cluster = make_cluster(
        proxies=2, agents=["node-1"], services=echo.services()
    )
    cluster.auth.write_config(
        {"auth_service": {"keep_alive_interval": f"{INTERVAL}s",
                          "keep_alive_count_max": COUNT}}
    )
    return cluster.start()


def frozen(pids):
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)


def thawed(pids):
    for pid in pids:
        os.kill(pid, signal.SIGCONT)


def test_a_frozen_agent_loses_its_tunnel(fleet):
    holder = fleet.holder("node-1")
    other = fleet.others(holder)[0]
    agent = fleet.agents[0].agent
    stream = holder.dial("echo.node-1")
    pids = agent.pids()
    frozen(pids)
    try:
        start = time.monotonic()
        wait_for(
            lambda: holder.tunnel_names() == [], 15, "the tunnel is withdrawn"
        )
        took = time.monotonic() - start
        assert took < (INTERVAL * (COUNT + 2) + 1) * suite.SLOW
        assert stream.ended(5), "its stream was left hanging"
        for proxy in (holder, other):
            wait_for(
                lambda: not proxy.agents().get("node-1"), 5, "its record goes"
            )
            with pytest.raises(connect.Refused) as caught:
                proxy.dial("echo.node-1")
            assert caught.value.status in (404, 503)
    finally:
        thawed(pids)
    wait_for(
        lambda: holder.tunnel_names() + other.tunnel_names() == ["node-1"],
        suite.START_TIMEOUT,
        "the agent is back",
    )
    fleet.wait_agents(holders=1)
    now = fleet.holder("node-1")
    check_route(now, "node-1", "local")
    check_route(fleet.others(now)[0], "node-1", "peer")


def test_an_agent_leaves_a_frozen_host(fleet):
    """The whole host is silent, as behind a dead link: its lease ends too."""
    holder = fleet.holder("node-1")
    other = fleet.others(holder)[0]
    pids = [pid for daemon in holder.daemons for pid in daemon.pids()]
    frozen(pids)
    try:
        wait_for(
            lambda: other.tunnel_names() == ["node-1"],
            suite.START_TIMEOUT,
            "the agent has gone to the other proxy",
        )
        check_route(other, "node-1", "local")
        wait_for(
            lambda: other.agents().get("node-1") == {other.uuid},
            suite.START_TIMEOUT,
            "the dead host's records are gone",
        )
    finally:
        thawed(pids)
    wait_for(
        lambda: holder.tunnel_names() == []
        and other.agents().get("node-1") == {other.uuid},
        suite.START_TIMEOUT,
        "one tunnel is left",
    )
    wait_for(
        lambda: holder.agents().get("node-1") == {other.uuid},
        suite.START_TIMEOUT,
        "the thawed host knows it",
    )
    fleet.wait_peers()
    check_route(holder, "node-1", "peer")
