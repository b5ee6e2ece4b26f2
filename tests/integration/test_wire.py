# SPDX-License-Identifier: Apache-2.0
"""The peering protocol on port 3021, byte for byte, against python's gRPC with
stubs of proto/peer.proto: peerd as server and as client. After every error the
same connection serves the next stream, and no descriptor is left behind."""

import os
import queue
import resource
import shutil
import socket
import tempfile
import threading
import time
import uuid
from concurrent import futures

import grpc
import pytest

import mesh
import stubs
from hosts import CLUSTER_NAME, SLOW, Network
from process import descriptor_table, wait_for

AGENT = "6f2b1c1e-0000-4000-8000-000000000001"
STRANGER = "6f2b1c1e-0000-4000-8000-00000000dead"
TIMEOUT = 15 * SLOW


@pytest.fixture(scope="module")
def ground():
    """(directory, loopback network, host CA)"""
    directory = tempfile.mkdtemp(prefix="pw-wire-")
    network = Network()
    yield directory, network, mesh.Pki(directory + "/pki")
    network.close()
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(scope="module")
def host(ground):
    """A peerd with one worker that echoes for AGENT."""
    host = mesh.Host(*ground, number=1).start()
    host.echo = host.worker()
    host.echo.tunnel_up(AGENT)
    host.wait_tunnel(AGENT)
    yield host
    assert host.peerd.stop() == 0, host.peerd.tail(20)
    host.close()


@pytest.fixture
def intact(host):
    """peerd holds as many descriptors after the test as before."""
    pid = host.peerd.pid
    before = len(descriptor_table(pid))
    yield
    wait_for(
        lambda: len(descriptor_table(pid)) <= before
        and host.peerd.metric("peerway_peerd_streams") == 0,
        TIMEOUT,
        f"{before} descriptors again: {descriptor_table(pid)}",
    )
    assert host.peerd.pid == pid and host.peerd.running()


def peer():
    return stubs.load("peer_pb2")


def credentials(identity):
    def read(name):
        return (identity / name).read_bytes()

    return grpc.ssl_channel_credentials(
        read("host_ca.pem"), read("key.pem"), read("cert.pem")
    )


def channel_to(addr, identity):
    return grpc.secure_channel(
        addr,
        credentials(identity),
        [
            ("grpc.ssl_target_name_override", mesh.SERVER_NAME),
            ("grpc.use_local_subchannel_pool", 1),
            ("grpc.max_receive_message_length", 8 << 20),
            ("grpc.max_send_message_length", 8 << 20),
        ],
    )


@pytest.fixture
def proxy_channel(ground, host, intact):
    """A connection with the certificate of another proxy."""
    identity = ground[2].issue(str(uuid.uuid4()))
    with channel_to(host.peer_addr, identity) as channel:
        yield channel


class Stream:
    """One DialNode call, driven by hand."""

    def __init__(self, channel, metadata=()):
        self.out = queue.Queue()
        stub = stubs.load("peer_pb2_grpc").ProxyServiceStub(channel)
        self.call = stub.DialNode(
            iter(self.out.get, None), timeout=TIMEOUT, metadata=metadata
        )

    def send(self, **frame):
        self.out.put(peer().Frame(**frame))

    def dial(self, node_id=f"{AGENT}.{CLUSTER_NAME}", **fields):
        fields.setdefault("TunnelType", "app")
        fields.setdefault("Source", {"Network": "tcp", "Addr": "192.0.2.7:1"})
        fields.setdefault("Destination", {"Network": "tcp", "Addr": "echo:7"})
        self.send(DialRequest={"NodeID": node_id, **fields})
        return self

    def receive(self):
        return next(self.call)

    def established(self):
        assert self.receive().WhichOneof("Message") == "ConnectionEstablished"
        return self

    def send_data(self, data):
        self.send(Data={"Bytes": data})

    def receive_data(self, length):
        """length bytes; every frame is Data, not empty, at most 16 KiB."""
        parts, left = [], length
        while left > 0:
            frame = self.receive()
            assert frame.WhichOneof("Message") == "Data"
            assert 0 < len(frame.Data.Bytes) <= 16384
            parts.append(frame.Data.Bytes)
            left -= len(frame.Data.Bytes)
        return b"".join(parts)

    def fails_with(self, code, text):
        with pytest.raises(grpc.RpcError) as error:
            self.receive()
        assert error.value.code() == code, error.value.details()
        assert text in error.value.details()

    def close(self):
        self.call.cancel()
        self.out.put(None)


