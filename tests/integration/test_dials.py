# SPDX-License-Identifier: Apache-2.0
"""Whom a dial asks: the best proxy first, the next one as well when the first
is late for its own latency, the next at once when one has failed, authd when
nobody is left; and the one line that a client gets when all of it failed."""

import os
import shutil
import signal
import socket
import tempfile
import threading
import time
import uuid

import pytest

import connect
import mesh
import suite
from hosts import SLOW, Network
from process import descriptor_table, wait_for

TIMEOUT = 20 * SLOW


@pytest.fixture(scope="module")
def ground():
    directory = tempfile.mkdtemp(prefix="pw-dials-")
    network = Network()
    yield directory, network, mesh.Pki(directory + "/pki")
    network.close()
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(scope="module")
def trio(ground):
    """A host that dials, and two that hold every agent."""
    hosts = [mesh.Host(*ground, number=n).start() for n in (1, 2, 3)]
    near, first, second = hosts
    near.know(first, second)
    near.worker_0 = near.worker()
    for host in (first, second):
        near.wait_peer(host.id)
        host.served = host.worker()
    yield hosts
    for host in hosts:
        assert host.peerd.stop() == 0, host.peerd.tail(20)
        host.close()


@pytest.fixture
def intact(trio):
    pids = [host.peerd.pid for host in trio]
    before = [len(descriptor_table(pid)) for pid in pids]
    yield
    wait_for(
        lambda: all(
            len(descriptor_table(pid)) <= count
            for pid, count in zip(pids, before)
        ),
        TIMEOUT,
        "no descriptor is left behind",
    )


@pytest.fixture
def agent(trio):
    """An agent with a tunnel to both holders."""
    near, *holders = trio
    agent = str(uuid.uuid4())
    tunnel = int(agent[:8], 16)
    for host in holders:
        host.served.tunnel_up(agent, tunnel_id=tunnel)
        host.wait_tunnel(agent)
        near.cache.put_tunnel(agent, host.id)
    yield agent
    for host in holders:
        host.served.silent = False
        host.served.refuse = None
        host.served.tunnel_down(tunnel)


def carries(end):
    end.sendall(b"hello")
    return end.recv(5) == b"hello"


def by_id(trio, proxy_id):
    return next(host for host in trio if host.id == proxy_id)


def first_asked(trio, agent):
    """Who a dial asks first now, and the other one."""
    near = trio[0]
    answer, end = near.worker_0.connect(agent)
    assert carries(end)
    mesh.part(end)
    first = by_id(trio, answer.attempts[0].proxy_id)
    return first, next(h for h in trio[1:] if h is not first)


def test_a_late_answer_is_hedged_and_the_loser_is_cancelled(
    trio, agent, intact
):
    near = trio[0]
    first, second = first_asked(trio, agent)
    first.served.silent = True  # its worker says nothing
    cancelled = len(first.served.cancelled)
    hedges = near.peerd.metric("peerway_peerd_hedges_total")
    start = time.monotonic()
    answer, end = near.worker_0.connect(agent)
    took = time.monotonic() - start
    assert answer.route == near.worker_0.ipc.ROUTE_PEER, answer
    assert answer.proxy_id == second.id
    assert 0.1 <= took < 2 * SLOW, took
    assert [a.error for a in answer.attempts] == [
        "another proxy was faster", "",
    ]
    assert answer.attempts[0].hostname == "host-" + first.id[:4]
    assert carries(end)
    wait_for(
        lambda: len(first.served.cancelled) == cancelled + 1,
        TIMEOUT,
        "the loser is told",
    )
    assert near.peerd.metric("peerway_peerd_hedges_total") == hedges + 1
    assert near.peerd.metric("peerway_peerd_hedges_won_total") >= 1
    mesh.part(end)


def test_a_peer_that_has_just_stopped_costs_a_hedge_delay(trio, agent, intact):
    near = trio[0]
    first, second = first_asked(trio, agent)
    os.kill(first.peerd.pid, signal.SIGSTOP)
    try:
        start = time.monotonic()
        answer, end = near.worker_0.connect(agent)
        took = time.monotonic() - start
        print(f"dial past a stopped peer: {took * 1000:.0f} ms")
        assert answer.proxy_id == second.id, answer
        assert took < 2 * SLOW
        assert carries(end)
        mesh.part(end)
    finally:
        os.kill(first.peerd.pid, signal.SIGCONT)
    near.wait_peer(first.id)


