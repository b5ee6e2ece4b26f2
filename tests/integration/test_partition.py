# SPDX-License-Identifier: Apache-2.0
"""When packets between two proxies vanish, without any RST, both know within
15 s, know it for as long as it lasts, and use each other again afterwards."""

import shutil
import tempfile
import time
import uuid

import pytest

import mesh
from hosts import SLOW
from netns import Cable
from process import wait_for


class Network:
    """What mesh.Host asks for an address: here, that of its namespace."""

    def __init__(self, namespace):
        self.namespace = namespace

    def address(self, _):
        return self.namespace.address


@pytest.fixture
def ends():
    """(host, its namespace) at each end of a cable."""
    directory = tempfile.mkdtemp(prefix="pw-partition-")
    hosts = []
    cable = Cable()
    try:
        pki = mesh.Pki(directory + "/pki")
        for number, end in enumerate((cable.left, cable.right)):
            with end:
                host = mesh.Host(directory, Network(end), pki, number)
                hosts.append(host)
                host.start()
            host.namespace = end
        hosts[0].know(hosts[1])
        hosts[1].know(hosts[0])
        for host, other in (hosts, hosts[::-1]):
            host.wait_peer(other.id)
            host.first = host.worker(0)
            wait_for(lambda: peer(host, other)["pings"], 5 * SLOW, "a ping")
        yield hosts
    finally:
        for host in hosts:
            host.close()
        cable.close()
        shutil.rmtree(directory, ignore_errors=True)


def peer(host, other):
    return [p for p in host.peerd.status()["peers"] if p["id"] == other.id][0]


@pytest.mark.parametrize(
    "ways", [("input", "output"), ("input",)], ids=["both-ways", "one-way"]
)
def test_vanishing_packets_are_known_within_15_s_by_both(ends, ways):
    left, right = ends
    agent = str(uuid.uuid4())
    right.first.tunnel_up(agent)
    right.wait_tunnel(agent)
    left.cache.put_tunnel(agent, right.id)
    left.namespace.drop(ways)
    start = time.monotonic()
    for host, other in ((left, right), (right, left)):
        found = host.wait_peer(other.id, "unreachable", timeout=15 * SLOW)
        assert time.monotonic() - start < 15 * SLOW
        assert found["last_error"] == "no answer to a ping within 5 s"

    # Past the point where gRPC gives the connection up and makes new ones.
    def given_up():
        states = {peer(left, right)["state"], peer(right, left)["state"]}
        assert states == {"unreachable"}
        return all(
            peer(*pair)["last_error"] != "no answer to a ping within 5 s"
            for pair in ((left, right), (right, left))
        )

    wait_for(given_up, 40 * SLOW, "the connections are given up")
    left.namespace.deliver()
    for host, other in ((left, right), (right, left)):
        host.wait_peer(other.id, timeout=15 * SLOW)
    answer, end = left.first.connect(agent)
    with end:
        assert answer.route == left.first.ipc.ROUTE_PEER
        end.sendall(b"again")
        assert end.recv(5) == b"again"
    for host, other in ((left, right), (right, left)):
        assert peer(host, other)["state"] == "ready"