def check_echo(channel, data=b"hello"):
    """The connection serves a stream."""
    stream = Stream(channel).dial().established()
    stream.send_data(data)
    assert stream.receive_data(len(data)) == data
    stream.close()


# peerd as server


def test_dial_and_echo(proxy_channel, intact, host):
    data = bytes(range(256)) * 4096  # 1 MiB
    stream = Stream(proxy_channel).dial().established()
    for at in range(0, len(data), 16384):
        stream.send_data(data[at : at + 16384])
    assert stream.receive_data(len(data)) == data
    stream.close()
    dial = host.echo.dials[-1]
    assert dial.from_peer and not dial.raw
    assert (dial.agent_id, dial.service, dial.port) == (AGENT, "echo", 7)
    assert (dial.type, dial.source) == ("app", "192.0.2.7:1")


@pytest.mark.parametrize("size", [1, 16385, 65536, 1 << 20, 4 << 20])
def test_larger_frames_are_accepted(proxy_channel, intact, size):
    data = b"\xa5" * size
    check_echo(proxy_channel, data)


@pytest.mark.parametrize("addr", ["", "@local-node", "@local-node:0"])
def test_the_only_service_of_a_type(proxy_channel, intact, host, addr):
    destination = {"Network": "tcp", "Addr": addr}
    stream = Stream(proxy_channel)
    stream.dial(Destination=destination, TunnelType="node").established()
    stream.close()
    dial = host.echo.dials[-1]
    assert (dial.service, dial.port, dial.type) == ("", 0, "node")


def test_unknown_metadata_is_ignored(proxy_channel, intact):
    metadata = [("version", "17.0.0"), ("x-unknown", "eof,credit")]
    stream = Stream(proxy_channel, metadata).dial().established()
    keys = {key for key, _ in stream.call.initial_metadata()}
    assert not any(key.startswith("peerway") for key in keys)
    stream.close()


def test_ping(proxy_channel, intact):
    stub = stubs.load("peer_pb2_grpc").ProxyServiceStub(proxy_channel)
    request = peer().ProxyServicePingRequest()
    assert stub.Ping(request, timeout=TIMEOUT).ByteSize() == 0


INVALID = [
    ({"Data": {"Bytes": b"x"}}, "request must not be nil"),
    ({"ConnectionEstablished": {}}, "request must not be nil"),
    ({"Eof": {}}, "request must not be nil"),
    ({}, "request must not be nil"),
    (
        {"DialRequest": {"NodeID": "id.c", "Destination": {}}},
        "source and destination must not be nil",
    ),
    (
        {"DialRequest": {"NodeID": "id.c", "Source": {}}},
        "source and destination must not be nil",
    ),
    (
        {"DialRequest": {"NodeID": "", "Source": {}, "Destination": {}}},
        'invalid server id: ""',
    ),
    (
        {"DialRequest": {"NodeID": ".c", "Source": {}, "Destination": {}}},
        'invalid server id: ".c"',
    ),
]


@pytest.mark.parametrize("frame, text", INVALID)
def test_invalid_first_frame(proxy_channel, intact, frame, text):
    stream = Stream(proxy_channel)
    stream.send(**frame)
    stream.fails_with(grpc.StatusCode.INVALID_ARGUMENT, text)
    stream.close()
    check_echo(proxy_channel)


def test_call_without_a_frame_ends_by_itself(proxy_channel, intact):
    stream = Stream(proxy_channel)
    stream.fails_with(grpc.StatusCode.DEADLINE_EXCEEDED, "no dial request")
    stream.close()
    stream = Stream(proxy_channel)
    stream.out.put(None)  # half-close at once
    stream.fails_with(grpc.StatusCode.INVALID_ARGUMENT, "must not be nil")
    check_echo(proxy_channel)


