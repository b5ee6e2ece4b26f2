# SPDX-License-Identifier: Apache-2.0
"""Both tunnel strategies behind a TCP load balancer, with SSH and PostgreSQL.

agent_mesh: every proxy gets a tunnel, so every route is local. proxy_peering:
a proxy that started after the agent had connected reaches it through the one
that holds the only tunnel."""

import pytest

import connect
import services
import suite
from process import wait_for
from traffic import check_route


@pytest.fixture
def fleet(make_cluster, sshd, postgres, echo):
    """Two proxies, not started, whose public address is a balancer's."""

    def make(strategy):
        cluster = make_cluster(
            proxies=2,
            strategy=strategy,
            services=echo.services()
            + [
                {"name": "ssh", "type": "node",
                 "addr": f"127.0.0.1:{sshd.port}"},
                {"name": "pg", "type": "db",
                 "addr": f"127.0.0.1:{postgres.port}"},
            ],
        )
        balancer = cluster.add_service(
            services.Haproxy(
                [proxy.listen_addr for proxy in cluster.proxies],
                cluster.network.address(2),
            )
        )
        for proxy in cluster.proxies:
            proxy.config["proxy_service"]["public_addr"] = [balancer.addr]
        cluster.add_agent("node-1", proxies=[balancer.addr])
        return cluster

    return make


def check_ssh(cluster, sshd, proxy, route):
    mark = proxy.proxy.log_mark()
    out = sshd.ssh(
        "ssh.node-1",
        "echo hello world",
        ["-o", f"ProxyCommand={cluster.proxy_command(proxy)}"],
    )
    assert out == "hello world\n"
    ended = proxy.proxy.wait_log(
        r"session ended: .*service=ssh .*$", mark=mark
    )
    assert f"route={route} " in ended[0]


def check_postgres(postgres, proxy, route, number):
    with connect.Forwarder(lambda: proxy.dial("pg.node-1")) as forwarder:
        sql = f"create table if not exists seen(n int);" \
              f"insert into seen values ({number}); select count(*) from seen"
        assert postgres.query(forwarder.port, sql) == str(number)
        rows = postgres.query(
            forwarder.port, "select n, md5(n::text) from generate_series(1,"
            " 20000) n order by n"
        ).splitlines()
        assert len(rows) == 20000
        assert rows[41] == "42|a1d0c6e83f027327d8461063f4ac58a6"
        assert forwarder.routes == [route, route]


def check_both(cluster, sshd, postgres, routes):
    postgres.query(postgres.port, "drop table if exists seen")
    for number, (proxy, route) in enumerate(zip(cluster.proxies, routes), 1):
        check_route(proxy, "node-1", route)
        check_ssh(cluster, sshd, proxy, route)
        check_postgres(postgres, proxy, route, number)


def test_agent_mesh(fleet, sshd, postgres):
    cluster = fleet("agent_mesh").start()
    cluster.wait_agents(holders=2)
    for proxy in cluster.proxies:
        assert proxy.tunnel_names() == ["node-1"]
    check_both(cluster, sshd, postgres, ["local", "local"])


def test_proxy_peering_with_a_later_proxy(fleet, sshd, postgres):
    cluster = fleet("proxy_peering").start_auth()
    first, second = cluster.proxies
    agent = cluster.agents[0]
    first.join()
    first.start().wait_ready()
    agent.join()
    agent.start()
    wait_for(
        lambda: first.tunnel_names() == ["node-1"],
        suite.START_TIMEOUT,
        "the first proxy holds the tunnel",
    )
    second.join()
    second.start().wait_ready()
    cluster.wait_peers()
    cluster.wait_agents(holders=1)
    check_both(cluster, sshd, postgres, ["local", "peer"])
    assert first.tunnel_names() == ["node-1"]
    assert second.tunnel_names() == []