def test_an_answer_in_time_asks_nobody_else(trio, agent, intact):
    near = trio[0]
    asked = [len(host.served.dials) for host in trio[1:]]
    for _ in range(20):
        answer, end = near.worker_0.connect(agent)
        assert len(answer.attempts) == 1
        assert carries(end)
        mesh.part(end)
    now = [len(host.served.dials) for host in trio[1:]]
    assert sum(now) - sum(asked) == 20


def test_when_both_answer_one_is_joined_and_the_other_closed(
    trio, agent, intact
):
    """The service of the loser may see a connection that ends without a
    byte, and never one that carries the client's."""
    near = trio[0]
    first, second = first_asked(trio, agent)
    go = threading.Event()
    ends = []

    def late(dial, fd):
        ends.append(socket.socket(fileno=fd))

    def answer_late(worker):
        handle = worker._handle_dial

        def delayed(dial, fd):
            def later():
                go.wait(TIMEOUT)
                handle(dial, fd)

            threading.Thread(target=later, daemon=True).start()

        worker._handle_dial = delayed
        return handle

    kept = [answer_late(first.served), answer_late(second.served)]
    serves = first.served.serve, second.served.serve
    first.served.serve = second.served.serve = late
    hedges = near.peerd.metric("peerway_peerd_hedges_total")
    try:
        ours, theirs = socket.socketpair()
        with theirs:
            dial_id = near.worker_0.dial(agent, theirs.fileno())
        wait_for(
            lambda: near.peerd.metric("peerway_peerd_hedges_total") > hedges,
            TIMEOUT,
            "a second one is asked",
        )
        go.set()
        answer = near.worker_0.answer(dial_id)
        assert answer.route == near.worker_0.ipc.ROUTE_PEER, answer
        ours.sendall(b"only once")
        wait_for(lambda: len(ends) == 2, TIMEOUT, "both have been asked")
        got = []
        for end in ends:
            end.settimeout(TIMEOUT)
            end.setblocking(True)
        readers = [
            threading.Thread(target=lambda end=end: got.append(end.recv(9)))
            for end in ends
        ]
        for reader in readers:
            reader.start()
        for reader in readers:
            reader.join(TIMEOUT)
        assert sorted(got) == [b"", b"only once"]
    finally:
        for host, handle, serve in zip((first, second), kept, serves):
            host.served._handle_dial = handle
            host.served.serve = serve
        for end in ends:
            end.close()
        ours.close()


def test_a_failure_asks_the_next_at_once(trio, agent, intact):
    near = trio[0]
    first, second = first_asked(trio, agent)
    first.served.refuse = lambda dial: (
        first.served.ipc.DIAL_OFFLINE, "no tunnel of the agent is here",
    )
    start = time.monotonic()
    answer, end = near.worker_0.connect(agent)
    assert answer.proxy_id == second.id
    assert time.monotonic() - start < 1 * SLOW
    assert "no tunnel of the agent is here" in answer.attempts[0].error
    assert carries(end)
    mesh.part(end)


def test_a_refusal_by_the_service_is_final(trio, agent, intact):
    near = trio[0]
    first, second = first_asked(trio, agent)
    asked = len(second.served.dials)
    first.served.refuse = lambda dial: (
        first.served.ipc.DIAL_REFUSED, "connection refused",
    )
    answer, end = near.worker_0.connect(agent)
    assert answer.code == near.worker_0.ipc.DIAL_REFUSED
    assert "connection refused" in answer.message
    assert len(second.served.dials) == asked
    end.close()


def test_the_deadline_is_of_the_whole_dial(trio, agent, intact):
    near = trio[0]
    for host in trio[1:]:
        host.served.silent = True
    start = time.monotonic()
    answer, end = near.worker_0.connect(agent, deadline_ms=1500)
    took = time.monotonic() - start
    assert answer.code == near.worker_0.ipc.DIAL_TIMED_OUT, answer
    assert 1.4 < took < 1.5 + 2 * SLOW
    assert [a.error for a in answer.attempts] == ["no answer in time"] * 2
    end.close()