@pytest.mark.parametrize(
    "node_id",
    [f"{STRANGER}.{CLUSTER_NAME}", AGENT, f"{AGENT}.other", "id." * 3000],
)
def test_unknown_agent(proxy_channel, intact, node_id):
    stream = Stream(proxy_channel).dial(node_id)
    stream.fails_with(
        grpc.StatusCode.UNAVAILABLE, f"no app reverse tunnel for {node_id[:300]}"
    )
    stream.close()
    check_echo(proxy_channel)


def test_no_such_service_is_told(proxy_channel, intact, host):
    host.echo.refuse = lambda dial: ("DIAL_NOT_FOUND", "no service x")
    try:
        stream = Stream(proxy_channel).dial()
        stream.fails_with(grpc.StatusCode.UNAVAILABLE, "no service x")
    finally:
        host.echo.refuse = None
    stream.close()
    stream = Stream(proxy_channel)
    stream.dial(Destination={"Network": "tcp", "Addr": "10.0.0.1:22"})
    stream.fails_with(grpc.StatusCode.UNAVAILABLE, "10.0.0.1:22")
    stream.close()
    check_echo(proxy_channel)


@pytest.mark.parametrize(
    "frame",
    [{"ConnectionEstablished": {}}, {"DialRequest": {}}, {"Credit": {}}, {}],
)
def test_only_data_after_the_dial(proxy_channel, intact, frame):
    stream = Stream(proxy_channel).dial().established()
    stream.send(**frame)
    stream.fails_with(grpc.StatusCode.UNAVAILABLE, "received invalid frame")
    stream.close()
    check_echo(proxy_channel)


def test_empty_data_is_an_error(proxy_channel, intact):
    stream = Stream(proxy_channel).dial().established()
    stream.send_data(b"")
    stream.fails_with(grpc.StatusCode.UNAVAILABLE, "received invalid data")
    stream.close()
    check_echo(proxy_channel)


def test_the_agents_end_ends_the_stream_in_order(proxy_channel, intact, host):
    def serve(dial, fd):
        with socket.socket(fileno=fd) as end:
            end.setblocking(True)
            end.sendall(b"z" * 300000)
            mesh.part(end)

    serve, host.echo.serve = host.echo.serve, serve
    try:
        stream = Stream(proxy_channel).dial().established()
        assert stream.receive_data(300000) == b"z" * 300000
        with pytest.raises(StopIteration):  # status OK
            stream.receive()
        assert stream.call.code() == grpc.StatusCode.OK
    finally:
        host.echo.serve = serve
    stream.close()


@pytest.mark.parametrize("way", ["cancel", "half-close"])
def test_the_callers_end_ends_the_stream(proxy_channel, intact, host, way):
    ended = queue.Queue()
    received = []

    def serve(dial, fd):
        with socket.socket(fileno=fd) as end:
            end.setblocking(True)
            while data := end.recv(65536):
                received.append(len(data))
            ended.put(True)
            end.recv(1)

    serve, host.echo.serve = host.echo.serve, serve
    try:
        stream = Stream(proxy_channel).dial().established()
        for _ in range(64):
            stream.send_data(b"u" * 16384)
        if way == "half-close":
            stream.out.put(None)
            with pytest.raises(StopIteration):
                stream.receive()
        else:
            wait_for(lambda: sum(received) == 64 * 16384, TIMEOUT, "the data")
            stream.call.cancel()
        assert ended.get(timeout=TIMEOUT)
        assert sum(received) == 64 * 16384
    finally:
        host.echo.serve = serve
    stream.close()


def test_a_dial_given_up_is_cancelled(proxy_channel, intact, host):
    host.echo.silent = True
    try:
        conn = os.urandom(16).hex()
        stream = Stream(
            proxy_channel, [("peerway-connection-id", conn)]
        ).dial()
        count = len(host.echo.dials)
        wait_for(
            lambda: len(host.echo.dials) > count or host.echo.dials, TIMEOUT
        )
        time.sleep(0.2)
        stream.call.cancel()
        last = host.echo.dials[-1].id
        wait_for(
            lambda: last in host.echo.cancelled, TIMEOUT, "DIAL_CANCEL"
        )
        host.peerd.wait_log(f"dial failed: the peer gave it up .*conn={conn}")
    finally:
        host.echo.silent = False
    stream.close()
    check_echo(proxy_channel)


