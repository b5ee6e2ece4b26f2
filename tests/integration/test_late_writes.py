# SPDX-License-Identifier: Apache-2.0
"""What the network delivers late is not written: a batch whose connection was
given up, and which reaches authd when the same host has said something else."""

import pytest

import hosts
import suite
from process import wait_for
from relay import Relay
from test_routed import Deletions, Worker, agents_of, wait_agents


@pytest.fixture
def fleet():
    """One authd, two hosts with nothing but routed; the first one's network is
    a Relay."""
    cluster = suite.Cluster(proxies=2)
    cluster.start_auth()
    one = cluster.proxies[0]
    cluster.relay = Relay(one.address, cluster.auth.listen_addr)
    one.common["auth_servers"] = [cluster.relay.addr]
    cluster.start_routeds()
    yield cluster
    cluster.relay.close()
    found = [
        text for text in cluster.complaints()
        if "authd" in text or "routed" in text
    ]
    cluster.close()
    assert not found, found


def refused(fleet):
    return fleet.auth.authd.metrics()[
        'peerway_authd_batches_total{result="refused"}']


def test_a_batch_that_arrives_late_changes_nothing(fleet):
    one, two = fleet.proxies
    worker = Worker(one).sync()
    agent = worker.up(1, "before")
    wait_agents(two, {"before": {one.uuid}})
    watch = Deletions(two)
    fleet.relay.hold()
    worker.up(1, "late", agent)
    sent = []

    def has_given_up():
        sent.append(fleet.relay.held())
        return one.routed.status()["auth_state"] != "connected"

    wait_for(has_given_up, 20 * hosts.SLOW, "routed gives the connection up")
    worker.up(1, "after", agent)
    wait_agents(two, {"after": {one.uuid}}, 30)
    before = refused(fleet)
    fleet.relay.release(sent[-2])
    wait_for(
        lambda: refused(fleet) > before, 10 * hosts.SLOW,
        "authd has the late batch and refuses it",
    )
    worker.up(2, "mark")
    wait_for(lambda: "mark" in agents_of(two), 10 * hosts.SLOW, "the mark")
    assert agents_of(two) == {"after": {one.uuid}, "mark": {one.uuid}}
    assert watch.close() == 0  # nor was a route lost for that
    worker.close()
