# SPDX-License-Identifier: Apache-2.0
"""Fifty proxies on one machine: a full mesh of their peerds, dials across it,
and one that is killed and comes back."""

import shutil
import tempfile
import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest

import mesh
from hosts import SLOW, Network
from process import descriptor_table, wait_for

# Under sanitizers fifty handshake with each other more slowly than they give
# up, on the two cores that they share here; the code is the same with fewer.
PEERS = 50 if SLOW < 4 else 15
TIMEOUT = 60 * SLOW


@pytest.fixture(scope="module")
def fleet():
    directory = tempfile.mkdtemp(prefix="pw-fifty-")
    network = Network()
    pki = mesh.Pki(directory + "/pki")
    hosts = [mesh.Host(directory, network, pki, n + 1) for n in range(PEERS)]
    try:
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(mesh.Host.start, hosts))
        # in tens: on two cores all at once would shake hands with each other
        # for so long that they give up, and begin again
        for count in range(10, PEERS + 10, 10):
            grow(hosts[: count - 10], hosts[count - 10 : count])
        yield hosts
        with ThreadPoolExecutor(8) as pool:
            codes = list(pool.map(lambda host: host.peerd.stop(60), hosts))
        assert codes == [0] * PEERS
    finally:
        for host in hosts:
            host.close()
        network.close()
        shutil.rmtree(directory, ignore_errors=True)


def grow(hosts, more):
    """The mesh of hosts gets more of them."""
    for host in hosts + more:
        for other in hosts + more:
            if other is not host and (host in more or other in more):
                host.cache.put_proxy(other.id, other.peer_addr)
    for host in hosts + more:
        host.routed.announce()
    wait_all_ready(hosts + more)


def in_state(host, state):
    return [p["id"] for p in host.peerd.status()["peers"] if p["state"] == state]


def rss_kib(pid):
    with open(f"/proc/{pid}/status", encoding="ascii") as status:
        for line in status:
            if line.startswith("VmRSS:"):
                return int(line.split()[1])
    raise AssertionError("no VmRSS")


def wait_all_ready(hosts):
    wait_for(
        lambda: all(
            len(in_state(host, "ready")) == len(hosts) - 1 for host in hosts
        ),
        TIMEOUT,
        "every peerd has every other one ready",
        interval=0.5,
    )


def test_a_full_mesh_of_fifty(fleet):
    wait_all_ready(fleet)
    # every connection is there, in both directions
    sizes = [
        (rss_kib(host.peerd.pid), len(descriptor_table(host.peerd.pid)))
        for host in fleet
    ]
    print(
        f"{PEERS} peers: VmRSS {max(s[0] for s in sizes)} KiB and"
        f" {max(s[1] for s in sizes)} descriptors at most"
    )
    assert min(s[1] for s in sizes) >= 2 * (PEERS - 1)

    # dials from many to many
    agents = []
    for number in range(0, PEERS, 5):
        holder = fleet[number]
        holder.served = holder.worker()
        agent = str(uuid.uuid4())
        holder.served.tunnel_up(agent)
        holder.wait_tunnel(agent)
        agents.append((agent, holder))
    for number in range(2, PEERS, 10):
        dialer = fleet[number]
        worker = dialer.worker()
        for agent, holder in agents:
            dialer.cache.put_tunnel(agent, holder.id)
            answer, end = worker.connect(agent)
            assert answer.route == worker.ipc.ROUTE_PEER, answer
            assert answer.proxy_id == holder.id
            end.sendall(b"across the mesh")
            assert end.recv(15) == b"across the mesh"
            mesh.part(end)
        worker.close()
    for _, holder in agents:
        holder.served.close()

    # one is killed, and comes back
    victim = fleet[PEERS // 2 + 2]
    others = [host for host in fleet if host is not victim]
    victim.peerd.kill()
    wait_for(
        lambda: all(in_state(host, "unreachable") == [victim.id] for host in others),
        10 * SLOW,
        "all know that it has gone",
        interval=0.2,
    )
    victim.start()
    wait_all_ready(fleet)
