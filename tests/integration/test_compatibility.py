# SPDX-License-Identifier: Apache-2.0
"""Both ways with a peer that knows the reference's protocol alone: python's gRPC
is a proxy of a real cluster, joined and published by itself, as server and as
client. Everything that it is sent is recorded: unknown metadata is all of ours
that it ever sees."""

import os
import threading
import time
import uuid
from concurrent import futures

import grpc
import pytest

import mesh
import stubs
import suite
from hosts import CLUSTER_NAME
from process import wait_for
from test_auth import Authd
from test_wire import channel_to

MIB = 1 << 20
TIMEOUT = 30 * suite.SLOW
# The reference's server ends a connection that pings more often.
MIN_PING_MS = 10_000
IDLE_S = 36


def peer():
    return stubs.load("peer_pb2")


class Recorder:
    """What one call has sent: raw messages, and metadata."""

    def __init__(self, metadata=()):
        self.metadata = [(item[0], item[1]) for item in metadata]
        self.frames = []

    def note(self, raw):
        self.frames.append(raw)
        return peer().Frame.FromString(raw)

    def check(self, first, also=()):
        """Nothing but the reference's frames, to the byte."""
        kinds = []
        for raw in self.frames:
            frame = peer().Frame.FromString(raw)
            # neither unknown fields nor another encoding
            assert frame.SerializeToString(deterministic=True) == raw
            kinds.append(frame.WhichOneof("Message"))
            if kinds[-1] == "Data":
                assert 0 < len(frame.Data.Bytes) <= 16384
        assert kinds[:1] == [first]
        assert set(kinds[1:]) <= {"Data"}
        theirs = {"user-agent", *also}
        for key, _ in self.metadata:
            assert key in theirs or key.startswith("peerway-"), key


class ReferenceProxy:
    """A proxy in python that holds one agent and echoes for it."""

    def __init__(self, cluster, address):
        self.calls = []
        self.peers = set()
        self.pings = 0
        self.agent = str(uuid.uuid4())
        self.answer = self.echo
        authd = Authd.__new__(Authd)
        authd.cluster, authd.host = cluster, cluster.auth
        authd.daemon, authd.channels = cluster.auth.authd, []
        authd.auth = stubs.load("auth_pb2")
        authd.record = stubs.load("record_pb2")
        authd.grpc = stubs.load("auth_pb2_grpc")
        authd.ca = authd.daemon.ask("ca")
        self.authd = authd
        self.proxy = authd.proxy()
        self.member = self.proxy.member
        self._serve(address)
        self._publish()

    def _serve(self, address):
        handlers = {
            "DialNode": grpc.stream_stream_rpc_method_handler(self._dial),
            "Ping": grpc.unary_unary_rpc_method_handler(self._ping),
        }
        self.server = grpc.server(
            futures.ThreadPoolExecutor(16),
            options=[
                ("grpc.so_reuseport", 0),
                ("grpc.http2.min_ping_interval_without_data_ms", MIN_PING_MS),
                (
                    "grpc.http2.min_recv_ping_interval_without_data_ms",
                    MIN_PING_MS,
                ),
                ("grpc.http2.max_ping_strikes", 2),
                ("grpc.keepalive_permit_without_calls", 1),
            ],
        )
        self.server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler("proto.ProxyService", handlers),)
        )
        creds = grpc.ssl_server_credentials(
            [(self.member.key.read_bytes(), self.member.cert.encode())],
            self.authd.ca["host_ca"].encode(),
            require_client_auth=True,
        )
        port = self.server.add_secure_port(f"{address}:0", creds)
        self.addr = f"{address}:{port}"
        self.server.start()

    def _publish(self):
        self.lease = self.proxy.grant()
        record = self.authd.record
        self.proxy.publish(
            self.lease,
            proxy=self.proxy.record(
                hostname="reference",
                peer_addr=self.addr,
                strategy={"type": "PROXY_PEERING", "agent_connection_count": 1},
            ),
            put=[
                record.TunnelRecord(
                    agent_id=self.agent,
                    proxy_id=self.member.uuid,
                    name="ref-1",
                    services=[{"name": "echo", "type": "app", "port": 7}],
                )
            ],
        )
        self.stopped = threading.Event()
        threading.Thread(target=self._keep_alive, daemon=True).start()

    def _keep_alive(self):
        while not self.stopped.wait(1):
            self.proxy.keepalive(self.lease)

    def _ping(self, request, context):
        self.peers.add(context.peer())
        self.pings += 1
        assert request == b""
        return b""

    def _dial(self, frames, context):
        call = Recorder(context.invocation_metadata())
        self.calls.append(call)
        self.peers.add(context.peer())
        call.note(next(frames))
        yield b"\x12\x00"
        yield from self.answer(call, frames, context)

    @staticmethod
    def echo(call, frames, context):
        """Until the other side ends, as the reference's server does."""
        for raw in frames:
            call.note(raw)
            yield raw

    def close(self):
        self.stopped.set()
        self.server.stop(0).wait()
        self.authd.close()