def test_a_reader_that_stops_holds_little_and_loses_nothing(
    proxy_channel, intact, host
):
    go = threading.Event()
    total = []

    def serve(dial, fd):
        with socket.socket(fileno=fd) as end:
            end.setblocking(True)
            go.wait(TIMEOUT)
            while data := end.recv(1 << 20):
                total.append(len(data))

    serve, host.echo.serve = host.echo.serve, serve
    try:
        stalled = Stream(proxy_channel).dial().established()
        chunk = b"s" * (256 << 10)
        for _ in range(64):  # 16 MiB
            stalled.send_data(chunk)
        held = "peerway_peerd_bytes_held"
        wait_for(lambda: host.peerd.metric(held) > 0, TIMEOUT, "bytes held")
        host.echo.serve = serve
        for _ in range(3):
            check_echo(proxy_channel, b"others go on" * 1000)
        assert host.peerd.metric(held) <= 256 << 10
        go.set()
        stalled.out.put(None)
        with pytest.raises(StopIteration):
            stalled.receive()
        wait_for(lambda: sum(total) == 64 * len(chunk), TIMEOUT, "all bytes")
        wait_for(lambda: host.peerd.metric(held) == 0, TIMEOUT)
    finally:
        host.echo.serve = serve
    stalled.close()


def test_without_role_proxy(ground, host, intact):
    """1,000 silent calls of an agent cost nothing and are told at once."""
    identity = ground[2].issue(AGENT, role="Node", server=False)
    before = host.peerd.metrics()
    with channel_to(host.peer_addr, identity) as channel:
        stream = Stream(channel).dial()
        denied = "expected Proxy client credentials"
        stream.fails_with(grpc.StatusCode.PERMISSION_DENIED, denied)
        silent = [Stream(channel) for _ in range(1000)]
        for stream in silent:
            stream.fails_with(grpc.StatusCode.PERMISSION_DENIED, denied)
        fds = len(descriptor_table(host.peerd.pid))
        after = host.peerd.metrics()
        name = 'peerway_peerd_served_total{outcome="denied"}'
        assert after[name] == before[name] + 1001
        assert host.peerd.metric("peerway_peerd_streams") == 0
        stub = stubs.load("peer_pb2_grpc").ProxyServiceStub(channel)
        with pytest.raises(grpc.RpcError) as error:
            stub.Ping(peer().ProxyServicePingRequest(), timeout=TIMEOUT)
        assert error.value.code() == grpc.StatusCode.PERMISSION_DENIED
        assert len(descriptor_table(host.peerd.pid)) <= fds
        for stream in silent:
            stream.close()


def test_another_cluster_of_the_same_ca(ground, host, intact):
    identity = ground[2].issue(str(uuid.uuid4()), cluster="other")
    with channel_to(host.peer_addr, identity) as channel:
        stream = Stream(channel).dial()
        stream.fails_with(
            grpc.StatusCode.PERMISSION_DENIED, "expected Proxy client"
        )
        stream.close()


def test_another_ca_is_refused_in_the_handshake(ground, host, intact):
    directory, _, pki = ground
    other = mesh.Pki(f"{directory}/other-{uuid.uuid4()}")
    identity = other.issue(str(uuid.uuid4()))
    shutil.copy(pki.ca, identity / "host_ca.pem")
    count = len(host.echo.dials)
    with channel_to(host.peer_addr, identity) as channel:
        stream = Stream(channel).dial()
        stream.fails_with(grpc.StatusCode.UNAVAILABLE, "")
        stream.close()
    assert len(host.echo.dials) == count


def test_without_a_certificate(ground, host, intact):
    creds = grpc.ssl_channel_credentials(ground[2].ca.read_bytes())
    options = [("grpc.ssl_target_name_override", mesh.SERVER_NAME)]
    with grpc.secure_channel(host.peer_addr, creds, options) as channel:
        stream = Stream(channel).dial()
        stream.fails_with(grpc.StatusCode.UNAVAILABLE, "")
        stream.close()