def test_a_moved_agent_is_found_by_asking_authd(trio, intact):
    """The cache names one that no longer has it; authd knows better."""
    near, first, second = trio
    agent = str(uuid.uuid4())
    second.served.tunnel_up(agent, tunnel_id=77)
    second.wait_tunnel(agent)
    near.cache.put_tunnel(agent, first.id)
    near.routed.holders[agent] = [first.id, second.id]
    answer, end = near.worker_0.connect(agent)
    assert answer.proxy_id == second.id, answer
    assert len(answer.attempts) == 2
    assert carries(end)
    mesh.part(end)
    second.served.tunnel_down(77)


def test_authd_is_asked_when_the_only_known_holder_is_silent(trio, intact):
    near, first, second = trio
    agent = str(uuid.uuid4())
    second.served.tunnel_up(agent, tunnel_id=78)
    second.wait_tunnel(agent)
    near.cache.put_tunnel(agent, first.id)
    near.routed.holders[agent] = [first.id, second.id]
    os.kill(first.peerd.pid, signal.SIGSTOP)
    try:
        start = time.monotonic()
        answer, end = near.worker_0.connect(agent)
        assert answer.proxy_id == second.id, answer
        assert 1 <= time.monotonic() - start < 4 * SLOW
        assert carries(end)
        mesh.part(end)
    finally:
        os.kill(first.peerd.pid, signal.SIGCONT)
    near.wait_peer(first.id)
    second.served.tunnel_down(78)


class CountingRouted:
    """How many lookups of an agent routed is asked."""

    def __init__(self, routed, agent):
        self.count = 0
        outer = self

        class Holders(dict):
            def get(self, key, default=None):
                if key == agent:
                    outer.count += 1
                return super().get(key, default)

        routed.holders = Holders(routed.holders)


@pytest.mark.parametrize("authd", ["knows nobody", "is away"])
def test_authd_is_asked_once_a_second_however_many_dials(
    trio, intact, authd
):
    near = trio[0]
    agent = str(uuid.uuid4())
    counter = CountingRouted(near.routed, agent)
    if authd == "knows nobody":
        near.routed.holders[agent] = []
    start = time.monotonic()
    dials = 0
    while time.monotonic() - start < 3:
        waiting = []
        for _ in range(50):
            ours, theirs = socket.socketpair()
            with theirs:
                waiting.append((near.worker_0.dial(agent, theirs.fileno()), ours))
        for dial_id, ours in waiting:
            answer = near.worker_0.answer(dial_id)
            assert answer.code == near.worker_0.ipc.DIAL_OFFLINE
            assert "no proxy holds a tunnel of it" in answer.message
            ours.close()
        dials += len(waiting)
    took = time.monotonic() - start
    print(f"{dials} dials in {took:.1f} s, {counter.count} lookups")
    assert dials > 1000 / SLOW
    assert 2 <= counter.count <= took + 2


# what a client is told


@pytest.fixture(scope="module")
def fleet(module_cluster, echo):
    closed = socket.create_server(("127.0.0.1", 0))
    port = closed.getsockname()[1]
    closed.close()
    cluster = module_cluster(
        proxies=3,
        agents=["node-1"],
        services=echo.services()
        + [{"name": "dead", "type": "app", "addr": f"127.0.0.1:{port}"}],
    )
    for proxy in cluster.proxies:
        proxy.config["proxy_service"]["dial_timeout"] = "3s"
    # A frozen routed keeps its records for as long as a test takes.
    cluster.auth.write_config({"auth_service": {"lease_ttl": "20s"}})
    cluster.listeners = {
        proxy: proxy.tcp_listener("echo.node-1") for proxy in cluster.proxies
    }
    return cluster.start()


def refused(proxy, target):
    with pytest.raises(connect.Refused) as error:
        proxy.dial(target, timeout=TIMEOUT)
    body = error.value.body
    assert body.endswith("\n") and body.count("\n") == 1, body
    assert len(body) < 1500
    assert target in body
    return error.value.status, body


