# SPDX-License-Identifier: Apache-2.0
"""Many streams share one tunnel and one peer connection: all bytes arrive, a
reader that stops holds up only itself and a bounded amount of memory, and an
end of either direction leaves the other open."""

import os
import threading
import time
from pathlib import Path

import pytest

import services
import suite
from process import wait_for
from traffic import dial_until, plain

MIB = 1 << 20
STREAM_BUFFER_MAX = 1 * MIB
STALL_SECONDS = 20
PEER_MEMORY_MAX = 192 * MIB


@pytest.fixture(scope="module")
def fleet(module_cluster, echo):
    cluster = module_cluster(
        proxies=2, agents=["node-1"], services=echo.services()
    )
    for proxy in cluster.proxies:
        service = proxy.config["proxy_service"]
        service["stream_buffer_max"] = STREAM_BUFFER_MAX
        service["peer_memory_max"] = PEER_MEMORY_MAX
    return cluster.start()


def connections_to(addr):
    """Established TCP connections to addr, from the kernel's tables (gRPC's
    sockets are of IPv6, with IPv4 addresses mapped)."""
    host, port = addr.rsplit(":", 1)
    packed = bytes(int(part) for part in reversed(host.split("."))).hex()
    remote = f"{packed}:{int(port):04x}".upper()
    rows = [
        row.split()
        for table in ("tcp", "tcp6")
        for row in Path("/proc/net", table).read_text().splitlines()[1:]
    ]
    established = "01"
    return sum(
        row[2].endswith(remote) and row[3] == established for row in rows
    )


def test_64_transfers_at_once(fleet):
    holder = fleet.holder("node-1")
    other = fleet.others(holder)[0]
    with services.Load(
        other, "pump.node-1", 64, 32 * MIB, 32 * MIB, 240 * suite.SLOW
    ) as load:
        wait_for(
            lambda: holder.proxy.metric("peerway_proxy_streams") >= 64,
            30 * suite.SLOW,
            "64 streams at once",
        )
        assert connections_to(holder.peer_addr) == 1
        assert len(holder.tunnel_names()) == 1
        results = load.results()
    assert [r["error"] for r in results] == [""] * 64
    assert {r["route"] for r in results} == {"peer"}
    assert {(r["sent"], r["received"]) for r in results} == {
        (32 * MIB, 32 * MIB)
    }


def rss(daemon):
    """Anonymous memory of a daemon's processes, bytes."""
    total = 0
    for pid in daemon.pids():
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("RssAnon:"):
                total += int(line.split()[1]) * 1024
    return total


def bytes_held(proxy):
    return proxy.proxy.metric("peerway_proxy_stream_bytes_held")


def test_stalled_readers_are_bounded(fleet):
    holder = fleet.holder("node-1")
    other = fleet.others(holder)[0]
    wait_for(lambda: bytes_held(holder) == 0, 10, "nothing is held")
    stalled = []
    for proxy, route in ((holder, "local"), (other, "peer")):
        stream = proxy.dial("pump.node-1", timeout=60)
        assert stream.route == route
        transfer = services.Transfer(stream, 0, 256 * MIB)
        transfer.request()
        transfer.receive(MIB)
        stalled.append(transfer)

    daemons = [d for d in fleet.daemons() if d.name != "auth.authd"]
    before = {daemon.name: rss(daemon) for daemon in daemons}
    start = time.monotonic()
    held, held_alone = [], []
    with services.Load(
        other, "pump.node-1", 8, 8 * MIB, 8 * MIB, STALL_SECONDS
    ) as load:
        while time.monotonic() - start < STALL_SECONDS:
            held.append(bytes_held(holder))
            time.sleep(0.25)  # the interval of sampling, not a wait
        results = load.results()
    # The load has gone, and with it what its own readers were behind by.
    wait_for(
        lambda: 0 < bytes_held(holder) <= 2 * STREAM_BUFFER_MAX,
        10 * suite.SLOW,
        "what is held for the two stalled readers is within its bound",
    )
    for _ in range(8):
        held_alone.append(bytes_held(holder))
        time.sleep(0.25)
    assert all(r["ok"] and r["route"] == "peer" for r in results), results
    assert max(held) <= (2 + 8) * STREAM_BUFFER_MAX
    assert max(held_alone) <= 2 * STREAM_BUFFER_MAX
    assert min(held_alone) > 0, "the metric counts something else"
    for daemon in daemons:
        grown = rss(daemon) - before[daemon.name]
        # gRPC's windows of peer streams are bounded by its resource quota
        # alone, which is less than what is pending.
        bound = 24 * MIB
        if daemon.name.endswith("peerd"):
            bound = PEER_MEMORY_MAX
        assert grown < bound * suite.SLOW, f"{daemon.name} grew by {grown}"

    for transfer in stalled:
        transfer.receive_rest()
        transfer.check_digests()
        transfer.stream.close()


