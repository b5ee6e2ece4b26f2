# SPDX-License-Identifier: Apache-2.0
"""An agent is small: with one idle tunnel less than 2 MiB of memory of its own
and less than 9 MiB resident in all, also after it has carried connections."""

import pytest

import services
import suite
from process import wait_for
from traffic import check_route

KIB = 1024
ANON_MAX = 2 * KIB * KIB
RESIDENT_MAX = 9 * KIB * KIB

pytestmark = pytest.mark.skipif(
    suite.SLOW > 1,
    reason="sanitizers and valgrind have a memory of their own",
)


def memory(pid):
    """(anonymous, resident) bytes of a process."""
    with open(f"/proc/{pid}/status", encoding="ascii") as status:
        fields = dict(line.split(":", 1) for line in status)
    return tuple(
        int(fields[name].split()[0]) * KIB for name in ("RssAnon", "VmRSS")
    )


def check_small(pid, when):
    """What start-up and handshakes used is given back within seconds."""

    def small():
        anon, resident = memory(pid)
        return anon < ANON_MAX and resident < RESIDENT_MAX

    try:
        wait_for(small, 45, "the agent is small")
    finally:
        anon, resident = memory(pid)
        print(f"{when}: RssAnon {anon // KIB} KiB, VmRSS {resident // KIB} KiB")


def test_one_idle_tunnel(make_cluster, echo):
    cluster = make_cluster(
        proxies=2, agents=["node-1"], services=echo.services()
    ).start()
    cluster.wait_agents(holders=1)
    agent = cluster.agents[0].agent
    (pid,) = agent.pids()
    assert agent.metric("peerway_agent_tunnels") == 1
    check_small(pid, "joined, one idle tunnel")

    holder = cluster.holder("node-1")
    check_route(holder, "node-1", "local")
    wait_for(
        lambda: agent.metric("peerway_agent_streams") == 0,
        10,
        "the connection has ended",
    )
    check_small(pid, "after a connection")

    mib = 1 << 20
    with services.Load(holder, "pump.node-1", 16, 4 * mib, 4 * mib, 60) as load:
        assert all(result["ok"] for result in load.results())
    wait_for(
        lambda: agent.metric("peerway_agent_streams") == 0,
        10,
        "the connections have ended",
    )
    check_small(pid, "after 128 MiB on 16 connections")

    agent.restart()
    cluster.wait_agents(holders=1)
    (pid,) = agent.pids()
    check_small(pid, "started again")
