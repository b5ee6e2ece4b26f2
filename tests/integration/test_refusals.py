# SPDX-License-Identifier: Apache-2.0
"""A dial that cannot be done is answered in time, with a status that says what
kind of failure it is and one line that says why, whichever proxy was asked."""

import json
import re
import socket
import time
import types

import pytest

import connect
import suite
from process import wait_for
from services import free_port
from traffic import check_route


@pytest.fixture(scope="module")
def fleet(module_cluster, echo):
    blackhole = Blackhole()
    cluster = module_cluster(
        proxies=2,
        agents=["node-1", "node-2", "gone"],
        services=echo.services()
        + [
            {"name": "closed", "type": "app",
             "addr": f"127.0.0.1:{free_port()}"},
            {"name": "silent", "type": "app",
             "addr": f"127.0.0.1:{blackhole.port}"},
        ],
    )
    cluster.add_service(blackhole)
    for proxy in cluster.proxies:
        proxy.config["proxy_service"]["dial_timeout"] = "3s"
    cluster.start()
    cluster.agents[2].stop()
    for proxy in cluster.proxies:
        wait_for(
            lambda: not proxy.agents().get("gone"), 10, "the agent is offline"
        )
    return cluster


class Blackhole:
    """A port whose connections are never completed: its queue is full."""

    def __init__(self):
        self._listener = socket.socket()
        self._listener.bind(("127.0.0.1", 0))
        self._listener.listen(0)
        self.port = self._listener.getsockname()[1]
        self._fillers = []
        for _ in range(4):
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex(("127.0.0.1", self.port))
            self._fillers.append(filler)

    def close(self):
        for filler in self._fillers:
            filler.close()
        self._listener.close()


@pytest.fixture(params=["holder", "other"])
def proxy(request, fleet):
    """The host with node-1's tunnel, or the one without."""
    holder = fleet.holder("node-1")
    return holder if request.param == "holder" else fleet.others(holder)[0]


def refused(proxy, target):
    with pytest.raises(connect.Refused) as caught:
        proxy.dial(target)
    error = caught.value
    assert len(error.body.strip().splitlines()) == 1, error.body
    assert error.headers["content-type"].startswith("text/plain")
    return error


@pytest.mark.parametrize(
    "target, status, says",
    [
        ("nobody", 404, "nobody"),
        ("echo.nobody", 404, "nobody"),
        ("other.node-1", 404, "other"),
        ("node-1", 409, "echo.*pump|pump.*echo"),
        ("node-1:1", 404, "node-1"),
        ("11111111-2222-4333-8444-555555555555", 404, "11111111"),
        ("NODE 1", 400, ""),
        ("a.b.c.d.e", 400, ""),
        ("echo.node-1:99999", 400, ""),
        ("closed.node-1", 502, "closed.*refused"),
        ("silent.node-1", 504, "silent"),
    ],
)
def test_status_and_reason(proxy, target, status, says):
    error = refused(proxy, target)
    assert error.status == status, error
    assert says == "" or re.search(says, error.body), error.body
    check_route_any(proxy, "node-1")


def check_route_any(proxy, agent):
    holder = proxy.cluster.holder(agent)
    check_route(proxy, agent, "local" if holder is proxy else "peer")


def test_an_agent_that_is_gone(proxy):
    """Its records are gone with it: unknown, or known to be offline."""
    assert refused(proxy, "echo.gone").status in (404, 503)


def test_two_agents_of_one_name(fleet, proxy, echo):
    """The answer lists the candidates by uuid, and a uuid is accepted."""
    if not [a for a in fleet.agents if a.name == "twin"]:
        twin = fleet.add_agent("twin", services=echo.services())
        twin.config["agent_service"]["name"] = "node-2"
        twin.join()
        twin.start().wait_ready()
    first, twin = fleet.agents[1], fleet.agents[3]

    def ambiguous():
        try:
            proxy.dial("echo.node-2").close()
        except connect.Refused as error:
            return error
        return None

    error = wait_for(ambiguous, 10, "the second node-2 is known")
    assert error.status == 409
    for agent in (first, twin):
        assert agent.uuid in error.body
        with proxy.dial(f"echo.{agent.uuid}") as connection:
            connection.sendall(b"by uuid")
            assert connection.recv_exactly(7) == b"by uuid"


