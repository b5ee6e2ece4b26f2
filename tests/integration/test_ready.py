# SPDX-License-Identifier: Apache-2.0
"""/readyz of each daemon says in words what is missing, and /healthz that it is
alive meanwhile."""

import pytest

from hosts import SLOW
from process import wait_for


def missing(daemon):
    """The text while it is not ready; "" when it is."""
    assert daemon.http("/healthz") == (200, "ok\n")
    status, text = daemon.http("/readyz")
    assert (status, text) == (200, "ready\n") or status == 503
    return "" if status == 200 else text


def start_alone(daemon):
    daemon.start()
    wait_for(lambda: answers(daemon), 20 * SLOW, f"{daemon.name} answers")


def answers(daemon):
    try:
        return daemon.http("/healthz")[0] == 200
    except OSError:
        return False


def test_a_proxy_host_says_what_it_waits_for(make_cluster):
    cluster = make_cluster(proxies=1)
    cluster.start_auth()
    (host,) = cluster.proxies
    host.join()
    start_alone(host.proxy)
    for what in ("certificate", "routing cache", "link to peerd", "link to routed"):
        assert f"{what}: 0 of 1 workers" in missing(host.proxy)
    start_alone(host.peerd)
    wait_for(
        lambda: "link to peerd" not in missing(host.proxy), 10 * SLOW,
        "proxy and peerd are linked",
    )
    assert "certificate: routed has none yet" in missing(host.peerd)
    assert "strategy: no cache of records yet" in missing(host.peerd)
    start_alone(host.routed)
    for daemon in (host.routed, host.peerd, host.proxy):
        wait_for(
            lambda daemon=daemon: not missing(daemon), 30 * SLOW,
            f"{daemon.name} is ready",
        )
    host.peerd.kill()
    wait_for(
        lambda: missing(host.proxy) == "link to peerd: 0 of 1 workers\n",
        10 * SLOW, "proxy says that peerd is gone",
    )


def test_routed_without_authd(make_cluster):
    cluster = make_cluster(proxies=1)
    cluster.start_auth()
    (host,) = cluster.proxies
    host.join()
    cluster.auth.authd.stop()
    start_alone(host.routed)
    wait_for(
        lambda: missing(host.routed).startswith("no identity: ")
        and "Connection refused" in missing(host.routed),
        10 * SLOW, "routed says that it has not joined",
    )
    cluster.auth.authd.start()
    wait_for(lambda: not missing(host.routed), 60 * SLOW, "it is ready")


def test_an_agent_without_proxies(make_cluster):
    cluster = make_cluster(proxies=1, agents=["db-1"]).start()
    cluster.wait_agents()
    agent = cluster.agents[0].agent
    assert not missing(agent)
    for name in ("proxy", "peerd", "routed"):
        getattr(cluster.proxies[0], name).kill()
    wait_for(
        lambda: "Connection refused" in missing(agent), 20 * SLOW,
        "it says why",
    )


@pytest.mark.parametrize("endpoint", ["127.0.0.1:1"])
def test_authd_without_its_store(make_cluster, endpoint):
    cluster = make_cluster(proxies=0)
    cluster.auth.config["auth_service"]["storage"] = {
        "type": "etcd", "endpoints": [endpoint],
    }
    cluster.auth.write_config()
    start_alone(cluster.auth.authd)
    wait_for(
        lambda: missing(cluster.auth.authd).startswith("store: etcd: "),
        10 * SLOW, "authd says that etcd is away",
    )
