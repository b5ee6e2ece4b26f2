# SPDX-License-Identifier: Apache-2.0
"""Two peerds and their switchboards, with workers and routed played here: who
gets a client's descriptor, what happens when a part of it goes, and that open
descriptors are the same afterwards."""

import os
import shutil
import signal
import socket
import tempfile
import threading
import time
import uuid

import pytest

import mesh
from hosts import SLOW, Network
from process import descriptor_table, wait_for

TIMEOUT = 20 * SLOW


@pytest.fixture(scope="module")
def ground():
    directory = tempfile.mkdtemp(prefix="pw-mesh-")
    network = Network()
    yield directory, network, mesh.Pki(directory + "/pki")
    network.close()
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(scope="module")
def make_host(ground):
    hosts = []

    def make(peering=True, start=True, **proxy):
        number = len(hosts) + 1
        hosts.append(mesh.Host(*ground, number, peering, **proxy))
        return hosts[-1].start() if start else hosts[-1]

    yield make
    for host in hosts:
        host.close()


@pytest.fixture(scope="module")
def pair(make_host):
    """Two hosts that know each other, a worker on each."""
    left, right = make_host(), make_host()
    left.know(right)
    right.know(left)
    for host, other in ((left, right), (right, left)):
        host.wait_peer(other.id)
        host.first = host.worker(0)
    yield left, right
    for host in (left, right):
        assert host.peerd.stop() == 0, host.peerd.tail(20)


@pytest.fixture
def agent(pair):
    """An agent on the right host, known to the left one."""
    left, right = pair
    agent = str(uuid.uuid4())
    right.first.tunnel_up(agent, tunnel_id=int(agent[:8], 16))
    right.wait_tunnel(agent)
    left.cache.put_tunnel(agent, right.id)
    yield agent
    right.first.tunnel_down(int(agent[:8], 16))


@pytest.fixture
def intact(pair):
    """As many descriptors after the test as before, on both hosts."""
    pids = [host.peerd.pid for host in pair]
    before = [len(descriptor_table(pid)) for pid in pids]
    yield

    def same():
        return all(
            len(descriptor_table(pid)) <= count
            for pid, count in zip(pids, before)
        )

    tables = [descriptor_table(pid) for pid in pids]
    wait_for(same, TIMEOUT, f"{before} descriptors again: {tables}")


def code(host, name):
    return host.first.ipc.DialCode.Value(name)


def route(host, name):
    return host.first.ipc.Route.Value(name)


def read_exactly(end, length):
    parts, left = [], length
    while left > 0:
        part = end.recv(min(left, 1 << 20))
        assert part, f"ended {left} bytes before {length}"
        parts.append(part)
        left -= len(part)
    return b"".join(parts)


def check_echo(end, size=100000):
    data = os.urandom(size)
    sender = threading.Thread(target=end.sendall, args=[data])
    sender.start()
    assert read_exactly(end, size) == data
    sender.join()


def test_peer_route(pair, agent, intact):
    left, right = pair
    name = os.urandom(16)
    answer, end = left.first.connect(agent, connection_id=name, user="bob")
    assert answer.route == route(left, "ROUTE_PEER")
    assert answer.proxy_id == right.id
    with end:
        check_echo(end, 3 << 20)
    # one connection, one name, in both logs
    for host, side in ((left, "caller"), (right, "callee")):
        host.peerd.wait_log(f"stream ended: .*side={side}.*conn={name.hex()}")
    dial = right.first.dials[-1]
    assert (dial.connection_id, dial.user) == (name, "bob")
    assert dial.from_peer


