# SPDX-License-Identifier: Apache-2.0
"""A peer's state is what its pings say: a stopped peer is known within 15 s, a
dead one within 1 s, one that comes back is used again, and all of it stands in
status and metrics."""

import os
import re
import shutil
import signal
import tempfile
import time
import uuid
from concurrent import futures

import grpc
import pytest

import mesh
import stubs
from hosts import SLOW, Network
from process import wait_for


@pytest.fixture(scope="module")
def ground():
    directory = tempfile.mkdtemp(prefix="pw-health-")
    network = Network()
    yield directory, network, mesh.Pki(directory + "/pki")
    network.close()
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture
def pair(ground, request):
    base = 2 * len(os.listdir(ground[0]))
    hosts = [mesh.Host(*ground, base + number).start() for number in (1, 2)]
    left, right = hosts
    left.know(right)
    right.know(left)
    for host, other in ((left, right), (right, left)):
        host.wait_peer(other.id)
        host.first = host.worker(0)
    yield left, right
    for host in hosts:
        host.close()


class PingEnd:
    """A proxy in python that answers pings with the status .code; None: it has
    no such method, as the reference's before there were pings."""

    def __init__(self, ground, number, code):
        _, network, pki = ground
        self.id = str(uuid.uuid4())
        self.code = code
        service = stubs.load("peer_pb2_grpc")
        answer = stubs.load("peer_pb2").ProxyServicePingResponse

        class Servicer(service.ProxyServiceServicer):
            def Ping(inner, request, context):
                if self.code is None:
                    return super().Ping(request, context)
                if self.code != grpc.StatusCode.OK:
                    context.abort(self.code, "something is wrong here")
                return answer()

        self.server = grpc.server(futures.ThreadPoolExecutor(4))
        service.add_ProxyServiceServicer_to_server(Servicer(), self.server)
        identity = pki.issue(self.id)
        key, cert, ca = (
            (identity / name).read_bytes()
            for name in ("key.pem", "cert.pem", "host_ca.pem")
        )
        creds = grpc.ssl_server_credentials([(key, cert)], ca, True)
        address = network.address(number)
        port = self.server.add_secure_port(f"{address}:0", creds)
        self.addr = f"{address}:{port}"
        self.server.start()


def pinged(host, far, count):
    """far's entry once it has been pinged so often."""
    return wait_for(
        lambda: (found := peer_of(host, far))["pings"] >= count and found,
        20 * SLOW,
        f"{count} pings",
    )


def test_a_peer_without_pings_is_alive(ground, pair):
    far = PingEnd(ground, 100, None)
    try:
        pair[0].know((far.id, far.addr))
        pair[0].wait_peer(far.id)
        peer = pinged(pair[0], far, 1)
        assert peer["state"] == "ready"
        assert peer["pings_failed"] == 0
        assert peer["latency_ms"] > 0
    finally:
        far.server.stop(0).wait()


def test_a_peer_that_answers_with_errors_is_degraded(ground, pair):
    left = pair[0]
    far = PingEnd(ground, 101, grpc.StatusCode.INTERNAL)
    try:
        left.know((far.id, far.addr))
        peer = left.wait_peer(far.id, "degraded")
        assert peer["last_error"] == "something is wrong here"
        assert peer["pings_failed"] == 1
        assert series(left, "peerway_peerd_peers")['state="degraded"'] == 1
        far.code = grpc.StatusCode.OK
        peer = pinged(left, far, 2)
        assert peer["state"] == "ready"
        assert peer["pings_failed"] == 1
    finally:
        far.server.stop(0).wait()


def peer_of(host, other):
    return [p for p in host.peerd.status()["peers"] if p["id"] == other.id][0]


def series(host, name):
    """{labels: value} of one metric."""
    text = host.peerd.http("/metrics")[1]
    found = re.findall(rf"^{name}\{{(.*)\}} (\S+)$", text, re.M)
    assert f"# TYPE {name} " in text
    return {labels: float(value) for labels, value in found}


def test_a_peer_is_pinged_as_soon_as_it_is_connected(pair):
    left, right = pair
    peer = wait_for(
        lambda: peer_of(left, right)["pings"] > 0 and peer_of(left, right),
        5 * SLOW,
        "a ping",
    )
    assert peer["state"] == "ready"
    assert peer["pings_failed"] == 0
    assert 0 < peer["latency_ms"] < 1000 * SLOW
    assert 0 < peer["latency_last_ms"] < 1000 * SLOW
    pings = series(left, "teleport_proxy_peer_client_pings_total")
    assert [f'peer_id="{right.id}"' in labels for labels in pings] == [True]
    assert list(pings.values())[0] >= 1
    assert list(series(left, "teleport_proxy_peer_client_failed_pings_total").values()) == [0]
    latency = series(left, "peerway_peerd_peer_latency_seconds")
    assert 0 < list(latency.values())[0] < SLOW
    connections = series(left, "proxy_peer_client_connections")
    assert list(connections) == [
        f'local_id="{left.id}",remote_id="{right.id}",state="READY"'
    ]