def test_unknown_method(proxy_channel, intact):
    call = proxy_channel.unary_unary("/proto.ProxyService/Nothing")
    with pytest.raises(grpc.RpcError) as error:
        call(b"", timeout=TIMEOUT)
    assert error.value.code() == grpc.StatusCode.UNIMPLEMENTED
    check_echo(proxy_channel)


# peerd as client


class FarEnd:
    """A proxy in python: answers DialNode with answer(frames, context)."""

    def __init__(self, ground, number, host_id, identity=None, answer=None):
        directory, network, pki = ground
        identity = identity or pki.issue(host_id)
        self.id = host_id
        self.calls = []
        self.answer = answer or self.echo
        service = stubs.load("peer_pb2_grpc")
        outer = self

        class Servicer(service.ProxyServiceServicer):
            def DialNode(self, frames, context):
                first = next(frames)
                outer.calls.append((first, dict(context.invocation_metadata())))
                yield from outer.answer(frames, context)

        self.server = grpc.server(
            futures.ThreadPoolExecutor(16),
            options=[("grpc.so_reuseport", 0)],
        )
        service.add_ProxyServiceServicer_to_server(Servicer(), self.server)
        creds = grpc.ssl_server_credentials(
            [
                (
                    (identity / "key.pem").read_bytes(),
                    (identity / "cert.pem").read_bytes(),
                )
            ],
            (identity / "host_ca.pem").read_bytes(),
            require_client_auth=True,
        )
        port = self.server.add_secure_port(f"{network.address(number)}:0", creds)
        self.addr = f"{network.address(number)}:{port}"
        self.server.start()

    @staticmethod
    def echo(frames, context):
        yield peer().Frame(ConnectionEstablished={})
        for frame in frames:
            assert frame.WhichOneof("Message") == "Data"
            assert 0 < len(frame.Data.Bytes) <= 16384
            yield frame

    def close(self):
        self.server.stop(0).wait()


def far_agent(host, far, health="ready"):
    """An agent that far holds, known to host."""
    agent = str(uuid.uuid4())
    host.know((far.id, far.addr))
    host.cache.put_tunnel(agent, far.id)
    host.wait_peer(far.id, health)
    return agent


@pytest.fixture
def far(ground, host):
    far = FarEnd(ground, 20, str(uuid.uuid4()))
    yield far
    host.cache.remove_proxy(far.id)
    host.routed.announce()
    far.close()


def read_exactly(end, length):
    data = b""
    while len(data) < length:
        part = end.recv(length - len(data))
        assert part, f"ended after {len(data)} of {length}"
        data += part
    return data


def test_what_we_send_is_what_the_reference_sends(host, far):
    agent = far_agent(host, far)
    answer, end = host.echo.connect(agent, port=7, user="alice")
    assert answer.route == host.echo.ipc.ROUTE_PEER
    assert answer.proxy_id == far.id
    assert [(a.route, a.error) for a in answer.attempts] == [
        (host.echo.ipc.ROUTE_PEER, "")
    ]
    first, metadata = far.calls[-1]
    request = first.DialRequest
    assert request.NodeID == f"{agent}.{CLUSTER_NAME}"
    assert request.TunnelType == "app"
    assert (request.Source.Network, request.Source.Addr) == (
        "tcp",
        "192.0.2.7:4711",
    )
    assert (request.Destination.Network, request.Destination.Addr) == (
        "tcp",
        "echo:7",
    )
    # skipped by the reference; what it announces is answered by nothing
    assert metadata["peerway-ext"] == "eof,credit,frame64k,reason,trace"
    assert metadata["peerway-user"] == "alice"
    with end:
        data = bytes(range(256)) * 2048
        sender = threading.Thread(target=end.sendall, args=[data])
        sender.start()
        assert read_exactly(end, len(data)) == data
        sender.join()
        mesh.part(end)
    host.peerd.wait_log(rf"stream ended: client closed .*agent={agent}")


def test_the_far_ends_refusal_is_told(host, far):
    agent = far_agent(host, far)

    def refuse(frames, context):
        context.abort(grpc.StatusCode.UNAVAILABLE, "no app reverse tunnel")
        yield

    far.answer = refuse
    answer, end = host.echo.connect(agent)
    end.close()
    assert answer.code == host.echo.ipc.DIAL_OFFLINE
    assert answer.attempts[0].error == (
        "error receiving dial response: no app reverse tunnel"
    )


