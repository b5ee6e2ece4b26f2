# SPDX-License-Identifier: Apache-2.0
"""A host becomes a member by a token and the CA's pin, and by nothing less; as
a member it needs neither again, and nobody else can take its name."""

import shutil
import ssl
import subprocess

import pytest

import suite
from process import wait_for
from traffic import check_route


@pytest.fixture
def fleet(make_cluster, echo):
    return make_cluster(
        proxies=1, agents=["node-1"], services=echo.services()
    )


@pytest.fixture
def joined(fleet):
    return fleet.start()


def certificate(path):
    """Subject and extensions of a PEM leaf, as openssl prints them."""
    return subprocess.run(
        ["openssl", "x509", "-in", path, "-noout", "-subject", "-text"],
        capture_output=True, text=True, check=True,
    ).stdout


def find_leaf(host):
    """Where a host keeps its certificate."""
    found = sorted(host.data_dir.rglob("cert.pem"))
    assert found, f"{host.name} has no certificate"
    return found[0]


def test_certificates_are_as_designed(joined):
    proxy, agent = joined.proxies[0], joined.agents[0]
    text = certificate(find_leaf(proxy))
    assert f"CN = {proxy.uuid}.example" in text
    assert "O = Proxy" in text
    name = suite.connect.server_name(suite.CLUSTER_NAME)
    assert f"DNS:{name}" in text
    assert "DNS:*.teleport.cluster.local" in text
    assert f"IP Address:{proxy.address}" in text  # granted by its token
    assert "TLS Web Server Authentication" in text

    text = certificate(find_leaf(agent))
    assert f"CN = {agent.uuid}.example" in text
    assert "O = Node" in text
    assert "URI:peerway://agent/node-1" in text
    assert "DNS:" not in text and "IP Address:" not in text
    assert "TLS Web Client Authentication" in text
    assert "TLS Web Server Authentication" not in text


def test_member_needs_no_token_again(joined):
    proxy, agent = joined.proxies[0], joined.agents[0]
    uuids = [proxy.uuid, agent.uuid]
    leaves = [find_leaf(host).read_bytes() for host in (proxy, agent)]
    for host in (proxy, agent):
        (host.dir / "token").unlink()
        host.stop()
        host.start()
        host.wait_ready()
    joined.wait_agents(holders=1)
    check_route(proxy, "node-1", "local")
    assert [proxy.uuid, agent.uuid] == uuids
    assert [find_leaf(host).read_bytes() for host in (proxy, agent)] == leaves


def start_badly(host, daemon, pattern):
    """The host starts, does not join, and its log says why."""
    daemon.start()
    daemon.wait_log(pattern, suite.START_TIMEOUT)
    assert not list(host.data_dir.rglob("cert.pem"))
    daemon.expected_end = True  # it may give up or go on trying


WRONG_PIN = "sha256:" + "0" * 64


def test_proxy_with_a_wrong_pin(fleet):
    fleet.start_auth()
    proxy = fleet.proxies[0]
    proxy.join()
    proxy.common["join"]["ca_pin"] = WRONG_PIN
    proxy.write_config()
    token = (proxy.dir / "token").read_text().strip()
    start_badly(proxy, proxy.routed, r"(?i)(warn|err).*pin")
    for daemon in fleet.daemons():
        assert token not in daemon.log_text(whole=True)


def test_agent_with_a_wrong_pin(fleet):
    fleet.start_auth()
    proxy, agent = fleet.proxies[0], fleet.agents[0]
    proxy.join()
    proxy.start().wait_ready()
    agent.join()
    agent.common["join"]["ca_pin"] = WRONG_PIN
    agent.write_config()
    token = (agent.dir / "token").read_text().strip()
    start_badly(agent, agent.agent, r"(?i)(warn|err).*pin")
    for daemon in fleet.daemons():
        assert token not in daemon.log_text(whole=True)


def test_wrong_token(fleet):
    fleet.start_auth()
    proxy, agent = fleet.proxies[0], fleet.agents[0]
    good = fleet.token("proxy")
    proxy.write_config(proxy.join_with("not-a-token", fleet.pin))
    start_badly(proxy, proxy.routed, r"(?i)(warn|err).*token")
    proxy.routed.stop()
    # The role is part of the token: an agent's does not make a proxy.
    proxy.write_config(proxy.join_with(fleet.token("node"), fleet.pin))
    start_badly(proxy, proxy.routed, r"(?i)(warn|err).*token")
    proxy.routed.stop()
    proxy.write_config(proxy.join_with(good, fleet.pin))
    proxy.start().wait_ready()
    agent.write_config(agent.join_with(fleet.token("proxy"), fleet.pin))
    start_badly(agent, agent.agent, r"(?i)(warn|err).*token")


def test_removed_token(fleet):
    fleet.start_auth()
    proxy = fleet.proxies[0]
    proxy.join()
    (token,) = fleet.auth.authd.ask("token.ls")["tokens"]
    fleet.peerctl("token", "rm", token["id"])
    start_badly(proxy, proxy.routed, r"(?i)(warn|err).*token")


def test_a_uuid_is_its_key_holders(joined, echo):
    """Another machine with a good token cannot become node-1's twin."""
    thief = joined.add_agent("node-2")
    shutil.copy(
        joined.agents[0].data_dir / "host_uuid", thief.data_dir / "host_uuid"
    )
    thief.join()
    start_badly(thief, thief.agent, r"(?i)(warn|err).*(uuid|key|exists)")
    thief.agent.stop()
    check_route(joined.proxies[0], "node-1", "local")


def test_a_name_fixed_by_the_token(joined):
    answer = joined.auth.authd.ask(
        "token.add", {"role": "node", "agent_name": "other", "ttl_s": 600}
    )
    agent = joined.add_agent("node-2")
    agent.write_config(agent.join_with(answer["token"], joined.pin))
    start_badly(agent, agent.agent, r"(?i)(warn|err).*name")


def test_find_needs_no_certificate(joined):
    proxy = joined.proxies[0]
    nobody = suite.connect.Identity(None, None, joined.identity().host_ca)
    with suite.connect.TlsStream(
        proxy.listen_addr,
        suite.connect.client_context(nobody),
        suite.connect.server_name(suite.CLUSTER_NAME),
    ) as stream:
        status, _, body = suite.connect.request(
            stream, "GET /webapi/find HTTP/1.1\r\nHost: x\r\n\r\n"
        )
    assert status == 200
    assert b"proxy_peering" in body and b"example" in body


def test_connect_needs_a_certificate(joined):
    nobody = suite.connect.Identity(None, None, joined.identity().host_ca)
    with pytest.raises((suite.connect.Refused, ssl.SSLError)) as caught:
        suite.connect.dial(
            joined.proxies[0].listen_addr, "echo.node-1", nobody,
            suite.CLUSTER_NAME,
        )
    if isinstance(caught.value, suite.connect.Refused):
        assert caught.value.status in (401, 403)


def test_public_address_verifies_like_any_web_server(joined):
    """curl knows nothing of cluster names: the token granted the address."""
    proxy = joined.proxies[0]
    wait_for(
        lambda: subprocess.run(
            ["curl", "-sf", "--cacert", joined.identity().host_ca,
             f"https://{proxy.listen_addr}/webapi/find"],
            capture_output=True, check=False,
        ).returncode == 0,
        5,
        "curl verifies the proxy",
    )
