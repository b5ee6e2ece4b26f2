# SPDX-License-Identifier: Apache-2.0
"""Each daemon runs as a user of its own; they share one group. What one writes
for the others stays readable when it has stopped cleanly (SQLite removes the
WAL then) and a reader starts after that."""

import os

import suite
from traffic import check_route

GROUP = 64999
USERS = {
    name: (65000 + number, GROUP)
    for number, name in enumerate("authd routed peerd proxy agent".split())
}


def uids(daemon):
    """Real, effective and saved uid of all its processes."""
    found = set()
    for pid in daemon.pids():
        with open(f"/proc/{pid}/status", encoding="ascii") as status:
            for line in status:
                if line.startswith("Uid:"):
                    found.update(map(int, line.split()[1:4]))
    return found


def accepts(proxy):
    """Whether a client's TLS gets an answer: the certificate is loaded."""
    try:
        proxy.dial("nobody")
    except suite.connect.Refused as refused:
        return refused.status == 404
    return False


def test_every_daemon_under_its_own_uid(make_cluster, echo):
    cluster = make_cluster(
        proxies=2, agents=["node-1"], services=echo.services(), users=USERS
    )
    cluster.start()
    for daemon in cluster.daemons():
        name = daemon.name.rpartition(".")[2]
        assert uids(daemon) == {USERS[name][0]}
    holder = cluster.holder("node-1")
    other = cluster.others(holder)[0]
    check_route(holder, "node-1", "local")
    check_route(other, "node-1", "peer")
    for proxy in cluster.proxies:
        key = proxy.data_dir / "identity" / "current" / "key.pem"
        info = os.stat(key)
        assert (info.st_uid, info.st_gid) == USERS["routed"]
        assert info.st_mode & 0o777 == 0o640

    assert other.routed.stop() == 0
    other.proxy.restart()
    other.peerd.restart()
    suite.wait_for(
        lambda: holder.uuid in other.ready_peers() and accepts(other),
        suite.START_TIMEOUT,
        "peers and clients are served, from what routed left",
    )
    check_route(other, "node-1", "peer")

    assert holder.routed.stop() == 0
    holder.proxy.restart()
    suite.wait_for(
        lambda: holder.tunnel_names() + other.tunnel_names() == ["node-1"],
        suite.START_TIMEOUT,
        "the agent is back",
    )
    now = cluster.holder("node-1")
    check_route(now, "node-1", "local")

    for proxy in cluster.proxies:
        proxy.routed.start()
    now = cluster.holder("node-1")
    for proxy in cluster.proxies:
        suite.wait_for(
            lambda: proxy.agents().get("node-1") == {now.uuid},
            suite.START_TIMEOUT,
            f"{proxy.name} knows who holds the agent now",
        )
    cluster.wait_peers()
    check_route(now, "node-1", "local")
    check_route(cluster.others(now)[0], "node-1", "peer")
