# SPDX-License-Identifier: Apache-2.0
"""Routing does not depend on which worker has what: with two workers on each
of two hosts, every pair (client's worker, tunnel's worker) is seen to work, and
again within 5 s of the death of a worker."""

import itertools
import os
import signal
import time

import services
import suite
from process import wait_for

AGENTS = [f"db-{number}" for number in range(8)]


def tunnels(cluster):
    """(proxy id, worker) -> agents there, of all workers that exist."""
    found = {}
    for proxy in cluster.proxies:
        for worker in proxy.worker_pids():
            found[proxy.uuid, worker] = []
        for worker, names in proxy.tunnels().items():
            found[proxy.uuid, worker] = names
    return found


def all_held(cluster):
    found = tunnels(cluster)
    names = sorted(itertools.chain(*found.values()))
    return found if names == AGENTS else None


def since(cluster, name):
    """When the tunnel of that agent was made, or None."""
    for proxy in cluster.proxies:
        for tunnel in proxy.peerd.ask("tunnels")["tunnels"]:
            if tunnel["name"] == name:
                return tunnel["since"]
    return None


def spread(cluster):
    """Restarts agents until no worker is empty: which worker gets a new
    connection is the kernel's choice alone."""
    for turn in range(60):
        found = wait_for(
            lambda: all_held(cluster), suite.START_TIMEOUT, "8 tunnels"
        )
        if all(found.values()):
            return found
        crowd = sorted(max(found.values(), key=len))
        name = crowd[turn % len(crowd)]
        agent = cluster.agents[AGENTS.index(name)]
        before = since(cluster, agent.name)
        agent.agent.restart()
        wait_for(
            lambda: since(cluster, agent.name) not in (before, None),
            suite.START_TIMEOUT,
            f"{agent.name} has a new tunnel",
        )
    raise AssertionError(f"a worker stays empty: {found}")


def tunnel_at(connection, name, held):
    """(proxy id, worker) of the tunnel that was used. A peer of another make
    does not say which worker it was: then the list of tunnels does."""
    worker = connection.tunnel_worker
    if worker != "-":
        return connection.proxy, int(worker)
    return next(at for at, names in held.items() if name in names)


def right_route(proxy, connection):
    if connection.proxy != proxy.uuid:
        return "peer"
    if connection.tunnel_worker == str(connection.worker):
        return "local"
    return "sibling"


def count_pairs(cluster, deadline):
    """Dials every agent through every proxy until each pair was counted."""
    seen = {}
    while time.monotonic() < deadline:
        held = all_held(cluster)
        if not held:
            continue
        holders = {at for at, names in held.items() if names}
        wanted = set(itertools.product(held, holders))
        for proxy, name in itertools.product(cluster.proxies, AGENTS):
            try:
                connection = proxy.dial(f"name.{name}", timeout=5)
            except Exception:  # a route that is not yet right again
                if time.monotonic() > deadline:
                    raise
                continue
            with connection:
                assert connection.recv_exactly(len(name)) == name.encode()
                assert connection.route == right_route(proxy, connection)
                pair = (
                    (proxy.uuid, connection.worker),
                    tunnel_at(connection, name, held),
                )
                seen[pair] = seen.get(pair, 0) + 1
        if wanted <= seen.keys():
            return seen
    raise AssertionError(f"pairs not seen in time: {wanted - seen.keys()}")


def test_every_pair_of_workers(make_cluster):
    cluster = make_cluster(proxies=2, workers=2)
    for number, name in enumerate(AGENTS):
        banner = cluster.add_service(services.Banner(name))
        cluster.add_agent(
            name,
            proxies=[cluster.proxies[number % 2].listen_addr],
            services=[{"name": "name", "type": "app",
                       "addr": f"127.0.0.1:{banner.port}"}],
        )
    cluster.start()
    spread(cluster)
    pairs = count_pairs(cluster, time.monotonic() + 20 * suite.SLOW)
    assert len(pairs) == 16

    victim = cluster.proxies[0]
    pids = victim.worker_pids()
    os.kill(pids[1], signal.SIGKILL)
    count_pairs(cluster, time.monotonic() + suite.ROUTES_TIMEOUT)
    assert victim.worker_pids()[0] == pids[0]
    assert victim.worker_pids()[1] != pids[1]

    spread(cluster)
    pairs = count_pairs(cluster, time.monotonic() + 20 * suite.SLOW)
    assert len(pairs) == 16
