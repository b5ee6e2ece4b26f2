# SPDX-License-Identifier: Apache-2.0
"""The reference's own tests of its peering (peering-reference.md 14.1), one by
one under their names, and that an identity is what the leaf says alone.

TestInvalidFirstFrame: test_wire.py. TestSplitServerID: unit/peerd/test_request.c.
"""

import shutil
import tempfile
import uuid
from pathlib import Path

import grpc
import pytest

import mesh
from hosts import CLUSTER_NAME, SLOW, Network
from process import wait_for
from test_wire import FarEnd, Stream, channel_to, far_agent

TIMEOUT = 20 * SLOW
SERVER_NAMES = (
    f"subjectAltName=DNS:{mesh.SERVER_NAME},DNS:*.teleport.cluster.local\n"
    "extendedKeyUsage=clientAuth,serverAuth\n"
)


@pytest.fixture(scope="module")
def ground():
    directory = tempfile.mkdtemp(prefix="pw-ref-")
    network = Network()
    yield directory, network, mesh.Pki(directory + "/pki")
    network.close()
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture
def make_host(ground, request):
    hosts = []
    count = getattr(make_host_numbers, "next", 1)

    def make(pki=None):
        nonlocal count
        directory, network, default = ground
        hosts.append(mesh.Host(directory, network, pki or default, count))
        count += 1
        make_host_numbers.next = count
        return hosts[-1].start()

    yield make
    for host in hosts:
        host.close()


def make_host_numbers():
    """Holds the number of the next host of this file."""


def holder(host):
    """A worker of host that echoes for a new agent; gives the agent's id."""
    agent = str(uuid.uuid4())
    host.worker_0 = host.worker()
    host.worker_0.tunnel_up(agent)
    host.wait_tunnel(agent)
    return agent


def carries(end):
    end.settimeout(TIMEOUT)
    end.sendall(b"ping")
    return end.recv(4) == b"ping"


def test_client_conn(make_host):
    """Two peers, two connections; every dial takes the one at hand; when a
    peer has stopped its dials fail, and it is still a known connection."""
    client, s1, s2 = make_host(), make_host(), make_host()
    agents = [holder(s1), holder(s2)]
    client.know(s1, s2)
    for server, agent in zip((s1, s2), agents):
        client.wait_peer(server.id)
        client.cache.put_tunnel(agent, server.id)
    worker = client.worker()
    for agent, server in ((agents[0], s1), (agents[1], s2), (agents[1], s2)):
        answer, end = worker.connect(agent)
        assert answer.proxy_id == server.id and len(answer.attempts) == 1
        assert carries(end)
        mesh.part(end)
    for peer in client.peerd.status()["peers"]:
        assert peer["connections"] == peer["connections_ready"] == 1
    s2.worker_0.close()
    assert s2.peerd.stop() == 0
    answer, end = worker.connect(agents[1])
    assert answer.code == worker.ipc.DIAL_OFFLINE
    assert answer.attempts[0].proxy_id == s2.id
    end.close()
    assert s2.id in [p["id"] for p in client.peerd.status()["peers"]]
    client.wait_peer(s2.id, "unreachable")


def test_client_update(make_host):
    """A peer that leaves the list keeps its streams; a broken one that comes
    back is no error but its dials'; another address is a new connection."""
    client, server = make_host(), make_host()
    agent = holder(server)
    client.know(server)
    client.wait_peer(server.id)
    client.cache.put_tunnel(agent, server.id)
    worker = client.worker()
    _, before = worker.connect(agent)
    assert carries(before)

    client.cache.remove_proxy(server.id)
    client.routed.announce()
    wait_for(
        lambda: client.peerd.status()["peers"] == [], TIMEOUT, "it has gone"
    )
    assert carries(before)

    dead = f"{server.address}:{Network.free_port(server.address)}"
    client.know((server.id, dead))
    client.wait_peer(server.id, "unreachable")
    answer, end = worker.connect(agent)
    assert answer.code == worker.ipc.DIAL_OFFLINE
    end.close()

    client.know(server)
    client.wait_peer(server.id)
    answer, after = worker.connect(agent)
    assert answer.proxy_id == server.id
    assert carries(after) and carries(before)
    mesh.part(after)
    mesh.part(before)


def test_ca_change(ground, make_host):
    """The server's CA is replaced: new connections fail with the old roots
    and succeed with the new ones."""
    client, server = make_host(), make_host()
    agent = holder(server)
    client.know(server)
    client.wait_peer(server.id)
    client.cache.put_tunnel(agent, server.id)
    worker = client.worker()

    other = mesh.Pki(tempfile.mkdtemp(dir=ground[0]) + "/pki")
    server.routed.announce(other.issue(server.id))
    server.peerd.wait_log("certificate replaced")
    # a new certificate of the client's own is a new connection
    client.routed.announce(ground[2].issue(client.id))
    client.wait_peer(server.id, "unreachable")
    answer, end = worker.connect(agent)
    assert answer.code == worker.ipc.DIAL_OFFLINE
    end.close()

    client.routed.announce(other.issue(client.id))
    client.wait_peer(server.id)
    answer, end = worker.connect(agent)
    assert answer.proxy_id == server.id
    assert carries(end)
    mesh.part(end)