@pytest.mark.parametrize(
    "head",
    [
        b"CONNECT\r\n\r\n",
        b"\r\n\r\n\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"CONNECT echo.node-1 HTTP/1.1\r\n" + b"X: y\r\n" * 10000 + b"\r\n",
        b"CONNECT " + b"a" * 100_000 + b" HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01" * 100 + b"\r\n\r\n",
        b"CONNECT echo.node-1 HTTP/1.1\r\nTransfer-Encoding: chunked\r\n"
        b"Content-Length: 5\r\n\r\n",
    ],
)
def test_bad_request_heads(fleet, head):
    """A 4xx or the end of the connection, and the next client is served."""
    proxy = fleet.proxies[0]
    with connect.TlsStream(
        proxy.listen_addr,
        connect.client_context(fleet.identity()),
        connect.server_name(suite.CLUSTER_NAME),
        20,
    ) as stream:
        try:
            stream.sendall(head)
            said = stream.recv()
        except OSError:
            said = b""
        assert said == b"" or said.split()[1][:1] == b"4", said[:80]
    check_route_any(proxy, "node-1")


def test_a_silent_client_is_not_kept(fleet):
    """Neither before TLS nor before its request: handshake_timeout."""
    proxy = fleet.proxies[0]
    limit = 10 * suite.SLOW  # seconds, the default
    with socket.create_connection(
        connect.split_addr(proxy.listen_addr)
    ) as silent, connect.TlsStream(
        proxy.listen_addr,
        connect.client_context(fleet.identity()),
        connect.server_name(suite.CLUSTER_NAME),
        30 * suite.SLOW,
    ) as half:
        start = time.monotonic()
        half.sendall(b"CONNECT echo.node-1 HT")
        silent.settimeout(30 * suite.SLOW)
        assert silent.recv(1) == b""
        half.ended(30 * suite.SLOW)
        # the kernel itself waits for a first byte before we hear of it
        assert time.monotonic() - start < 3 * limit


def frame(kind, flags, stream, payload=b""):
    """One of HTTP/2 (RFC 9113 section 4.1)."""
    return (
        len(payload).to_bytes(3, "big")
        + bytes([kind, flags])
        + stream.to_bytes(4, "big")
        + payload
    )


DATA, HEADERS, SETTINGS, GOAWAY = 0, 1, 4, 7
END_STREAM, END_HEADERS = 1, 4
OK, NOT_FOUND = b"\x88", b"\x8d"  # RFC 7541 appendix A
PREFACE = len(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")


def first_frame(stream, kind):
    while True:
        head = stream.recv_exactly(9)
        payload = stream.recv_exactly(int.from_bytes(head[:3], "big"))
        if head[3] == kind:
            return int.from_bytes(head[5:], "big"), payload


def registration(agent, **changed):
    return json.dumps(
        {"agent_id": agent.uuid, "name": agent.name, "labels": {},
         "services": [], **changed}
    ).encode()


@pytest.mark.parametrize(
    "reason, says, body",
    [
        ("no_registration", "no registration", None),
        ("bad_registration", "bad registration", lambda agent: b"{]"),
        ("bad_registration", "bad registration",
         lambda agent: registration(agent, services=7)),
        ("another_agent", "registration of another agent",
         lambda agent: registration(agent, name="node-2")),
        ("another_agent", "registration of another agent",
         lambda agent: registration(agent, agent_id=agent.cluster.proxies[0].uuid)),
    ],
)  # fmt: skip
def test_an_agent_that_says_what_its_certificate_does_not(
    fleet, reason, says, body
):
    """Its tunnel ends, one line of the log says why, and it is counted by
    reason."""
    proxy, agent = fleet.proxies[0], fleet.agents[0]
    series = f'peerway_proxy_tunnels_refused_total{{reason="{reason}"}}'
    before = proxy.proxy.metrics()[series]
    cert = next(agent.data_dir.rglob("cert.pem"))
    shown = types.SimpleNamespace(
        host_ca=fleet.identity().host_ca,
        cert=cert,
        key=cert.parent / "key.pem",
    )
    with connect.TlsStream(
        proxy.tunnel_addr,
        connect.client_context(shown, "peerway-tunnel"),
        connect.server_name(suite.CLUSTER_NAME),
        20 * suite.SLOW,
    ) as stream:
        stream.sendall(frame(SETTINGS, 0, 0))
        stream.recv_exactly(PREFACE)
        asked, _ = first_frame(stream, HEADERS)
        if body:
            answer = frame(HEADERS, END_HEADERS, asked, OK) + frame(
                DATA, END_STREAM, asked, body(agent)
            )
        else:
            answer = frame(HEADERS, END_HEADERS | END_STREAM, asked, NOT_FOUND)
        stream.sendall(answer)
        first_frame(stream, GOAWAY)
        stream.ended(20 * suite.SLOW)
    assert f"tunnel refused: {says}: " in proxy.proxy.log_text()
    assert proxy.proxy.metrics()[series] == before + 1
    check_route_any(proxy, "node-1")
