# SPDX-License-Identifier: Apache-2.0
"""A proxy host that dies takes nobody with it for long: its agents are back
elsewhere within seconds, its routes leave every cache in one step, and with two
tunnels an agent nobody notices."""

import time

import pytest

from hosts import SLOW, START_TIMEOUT
from loss import lose_a_host, percentile
from netns import Cable
from process import wait_for
from swarm import Swarm, known
from traffic import Dialer, check_route

AGENTS = 300 if SLOW < 4 else 60


def test_a_host_with_hundreds_of_agents_is_lost(make_cluster, echo):
    cluster = make_cluster(proxies=3, services=echo.services()).start()
    addrs = [p.listen_addr for p in cluster.proxies]
    service = f"127.0.0.1:{echo.echo_port}"
    with Swarm(cluster, service, AGENTS, proxies=addrs) as swarm:
        swarm.wait_ready(60 * SLOW)
        wait_for(
            lambda: all(known(p, swarm) == AGENTS for p in cluster.proxies),
            60 * SLOW,
            "all routes are known",
        )
        watch, recovery = lose_a_host(cluster, swarm, 30, 30 * SLOW)
        assert watch.is_complete()
        # tests/bench/bench_loss.py has the figures for 1,000
        for times in (watch.times, recovery.times):
            assert percentile(times.values(), 99) < 6 * SLOW
        survivors = cluster.proxies[1:]
        for proxy in survivors:
            took, counts = watch.forgotten(proxy)
            assert len(counts) == 2 and counts[1] == 0, (
                f"its routes left {proxy.name} in steps: {counts}"
            )
            assert took < 7 * SLOW  # lease_ttl, 5 s
        check_gone(cluster, cluster.proxies[0], survivors)


def check_gone(cluster, dead, others):
    """No view has the dead host any more."""
    for proxy in others:
        wait_for(
            lambda: dead.uuid not in cluster.peerctl("status", host=proxy),
            10 * SLOW,
            f"{proxy.name} no longer shows the dead host",
        )
        assert dead.uuid not in {
            p["id"] for p in proxy.routed.ask("proxies")["proxies"]
        }
        for holders in proxy.agents().values():
            assert dead.uuid not in holders
        assert dead.uuid not in proxy.find()


@pytest.fixture
def four(make_cluster, echo):
    cluster = make_cluster(
        proxies=4, agents=["db-1"], count=2, services=echo.services()
    )
    cluster.start()
    cluster.wait_agents(holders=2)
    return cluster


def holders(cluster, name):
    return [p for p in cluster.proxies
            if p.peerd.running() and name in p.tunnel_names()]


def test_with_two_tunnels_no_dial_fails_when_a_holder_dies(four):
    first, second = holders(four, "db-1")
    others = four.others(first)
    dialer = Dialer(others, ["echo.db-1"], 50 / SLOW)
    dialer.wait_more(50)
    first.kill()
    killed = time.monotonic()
    wait_for(
        lambda: len(holders(four, "db-1")) == 2,
        5 * SLOW,
        "the missing tunnel is back elsewhere",
    )
    assert time.monotonic() - killed < 5 * SLOW
    dialer.wait_more(int(350 / SLOW))  # past the end of the lease
    dialer.check()
    check_gone(four, first, others)
    assert second in holders(four, "db-1")


def test_a_count_above_the_number_of_proxies_means_all(make_cluster, echo):
    cluster = make_cluster(
        proxies=2, agents=["db-1"], count=7, services=echo.services()
    ).start()
    cluster.wait_agents(holders=2)
    agent = cluster.agents[0].agent
    mark = agent.log_mark()
    before = agent.metric("peerway_agent_connect_failures_total")
    time.sleep(3)  # an agent that wants more would try by then
    assert agent.metric("peerway_agent_connect_failures_total") == before
    assert not agent.log_matches(" (warn|error) ", mark)


@pytest.mark.parametrize("strategy, count", [("agent_mesh", 1),
                                             ("proxy_peering", 2)])
def test_a_host_that_comes_back_is_used_within_5_s(
    make_cluster, echo, strategy, count
):
    cluster = make_cluster(
        proxies=2, agents=["db-1"], strategy=strategy, count=count,
        services=echo.services(),
    ).start()
    cluster.wait_agents(holders=2)
    lost, kept = cluster.proxies
    lost.kill()
    wait_for(
        lambda: kept.agents().get("db-1") == {kept.uuid},
        START_TIMEOUT,
        "the dead host is forgotten",
    )
    lost.start()
    lost.wait_ready()
    ready = time.monotonic()
    wait_for(
        lambda: lost.tunnel_names() == ["db-1"], 5 * SLOW, "it is used again"
    )
    assert time.monotonic() - ready < 5 * SLOW
    check_route(lost, "db-1", "local")


def test_a_blackholed_tunnel_is_found_by_both_ends(make_cluster, echo):
    """Default settings; packets vanish, and nobody is told."""
    cable = Cable()
    try:
        with cable.left:
            cluster = make_cluster(proxies=1)
            proxy = cluster.proxies[0]
            port = proxy.listen_addr.rpartition(":")[2]
            proxy.listen_addr = f"{cable.left.address}:{port}"
            proxy.config["proxy_service"].update(
                listen_addr=proxy.listen_addr, public_addr=[proxy.listen_addr]
            )
            agent = cluster.add_agent("node-1", services=echo.services())
            cluster.start_auth()
            proxy.join()
            proxy.start().wait_ready()
            agent.join()
            with cable.right:
                agent.start()
            wait_for(
                lambda: proxy.tunnel_names() == ["node-1"],
                START_TIMEOUT,
                "the tunnel is up",
            )
            cable.left.drop()
            cut = time.monotonic()
            agent.agent.wait_log("tunnel ended: ", timeout=60 * SLOW)
            proxy.proxy.wait_log("tunnel down: ", timeout=60 * SLOW)
            assert time.monotonic() - cut < 45 * SLOW
            assert proxy.tunnel_names() == []
            cable.left.deliver()
            wait_for(
                lambda: proxy.tunnel_names() == ["node-1"],
                15 * SLOW,
                "the tunnel is back",
            )
            agent.agent.stop()
    finally:
        cable.close()
