# SPDX-License-Identifier: Apache-2.0
"""A socket accepted by a tcp_listener is handed to peerd whole: the proxy's
parent and workers may die, the connection does not notice."""

import threading

import services
import suite
from process import wait_for
from traffic import check_descriptors, check_route, plain, settled_descriptors

MIB = 1 << 20
SIZE = 512 * MIB


def test_proxy_killed_during_a_handed_over_transfer(make_cluster, echo):
    cluster = make_cluster(
        proxies=2, agents=["node-1"], services=echo.services()
    )
    listeners = {
        proxy: proxy.tcp_listener("pump.node-1") for proxy in cluster.proxies
    }
    cluster.start()
    other = cluster.others(cluster.holder("node-1"))[0]
    before = settled_descriptors(cluster)
    dials = other.peerd.status()["dials"]["peer"]

    stream = plain(listeners[other], 60)
    transfer = services.Transfer(stream, SIZE, SIZE)
    outcome = []

    def run():
        try:
            outcome.append(transfer.run())
        except BaseException as error:
            outcome.append(error)

    runner = threading.Thread(target=run, daemon=True)
    runner.start()
    wait_for(
        lambda: transfer.up + transfer.down > 0.3 * 2 * SIZE or outcome,
        60 * suite.SLOW,
        "30 % have been moved",
        interval=0.005,
    )
    other.proxy.kill_group()
    assert transfer.up + transfer.down < 0.9 * 2 * SIZE, "too late to matter"
    runner.join(120 * suite.SLOW)
    stream.close()
    assert outcome == [transfer], outcome
    assert other.peerd.status()["dials"]["peer"] == dials + 1

    other.proxy.start()
    other.proxy.wait_ready()
    check_route(other, "node-1", "peer")
    check_descriptors(cluster, before)