def test_a_stopped_peer_is_known_within_15_s_and_used_again(pair):
    left, right = pair
    agent = str(uuid.uuid4())
    right.first.tunnel_up(agent, tunnel_id=1)
    right.wait_tunnel(agent)
    left.cache.put_tunnel(agent, right.id)
    wait_for(lambda: peer_of(left, right)["pings"] > 0, 5 * SLOW, "a ping")
    os.kill(right.peerd.pid, signal.SIGSTOP)
    start = time.monotonic()
    try:
        peer = left.wait_peer(right.id, "unreachable", timeout=15 * SLOW)
        assert time.monotonic() - start < 15 * SLOW
        assert peer["last_error"] == "no answer to a ping within 5 s"
        assert peer["pings_failed"] == 1
        assert series(left, "peerway_peerd_peers")['state="unreachable"'] == 1
        left.peerd.wait_log(f"peer unreachable: no answer .*peer={right.id}")
    finally:
        os.kill(right.peerd.pid, signal.SIGCONT)
    left.wait_peer(right.id, timeout=10 * SLOW)
    answer, end = left.first.connect(agent)
    end.close()
    assert answer.route == right.first.ipc.ROUTE_PEER


def test_a_dead_peer_is_known_within_1_s_and_used_when_it_is_back(pair):
    left, right = pair
    right.peerd.kill()
    start = time.monotonic()
    left.wait_peer(right.id, "unreachable", timeout=5 * SLOW)
    assert time.monotonic() - start < 1 * SLOW
    right.start()
    left.wait_peer(right.id, timeout=5 * SLOW)
    # what the former connection's pings said is forgotten
    assert peer_of(left, right)["state"] == "ready"


def test_a_host_that_dies_as_a_whole_is_known_within_1_s(make_cluster, echo):
    cluster = make_cluster(
        proxies=3, agents=["db-1"], services=echo.services()
    ).start()
    dead = cluster.proxies[2]
    others = cluster.others(dead)
    start = time.monotonic()
    dead.kill()
    for other in others:
        # unreachable first, then gone with its lease; never ready again
        wait_for(
            lambda: dead.uuid not in other.ready_peers(), 5 * SLOW, "known"
        )
        assert time.monotonic() - start < 1 * SLOW
    for other in others:
        wait_for(
            lambda: dead.uuid
            not in {p["id"] for p in other.peerd.status()["peers"]},
            20 * SLOW,
            "its record goes",
        )
        series = other.peerd.http("/metrics")[1]
        assert dead.uuid not in series
    dead.start().wait_ready()
    cluster.wait_peers()


def test_a_host_that_drains_is_called_so_and_left_by_agents(make_cluster, echo):
    cluster = make_cluster(proxies=2, agents=["db-1"], services=echo.services())
    for proxy in cluster.proxies:
        proxy.write_config({"proxy_service": {"drain_timeout": "10m"}})
    cluster.start()
    drains = cluster.holder("db-1")
    other = cluster.others(drains)[0]

    def state():
        return {p["id"]: p["state"] for p in other.peerd.status()["peers"]}

    with drains.dial("echo.db-1") as session:
        for daemon in drains.daemons:
            daemon.expected_end = True
            daemon.send_signal(signal.SIGTERM)
        wait_for(
            lambda: state().get(drains.uuid) == "draining", 5 * SLOW, "draining"
        )
        # the agent does not wait for the end of the tunnel that it has
        wait_for(
            lambda: "db-1" in other.tunnel_names(), 10 * SLOW, "a new tunnel"
        )
        with other.dial("echo.db-1") as connection:
            assert connection.route == "local"
        session.sendall(b"still here")
        assert session.recv_exactly(10) == b"still here"
        assert state()[drains.uuid] == "draining"
    for daemon in drains.daemons:
        wait_for(lambda: not daemon.running(), 20 * SLOW, f"{daemon} ends")
        assert daemon.popen.returncode == 0
    wait_for(lambda: drains.uuid not in state(), 10 * SLOW, "its record goes")
    drains.start().wait_ready()
    cluster.wait_peers()
    assert state() == {drains.uuid: "ready"}


def test_a_stop_does_not_wait_for_a_silent_peer(pair):
    left, right = pair
    os.kill(right.peerd.pid, signal.SIGSTOP)
    try:
        # from now on there is always a ping under way
        left.wait_peer(right.id, "unreachable", timeout=15 * SLOW)
        left.first.close()
        assert left.peerd.stop() == 0
    finally:
        os.kill(right.peerd.pid, signal.SIGCONT)
