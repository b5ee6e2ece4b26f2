# SPDX-License-Identifier: Apache-2.0
"""What two peers agree on beyond the reference's protocol: `eof` carries the
end of one direction, `credit` bounds what may wait for a reader, `frame64k`
makes frames larger. Python is the other peer, so every frame is seen."""

import os
import queue
import select
import shutil
import socket
import tempfile
import threading
import uuid

import grpc
import pytest

import mesh
import stubs
from hosts import SLOW, Network
from process import descriptor_table, wait_for
from test_wire import FarEnd, Stream, channel_to, far_agent, peer, read_exactly

AGENT = "6f2b1c1e-0000-4000-8000-000000000001"
TIMEOUT = 15 * SLOW
START = 256 << 10


@pytest.fixture(scope="module")
def ground():
    directory = tempfile.mkdtemp(prefix="pw-ext-")
    network = Network()
    yield directory, network, mesh.Pki(directory + "/pki")
    network.close()
    shutil.rmtree(directory, ignore_errors=True)


class Held:
    """A worker whose ends of the streams the test holds."""

    def __init__(self, host):
        self.ends = queue.Queue()
        self.worker = host.worker(serve=self._serve)
        self.worker.tunnel_up(AGENT)
        host.wait_tunnel(AGENT)

    def _serve(self, dial, fd):
        end = socket.socket(fileno=fd)
        end.settimeout(TIMEOUT)
        self.ends.put(end)

    def end(self):
        return self.ends.get(timeout=TIMEOUT)


@pytest.fixture(scope="module")
def host(ground):
    host = mesh.Host(*ground, number=1).start()
    host.held = Held(host)
    yield host
    assert host.peerd.stop() == 0, host.peerd.tail(20)
    host.close()


@pytest.fixture
def intact(host):
    pid = host.peerd.pid
    before = len(descriptor_table(pid))
    yield
    wait_for(
        lambda: len(descriptor_table(pid)) <= before
        and host.peerd.metric("peerway_peerd_streams") == 0
        and host.peerd.metric("peerway_peerd_bytes_held") == 0
        and host.peerd.metric("peerway_peerd_streams_blocked") == 0,
        TIMEOUT,
        "peerd has let everything go",
    )


@pytest.fixture
def proxy_channel(ground, host, intact):
    identity = ground[2].issue(str(uuid.uuid4()))
    with channel_to(host.peer_addr, identity) as channel:
        yield channel


class Announced(Stream):
    """A call of a peer that announces extensions."""

    def __init__(self, channel, names, credit=START):
        metadata = [("peerway-ext", names)]
        if "credit" in names:
            metadata.append(("peerway-credit", str(credit)))
        super().__init__(channel, metadata)

    def established(self):
        super().established()
        self.answer = dict(self.call.initial_metadata())
        return self

    def send_credit(self, count):
        self.send(Credit={"Bytes": count})

    def kind(self):
        frame = self.receive()
        return frame, frame.WhichOneof("Message")

    def ended(self):
        """The call ends in order."""
        with pytest.raises(StopIteration):
            self.receive()
        assert self.call.code() == grpc.StatusCode.OK
        self.out.put(None)


def test_what_both_know_is_answered(proxy_channel, host):
    stream = Announced(proxy_channel, "trace, eof,future,credit")
    stream.dial().established()
    assert stream.answer["peerway-ext"] == "eof,credit,trace"
    assert stream.answer["peerway-credit"] == str(START)
    host.held.end().close()
    stream.close()


def test_who_announces_nothing_is_answered_nothing(proxy_channel, host):
    stream = Stream(proxy_channel).dial().established()
    keys = dict(stream.call.initial_metadata())
    assert not [key for key in keys if key.startswith("peerway")]
    host.held.end().close()
    stream.close()


def test_the_callers_end_leaves_the_other_direction(proxy_channel, host):
    stream = Announced(proxy_channel, "eof").dial().established()
    end = host.held.end()
    stream.send_data(b"question")
    stream.send(Eof={})
    assert read_exactly(end, 8) == b"question"
    assert end.recv(1) == b""
    answer = os.urandom(100_000)
    end.sendall(answer)
    end.close()
    assert stream.receive_data(len(answer)) == answer
    assert stream.kind()[1] == "Eof"
    stream.ended()


