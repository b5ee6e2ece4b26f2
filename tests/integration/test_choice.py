# SPDX-License-Identifier: Apache-2.0
"""Which proxies an agent takes: whoever answers behind one name, and directly
the ones it wants when it knows their addresses: from a list, a name with
several addresses, or the proxies' own word. Near ones first, zones apart, the
newest generation of each group."""

import time

import pytest

import services
from hosts import SLOW, START_TIMEOUT
from process import wait_for
from swarm import Swarm, spread
from traffic import Dialer


def holders(cluster, name):
    return {
        p.name for p in cluster.proxies
        if p.peerd.running() and name in p.tunnel_names()
    }


def wait_holders(cluster, name, wanted, timeout=START_TIMEOUT):
    def as_wanted():
        found = holders(cluster, name)
        return len(found) == wanted if isinstance(wanted, int) else (
            found == set(wanted)
        )

    wait_for(as_wanted, timeout, f"{name} is held by {wanted}")


@pytest.fixture
def balanced(make_cluster, echo):
    """Four proxies that all call themselves by one balancer's name."""
    cluster = make_cluster(proxies=4, count=3, services=echo.services())
    balancer = cluster.add_service(
        services.Haproxy(
            [proxy.listen_addr for proxy in cluster.proxies],
            cluster.network.address(2),
        )
    )
    for proxy in cluster.proxies:
        proxy.config["proxy_service"]["public_addr"] = [balancer.addr]
    cluster.add_agent("db-1", proxies=[balancer.addr])
    return cluster.start()


def test_behind_one_name_duplicates_are_left_quietly(balanced):
    wait_holders(balanced, "db-1", 3, 60 * SLOW)
    agent = balanced.agents[0].agent
    claimed = 'peerway_agent_connect_failures_total{reason="claimed"}'
    # Whoever answered and was there already was no news,
    assert not agent.log_matches(" (warn|error) ")
    # and nobody was hammered: an attempt a second at most, fewer later.
    tries = agent.metrics()[claimed]
    assert tries <= 60 * SLOW
    # Satisfied, it asks no more.
    before = agent.metrics()
    time.sleep(3)
    now = agent.metrics()
    assert now[claimed] == before[claimed]
    assert (
        now["peerway_agent_tunnels_opened_total"]
        == before["peerway_agent_tunnels_opened_total"]
    )


def test_behind_one_name_a_proxy_that_goes_is_replaced(balanced):
    wait_holders(balanced, "db-1", 3, 60 * SLOW)
    gone = next(p for p in balanced.proxies if "db-1" in p.tunnel_names())
    spare = next(
        p for p in balanced.proxies if "db-1" not in p.tunnel_names()
    )
    others = balanced.others(gone)
    dialer = Dialer(others, ["echo.db-1"], 20 / SLOW)
    gone.stop()
    wait_for(
        lambda: spare.tunnel_names() == ["db-1"],
        60 * SLOW,
        "the fourth has taken its place",
    )
    dialer.check()


def test_a_list_of_addresses_leads_to_all_without_their_own_word(
    make_cluster, echo
):
    """The proxies announce addresses that lead nowhere; the list is right."""
    cluster = make_cluster(proxies=3, count=3, services=echo.services())
    for proxy in cluster.proxies:
        proxy.config["proxy_service"]["public_addr"] = ["127.0.0.1:1"]
    cluster.add_agent(
        "db-1", proxies=[p.listen_addr for p in cluster.proxies]
    )
    cluster.start_auth()
    for proxy in cluster.proxies:
        proxy.join()
        proxy.start()
    for proxy in cluster.proxies:
        proxy.wait_ready()
    cluster.agents[0].join()
    cluster.agents[0].start()
    wait_holders(cluster, "db-1", 3, 60 * SLOW)