def test_a_service_that_does_not_read_is_bounded(make_cluster, echo):
    listener = services.Listener()
    cluster = make_cluster(
        proxies=2,
        agents=["node-1"],
        services=[{"name": "deaf", "type": "app",
                   "addr": f"127.0.0.1:{listener.port}"}] + echo.services(),
    )
    cluster.add_service(listener)
    cluster.start()
    holder = cluster.holder("node-1")
    for proxy in (holder, cluster.others(holder)[0]):
        with proxy.dial("deaf.node-1") as client:
            service = listener.accept()
            sent = [0]

            def send():
                try:
                    while sent[0] < 256 * MIB:
                        client.sendall(bytes(256 * 1024))
                        sent[0] += 256 * 1024
                except OSError:
                    pass

            sender = threading.Thread(target=send, daemon=True)
            sender.start()
            stuck_for(lambda: sent[0], 2)
            assert sent[0] < 48 * MIB, f"{sent[0]} bytes were taken"
            with proxy.dial("echo.node-1") as another:
                another.sendall(b"still there")
                assert another.recv_exactly(11) == b"still there"
            received = 0
            while received < 256 * MIB:
                received += len(service.recv(1 << 20))
            sender.join(30)
            assert received == sent[0] == 256 * MIB
            service.close()


def stuck_for(value, seconds, timeout=30):
    """Waits until value() has not changed for so many seconds."""
    last = [value(), time.monotonic()]

    def stuck():
        now = value()
        if now != last[0]:
            last[:] = [now, time.monotonic()]
        return time.monotonic() - last[1] >= seconds

    wait_for(stuck, timeout, "no more bytes are taken", interval=0.1)


HALF = 8 * MIB + 12345


class Ends:
    """One connection whose two ends the test holds, by route and kind."""

    def __init__(self, cluster, listener):
        self.cluster = cluster
        self.listener = listener
        self.raw = cluster.raw

    def _accept(self, stream):
        """The service's end of this stream: what it sends must come first."""
        mark = os.urandom(16)
        stream.sendall(mark)
        while True:
            service = self.listener.accept()
            got = b""
            while len(got) < 16 and (part := service.recv(16 - len(got))):
                got += part
            if got == mark:
                return service
            service.close()

    def tls(self, route):
        stream = dial_until(
            self.cluster.proxies[0],
            "held.node-1",
            lambda connection: connection.route == route,
        )
        return stream, self._accept(stream)

    def _raw_sibling(self):
        """How many dials of this host went to a sibling."""
        status = self.cluster.proxies[0].peerd.status()
        return status["dials"]["sibling"]

    def plain(self, route):
        for _ in range(60):
            before = self._raw_sibling()
            stream = plain(self.raw)
            service = self._accept(stream)
            taken = "sibling" if self._raw_sibling() > before else "local"
            if taken == route:
                return stream, service
            stream.close()
            service.close()
        raise AssertionError(f"no {route} route in 60 dials")


@pytest.fixture(scope="module")
def ends(module_cluster):
    listener = services.Listener()
    cluster = module_cluster(
        proxies=1,
        workers=2,
        agents=["node-1"],
        services=[{"name": "held", "type": "app",
                   "addr": f"127.0.0.1:{listener.port}"}],
    )
    cluster.add_service(listener)
    cluster.raw = cluster.proxies[0].tcp_listener("held.node-1")
    return Ends(cluster.start(), listener)


def half_close(stream):
    if hasattr(stream, "shutdown_write"):
        stream.shutdown_write()
    else:
        stream.shutdown(1)


def read_to_end(stream):
    data = bytearray()
    while part := stream.recv(1 << 18):
        data += part
    return bytes(data)


@pytest.mark.parametrize("first", ["client", "service"])
@pytest.mark.parametrize("route", ["local", "sibling"])
@pytest.mark.parametrize("kind", ["tls", "plain"])
def test_half_close(ends, kind, route, first):
    """One end says it is done; all that the other still sends arrives."""
    client, service = getattr(ends, kind)(route)
    with client, service:
        client.settimeout(20 * suite.SLOW)
        service.settimeout(20 * suite.SLOW)
        one, other = (client, service) if first == "client" else (
            service, client)
        question, answer = os.urandom(HALF), os.urandom(HALF)
        got = []
        reader = threading.Thread(target=lambda: got.append(read_to_end(other)))
        reader.start()
        one.sendall(question)
        half_close(one)
        reader.join(30 * suite.SLOW)
        assert got == [question]
        back = []
        reader = threading.Thread(target=lambda: back.append(read_to_end(one)))
        reader.start()
        other.sendall(answer)
        half_close(other)
        reader.join(30 * suite.SLOW)
        assert back == [answer]
