# SPDX-License-Identifier: Apache-2.0
"""A member may be only what its certificate says. An agent's key serves on none
of the four ports for anybody who dials there; users are not hosts and hosts are
not users on 3080."""

import os
import socket
import ssl
import subprocess
import threading

import pytest

import connect
import suite
from process import wait_for
from traffic import check_route


@pytest.fixture
def fleet(make_cluster, echo):
    return make_cluster(
        proxies=1, agents=["node-1"], services=echo.services()
    ).start()


def host_files(host):
    """Certificate (with chain) and key of a member."""
    cert = sorted(host.data_dir.rglob("cert.pem"))[0]
    return cert, cert.parent / "key.pem"


class Impostor:
    """A TLS server with the given certificate that speaks any protocol offered
    and writes down what callers do."""

    def __init__(self, address, cert, key):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(cert, key)
        context.set_alpn_protocols(["h2", "peerway-tunnel", "peerway-agent"])
        self._context = context
        self._listener = socket.create_server((address, 0))
        self.addr = f"{address}:{self._listener.getsockname()[1]}"
        self.refusals = []  # how handshakes ended
        self.received = []  # what came after one that did not
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(
                target=self._serve, args=(client,), daemon=True
            ).start()

    def _serve(self, client):
        client.settimeout(10)
        try:
            with self._context.wrap_socket(client, server_side=True) as tls:
                data = tls.recv(65536)
                if data:
                    self.received.append(data)
                else:
                    self.refusals.append("closed")
        except (OSError, ssl.SSLError) as error:
            self.refusals.append(str(error))

    def check_refused(self, times=2):
        """It was tried, again and again, and never told anything."""
        wait_for(
            lambda: len(self.refusals) >= times,
            suite.START_TIMEOUT,
            "callers come and refuse",
        )
        assert self.received == []

    def close(self):
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


@pytest.fixture
def impostor(fleet):
    """Serves with node-1's key."""
    return fleet.add_service(
        Impostor(fleet.network.address(200), *host_files(fleet.agents[0]))
    )


def test_impostor_would_be_noticed(fleet):
    """The counterpart: with a proxy's key, the same server is believed."""
    proxy = fleet.proxies[0]
    good = fleet.add_service(
        Impostor(fleet.network.address(200), *host_files(proxy))
    )
    with pytest.raises((EOFError, OSError)):
        connect.dial(
            good.addr, "echo.node-1", fleet.identity(), suite.CLUSTER_NAME
        )
    wait_for(lambda: good.received, 5, "the request arrives")
    assert good.received[0].startswith(b"CONNECT ")


def test_routed_does_not_take_an_agent_for_authd(fleet, impostor):
    proxy = fleet.proxies[0]
    proxy.routed.stop()
    proxy.common["auth_servers"] = [impostor.addr]
    proxy.write_config()
    proxy.routed.start()
    impostor.check_refused()
    status = proxy.routed.status()
    assert status["auth_state"] == "unreachable"
    assert status["last_error"]


def test_joining_host_does_not_take_an_agent_for_authd(fleet, impostor):
    """The chain holds the pinned CA; the leaf is still an agent's."""
    host = fleet.add_proxy()
    host.common["auth_servers"] = [impostor.addr]
    host.join()
    host.routed.start()
    impostor.check_refused(1)
    host.routed.expected_end = True
    assert not list(host.data_dir.rglob("cert.pem"))


def test_peerd_does_not_take_an_agent_for_a_peer(fleet, impostor):
    host = fleet.add_proxy()
    host.config["proxy_service"]["peer_public_addr"] = impostor.addr
    host.join()
    host.start().wait_ready()
    impostor.check_refused()
    peerd = fleet.proxies[0].peerd
    peer = wait_for(
        lambda: [p for p in peerd.status()["peers"] if p["last_error"]],
        suite.START_TIMEOUT,
        "status says why",
    )[0]
    assert peer["id"] == host.uuid
    assert peer["state"] == "unreachable"


@pytest.mark.parametrize("key", ["public_addr", "tunnel_public_addr"])
def test_agent_opens_no_tunnel_to_an_agent(make_cluster, echo, key):
    """3080 by ALPN, and 3024: where the proxies' records send agents."""
    fleet = make_cluster(
        proxies=1, agents=["node-1"], services=echo.services(), count=2
    ).start()
    impostor = fleet.add_service(
        Impostor(fleet.network.address(200), *host_files(fleet.agents[0]))
    )
    host = fleet.add_proxy()
    host.config["proxy_service"][key] = [impostor.addr]
    host.join()
    host.start().wait_ready()
    impostor.check_refused()
    assert host.tunnel_names() == []
    check_route(fleet.proxies[0], "node-1", "local")