def test_a_name_with_several_addresses_leads_to_all(make_cluster, echo):
    """Each proxy announces an address that leads nowhere; the name has one
    record for each of them."""
    cluster = make_cluster(proxies=3, count=3, services=echo.services())
    port = cluster.proxies[0].listen_addr.rpartition(":")[2]
    for proxy in cluster.proxies:
        proxy.listen_addr = f"{proxy.address}:{port}"
        proxy.config["proxy_service"].update(
            listen_addr=proxy.listen_addr, public_addr=["127.0.0.1:1"]
        )
    host = cluster.add_agent("db-1", proxies=[cluster.proxies[0].listen_addr])
    cluster.start_auth()
    for proxy in cluster.proxies:
        proxy.join()
        proxy.start()
    for proxy in cluster.proxies:
        proxy.wait_ready()
    host.join()
    hosts = host.dir / "hosts"
    hosts.write_text(
        "".join(f"{p.address} fleet.test\n" for p in cluster.proxies)
    )
    host.write_config({"agent_service": {
        "proxy_server": [f"fleet.test:{port}"],
    }})
    argv = " ".join(host.agent.argv)
    host.agent.argv = [
        "unshare", "--mount", "sh", "-c",
        f"mount --bind {hosts} /etc/hosts && exec {argv}",
    ]
    host.start()
    wait_holders(cluster, "db-1", 3, 60 * SLOW)
    assert not host.agent.log_matches(" (warn|error) ")


def test_addresses_learnt_by_discovery_need_no_balancer(make_cluster, echo):
    """proxy_server names one; the agent dials the others by their own."""
    cluster = make_cluster(
        proxies=4, agents=["db-1"], count=4, services=echo.services()
    ).start()
    wait_holders(cluster, "db-1", 4)
    # also when what it was configured with is gone
    cluster.proxies[0].kill()
    cluster.proxies[1].stop()
    cluster.proxies[1].start().wait_ready()
    wait_holders(
        cluster, "db-1", [p.name for p in cluster.proxies[1:]], 30 * SLOW
    )


def place(proxy, region, zone):
    proxy.config["proxy_service"].update(region=region, zone=zone)


def test_near_proxies_are_preferred_and_zones_kept_apart(make_cluster, echo):
    cluster = make_cluster(proxies=4, count=2, services=echo.services())
    one, two, three, four = cluster.proxies
    place(one, "us", "us-1")
    place(two, "eu", "eu-1")
    place(three, "eu", "eu-1")
    place(four, "eu", "eu-2")
    # It begins at the far one, whose word is all it needs.
    agent = cluster.add_agent("db-1", proxies=[one.listen_addr])
    agent.config["agent_service"].update(region="eu", zone="eu-1")
    cluster.start()
    wait_for(
        lambda: holders(cluster, "db-1")
        in ({"proxy2", "proxy4"}, {"proxy3", "proxy4"}),
        30 * SLOW,
        "one tunnel in each zone of the region",
    )
    # A zone is lost: the region comes before the zone.
    four.kill()
    wait_holders(cluster, "db-1", ["proxy2", "proxy3"], 30 * SLOW)
    # The region is lost: far is better than nobody.
    two.kill()
    three.kill()
    wait_holders(cluster, "db-1", ["proxy1"], 30 * SLOW)


def test_with_one_tunnel_the_own_zone(make_cluster, echo):
    cluster = make_cluster(proxies=4, services=echo.services())
    for proxy, zone in zip(cluster.proxies, ["a", "b", "b", "c"]):
        place(proxy, "eu", zone)
    cluster.start()
    service = f"127.0.0.1:{echo.echo_port}"
    with Swarm(cluster, service, 40, region="eu", zone="b") as swarm:
        swarm.wait_ready(60 * SLOW)
        found = spread(cluster.proxies)
        assert found[0] == found[3] == 0 and sum(found) == 40
        assert min(found[1:3]) >= 8, found


def test_a_new_generation_is_reached_before_the_old_one_is_left(
    make_cluster, echo
):
    cluster = make_cluster(
        proxies=2, agents=["db-1"], count=1, services=echo.services()
    )
    for proxy in cluster.proxies:
        proxy.config["proxy_service"].update(group="blue", generation=1)
    cluster.start()
    old = list(cluster.proxies)
    dialer = Dialer(old, ["echo.db-1"], 20 / SLOW)
    for _ in range(2):
        proxy = cluster.add_proxy()
        proxy.config["proxy_service"].update(group="blue", generation=2)
        proxy.join()
        proxy.start().wait_ready()
    wait_for(
        lambda: len(holders(cluster, "db-1")) == 1
        and not holders(cluster, "db-1") & {p.name for p in old},
        30 * SLOW,
        "the tunnel is at the new generation",
    )
    dialer.check()
    # The old generation goes without anybody noticing.
    dialer = Dialer(cluster.proxies[2:], ["echo.db-1"], 20 / SLOW)
    for proxy in old:
        proxy.stop()
    dialer.wait_more(20)
    dialer.check()
    assert set(dialer.routes) == {"local", "peer"}