@pytest.fixture(scope="module")
def fleet(module_cluster, echo):
    return module_cluster(
        proxies=1, agents=["node-1"], services=echo.services()
    ).start()


@pytest.fixture(scope="module")
def reference(fleet):
    reference = ReferenceProxy(fleet, fleet.network.address(60))
    ours = fleet.proxies[0]
    wait_for(
        lambda: reference.member.uuid in ours.ready_peers()
        and "ref-1" in ours.agents(),
        TIMEOUT,
        "the real proxy knows the reference's and its agent",
    )
    yield reference
    reference.close()


def dial(fleet, reference):
    """A client's connection to the reference's agent, and its recorder."""
    reference.answer = reference.echo
    connection = fleet.proxies[0].dial("echo.ref-1")
    assert connection.route == "peer"
    assert connection.proxy == reference.member.uuid
    connection.settimeout(TIMEOUT)
    return connection, reference.calls[-1]


def ended(fleet):
    ours = fleet.proxies[0].peerd
    wait_for(
        lambda: ours.metric("peerway_peerd_streams") == 0,
        TIMEOUT,
        "the stream has ended",
    )


def test_the_dial_is_the_references(fleet, reference):
    connection, call = dial(fleet, reference)
    connection.sendall(b"hello")
    assert connection.recv_exactly(5) == b"hello"
    connection.close()
    ended(fleet)
    call.check("DialRequest")
    request = peer().Frame.FromString(call.frames[0]).DialRequest
    assert request.NodeID == f"{reference.agent}.{CLUSTER_NAME}"
    assert request.TunnelType == "app"
    assert request.Destination.Network == request.Source.Network == "tcp"
    assert request.Destination.Addr == "echo:7"


def test_bytes_both_ways(fleet, reference):
    connection, call = dial(fleet, reference)
    data = os.urandom(4 * MIB)
    sender = threading.Thread(target=connection.sendall, args=[data])
    sender.start()
    assert connection.recv_exactly(len(data)) == data
    sender.join()
    connection.close()
    ended(fleet)
    call.check("DialRequest")


def test_the_clients_end(fleet, reference):
    connection, call = dial(fleet, reference)
    connection.sendall(b"last words")
    connection.shutdown_write()
    assert connection.recv_all() == b"last words"
    connection.close()
    ended(fleet)
    call.check("DialRequest")


def test_the_agents_end(fleet, reference):
    connection, call = dial(fleet, reference)
    connection.close()
    ended(fleet)

    def banner(call, frames, context):
        yield peer().Frame(Data={"Bytes": b"banner"}).SerializeToString()

    reference.answer = banner
    connection = fleet.proxies[0].dial("echo.ref-1")
    connection.settimeout(TIMEOUT)
    assert connection.recv_all() == b"banner"  # a clean end: status OK
    connection.close()
    ended(fleet)
    reference.calls[-1].check("DialRequest")