def test_a_malformed_answer_is_refused(host, far):
    agent = far_agent(host, far)

    def nonsense(frames, context):
        yield peer().Frame(Data={"Bytes": b"x"})

    far.answer = nonsense
    answer, end = host.echo.connect(agent)
    end.close()
    assert "malformed connection established frame" in answer.attempts[0].error


def test_a_far_end_that_never_answers(host, far):
    agent = far_agent(host, far)
    release = threading.Event()

    def hang(frames, context):
        release.wait(TIMEOUT)
        return
        yield

    far.answer = hang
    start = time.monotonic()
    answer, end = host.echo.connect(agent, deadline_ms=700)
    end.close()
    release.set()
    assert answer.code == host.echo.ipc.DIAL_TIMED_OUT
    assert "no answer in time" in answer.attempts[0].error
    assert time.monotonic() - start < 5 * SLOW


@pytest.mark.parametrize(
    "frame", [{"ConnectionEstablished": {}}, {"Data": {"Bytes": b""}}]
)
def test_the_far_end_breaks_the_protocol(host, far, frame):
    agent = far_agent(host, far)

    def answer(frames, context):
        yield peer().Frame(ConnectionEstablished={})
        yield peer().Frame(**frame)
        next(frames)

    far.answer = answer
    answer, end = host.echo.connect(agent)
    with end:
        assert end.recv(1) == b""
    host.peerd.wait_log(rf"stream ended: .*received invalid.*agent={agent}")


def test_a_server_with_another_hosts_certificate(ground, host):
    """14 for the dial, and the log line that operators of the reference know."""
    expected = str(uuid.uuid4())
    far = FarEnd(ground, 21, expected, ground[2].issue(str(uuid.uuid4())))
    try:
        agent = far_agent(host, far, "unreachable")
        answer, end = host.echo.connect(agent)
        end.close()
        assert answer.code == host.echo.ipc.DIAL_OFFLINE
        assert answer.attempts[0].error.startswith("error starting stream: ")
        assert not far.calls
        host.peerd.wait_log(
            "error .*connected to unexpected proxy: .*"
            f"peer_public_addr must be unique.*peer={expected}"
        )
    finally:
        host.cache.remove_proxy(far.id)
        host.routed.announce()
        far.close()


def test_a_server_that_is_no_proxy(ground, host):
    expected = str(uuid.uuid4())
    identity = ground[2].issue(expected, role="Node")
    far = FarEnd(ground, 22, expected, identity)
    try:
        agent = far_agent(host, far, "unreachable")
        answer, end = host.echo.connect(agent)
        end.close()
        assert answer.code == host.echo.ipc.DIAL_OFFLINE
        assert not far.calls
        host.peerd.wait_log(f"proxy system role required: .*peer={expected}")
    finally:
        host.cache.remove_proxy(far.id)
        host.routed.announce()
        far.close()


# out of descriptors


def test_out_of_descriptors(ground, host, proxy_channel, intact):
    """Dials are refused with the reason; new connections wait; both work
    again as soon as there are descriptors."""
    pid = host.peerd.pid
    check_echo(proxy_channel)
    limits = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    wait_for(lambda: host.peerd.metric("peerway_peerd_streams") == 0, TIMEOUT)
    time.sleep(0.5)  # the connection that asked for the metric is closed
    table = descriptor_table(pid)
    free = next(n for n in range(len(table) + 1) if n not in table)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (free, limits[1]))
    identity = ground[2].issue(str(uuid.uuid4()))
    try:
        stream = Stream(proxy_channel).dial()
        stream.fails_with(
            grpc.StatusCode.RESOURCE_EXHAUSTED, "out of descriptors"
        )
        stream.close()
        with channel_to(host.peer_addr, identity) as channel:
            with pytest.raises(grpc.FutureTimeoutError):
                grpc.channel_ready_future(channel).result(2)
    finally:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, limits)
    # a new server listens; the connection at hand is led to it
    host.peerd.wait_log("listening anew")
    with channel_to(host.peer_addr, identity) as channel:
        grpc.channel_ready_future(channel).result(TIMEOUT)
        check_echo(channel)
    check_echo(proxy_channel)
