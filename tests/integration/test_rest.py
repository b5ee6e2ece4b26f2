# SPDX-License-Identifier: Apache-2.0
"""A cluster at rest costs authd's store a keepalive for each proxy host, which
writes nothing, and nothing for any agent: what is written does not grow with
them."""

import services
from process import wait_for
from rest import at_rest, wait_quiet
from swarm import Swarm, known

QUIET_S = 15  # three lives of a lease


def grow_to(cluster, echo_addr, first, count):
    swarm = Swarm(cluster, echo_addr, count - first, first=first,
                  proxies=[p.listen_addr for p in cluster.proxies])
    swarm.wait_ready(60)
    for proxy in cluster.proxies:
        wait_for(lambda: known(proxy, swarm) == swarm.count, 30,
                 f"{proxy.name} knows all agents")
    return swarm


def test_writes_at_rest_do_not_grow_with_agents(make_cluster):
    cluster = make_cluster(proxies=2)
    for proxy in cluster.proxies:
        # moves are writes, and none of the rest
        proxy.config["proxy_service"]["rebalance"] = {"rate": 0}
    cluster.start()
    echo = cluster.add_service(services.Pump())
    addr = f"127.0.0.1:{echo.echo_port}"
    found = {}
    swarms = []
    try:
        for first, count in ((0, 10), (10, 300)):
            swarms.append(grow_to(cluster, addr, first, count))
            wait_quiet(cluster)
            found[count] = at_rest(cluster, QUIET_S)
    finally:
        for swarm in swarms:
            swarm.close()
    for count, growth in found.items():
        assert growth["revisions"] == 0, (count, found)
        assert growth["writes"] == 0, (count, found)