def test_a_clients_abort(fleet, reference):
    connection, call = dial(fleet, reference)
    connection.sendall(b"half")
    assert connection.recv_exactly(4) == b"half"
    connection.abort()
    ended(fleet)
    call.check("DialRequest")


def test_another_status_than_ok_is_no_end(fleet, reference):
    connection, call = dial(fleet, reference)
    connection.close()
    ended(fleet)

    def fail(call, frames, context):
        yield peer().Frame(Data={"Bytes": b"half of it"}).SerializeToString()
        context.abort(grpc.StatusCode.UNAVAILABLE, "agent disconnected")

    reference.answer = fail
    connection = fleet.proxies[0].dial("echo.ref-1")
    connection.settimeout(TIMEOUT)
    assert connection.recv_exactly(10) == b"half of it"
    with pytest.raises(OSError):
        connection.recv(1)
    connection.close()
    ended(fleet)
    reference.calls[-1].check("DialRequest")


def test_keepalive_stays_within_the_references_limit(fleet, reference):
    """Three pings too many would end the connection and its streams."""
    connection, call = dial(fleet, reference)
    before = set(reference.peers)
    pings = reference.pings
    start = time.monotonic()
    wait_for(
        lambda: time.monotonic() - start > IDLE_S and reference.pings >= pings + 4,
        IDLE_S + 30 * suite.SLOW,
        "several keepalive periods",
        interval=1,
    )
    connection.sendall(b"still the same stream")
    assert connection.recv_exactly(21) == b"still the same stream"
    assert reference.peers == before and len(before) == 1
    assert not fleet.proxies[0].peerd.log_matches("too_many_pings|Too many pings")
    connection.close()
    ended(fleet)
    call.check("DialRequest")


# The reference's client at a real proxy


def call_ours(channel, agent):
    """DialNode without any metadata, by raw messages."""
    out = []
    ready = threading.Condition()

    def requests():
        while True:
            with ready:
                ready.wait_for(lambda: out)
                item = out.pop(0)
            if item is None:
                return
            yield item

    def send(**frame):
        with ready:
            out.append(frame and peer().Frame(**frame).SerializeToString() or None)
            ready.notify()

    call = channel.stream_stream(mesh.DIAL)(requests(), timeout=TIMEOUT)
    send(
        DialRequest={
            "NodeID": f"{agent}.{CLUSTER_NAME}",
            "TunnelType": "app",
            "Source": {"Network": "tcp", "Addr": "192.0.2.7:1"},
            "Destination": {"Network": "tcp", "Addr": "echo:0"},
        }
    )
    return call, send


@pytest.mark.parametrize("end", ["cancel", "half-close"])
def test_the_references_client(fleet, reference, end, tmp_path):
    ours = fleet.proxies[0]
    (tunnel,) = ours.peerd.ask("tunnels")["tunnels"]
    (tmp_path / "key.pem").write_bytes(reference.member.key.read_bytes())
    (tmp_path / "cert.pem").write_text(reference.member.cert)
    (tmp_path / "host_ca.pem").write_text(reference.authd.ca["host_ca"])
    with channel_to(ours.peer_addr, tmp_path) as channel:
        assert channel.unary_unary(mesh.PING)(b"", timeout=TIMEOUT) == b""
        call, send = call_ours(channel, tunnel["agent_id"])
        recorder = Recorder()
        recorder.note(next(call))
        data = os.urandom(300_000)
        for at in range(0, len(data), 10_000):
            send(Data={"Bytes": data[at : at + 10_000]})
        got = b""
        while len(got) < len(data):
            got += recorder.note(next(call)).Data.Bytes
        assert got == data
        if end == "cancel":
            call.cancel()
        else:
            send()
            for raw in call:
                recorder.note(raw)
            assert call.code() == grpc.StatusCode.OK
            recorder.metadata += list(call.trailing_metadata())
        recorder.metadata += list(call.initial_metadata())
        recorder.check("ConnectionEstablished")
        # who announced nothing is told nothing, not even in metadata
        assert not [k for k, _ in recorder.metadata if k.startswith("peerway-")]
    ended(fleet)