def test_an_unknown_agent_is_404(fleet):
    for proxy in fleet.proxies:
        status, body = refused(proxy, "echo.nobody")
        assert status == 404, body


def test_an_unknown_service_is_404(fleet):
    for proxy in fleet.proxies:
        status, body = refused(proxy, "nothing.node-1")
        assert status == 404, body


def test_a_service_that_refuses_is_502_on_every_route(fleet):
    for proxy in fleet.proxies:
        status, body = refused(proxy, "dead.node-1")
        assert status == 502, body
        assert "refused" in body


def test_a_silent_holder_is_504_and_named(fleet):
    holder = fleet.holder("node-1")
    other = fleet.others(holder)[0]
    name = other.peerd.status()["peers"]
    name = next(p["hostname"] for p in name if p["id"] == holder.uuid)
    workers = list(holder.worker_pids().values())
    for pid in workers:
        os.kill(pid, signal.SIGSTOP)
    try:
        status, body = refused(other, "echo.node-1")
        assert status == 504, body
        assert f"peer {name}: no answer in time" in body
    finally:
        for pid in workers:
            os.kill(pid, signal.SIGCONT)


def test_an_agent_that_has_gone_is_503_or_404_until_its_record_goes(fleet):
    """Known but without a tunnel: what was tried is told."""
    holder = fleet.holder("node-1")
    other = fleet.others(holder)[0]
    fleet.agents[0].agent.kill()
    status, body = 503, ""

    def told():
        nonlocal status, body
        try:
            other.dial("echo.node-1", timeout=TIMEOUT).close()
        except connect.Refused as error:
            status, body = error.status, error.body
            return True
        return False

    wait_for(told, TIMEOUT, "a dial is refused")
    assert status in (503, 404), body
    assert "node-1" in body and body.count("\n") == 1
    fleet.agents[0].agent.start()
    fleet.wait_agents()


LOOKUPS = "peerway_routed_lookups_total"  # each is one call at authd


def wait_held(fleet):
    """Records may be older than the tunnel; the tunnel itself is there."""
    wait_for(
        lambda: any(proxy.tunnel_names() for proxy in fleet.proxies),
        TIMEOUT,
        "the agent's tunnel",
    )


def reset_at_once(addr, count):
    """Connects that often; each is reset, some before connect() returns."""
    crowd = [socket.socket() for _ in range(count)]
    for client in crowd:
        client.setblocking(False)
        client.connect_ex(connect.split_addr(addr))
    for client in crowd:
        with client, pytest.raises(ConnectionResetError):
            client.settimeout(TIMEOUT)
            client.recv(1)


def test_many_dials_for_an_absent_agent_reach_authd_once_a_second(fleet):
    """The record stays, because the holder's routed does not say that the
    tunnel has gone; every proxy believes it until the lease ends."""
    wait_held(fleet)
    holder = fleet.holder("node-1")
    other = fleet.others(holder)[0]
    # An older record may still be there, and this one not yet.
    wait_for(
        lambda: other.agents().get("node-1") == {holder.uuid},
        TIMEOUT,
        "that record alone",
    )
    routed = holder.routed.pid
    os.kill(routed, signal.SIGSTOP)
    try:
        fleet.agents[0].agent.kill()
        wait_for(lambda: not holder.tunnel_names(), TIMEOUT, "no tunnel")
        status, body = refused(other, "echo.node-1")
        assert status == 503, body
        assert "no app reverse tunnel" in body
        failed = 'peerway_peerd_dials_total{outcome="failed"}'
        before = other.peerd.metrics()
        lookups = other.routed.metric(LOOKUPS)
        start = time.monotonic()
        while time.monotonic() - start < 2:
            reset_at_once(fleet.listeners[other], 50)
        took = time.monotonic() - start
        dials = other.peerd.metrics()[failed] - before[failed]
        lookups = other.routed.metric(LOOKUPS) - lookups
    finally:
        os.kill(routed, signal.SIGCONT)
        fleet.agents[0].agent.start()
        wait_held(fleet)
    print(f"{dials:.0f} dials in {took:.1f} s, {lookups:.0f} lookups")
    assert dials > 100 / SLOW
    assert 1 <= lookups <= took + 1