def test_the_agents_end_leaves_the_other_direction(proxy_channel, host):
    stream = Announced(proxy_channel, "eof").dial().established()
    end = host.held.end()
    end.sendall(b"banner")
    end.shutdown(socket.SHUT_WR)
    assert stream.receive_data(6) == b"banner"
    assert stream.kind()[1] == "Eof"
    question = os.urandom(100_000)
    for at in range(0, len(question), 10_000):
        stream.send_data(question[at : at + 10_000])
    stream.send(Eof={})
    assert read_exactly(end, len(question)) == question
    assert end.recv(1) == b""
    end.close()
    stream.ended()


def test_a_torn_stream_is_no_end(proxy_channel, host):
    """The worker's end is closed before both directions have ended: the tunnel
    was lost, or the worker was killed."""
    stream = Announced(proxy_channel, "eof").dial().established()
    end = host.held.end()
    end.sendall(b"half of it")
    end.close()
    assert stream.receive_data(10) == b"half of it"
    stream.fails_with(grpc.StatusCode.UNAVAILABLE, "failed to read from the agent")
    stream.out.put(None)


def test_a_caller_that_cancels_has_torn_the_stream(proxy_channel, host):
    stream = Announced(proxy_channel, "eof").dial().established()
    with host.held.end() as end:
        stream.send_data(b"half of it")
        assert read_exactly(end, 10) == b"half of it"
        stream.close()
        assert end.recv(1) == b""
        look = select.poll()
        look.register(end, 0)
        assert look.poll(0)[0][1] & select.POLLHUP


def test_a_half_closed_call_is_no_eof(proxy_channel, host):
    stream = Announced(proxy_channel, "eof").dial().established()
    end = host.held.end()
    stream.out.put(None)
    stream.fails_with(grpc.StatusCode.UNAVAILABLE, "without an Eof")
    end.close()


def test_an_agent_that_has_left_ends_the_call(proxy_channel, host):
    """Its direction has ended and nobody takes the other one any more."""
    stream = Announced(proxy_channel, "eof").dial().established()
    end = host.held.end()
    end.shutdown(socket.SHUT_WR)
    assert stream.kind()[1] == "Eof"
    end.close()
    stream.send_data(b"too late")
    stream.ended()


def test_eof_needs_to_be_announced(proxy_channel, host):
    stream = Announced(proxy_channel, "credit").dial().established()
    end = host.held.end()
    stream.send(Eof={})
    stream.fails_with(grpc.StatusCode.UNAVAILABLE, "received invalid frame")
    stream.out.put(None)
    end.close()


def test_data_after_eof_is_an_error(proxy_channel, host):
    stream = Announced(proxy_channel, "eof").dial().established()
    end = host.held.end()
    stream.send(Eof={})
    stream.send_data(b"more")
    stream.fails_with(grpc.StatusCode.UNAVAILABLE, "after its end")
    stream.out.put(None)
    end.close()


def test_credit_needs_to_be_announced(proxy_channel, host):
    stream = Announced(proxy_channel, "eof").dial().established()
    end = host.held.end()
    stream.send_credit(1000)
    stream.fails_with(grpc.StatusCode.UNAVAILABLE, "received invalid frame")
    stream.out.put(None)
    end.close()


def receive_until_blocked(stream):
    """Bytes of Data until the far side says that it may send no more."""
    got = 0
    while True:
        frame, kind = stream.kind()
        if kind == "Credit" and frame.Credit.Blocked:
            return got
        if kind == "Data":
            got += len(frame.Data.Bytes)


def test_we_send_no_more_than_was_allowed(proxy_channel, host):
    stream = Announced(proxy_channel, "credit,eof", credit=100_000)
    stream.dial().established()
    end = host.held.end()
    data = os.urandom(300_000)
    writer = threading.Thread(
        target=lambda: (end.sendall(data), mesh.part(end))
    )
    writer.start()
    assert receive_until_blocked(stream) == 100_000
    stream.send_credit(1)
    assert receive_until_blocked(stream) == 1
    stream.send_credit(1 << 20)
    assert stream.receive_data(199_999) == data[100_001:]
    assert stream.kind()[1] == "Eof"
    stream.send(Eof={})
    writer.join()
    stream.ended()


def test_an_end_needs_no_credit(proxy_channel, host):
    stream = Announced(proxy_channel, "credit,eof", credit=10)
    stream.dial().established()
    end = host.held.end()
    end.sendall(b"0123456789")
    end.shutdown(socket.SHUT_WR)
    assert stream.receive_data(10) == b"0123456789"
    assert stream.kind()[1] == "Eof"
    stream.send(Eof={})
    stream.ended()
    end.close()