@pytest.mark.parametrize("member", [True, False])
def test_agent_asks_and_joins_no_agent(fleet, impostor, member):
    """/webapi/find and the join, where an agent's own configuration sends it."""
    agent = fleet.agents[0] if member else fleet.add_agent("node-2")
    agent.stop()
    agent.config["agent_service"]["proxy_server"] = [impostor.addr]
    if member:
        agent.write_config()
    else:
        agent.join()
    agent.start()
    impostor.check_refused(1)
    agent.agent.expected_end = True


def test_peerctl_does_not_take_an_agent_for_a_proxy(fleet, impostor):
    result = subprocess.run(
        fleet.connect_argv(impostor.addr, "echo.node-1"),
        capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=30,
        check=False,
    )
    assert result.returncode == 1
    assert len(result.stderr.splitlines()) == 1, result.stderr
    impostor.check_refused(1)


# 3080: which CA counts is decided by ALPN


def member_identity(fleet, host):
    cert, key = host_files(host)
    return connect.Identity(cert, key, fleet.identity().host_ca)


def answer(addr, identity, alpn, text=b""):
    """What comes back: bytes, or None when the server refuses or closes."""
    context = connect.client_context(identity, alpn)
    name = connect.server_name(suite.CLUSTER_NAME)
    try:
        with connect.TlsStream(addr, context, name, 10) as stream:
            stream.sendall(text)
            return stream.recv() or None
    except (ssl.SSLError, ConnectionError):
        return None


CONNECT = b"CONNECT echo.node-1 HTTP/1.1\r\nHost: x\r\n\r\n"
# An HTTP/2 client's preface and an empty SETTINGS: what a proxy says first on
# a tunnel comes before anything of ours anyway.
SETTINGS = b"\0\0\0\x04\0\0\0\0\0"


def test_right_identities_are_answered(fleet):
    """The counterpart of the tests below."""
    proxy, agent = fleet.proxies[0], fleet.agents[0]
    user, node = fleet.identity(), member_identity(fleet, agent)
    assert b" 200 " in answer(proxy.listen_addr, user, None, CONNECT)
    for addr in (proxy.listen_addr, proxy.tunnel_addr):
        assert answer(addr, node, "peerway-tunnel", SETTINGS).startswith(
            b"PRI * HTTP/2.0"
        )


def test_a_user_opens_no_tunnel(fleet):
    proxy, user = fleet.proxies[0], fleet.identity()
    for addr in (proxy.listen_addr, proxy.tunnel_addr):
        assert answer(addr, user, "peerway-tunnel", SETTINGS) is None


def test_a_proxy_opens_no_tunnel(fleet):
    proxy = fleet.proxies[0]
    identity = member_identity(fleet, proxy)
    for addr in (proxy.listen_addr, proxy.tunnel_addr):
        assert answer(addr, identity, "peerway-tunnel", SETTINGS) is None


def test_a_stranger_opens_no_tunnel(fleet):
    nobody = connect.Identity(None, None, fleet.identity().host_ca)
    proxy = fleet.proxies[0]
    for addr in (proxy.listen_addr, proxy.tunnel_addr):
        assert answer(addr, nobody, "peerway-tunnel", SETTINGS) is None


@pytest.mark.parametrize("kind", ["agent", "proxy"])
def test_a_host_is_no_user(fleet, kind):
    proxy = fleet.proxies[0]
    host = fleet.agents[0] if kind == "agent" else proxy
    said = answer(
        proxy.listen_addr, member_identity(fleet, host), None, CONNECT
    )
    assert said is None or b" 401 " in said or b" 403 " in said


def test_a_user_is_no_host_for_the_agents_protocol(fleet):
    """Renewal is for agents; a user's certificate is not of the CA there."""
    said = answer(
        fleet.proxies[0].listen_addr,
        fleet.identity(),
        "peerway-agent",
        b"POST /v1/agent/renew HTTP/1.1\r\nHost: x\r\n"
        b"Content-Type: application/json\r\nContent-Length: 2\r\n\r\n{}",
    )
    assert said is None or b" 200 " not in said


def test_a_session_of_one_side_is_not_resumed_on_the_other(fleet):
    """No tickets: a session begun as a user cannot become another's."""
    proxy = fleet.proxies[0]
    context = connect.client_context(fleet.identity())
    with socket.create_connection(
        connect.split_addr(proxy.listen_addr), 10
    ) as plain:
        with context.wrap_socket(
            plain, server_hostname=connect.server_name(suite.CLUSTER_NAME)
        ) as tls:
            tls.sendall(b"GET /webapi/find HTTP/1.1\r\nHost: x\r\n\r\n")
            assert tls.recv(100)
            assert not tls.session or not tls.session.has_ticket


def test_a_dial_still_works_after_all_that(fleet):
    proxy = fleet.proxies[0]
    for identity in (
        member_identity(fleet, proxy),
        member_identity(fleet, fleet.agents[0]),
        connect.Identity(None, None, fleet.identity().host_ca),
    ):
        for alpn in (None, "peerway-tunnel", "peerway-agent", "h2"):
            answer(proxy.listen_addr, identity, alpn, os.urandom(500))
    check_route(proxy, "node-1", "local")