def test_backup_client(make_host):
    """The first one asked has no such tunnel: the second one is used."""
    client, s1, s2 = make_host(), make_host(), make_host()
    agent = holder(s2)
    s1.asked = s1.worker()
    client.know(s1, s2)
    client.cache.put_tunnel(agent, s1.id)
    client.cache.put_tunnel(agent, s2.id)
    worker = client.worker()
    seen = set()
    for server in (s1, s2):
        client.wait_peer(server.id)
    for _ in range(10):
        answer, end = worker.connect(agent)
        assert answer.proxy_id == s2.id
        seen.add(tuple(a.proxy_id for a in answer.attempts))
        assert carries(end)
        mesh.part(end)
    assert seen <= {(s1.id, s2.id), (s2.id,)}
    if (s1.id, s2.id) not in seen:
        # the other order by latency: with nobody else, it is asked
        client.cache.db.execute(
            "DELETE FROM tunnel WHERE proxy_id = ?", [s2.id]
        )
        client.cache.db.commit()
        client.routed.holders[agent] = [s2.id]
        answer, end = worker.connect(agent)
        assert [a.proxy_id for a in answer.attempts] == [s1.id, s2.id]
        mesh.part(end)


def test_server_tls(ground, make_host):
    """A trusted Proxy is served; a Node connects and its dial is refused; two
    CAs that trust each other work."""
    host = make_host()
    agent = holder(host)
    with channel_to(host.peer_addr, ground[2].issue(str(uuid.uuid4()))) as channel:
        stream = Stream(channel).dial(f"{agent}.{CLUSTER_NAME}").established()
        stream.close()
    with channel_to(
        host.peer_addr, ground[2].issue(str(uuid.uuid4()), role="Node")
    ) as channel:
        grpc.channel_ready_future(channel).result(TIMEOUT)
        Stream(channel).dial(f"{agent}.{CLUSTER_NAME}").fails_with(
            grpc.StatusCode.PERMISSION_DENIED,
            "expected Proxy client credentials",
        )

    other = mesh.Pki(tempfile.mkdtemp(dir=ground[0]) + "/pki")
    both = ground[2].ca.read_text() + other.ca.read_text()
    ours = ground[2].issue(host.id)
    (ours / "host_ca.pem").write_text(both)
    theirs = other.issue(str(uuid.uuid4()))
    (theirs / "host_ca.pem").write_text(both)
    host.routed.announce(ours)
    host.peerd.wait_log("certificate replaced")
    with channel_to(host.peer_addr, theirs) as channel:
        stream = Stream(channel).dial(f"{agent}.{CLUSTER_NAME}").established()
        stream.close()


def leaf(pki, subject, name="leaf"):
    """A directory with a leaf of exactly this subject."""
    out = Path(tempfile.mkdtemp(dir=pki.dir))
    mesh.openssl(
        "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
        "-nodes", "-keyout", out / "key.pem", "-out", out / "csr",
        "-subj", subject, "-multivalue-rdn", "-utf8",
    )
    (out / "ext").write_text(SERVER_NAMES)
    mesh.openssl(
        "x509", "-req", "-in", out / "csr", "-CA", pki.ca, "-CAkey",
        pki.ca_key, "-CAcreateserial", "-days", "2", "-out",
        out / "leaf.pem", "-extfile", out / "ext",
    )
    chain = (out / "leaf.pem").read_text() + pki.ca.read_text()
    (out / "cert.pem").write_text(chain)
    shutil.copy(pki.ca, out / "host_ca.pem")
    return out


def under_an_intermediate(pki, subject, middle):
    """A leaf below an intermediate CA whose subject is middle."""
    out = Path(tempfile.mkdtemp(dir=pki.dir))
    for name, who in (("middle", middle), ("leaf", subject)):
        mesh.openssl(
            "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
            "-nodes", "-keyout", out / f"{name}.key", "-out",
            out / f"{name}.csr", "-subj", who,
        )
    (out / "middle.ext").write_text("basicConstraints=critical,CA:TRUE\n")
    (out / "leaf.ext").write_text(SERVER_NAMES)
    for name, ca, key in (
        ("middle", pki.ca, pki.ca_key),
        ("leaf", out / "middle.pem", out / "middle.key"),
    ):
        mesh.openssl(
            "x509", "-req", "-in", out / f"{name}.csr", "-CA", ca, "-CAkey",
            key, "-CAcreateserial", "-days", "2", "-out", out / f"{name}.pem",
            "-extfile", out / f"{name}.ext",
        )
    shutil.copy(out / "leaf.key", out / "key.pem")
    chain = "".join(
        (out / f"{name}.pem").read_text() for name in ("leaf", "middle")
    )
    (out / "cert.pem").write_text(chain + pki.ca.read_text())
    shutil.copy(pki.ca, out / "host_ca.pem")
    return out