def test_many_streams_in_both_directions(pair, agent, intact):
    left, _ = pair
    failures = []

    def one():
        try:
            answer, end = left.first.connect(agent)
            with end:
                check_echo(end, 4 << 20)
        except Exception as error:  # reported by the main thread
            failures.append(error)

    threads = [threading.Thread(target=one) for _ in range(32)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures, failures
    streams = "peerway_peerd_streams"
    for host in pair:
        wait_for(lambda: host.peerd.metric(streams) == 0, TIMEOUT, streams)


def test_status_shows_the_peer(pair, agent):
    left, right = pair
    answer, end = left.first.connect(agent)
    with end:
        check_echo(end, 50000)
        status = left.peerd.status()
        (peer,) = [p for p in status["peers"] if p["id"] == right.id]
        assert peer["state"] == "ready" and peer["streams"] == 1
        assert peer["bytes_sent"] >= 50000 and peer["bytes_received"] >= 50000
        assert status["listening"] == left.peer_addr
        assert status["proxy_id"] == left.id
        assert status["workers"][0]["worker"] == 0


def test_the_only_peer_is_offline_for_the_agent(pair, intact):
    left, right = pair
    agent = str(uuid.uuid4())
    left.cache.put_tunnel(agent, right.id)
    answer, end = left.first.connect(agent)
    assert end.recv(1) == b""
    end.close()
    assert answer.code == code(left, "DIAL_OFFLINE")
    (attempt,) = answer.attempts
    assert attempt.proxy_id == right.id
    assert f"no app reverse tunnel for {agent}" in attempt.error


def test_nobody_holds_the_agent(pair, intact):
    left, _ = pair
    answer, end = left.first.connect(str(uuid.uuid4()))
    end.close()
    assert answer.code == code(left, "DIAL_OFFLINE")
    assert "no proxy holds a tunnel" in answer.message
    assert not answer.attempts


def test_refusal_codes_cross_the_mesh(pair, agent, intact):
    left, right = pair
    for name in ("DIAL_REFUSED", "DIAL_NOT_FOUND", "DIAL_TIMED_OUT"):
        right.first.refuse = lambda dial: (name, f"because of {name}")
        try:
            answer, end = left.first.connect(agent)
        finally:
            right.first.refuse = None
        end.close()
        assert answer.code == code(left, name)
        assert f"because of {name}" in answer.attempts[0].error


def test_authd_is_asked_when_the_cache_does_not_know(pair, intact):
    left, right = pair
    agent = str(uuid.uuid4())
    right.first.tunnel_up(agent, tunnel_id=77)
    right.wait_tunnel(agent)
    left.routed.holders[agent] = [left.id, right.id]
    answer, end = left.first.connect(agent)
    assert answer.route == route(left, "ROUTE_PEER"), answer
    with end:
        check_echo(end)
    right.first.tunnel_down(77)


def test_cancelled_dial(pair, agent, intact):
    left, right = pair
    right.first.silent = True
    try:
        ours, theirs = socket.socketpair()
        with theirs:
            dial_id = left.first.dial(agent, theirs.fileno())
        count = len(right.first.dials)
        wait_for(
            lambda: right.first.dials
            and right.first.dials[-1].agent_id == agent,
            TIMEOUT,
            "the dial at the far worker",
        )
        left.first.send(
            "IPC_DIAL_CANCEL", left.first.ipc.DialCancel(id=dial_id)
        )
        ours.settimeout(TIMEOUT)
        assert ours.recv(1) == b""
        ours.close()
        wait_for(
            lambda: right.first.dials[-1].id in right.first.cancelled,
            TIMEOUT,
            "the far worker is told",
        )
    finally:
        right.first.silent = False


def test_sibling_route(pair, intact):
    left, _ = pair
    agent = str(uuid.uuid4())
    other = left.worker(1)
    other.tunnel_up(agent)
    left.wait_tunnel(agent, 1)
    answer, end = left.first.connect(agent)
    assert answer.route == route(left, "ROUTE_SIBLING")
    assert (answer.proxy_id, answer.worker) == (left.id, 1)
    assert not other.dials[-1].from_peer
    with end:
        check_echo(end)
    other.close()


def test_a_failing_sibling_is_followed_by_peers(pair, agent, intact):
    left, right = pair
    other = left.worker(1)
    other.tunnel_up(agent)
    left.wait_tunnel(agent, 1)
    other.refuse = lambda dial: ("DIAL_OFFLINE", "tunnel just ended")
    answer, end = left.first.connect(agent)
    assert [a.error for a in answer.attempts] == ["tunnel just ended", ""]
    assert answer.route == route(left, "ROUTE_PEER")
    with end:
        check_echo(end)
    other.close()


def test_a_sibling_that_dies_while_it_is_asked(pair, agent, intact):
    left, right = pair
    other = left.worker(1)
    other.silent = True
    other.tunnel_up(agent)
    left.wait_tunnel(agent, 1)
    ours, theirs = socket.socketpair()
    with theirs:
        dial_id = left.first.dial(agent, theirs.fileno())
    wait_for(lambda: other.dials, TIMEOUT, "the sibling was asked")
    other.close()
    answer = left.first.answer(dial_id)
    assert answer.route == route(left, "ROUTE_PEER")
    assert "has gone" in answer.attempts[0].error
    ours.settimeout(TIMEOUT)
    with ours:
        check_echo(ours)


def test_the_newest_tunnel_counts_and_the_older_is_closed(pair, intact):
    left, _ = pair
    agent = str(uuid.uuid4())
    other = left.worker(1)
    left.first.tunnel_up(agent, tunnel_id=5, since_ms=1000)
    left.wait_tunnel(agent, 0)
    other.tunnel_up(agent, tunnel_id=6, since_ms=2000)
    left.wait_tunnel(agent, 1)
    wait_for(lambda: left.first.closed_tunnels == [5], TIMEOUT, "TUNNEL_CLOSE")
    answer, end = left.first.connect(agent)
    assert answer.worker == 1
    end.close()
    # a worker that goes takes its tunnels along; the older serves again
    other.close()
    left.wait_tunnel(agent, 0)
    left.first.tunnel_down(5)
    wait_for(
        lambda: agent
        not in [t["agent_id"] for t in left.peerd.ask("tunnels")["tunnels"]],
        TIMEOUT,
        "the tunnel is withdrawn",
    )


def test_unreachable_holders_come_last(pair, agent, intact):
    left, right = pair
    nobody = "00000000-0000-4000-8000-000000000000"  # first in the cache
    left.know((nobody, f"{left.address}:1"))
    left.wait_peer(nobody, "unreachable")
    left.cache.put_tunnel(agent, nobody)
    answer, end = left.first.connect(agent)
    end.close()
    assert [a.proxy_id for a in answer.attempts] == [right.id]
    left.cache.put_tunnel("only-" + agent, nobody)
    lonely = str(uuid.uuid4())
    left.cache.put_tunnel(lonely, nobody)
    answer, end = left.first.connect(lonely)
    end.close()
    assert answer.code == code(left, "DIAL_OFFLINE")
    assert "error starting stream" in answer.attempts[0].error
    left.cache.remove_proxy(nobody)
    left.routed.announce()


def tcp_pair():
    with socket.create_server(("127.0.0.1", 0)) as server:
        client = socket.create_connection(server.getsockname(), 10)
        return client, server.accept()[0]


def test_raw_socket_is_reset_on_failure(pair, intact):
    left, _ = pair
    client, accepted = tcp_pair()
    with accepted:
        dial_id = left.first.dial(str(uuid.uuid4()), accepted.fileno(), raw=True)
    assert left.first.answer(dial_id).code == code(left, "DIAL_OFFLINE")
    with client, pytest.raises(ConnectionResetError):
        client.recv(1)


def test_raw_socket_outlives_its_worker(pair, agent, intact):
    left, right = pair
    other = left.worker(1)
    client, accepted = tcp_pair()
    right.first.silent = True
    with accepted:
        other.dial(agent, accepted.fileno(), raw=True)
    wait_for(lambda: right.first.dials[-1].agent_id == agent, TIMEOUT)
    right.first.silent = False
    last = right.first.dials[-1]
    other.close()
    wait_for(
        lambda: len(left.peerd.status()["workers"]) == 1, TIMEOUT, "one worker"
    )
    # the far worker answers only now
    with client, socket.socket(fileno=right.first.kept.pop()) as far:
        right.first.send(
            "IPC_DIAL_OK",
            right.first.ipc.DialOk(id=last.id, route="ROUTE_LOCAL"),
        )
        client.sendall(b"still here")
        far.settimeout(TIMEOUT)
        assert read_exactly(far, 10) == b"still here"


def test_raw_socket_carries_and_closes_in_order(pair, agent, intact):
    left, right = pair
    client, accepted = tcp_pair()
    with accepted:
        dial_id = left.first.dial(agent, accepted.fileno(), raw=True)
    assert left.first.answer(dial_id).route == route(left, "ROUTE_PEER")

    with client:
        check_echo(client, 1 << 20)

    # the service closes while the client still sends: nothing is lost
    def serve(dial, fd):
        with socket.socket(fileno=fd) as end:
            end.setblocking(True)
            end.sendall(b"last words" * 10000)
            mesh.part(end)

    serve, right.first.serve = right.first.serve, serve
    client, accepted = tcp_pair()
    try:
        with accepted:
            dial_id = left.first.dial(agent, accepted.fileno(), raw=True)
        left.first.answer(dial_id)
        with client:
            client.sendall(b"never read" * 100)
            assert read_exactly(client, 100000) == b"last words" * 10000
            assert client.recv(1) == b""
    finally:
        right.first.serve = serve


def test_a_vanished_peer_keeps_its_streams(pair, agent, intact):
    left, right = pair
    answer, end = left.first.connect(agent)
    with end:
        check_echo(end)
        left.cache.remove_proxy(right.id)
        left.routed.announce()
        wait_for(
            lambda: not left.peerd.status()["peers"], TIMEOUT, "peer removed"
        )
        check_echo(end)
        refused, other = left.first.connect(agent)
        other.close()
        assert refused.code == code(left, "DIAL_OFFLINE")
        check_echo(end)
    left.know(right)
    left.wait_peer(right.id)


def test_a_moved_peer_keeps_its_streams(pair, agent, make_host, intact):
    left, right = pair
    moved_to = f"{right.address}:1"
    answer, end = left.first.connect(agent)
    with end:
        check_echo(end)
        left.know((right.id, moved_to))
        left.wait_peer(right.id, "unreachable")
        check_echo(end)
        left.know(right)
        left.wait_peer(right.id)
        again, other = left.first.connect(agent)
        assert again.route == route(left, "ROUTE_PEER")
        with other:
            check_echo(other)
        check_echo(end)


def test_a_new_certificate_serves_new_streams(ground, pair, agent, intact):
    left, right = pair
    answer, end = left.first.connect(agent)
    with end:
        check_echo(end)
        for host in pair:
            host.routed.announce(ground[2].issue(host.id))
            host.peerd.wait_log("certificate replaced")
        left.wait_peer(right.id)
        again, other = left.first.connect(agent)
        with other:
            check_echo(other)
        check_echo(end)


def test_certificates_that_change_quickly_leave_no_connection(
    ground, pair, agent, intact
):
    left, right = pair
    identities = [ground[2].issue(left.id) for _ in range(2)]
    for i in range(30):
        left.routed.announce(identities[i % 2])
        time.sleep(0.01 * (i % 4))
    wait_for(
        lambda: len(left.peerd.log_matches("certificate replaced")) >= 30,
        TIMEOUT,
        "all were taken",
    )
    left.wait_peer(right.id)
    _, end = left.first.connect(agent)
    with end:
        check_echo(end)


def test_a_killed_peer(pair, agent):
    """Streams over it end at once, new dials fail fast; it comes back."""
    left, right = pair
    before = len(descriptor_table(left.peerd.pid))
    _, end = left.first.connect(agent)
    client, accepted = tcp_pair()
    with accepted:
        dial_id = left.first.dial(agent, accepted.fileno(), raw=True)
    left.first.answer(dial_id)
    check_echo(end)
    check_echo(client)
    right.peerd.kill()
    start = time.monotonic()
    assert end.recv(1) == b""
    with pytest.raises(ConnectionResetError):
        client.recv(1)
    assert time.monotonic() - start < 3 * SLOW
    end.close()
    client.close()
    start = time.monotonic()
    answer, end = left.first.connect(agent)
    end.close()
    assert answer.code == code(left, "DIAL_OFFLINE")
    assert time.monotonic() - start < 3 * SLOW
    peer = left.wait_peer(right.id, "unreachable")
    assert peer["streams"] == 0
    left.peerd.wait_log(f"peer unreachable: .*peer={right.id}")
    assert "failed to connect" in left.wait_peer(right.id, "unreachable")["last_error"]
    assert len(descriptor_table(left.peerd.pid)) <= before

    right.start()
    right.first = right.worker(0)
    right.first.tunnel_up(agent, tunnel_id=int(agent[:8], 16))
    right.wait_tunnel(agent)
    back = time.monotonic()
    left.wait_peer(right.id)
    answer, end = left.first.connect(agent)
    assert answer.route == route(left, "ROUTE_PEER")
    with end:
        check_echo(end)
    assert time.monotonic() - back < 5 * SLOW
    right.wait_peer(left.id)


def test_a_silent_peer_is_noticed(pair, agent):
    """No FIN, no RST: HTTP/2 pings find out."""
    left, right = pair
    _, end = left.first.connect(agent)
    end.settimeout(40 * SLOW)
    check_echo(end)
    os.kill(right.peerd.pid, signal.SIGSTOP)
    try:
        start = time.monotonic()
        assert end.recv(1) == b""
        assert time.monotonic() - start < 25 * SLOW
    finally:
        os.kill(right.peerd.pid, signal.SIGCONT)
    end.close()
    left.wait_peer(right.id, timeout=30 * SLOW)


def test_agent_mesh_serves_siblings_and_does_not_listen(make_host):
    host = make_host(peering=False)
    host.first = host.worker(0)
    other = host.worker(1)
    agent = str(uuid.uuid4())
    other.tunnel_up(agent)
    host.wait_tunnel(agent)
    answer, end = host.first.connect(agent)
    assert answer.route == route(host, "ROUTE_SIBLING")
    with end:
        check_echo(end)
    assert host.peerd.status()["listening"] is None
    name, port = host.peer_addr.split(":")
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((name, int(port)), 5)
    for worker in (host.first, other):
        worker.close()
    assert host.peerd.stop() == 0


def test_start_without_routed_goes_on_from_the_disk(make_host):
    host = make_host(start=False)
    host.routed.close()
    identity = host.data_dir / "identity"
    identity.mkdir()
    os.symlink(host.routed.identity, identity / "current")
    host.peerd.start().wait_ready()
    assert host.peerd.status()["listening"] == host.peer_addr
    assert host.peerd.stop() == 0


def test_a_taken_port_is_told_and_tried_again(make_host):
    host = make_host(start=False)
    name, port = host.peer_addr.split(":")
    with socket.create_server((name, int(port))):
        host.peerd.start()
        host.peerd.wait_log(f"error .*{host.peer_addr} cannot be listened on")
        status, missing = host.peerd.http("/readyz")
        assert status == 503 and "not listening" in missing
    host.peerd.wait_ready()
    assert host.peerd.stop() == 0


def test_drain_serves_until_the_last_worker_has_gone(make_host, pair):
    left, _ = pair
    leaving = make_host(drain_timeout="60s")
    worker = leaving.worker(0)
    agent = str(uuid.uuid4())
    worker.tunnel_up(agent)
    leaving.wait_tunnel(agent)
    left.know(leaving)
    left.cache.put_tunnel(agent, leaving.id)
    left.wait_peer(leaving.id)
    _, end = left.first.connect(agent)
    leaving.peerd.send_signal(signal.SIGTERM)
    leaving.peerd.expected_end = True
    leaving.peerd.wait_log("draining")
    check_echo(end)
    answer, other = left.first.connect(agent)  # new ones as well
    assert answer.route == route(left, "ROUTE_PEER")
    other.close()
    end.close()
    worker.close()
    assert leaving.peerd.popen.wait(10 * SLOW) == 0
    left.cache.remove_proxy(leaving.id)
    left.routed.announce()


def test_drain_ends_after_its_time(make_host):
    host = make_host(drain_timeout="1s")
    worker = host.worker(0)
    start = time.monotonic()
    assert host.peerd.stop() == 0
    assert 0.9 <= time.monotonic() - start < 8 * SLOW
    worker.close()


class Between:
    """Connections to addr by way of the test, which can cut each."""

    def __init__(self, network, number, addr):
        self.to = addr.rsplit(":", 1)
        self.listener = socket.create_server((network.address(number), 0))
        self.addr = "%s:%d" % self.listener.getsockname()
        self.pairs = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                near, _ = self.listener.accept()
            except OSError:
                return
            far = socket.create_connection((self.to[0], int(self.to[1])))
            self.pairs.append((near, far))
            for one, other in ((near, far), (far, near)):
                threading.Thread(
                    target=self._pump, args=[one, other], daemon=True
                ).start()

    @staticmethod
    def _pump(one, other):
        try:
            while data := one.recv(1 << 16):
                other.sendall(data)
        except OSError:
            pass
        for end in (one, other):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def cut(self, index):
        self.pairs[index][0].shutdown(socket.SHUT_RDWR)

    def close(self):
        self.listener.close()
        for pair in self.pairs:
            for end in pair:
                end.close()


def test_streams_spread_over_several_connections(ground, make_host):
    """peer_connections: a new stream takes the connection with the fewest;
    one that dies takes its streams along and no others, and comes back."""
    left = make_host(peer_connections=3)
    right = make_host()
    between = Between(ground[1], 30, right.peer_addr)
    left.know((right.id, between.addr))
    right.know(left)
    agent = str(uuid.uuid4())
    holder = right.worker()
    holder.tunnel_up(agent)
    right.wait_tunnel(agent)
    left.cache.put_tunnel(agent, right.id)

    def all_ready():
        (peer,) = left.peerd.status()["peers"]
        return peer["connections_ready"] == peer["connections"] == 3

    wait_for(all_ready, TIMEOUT, "three connections")
    assert len(between.pairs) == 3
    worker = left.worker()
    ends = []
    for _ in range(6):
        answer, end = worker.connect(agent)
        assert answer.route == worker.ipc.ROUTE_PEER
        check_echo(end, 1000)
        ends.append(end)
    between.cut(0)
    alive = []
    for end in ends:
        try:
            end.sendall(b"alive?")
            assert read_exactly(end, 6) == b"alive?"
            alive.append(end)
        except (OSError, AssertionError):
            end.close()
    assert len(alive) == 4
    wait_for(all_ready, TIMEOUT, "the third connection is back")
    for end in alive:
        check_echo(end, 10)
        end.close()
    worker.close()
    holder.close()
    assert left.peerd.stop() == 0
    between.close()
