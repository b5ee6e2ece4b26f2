# SPDX-License-Identifier: Apache-2.0
"""No local process can end a daemon or make it keep descriptors, whatever it
sends; what is wrong costs the sender its link, and others notice nothing."""

import os
import socket
import subprocess
import sys

import pytest

import ctl
import stubs
from process import descriptor_table, wait_for

SOCKETS = ["authd", "routed", "peerd", "proxy"]


@pytest.fixture(scope="module")
def fleet(module_cluster, echo):
    return module_cluster(
        proxies=1, agents=["node-1"], services=echo.services()
    ).start()


@pytest.fixture(params=SOCKETS)
def daemon(request, fleet):
    if request.param == "authd":
        return fleet.auth.authd
    return getattr(fleet.proxies[0], request.param)


class Intact:
    """Checks that the daemon lives, answers, and kept no descriptor."""

    def __init__(self, daemon):
        self.daemon = daemon
        self.pid = daemon.pid
        self.before = len(descriptor_table(daemon.pid))

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        if kind:
            return
        assert self.daemon.status()
        assert self.daemon.pid == self.pid and self.daemon.running()
        wait_for(
            lambda: len(descriptor_table(self.pid)) == self.before,
            10,
            f"{self.daemon.name} holds {self.before} descriptors again",
        )


def hello(version=ctl.VERSION):
    ipc = stubs.load("ipc_pb2")
    return ctl.frame(
        "IPC_HELLO", ipc.Hello(version=version, peer=ipc.PEER_CTL, workers=1)
    )


FIRST_MESSAGES = {
    "nothing but a header's half": b"PWY\x01",
    "an empty payload": ctl.frame("IPC_HELLO"),
    "wrong version": hello(ctl.VERSION + 1),
    "version 0": hello(0),
    "wrong magic": ctl.frame("IPC_HELLO", magic=0x02595750),
    "reserved bytes set": ctl.frame("IPC_HELLO", hello()[8:], reserved=1),
    "payload that is no protobuf": ctl.frame("IPC_HELLO", b"\xff" * 40),
    "an unknown type": ctl.frame(999, b""),
    "a request before HELLO": ctl.frame("IPC_CTL_REQUEST", b"\x08\x01"),
    "too long": ctl.frame("IPC_HELLO", bytes(100_000)),
}


@pytest.mark.parametrize("what", FIRST_MESSAGES)
def test_wrong_first_message(daemon, what):
    with Intact(daemon), ctl.Link(daemon.socket) as link:
        link.send_raw(FIRST_MESSAGES[what])
        assert link.closed_by_peer()


LATER_MESSAGES = {
    "short": b"PWY\x01\x01",
    "one byte": b"P",
    "unknown type": ctl.frame(999, b"payload"),
    "type of the other direction": ctl.frame("IPC_CTL_REPLY", b""),
    "not protobuf": ctl.frame("IPC_CTL_REQUEST", b"\xff\xff\xff\xff\xff"),
    "a second HELLO": hello(),
    "as long as can be, and one more": ctl.frame(
        "IPC_CTL_REQUEST", bytes(ctl.MESSAGE_MAX - 7)
    ),
    "far too long": ctl.frame("IPC_CTL_REQUEST", bytes(150_000)),
}


@pytest.mark.parametrize("what", LATER_MESSAGES)
def test_wrong_later_message(daemon, what):
    with Intact(daemon), ctl.Link(daemon.socket) as link:
        link.hello()
        link.receive_type("IPC_HELLO")
        link.send_raw(LATER_MESSAGES[what])
        assert link.closed_by_peer()


@pytest.mark.parametrize("count", [1, 2, 3, 40])
def test_descriptors_that_nobody_asked_for(daemon, count):
    """They are closed, all of them, and the link with them."""
    ours, theirs = socket.socketpair()
    with ours, Intact(daemon), ctl.Link(daemon.socket) as link:
        link.hello()
        link.receive_type("IPC_HELLO")
        link.send(
            "IPC_CTL_REQUEST", b"\x08\x01", [theirs.fileno()] * count
        )
        theirs.close()
        assert link.closed_by_peer()
        ours.settimeout(10)
        assert ours.recv(1) == b"", "some process still has the other end"


