# SPDX-License-Identifier: Apache-2.0
"""The strategy of a running fleet changes by the guide in docs/operations.md,
step by step, and nobody notices: a client that dials every agent through every
ready proxy in turn sees no failed dial, and sessions through proxies that are
not being restarted go on."""

import re
import subprocess

import pytest

from hosts import SLOW, SOURCE, START_TIMEOUT
from process import wait_for
from suite import binary
from traffic import Beat, Dialer, check_route

AGENTS = ["db-1", "db-2", "db-3"]
TARGETS = [f"echo.{name}" for name in AGENTS]
MESH = {"type": "agent_mesh"}


def peering(count):
    return {"type": "proxy_peering", "agent_connection_count": count}


@pytest.fixture
def fleet(make_cluster, echo):
    def make(strategy, count=1, proxies=3):
        cluster = make_cluster(
            proxies=proxies, agents=AGENTS, strategy=strategy, count=count,
            services=echo.services(),
        )
        for proxy in cluster.proxies:
            proxy.config["proxy_service"]["drain_timeout"] = "30s"
        cluster.start()
        holders = len(cluster.proxies) if strategy == "agent_mesh" else count
        cluster.wait_agents(holders=holders)
        return cluster

    return make


def local_sessions(cluster, without):
    """A session through each proxy but one, for each agent that has a tunnel
    there: what another host's restart must not touch. None where every tunnel
    is on that one."""
    beats = []
    for proxy in cluster.others(without):
        for name in set(AGENTS) & set(proxy.tunnel_names()):
            stream = proxy.dial(f"echo.{name}")
            if stream.route == "local":
                beats.append(Beat(f"{proxy.name} {name}", stream))
            else:
                stream.close()
    return beats


def edit_strategy_and_restart_authd(cluster, strategy):
    """Step 1."""
    cluster.auth.config["auth_service"]["tunnel_strategy"] = strategy
    cluster.auth.write_config()
    cluster.auth.authd.restart()
    cluster.auth.wait_ready()


def restart_proxy_host(cluster, proxy, dialer):
    """Step 2, of one host; returns how many sessions elsewhere were seen to
    live through it. What the balancer does with /readyz is the dialer's
    part."""
    sessions = local_sessions(cluster, proxy)
    dialer.leave_out(proxy)
    proxy.stop()
    assert not proxy.proxy.log_matches("drain_timeout is over")
    proxy.start().wait_ready()
    dialer.take_in(proxy)
    for session in sessions:
        session.check_alive()
        session.stop()
    return len(sessions)


def migrate(cluster, strategy, holders):
    dialer = Dialer(cluster.proxies, TARGETS, rate=10)
    dialer.wait_more(20)
    edit_strategy_and_restart_authd(cluster, strategy)
    sessions = sum(
        restart_proxy_host(cluster, proxy, dialer) for proxy in cluster.proxies
    )
    assert sessions
    cluster.wait_agents(holders=holders, timeout=30 * SLOW)
    dialer.wait_more(20)
    dialer.check()
    return dialer.routes


def test_from_mesh_to_peering_and_back(fleet):
    cluster = fleet("agent_mesh")
    cluster.strategy = "proxy_peering"
    routes = migrate(cluster, peering(1), holders=1)
    assert set(routes) == {"local", "peer"}
    cluster.wait_peers()
    for name in AGENTS:
        for proxy in cluster.others(cluster.holder(name)):
            check_route(proxy, name, "peer")
    migrate(cluster, MESH, holders=3)
    for proxy in cluster.proxies:
        for name in AGENTS:
            check_route(proxy, name, "local")


def test_connection_count_up_and_down(fleet):
    cluster = fleet("proxy_peering")
    migrate(cluster, peering(2), holders=2)
    migrate(cluster, peering(1), holders=1)


@pytest.mark.parametrize("timeout", ["1h", "2s"])
def test_a_surplus_tunnel_has_surplus_timeout_for_its_streams(fleet, timeout):
    cluster = fleet("proxy_peering", count=2, proxies=2)
    agent = cluster.agents[0]
    agent.write_config({"agent_service": {"surplus_timeout": timeout}})
    agent.stop()
    agent.start()
    cluster.wait_agents(holders=2)
    name = agent.name
    beats = [
        Beat(proxy.name, proxy.dial(f"echo.{name}")) for proxy in cluster.proxies
    ]
    edit_strategy_and_restart_authd(cluster, peering(1))
    # Only routed is started anew, since tunnels and sessions are to stay.
    for proxy in cluster.proxies:
        proxy.routed.kill()
        proxy.routed.start().wait_ready()
    cluster.wait_agents(holders=1, timeout=30 * SLOW)
    kept = cluster.holder(name)
    lost = next(b for b in beats if b.name != kept.name)
    if timeout == "2s":
        lost.wait_ended(15 * SLOW)
    else:
        lost.check_alive()
        lost.stop()
    next(b for b in beats if b.name == kept.name).stop()


@pytest.mark.parametrize(
    "strategy, line, message",
    [
        ("{type: ring}", 3, 'unknown tunnel strategy: "ring"'),
        ("{agent_connection_count: 2}", 3, "missing type parameter"),
        ("{type: [a]}", 3, "type"),
        ("{type: proxy_peering, agent_connection_count: -1}", 3,
         "agent_connection_count"),
        ("{type: proxy_peering, agent_connection_count: 1001}", 3,
         "agent_connection_count"),
        ("{type: proxy_peering, agent_connection_count: many}", 3,
         "agent_connection_count"),
        ("{type: proxy_peering, connection_count: 2}", 3, "connection_count"),
    ],
)
def test_bad_strategies_are_refused(tmp_path, strategy, line, message):
    path = tmp_path / "peerway.yaml"
    path.write_text(
        "peerway: {cluster_name: example}\n"
        f"auth_service:\n  tunnel_strategy: {strategy}\n"
    )
    result = subprocess.run(
        [binary("authd"), "--check-config", "-c", path],
        capture_output=True, text=True, check=False,
    )
    assert result.returncode == 1
    assert len(result.stderr.splitlines()) == 1
    assert f"{path}:{line}: " in result.stderr and message in result.stderr


def test_no_connections_means_one_as_in_the_reference(tmp_path):
    path = tmp_path / "peerway.yaml"
    path.write_text(
        "peerway: {cluster_name: example}\nauth_service:\n"
        "  tunnel_strategy: {type: proxy_peering, agent_connection_count: 0}\n"
    )
    subprocess.run(
        [binary("authd"), "--check-config", "-c", path], check=True
    )


def test_the_guide_has_the_steps_that_are_tested_here():
    text = (SOURCE / "docs" / "operations.md").read_text()
    guide = text.split("## Changing the tunnel strategy")[1].split("\n## ")[0]
    steps = re.findall(r"^\d\. (.*?)(?=^\d\. |^$)", guide, re.M | re.S)
    assert len(steps) == 2
    assert "auth_service.tunnel_strategy" in steps[0]
    assert "restart authd" in steps[0]
    assert "one host after the other" in steps[1] and "/readyz" in steps[1]
