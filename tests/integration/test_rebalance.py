# SPDX-License-Identifier: Apache-2.0
"""Tunnels even out after a proxy was added, and no dial is lost by it. Streams
that an agent carries over its old tunnel go on there."""

import time

import pytest

import services
from hosts import SLOW
from process import wait_for
from swarm import Swarm, known, spread
from traffic import Beat, Dialer

AGENTS = 200 if SLOW < 4 else 40
RATE = 50 / SLOW


@pytest.fixture
def fleet(make_cluster, echo):
    def make(proxies, **rebalance):
        cluster = make_cluster(proxies=proxies, services=echo.services())
        settings = {"threshold": 10, "rate": 20, **rebalance}
        for proxy in cluster.proxies:
            proxy.config["proxy_service"]["rebalance"] = settings
        return cluster

    return make


def add_proxy(cluster):
    proxy = cluster.add_proxy()
    proxy.config["proxy_service"]["rebalance"] = cluster.proxies[0].config[
        "proxy_service"]["rebalance"]
    proxy.join()
    proxy.start().wait_ready()
    return proxy


def wait_even(cluster, tunnels, percent=10):
    """Until every proxy is within so many percent (or 5) of the average, and
    no tunnel too many is left."""
    even = tunnels / len(cluster.proxies)
    slack = max(even * percent / 100, 5)

    def is_even():
        found = spread(cluster.proxies)
        return sum(found) == tunnels and all(
            abs(n - even) <= slack for n in found
        )

    try:
        wait_for(is_even, 90 * SLOW, "tunnels are even")
    except AssertionError as error:
        raise AssertionError(f"{error}: {spread(cluster.proxies)}") from None


def test_added_proxies_get_their_share_and_no_dial_is_lost(fleet, echo):
    cluster = fleet(proxies=2).start()
    service = f"127.0.0.1:{echo.echo_port}"
    with Swarm(cluster, service, AGENTS) as swarm:
        swarm.wait_ready(60 * SLOW)
        wait_for(
            lambda: all(known(p, swarm) == AGENTS for p in cluster.proxies),
            30 * SLOW,
            "all routes are known",
        )
        wait_even(cluster, AGENTS)
        targets = [f"echo.{name}" for name in swarm.names[::4]]
        streams = [
            Beat(name, cluster.proxies[n % 2].dial(f"echo.{name}"))
            for n, name in enumerate(swarm.names[:20])
        ]
        dialer = Dialer(cluster.proxies, targets, RATE)
        add_proxy(cluster)
        add_proxy(cluster)
        wait_even(cluster, AGENTS)
        dialer.check()
        moved = sum(
            p.routed.metric("peerway_routed_moves_asked_total")
            for p in cluster.proxies[:2]
        )
        assert moved >= AGENTS / 4, "nobody was asked to move"
        # Some of these agents have moved, and their streams did not notice.
        for stream in streams:
            stream.check_alive(rounds=2, timeout=30 * SLOW)
        for stream in streams:
            stream.stop()


def test_no_more_than_the_rate_and_none_below_the_threshold(fleet, echo):
    cluster = fleet(proxies=1, rate=2).start()
    service = f"127.0.0.1:{echo.echo_port}"
    with Swarm(cluster, service, 40) as swarm:
        swarm.wait_ready(60 * SLOW)
        old = cluster.proxies[0]
        add_proxy(cluster)
        wait_for(
            lambda: old.routed.status()["rebalancing"], 20 * SLOW, "it begins"
        )
        began = time.monotonic()
        assert "rebalancing auth=" in cluster.peerctl("status", host=old)
        old.routed.wait_log("about as many tunnels as others", 60 * SLOW)
        took = time.monotonic() - began
        # 20 agents at 2 a second, but for what was saved up before
        assert took > 5
        wait_for(
            lambda: spread(cluster.proxies) == [20, 20],
            10 * SLOW,
            "20 tunnels each",
        )


def test_a_proxy_that_drains_is_neither_target_nor_counted(fleet, echo):
    cluster = fleet(proxies=3).start()
    service = f"127.0.0.1:{echo.echo_port}"
    third = cluster.proxies[2]
    cluster.peerctl("drain", host=third)
    with Swarm(cluster, service, 60) as swarm:
        swarm.wait_ready(60 * SLOW)
        wait_for(
            lambda: spread(cluster.proxies)[2] == 0
            and sum(spread(cluster.proxies)) == 60,
            30 * SLOW,
            "all are elsewhere",
        )
        asked = [
            p.routed.metric("peerway_routed_moves_asked_total")
            for p in cluster.proxies
        ]
        # With the third in the average both others would be far above it.
        assert asked[2] == 0
        assert not third.routed.status()["rebalancing"]
        cluster.peerctl("undrain", host=third)
        wait_even(cluster, 60)


def test_behind_one_name_tunnels_even_out_too(fleet, echo):
    """An agent that is asked to move can only knock at the balancer again."""
    cluster = fleet(proxies=3)
    balancer = cluster.add_service(
        services.Haproxy(
            [proxy.listen_addr for proxy in cluster.proxies],
            cluster.network.address(2),
        )
    )
    for proxy in cluster.proxies:
        proxy.config["proxy_service"]["public_addr"] = [balancer.addr]
    cluster.start_auth()
    for proxy in cluster.proxies:
        proxy.join()
    for proxy in cluster.proxies[:2]:
        proxy.start().wait_ready()
    service = f"127.0.0.1:{echo.echo_port}"
    with Swarm(cluster, service, 60, proxies=[balancer.addr]) as swarm:
        swarm.wait_ready(60 * SLOW)
        dialer = Dialer(
            cluster.proxies[:2], [f"echo.{n}" for n in swarm.names[::6]],
            RATE / 2,
        )
        cluster.proxies[2].start().wait_ready()
        wait_even(cluster, 60, percent=30)
        dialer.check()
