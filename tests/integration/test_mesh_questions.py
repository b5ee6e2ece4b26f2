# SPDX-License-Identifier: Apache-2.0
"""peerway.Mesh/Ask, what `peerctl --on` uses: proxies only, bounded, nothing
that changes anything; and the reference's proxies, who know nothing of it."""

import json
import shutil
import subprocess
import tempfile
import threading
import uuid

import grpc
import pytest

import mesh
import stubs
import suite
from hosts import Network
from test_wire import FarEnd, channel_to, far_agent

ASK = "/peerway.Mesh/Ask"
Code = grpc.StatusCode


@pytest.fixture(scope="module")
def ground():
    directory = tempfile.mkdtemp(prefix="pw-ask-")
    network = Network()
    yield directory, network, mesh.Pki(directory + "/pki")
    network.close()
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(scope="module")
def host(ground):
    host = mesh.Host(*ground, number=1).start()
    yield host
    assert host.peerd.stop() == 0, host.peerd.tail(20)
    host.close()


@pytest.fixture
def channel(ground, host):
    with channel_to(host.peer_addr, ground[2].issue(str(uuid.uuid4()))) as c:
        yield c


def ask(channel, verb, args="", timeout=10):
    mesh_pb2 = stubs.load("mesh_pb2")
    stub = stubs.load("mesh_pb2_grpc").MeshStub(channel)
    request = mesh_pb2.AskRequest(verb=verb, args=args)
    return json.loads(stub.Ask(request, timeout=timeout).json)


def refused(code, call, *args):
    with pytest.raises(grpc.RpcError) as error:
        call(*args)
    assert error.value.code() == code
    return error.value.details()


def test_a_proxy_is_answered(channel, host):
    assert ask(channel, "status")["proxy_id"] == host.id
    assert ask(channel, "tunnels", "{}") == {"tunnels": []}


def test_only_a_proxy_is_answered(ground, host):
    for identity in (
        ground[2].issue(str(uuid.uuid4()), role="Node", server=False),
        ground[2].issue(str(uuid.uuid4()), cluster="other"),
    ):
        with channel_to(host.peer_addr, identity) as channel:
            refused(Code.PERMISSION_DENIED, ask, channel, "status")


@pytest.mark.parametrize(
    "verb, args",
    [("trace", '{"target": "x"}'), ("ask", "{}"), ("ping", "{}"), ("", ""),
     ("status", "[]"), ("status", "{"), ("status", "0"),
     ("status", "[" * 10000)],
)
def test_a_question_that_is_none(channel, host, verb, args):
    details = refused(Code.INVALID_ARGUMENT, ask, channel, verb, args)
    assert "unknown request" in details or "not a JSON object" in details
    assert host.peerd.running()


@pytest.mark.parametrize("raw", [b"\x0a\xff", b"\xff" * 100, b"x" * 17000])
def test_bytes_that_are_no_question(channel, host, raw):
    call = channel.unary_unary(ASK)
    details = refused(Code.INVALID_ARGUMENT, call, raw)
    assert details == "not a question, or too long"
    assert host.peerd.running()


def test_a_caller_that_asks_nothing_is_not_waited_for(channel, host):
    end = threading.Event()

    def frames():
        end.wait(60)
        yield from ()

    answer = channel.stream_stream(ASK)(frames())
    try:
        assert answer.code() == Code.DEADLINE_EXCEEDED
        assert answer.details() == "no question within 5 s"
    finally:
        end.set()


def peerctl(host, *args):
    return subprocess.run(
        [suite.binary("peerctl"), "-c", host.config_path, *args],
        text=True, capture_output=True, stdin=subprocess.DEVNULL, timeout=60,
        check=False,
    )


@pytest.fixture
def reference(ground, host):
    """A proxy of the reference: no Ping, no Mesh."""
    far = FarEnd(ground, 20, str(uuid.uuid4()))
    far_agent(host, far)
    yield far
    host.cache.remove_proxy(far.id)
    host.routed.announce()
    far.close()


def test_a_reference_peer_cannot_be_asked_and_that_is_said(host, reference):
    result = peerctl(host, "status", "--on", reference.id)
    assert result.returncode == 1
    (line,) = result.stderr.splitlines()
    assert reference.id in line and "cannot be asked" in line


def test_a_reference_peer_that_knows_no_ping_is_alive(host, reference):
    result = peerctl(host, "ping", "-c", "1", reference.id)
    assert result.returncode == 0, result.stderr
    assert "alive, but knows no Ping" in result.stdout
    answer = json.loads(
        peerctl(
            host, "ping", "-c", "1", reference.id, "--format", "json"
        ).stdout
    )
    assert answer["pings"][0]["implemented"] is False
    assert answer["answered"] == 1


@pytest.mark.parametrize(
    "command",
    ["status", "ls", "routes", "ping", "trace", "validate", "connect",
     "token add", "token ls", "token rm", "identity issue"],
)
def test_every_command_has_help(command):
    result = subprocess.run(
        [suite.binary("peerctl"), *command.split(), "--help"], text=True,
        capture_output=True, timeout=20, check=True,
    )
    assert f"Usage: peerctl {command} [OPTION...]" in result.stdout
    assert "--format" in result.stdout