ID = "6f2b1c1e-0000-4000-8000-00000000beef"
PROXY = f"/O=Proxy/CN={ID}.{CLUSTER_NAME}"

# subject of the leaf -> what our caller says of a server with it (None: fine)
SUBJECTS = {
    "valid": (PROXY, None),
    "wrong role": (
        f"/O=Node/CN={ID}.{CLUSTER_NAME}", "proxy system role required"),
    "no role": (f"/CN={ID}.{CLUSTER_NAME}", "proxy system role required"),
    "several roles": (
        f"/O=Node/O=Proxy/CN={ID}.{CLUSTER_NAME}", None),
    "wrong id": (
        f"/O=Proxy/CN={uuid.uuid4()}.{CLUSTER_NAME}",
        "connected to unexpected proxy"),
    "empty id": ("/O=Proxy", "missing identity username"),
    "no uuid": (
        f"/O=Proxy/CN=proxy.{CLUSTER_NAME}", "connected to unexpected proxy"),
    "another cluster": (
        f"/O=Proxy/CN={ID}.elsewhere", "connected to unexpected proxy"),
}


@pytest.mark.parametrize("case", SUBJECTS)
def test_client_credentials(ground, make_host, case):
    """The reference's three errors, its texts, and no call; a valid
    certificate leaves the connection open."""
    subject, error = SUBJECTS[case]
    host = make_host()
    worker = host.worker()
    far = FarEnd(ground, 50, ID, leaf(ground[2], subject))
    try:
        agent = far_agent(host, far, "unreachable" if error else "ready")
        answer, end = worker.connect(agent)
        if error:
            host.peerd.wait_log(f"{error}: .*peer={ID}")
            assert answer.code == worker.ipc.DIAL_OFFLINE
            assert not far.calls
        else:
            assert answer.proxy_id == ID
            assert carries(end)
            mesh.part(end)
            host.wait_peer(ID)
        end.close()
    finally:
        far.close()


def test_send_receive(ground, make_host):
    """Ten round trips, and the request's fields as they were sent."""
    host = make_host()
    agent = holder(host)
    with channel_to(host.peer_addr, ground[2].issue(str(uuid.uuid4()))) as channel:
        stream = Stream(channel).dial(
            f"{agent}.{CLUSTER_NAME}",
            TunnelType="app",
            Source={"Network": "tcp", "Addr": "192.0.2.9:4000"},
            Destination={"Network": "tcp", "Addr": "echo:7"},
        )
        stream.established()
        for turn in range(10):
            stream.send_data(b"turn %d" % turn)
            assert stream.receive_data(6) == b"turn %d" % turn
        (dial,) = host.worker_0.dials
        assert (dial.agent_id, dial.type) == (agent, "app")
        assert (dial.service, dial.port) == ("echo", 7)
        assert dial.source == "192.0.2.9:4000"
        stream.close()


# Identity comes from the leaf alone


@pytest.mark.parametrize("side", ["server", "client"])
def test_an_intermediate_lends_nothing_to_its_leaf(ground, make_host, side):
    """The intermediate looks like a proxy; the leaf is another one's."""
    pki = ground[2]
    impostor = under_an_intermediate(
        pki, f"/O=Node/CN={uuid.uuid4()}.{CLUSTER_NAME}", PROXY
    )
    host = make_host()
    if side == "client":
        with channel_to(host.peer_addr, impostor) as channel:
            Stream(channel).dial(f"{ID}.{CLUSTER_NAME}").fails_with(
                grpc.StatusCode.PERMISSION_DENIED,
                "expected Proxy client credentials",
            )
        return
    far = FarEnd(ground, 51, ID, impostor)
    try:
        far_agent(host, far, "unreachable")
        host.peerd.wait_log(f"peer refused: .*peer={ID}")
        assert not far.calls
    finally:
        far.close()


@pytest.mark.parametrize("case", SUBJECTS)
def test_a_callers_role_and_cluster_are_its_leafs(ground, make_host, case):
    """A server does not know whom to expect: any proxy of the cluster."""
    subject, _ = SUBJECTS[case]
    host = make_host()
    agent = holder(host)
    allowed = case in ("valid", "several roles", "wrong id")
    with channel_to(host.peer_addr, leaf(ground[2], subject)) as channel:
        stream = Stream(channel).dial(f"{agent}.{CLUSTER_NAME}")
        if allowed:
            stream.established()
            stream.close()
        else:
            stream.fails_with(
                grpc.StatusCode.PERMISSION_DENIED,
                "expected Proxy client credentials",
            )