def test_a_stalled_reader_gets_no_credit_and_the_other_direction_goes_on(
    proxy_channel, host
):
    stream = Announced(proxy_channel, "credit,eof").dial().established()
    end = host.held.end()
    sent = bytearray()
    for _ in range(START // 16384):
        part = os.urandom(16384)
        stream.send_data(part)
        sent += part
    wait_for(
        lambda: host.peerd.metric("peerway_peerd_streams_blocked") == 1,
        TIMEOUT,
        "the reader is known to be slow",
    )
    held = host.peerd.metric("peerway_peerd_bytes_held")
    assert 0 < held < START
    # The same stream, the other way: messages are still received.
    granted = 0
    for _ in range(10):
        end.sendall(b"x" * 60_000)
        got = 0
        while got < 60_000:
            frame, kind = stream.kind()
            if kind == "Data":
                got += len(frame.Data.Bytes)
            granted += frame.Credit.Bytes
        stream.send_credit(60_000)
    assert granted < START
    # The reader comes back: all of it, and credit again.
    assert read_exactly(end, len(sent)) == bytes(sent)
    while granted < START * 3 // 4:
        frame, kind = stream.kind()
        assert kind == "Credit"
        granted += frame.Credit.Bytes
    end.close()
    stream.close()


def test_more_than_was_allowed_ends_the_stream_and_nothing_else(
    proxy_channel, host
):
    other = Announced(proxy_channel, "credit,eof").dial().established()
    other_end = host.held.end()
    stream = Announced(proxy_channel, "credit,eof").dial().established()
    end = host.held.end()
    for _ in range(4 * START // 16384):
        stream.send_data(bytes(16384))
    with pytest.raises(grpc.RpcError) as error:
        while True:
            stream.receive()
    assert "more data than was allowed" in error.value.details()
    stream.out.put(None)
    end.close()
    other.send_data(b"still here")
    assert read_exactly(other_end, 10) == b"still here"
    other_end.close()
    other.close()


@pytest.mark.parametrize("credit", ["", "-5", "nonsense", "9" * 30])
def test_a_first_credit_that_is_none(proxy_channel, host, credit):
    """Nothing may be sent before a Credit."""
    metadata = [("peerway-ext", "credit,eof"), ("peerway-credit", credit)]
    stream = Stream(proxy_channel, metadata).dial().established()
    end = host.held.end()
    end.sendall(b"hello")
    frame = stream.receive()
    assert frame.WhichOneof("Message") == "Credit" and frame.Credit.Blocked
    stream.send(Credit={"Bytes": 5})
    assert stream.receive_data(5) == b"hello"
    end.close()
    stream.close()


def test_credit_beyond_all_bounds_ends_the_stream(proxy_channel, host):
    stream = Announced(proxy_channel, "credit,eof").dial().established()
    end = host.held.end()
    for _ in range(3):
        stream.send_credit(1 << 40)
    with pytest.raises(grpc.RpcError) as error:
        stream.receive()
    assert "credit" in error.value.details()
    stream.out.put(None)
    end.close()


def test_the_window_grows_while_the_reader_keeps_up(proxy_channel, host):
    stream = Announced(proxy_channel, "credit,eof").dial().established()
    end = host.held.end()
    total = 16 << 20
    got = []
    reader = threading.Thread(
        target=lambda: got.append(len(read_exactly(end, total)))
    )
    reader.start()
    allowed, sent, widest = START, 0, 0
    while sent < total:
        while allowed >= 16384 and sent < total:
            stream.send_data(bytes(16384))
            allowed -= 16384
            sent += 16384
        if sent == total:
            break
        stream.send(Credit={"Blocked": True})
        frame, kind = stream.kind()
        assert kind == "Credit"
        allowed += frame.Credit.Bytes
        widest = max(widest, allowed)
    reader.join(TIMEOUT)
    assert got == [total]
    assert widest > 2 * START
    end.close()
    stream.close()


def test_frames_grow_to_64k_where_announced(proxy_channel, host):
    sizes = {}
    for names in ("frame64k", "eof"):
        stream = Announced(proxy_channel, names).dial().established()
        end = host.held.end()
        writer = threading.Thread(target=end.sendall, args=[bytes(4 << 20)])
        writer.start()
        got, sizes[names] = 0, set()
        while got < 4 << 20:
            frame = stream.receive()
            sizes[names].add(len(frame.Data.Bytes))
            got += len(frame.Data.Bytes)
        writer.join()
        end.close()
        stream.close()
    assert max(sizes["frame64k"]) == 65536
    assert max(sizes["eof"]) == 16384


# peerd as client


class ExtendedFarEnd(FarEnd):
    """A peer that announces names and leaves the rest to script(stream)."""

    def __init__(self, ground, number, names, script, credit=START):
        self.announced = [("peerway-ext", names)]
        if "credit" in names:
            self.announced.append(("peerway-credit", str(credit)))
        self.script = script
        super().__init__(ground, number, str(uuid.uuid4()), answer=self._run)

    def _run(self, frames, context):
        context.send_initial_metadata(self.announced)
        yield peer().Frame(ConnectionEstablished={})
        yield from self.script(frames, context)


def test_our_own_call_uses_what_the_callee_answers(ground, host, intact):
    seen = []

    def script(frames, context):
        for frame in frames:
            kind = frame.WhichOneof("Message")
            seen.append((kind, len(frame.Data.Bytes)))
            if kind == "Eof":
                break
        yield peer().Frame(Data={"Bytes": b"after your end"})
        yield peer().Frame(Eof={})

    far = ExtendedFarEnd(ground, 21, "eof,credit", script, credit=50_000)
    try:
        agent = far_agent(host, far)
        answer, end = host.held.worker.connect(agent, port=7)
        assert answer.route == host.held.worker.ipc.ROUTE_PEER, answer
        with end:
            end.sendall(b"q" * 50_000)
            end.shutdown(socket.SHUT_WR)
            assert read_exactly(end, 14) == b"after your end"
            assert end.recv(1) == b""
        metadata = far.calls[-1][1]
        assert metadata["peerway-ext"] == "eof,credit,frame64k,reason,trace"
        assert metadata["peerway-credit"] == str(START)
        assert sum(size for _, size in seen) == 50_000
        assert max(size for _, size in seen) <= 16384
        assert seen[-1][0] == "Eof"
    finally:
        host.cache.remove_proxy(far.id)
        host.routed.announce()
        far.close()


def test_a_plain_peerd_announces_nothing(ground, host, intact):
    plain = mesh.Host(*ground, number=5, peer_plain=True).start()
    try:
        identity = ground[2].issue(str(uuid.uuid4()))
        held = Held(plain)
        with channel_to(plain.peer_addr, identity) as channel:
            stream = Announced(channel, "eof,credit").dial().established()
            assert not [k for k in stream.answer if k.startswith("peerway")]
            end = held.end()
            stream.send_data(b"question")
            assert read_exactly(end, 8) == b"question"
            end.shutdown(socket.SHUT_WR)
            stream.ended()
            end.close()
        held.worker.close()
        assert plain.peerd.stop() == 0
    finally:
        plain.close()


@pytest.mark.parametrize("plain", [False, True], ids=["extended", "plain"])
def test_bulk_at_full_speed(ground, plain):
    """Both threads of both peerds at work on one stream, again and again."""
    hosts = [
        mesh.Host(*ground, number=number, peer_plain=plain).start()
        for number in ((40, 41) if plain else (42, 43))
    ]
    left, right = hosts
    total = 256 << 20
    got = []

    def sink(dial, fd):
        with socket.socket(fileno=fd) as end:
            end.settimeout(TIMEOUT)
            count = 0
            while part := end.recv(1 << 18):
                count += len(part)
            got.append(count)

    try:
        left.know(right)
        right.know(left)
        left.wait_peer(right.id)
        holder = right.worker(serve=sink)
        holder.tunnel_up(AGENT)
        right.wait_tunnel(AGENT)
        left.cache.put_tunnel(AGENT, right.id)
        worker = left.worker()
        for turn in range(3):
            _, end = worker.connect(AGENT)
            end.settimeout(TIMEOUT)
            for _ in range(total >> 18):
                end.sendall(bytes(1 << 18))
            mesh.part(end)
            wait_for(lambda: len(got) > turn, TIMEOUT, "the end")
        assert got == [total] * 3
        for host in hosts:
            for other in (holder, worker):
                other.close()
            assert host.peerd.stop() == 0
    finally:
        for host in hosts:
            host.close()