def dial_message(fleet, connection_id):
    ipc = stubs.load("ipc_pb2")
    return ipc.Dial(
        id=7,
        connection_id=connection_id,
        agent_id=fleet.agents[0].uuid,
        service="echo",
        source="192.0.2.1:1",
        user="alice",
        deadline_ms=5000,
    )


def worker_link(fleet):
    """peerd takes us for one more worker of this host."""
    link = ctl.Link(fleet.proxies[0].peerd.socket)
    link.hello("PEER_WORKER", worker=7, workers=8)
    link.receive_type("IPC_HELLO")
    ipc = stubs.load("ipc_pb2")
    link.send("IPC_TUNNEL_SYNC", ipc.TunnelSync(first=True, last=True))
    return link


def test_dial_with_its_one_descriptor_works(fleet):
    """The counterpart of the next test: this is the message done right."""
    ipc = stubs.load("ipc_pb2")
    ours, theirs = socket.socketpair()
    with ours, Intact(fleet.proxies[0].peerd), worker_link(fleet) as link:
        link.send(
            "IPC_DIAL", dial_message(fleet, os.urandom(16)), [theirs.fileno()]
        )
        theirs.close()
        answer = ipc.DialOk.FromString(link.receive_type("IPC_DIAL_OK"))
        assert (answer.id, answer.route) == (7, ipc.ROUTE_SIBLING)
        ours.settimeout(10)
        ours.sendall(b"through a worker made of python")
        assert ours.recv(100) == b"through a worker made of python"


@pytest.mark.parametrize("count", [0, 2, 3])
def test_dial_with_another_number_of_descriptors(fleet, count):
    ours, theirs = socket.socketpair()
    with ours, Intact(fleet.proxies[0].peerd), worker_link(fleet) as link:
        link.send(
            "IPC_DIAL",
            dial_message(fleet, os.urandom(16)),
            [theirs.fileno()] * count,
        )
        theirs.close()
        assert link.closed_by_peer()
        ours.settimeout(10)
        assert ours.recv(1) == b""


def test_dial_with_a_short_connection_id(fleet):
    """The sender loses its link, and the descriptor is closed."""
    ours, theirs = socket.socketpair()
    with ours, Intact(fleet.proxies[0].peerd), worker_link(fleet) as link:
        link.send("IPC_DIAL", dial_message(fleet, b"short"), [theirs.fileno()])
        theirs.close()
        assert link.closed_by_peer()
        ours.settimeout(10)
        assert ours.recv(1) == b""


STRANGER = """
import socket, sys
link = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
link.settimeout(10)
try:
    link.connect(sys.argv[1])
    link.send(bytes.fromhex(sys.argv[2]))
    data = link.recv(65536)
    print("answered" if data else "closed")
except PermissionError:
    print("forbidden")
except OSError as error:
    print("closed", error)
"""


def as_nobody(daemon):
    result = subprocess.run(
        [sys.executable, "-c", STRANGER, str(daemon.socket), hello().hex()],
        user="nobody", group="nogroup", extra_groups=[], cwd="/",
        capture_output=True, text=True, timeout=30, check=True,
    )
    return result.stdout.strip()


def test_another_user_may_not_connect(daemon):
    with Intact(daemon):
        assert as_nobody(daemon) == "forbidden"


def test_another_user_is_recognised(daemon):
    """Even where the file system lets it connect."""
    mode = daemon.socket.stat().st_mode & 0o777
    daemon.socket.chmod(0o666)
    try:
        with Intact(daemon):
            assert as_nobody(daemon).startswith("closed")
    finally:
        daemon.socket.chmod(mode)


def test_a_sender_that_never_reads(daemon):
    """Its questions are bounded; it does not stop the daemon's others."""
    ipc = stubs.load("ipc_pb2")
    request = ipc.CtlRequest(id=1, verb="status", args="{}")
    with Intact(daemon), ctl.Link(daemon.socket) as link:
        link.hello()
        link.socket.settimeout(0.5)
        try:
            for _ in range(20_000):
                link.send("IPC_CTL_REQUEST", request)
        except OSError:
            pass  # no more room, or dropped: both are bounds
        assert daemon.status()
