# SPDX-License-Identifier: Apache-2.0
"""authd on the wire (3025), by a client that does as it likes: who may join and
as whom, who may write which records, what a watcher is told and when, and that
neither a restart nor a stall of authd takes anything away."""

import base64
import hashlib
import re
import signal
import subprocess
import time
import urllib.request
import uuid

import grpc
import pytest

import ctl
import stubs
from process import wait_for

LEASE_TTL = 2.0
CALL_TIMEOUT = 10
Code = grpc.StatusCode


def run(*argv, stdin=b""):
    return subprocess.run(argv, input=stdin, check=True, capture_output=True).stdout


class Member:
    """A key of a host, and what authd gave it."""

    def __init__(self, directory, host_uuid=None):
        self.uuid = host_uuid or str(uuid.uuid4())
        self.dir = directory / str(uuid.uuid4())
        self.dir.mkdir()
        self.key = self.dir / "key.pem"
        self.cert = None
        run("openssl", "genpkey", "-algorithm", "EC", "-pkeyopt",
            "ec_paramgen_curve:P-256", "-out", self.key)

    def csr(self):
        return run("openssl", "req", "-new", "-key", self.key, "-subj",
                   "/CN=whatever/O=Proxy", "-addext",
                   "subjectAltName=DNS:evil.example", "-outform", "DER")

    def der(self):
        return run("openssl", "x509", "-outform", "DER",
                   stdin=self.cert.encode())

    def text(self):
        return run("openssl", "x509", "-noout", "-subject", "-text",
                   stdin=self.cert.encode()).decode()

    def names(self):
        """The alternative names, as openssl writes them."""
        found = re.search(r"Alternative Name: *\n *(.*)", self.text())
        return found[1].split(", ") if found else []


class Authd:
    """The authd of a cluster, with its administration and its service."""

    def __init__(self, cluster):
        self.cluster = cluster
        self.host = cluster.auth
        self.daemon = cluster.auth.authd
        self.auth = stubs.load("auth_pb2")
        self.record = stubs.load("record_pb2")
        self.grpc = stubs.load("auth_pb2_grpc")
        self.channels = []
        self.host.write_config({"auth_service": {"lease_ttl": "2s"}})
        # or memory given back would count as held under ASan
        env = self.daemon.env
        env["ASAN_OPTIONS"] = ":".join(
            [env.get("ASAN_OPTIONS", ""), "quarantine_size_mb=0",
             "thread_local_quarantine_size_kb=0"])
        cluster.start_auth()
        self.ca = self.daemon.ask("ca")

    def close(self):
        for channel in self.channels:
            channel.close()

    def stub(self, member=None, root=None, options=(), address=None):
        """A stub of its own connection, with member's certificate."""
        cluster = self.ca["cluster_name"]
        name = cluster.encode().hex() + ".teleport.cluster.local"
        creds = grpc.ssl_channel_credentials(
            (root or self.ca["host_ca"]).encode(),
            member.key.read_bytes() if member else None,
            member.cert.encode() if member else None,
        )
        channel = grpc.secure_channel(
            address or self.host.listen_addr,
            creds,
            [("grpc.ssl_target_name_override", name),
             ("grpc.use_local_subchannel_pool", 1),
             ("grpc.initial_reconnect_backoff_ms", 200),
             ("grpc.max_reconnect_backoff_ms", 500),
             ("grpc.max_receive_message_length", 64 << 20), *options],
        )
        self.channels.append(channel)
        return self.grpc.AuthServiceStub(channel)

    def member(self, host_uuid=None):
        return Member(self.cluster.dir, host_uuid)

    def token(self, role="proxy", **args):
        return self.daemon.ask("token.add", {"role": role, **args})["token"]

    def join(self, member, token, role="proxy", name="", names=(), csr=None):
        number = {"proxy": 1, "node": 2, "none": 0}[role]
        reply = self.stub().Join(
            self.auth.JoinRequest(
                token=token, role=number, host_uuid=member.uuid, name=name,
                csr=member.csr() if csr is None else csr, names=names),
            timeout=CALL_TIMEOUT,
        )
        member.cert = reply.cert_chain
        return reply

    def joined(self, role="proxy", **args):
        member = self.member()
        if role == "node":
            args.setdefault("name", "agent-1")
        self.join(member, self.token(role), role, **args)
        return member

    def proxy(self):
        return Proxy(self, self.joined())


class Proxy:
    """A proxy host's routed, reduced to its calls."""

    def __init__(self, authd, member):
        self.authd = authd
        self.member = member
        self.stub = authd.stub(member)

    def grant(self, proxy_id=None):
        return self.stub.LeaseGrant(
            self.authd.auth.LeaseGrantRequest(
                proxy_id=proxy_id or self.member.uuid),
            timeout=CALL_TIMEOUT)

    def keepalive(self, lease):
        return self.stub.LeaseKeepAlive(
            self.authd.auth.LeaseKeepAliveRequest(lease_id=lease.lease_id),
            timeout=CALL_TIMEOUT)

    def revoke(self, lease):
        return self.stub.LeaseRevoke(
            self.authd.auth.LeaseRevokeRequest(lease_id=lease.lease_id),
            timeout=CALL_TIMEOUT)

    def record(self, **fields):
        return self.authd.record.ProxyRecord(
            **{"id": self.member.uuid, "hostname": "h", **fields})

    def tunnel(self, agent, **fields):
        fields = {"proxy_id": self.member.uuid, "name": "a", **fields}
        return self.authd.record.TunnelRecord(agent_id=agent, **fields)

    def publish(self, lease, epoch=None, **fields):
        return self.stub.Publish(
            self.authd.auth.PublishRequest(
                lease_id=lease.lease_id,
                epoch=lease.epoch if epoch is None else epoch, **fields),
            timeout=CALL_TIMEOUT)

    def watch(self, store_id="", from_revision=0):
        return Watch(self.stub.Watch(self.authd.auth.WatchRequest(
            store_id=store_id, from_revision=from_revision),
            timeout=90))


class Watch:
    """Applies what a watch says, in order, to a state of its own."""

    def __init__(self, call):
        self.call = call
        self.state = {}
        self.revision = 0
        self.store_id = ""
        self.snapshots = 0

    def next(self):
        """One message, applied."""
        message = next(self.call)
        assert message.revision >= self.revision or message.snapshot
        if not message.snapshot:
            revisions = [c.revision for c in message.changes]
            assert revisions == sorted(revisions)
            assert all(
                self.revision < r <= message.revision for r in revisions
            ), "told twice, or before its time"
        self.revision = message.revision
        self.store_id = message.store_id
        for change in message.changes:
            what = change.WhichOneof("what")
            value = getattr(change, what)
            if what == "config":
                self.state["config"] = value
            elif what == "proxy_put":
                self.state[value.id] = value
            elif what == "proxy_removed":
                del self.state[value]
            elif what == "tunnel_put":
                self.state[value.agent_id, value.proxy_id] = value
            elif what == "tunnel_removed":
                del self.state[value.agent_id, value.proxy_id]
        return message

    def snapshot(self):
        """Reads to the end of the snapshot, which a message without changes
        may come before: the watch was heard, but cannot resume."""
        self.state = {}
        while True:
            message = self.next()
            assert message.snapshot or not message.changes
            if message.complete:
                self.snapshots += 1
                return self

    def until(self, condition):
        """Messages until the condition holds of the state; the last one."""
        while True:
            message = self.next()
            if condition(self.state):
                return message

    def close(self):
        self.call.cancel()


@pytest.fixture(scope="module")
def authd(module_cluster):
    authd = Authd(module_cluster(proxies=0))
    yield authd
    authd.close()


@pytest.fixture
def own_authd(make_cluster):
    """For tests that stop it."""
    authd = Authd(make_cluster(proxies=0))
    yield authd
    authd.close()


def refused(code, call, *args, **kwargs):
    """Asserts the status; gives the message."""
    with pytest.raises(grpc.RpcError) as error:
        call(*args, **kwargs)
    assert error.value.code() == code, error.value
    return error.value.details()


# Joining


def test_proxy_certificate(authd):
    token = authd.token(names=["127.0.0.1", "proxy1.example.com", "other.org"])
    member = authd.member()
    reply = authd.join(member, token, names=["proxy1.example.com", "127.0.0.1",
                                             "evil.example"])
    text = member.text()
    cluster = authd.ca["cluster_name"]
    assert f"CN = {member.uuid}.{cluster}" in text and "O = Proxy" in text
    assert sorted(member.names()) == sorted([
        "DNS:" + cluster.encode().hex() + ".teleport.cluster.local",
        "DNS:*.teleport.cluster.local",
        "DNS:proxy1.example.com",
        "IP Address:127.0.0.1",
    ])
    assert "TLS Web Server Authentication" in text
    assert reply.host_ca == authd.ca["host_ca"]
    assert reply.user_ca == authd.ca["user_ca"]
    assert reply.user_ca != reply.host_ca
    assert reply.cert_chain.endswith(reply.host_ca)
    assert reply.cluster_name == cluster


def test_agent_certificate_cannot_serve(authd):
    member = authd.joined("node", name="db-1")
    text = member.text()
    assert "O = Node" in text
    assert member.names() == ["URI:peerway://agent/db-1"]
    assert "TLS Web Client Authentication" in text
    assert "TLS Web Server Authentication" not in text


def test_ca_sent_in_the_handshake_has_the_pin(authd):
    out = run("openssl", "s_client", "-connect", authd.host.listen_addr,
              "-alpn", "h2", "-showcerts").decode("latin-1")
    certs = re.findall(r"-----BEGIN CERT.*?END CERTIFICATE-----", out, re.S)
    assert len(certs) == 2
    pubkey = run("openssl", "x509", "-noout", "-pubkey",
                 stdin=certs[1].encode())
    der = run("openssl", "pkey", "-pubin", "-outform", "DER", stdin=pubkey)
    assert "sha256:" + hashlib.sha256(der).hexdigest() == authd.ca["pin"]
    assert "TLSv1.3" in out


def test_only_tls_1_3(authd):
    done = subprocess.run(
        ["openssl", "s_client", "-connect", authd.host.listen_addr, "-alpn",
         "h2", "-tls1_2"], stdin=subprocess.DEVNULL, capture_output=True,
        check=False)
    assert done.returncode != 0
    assert b"Cipher is (NONE)" in done.stdout


def test_bad_tokens(authd):
    good = authd.token()
    flipped = good[:-1] + ("0" if good[-1] != "0" else "1")
    stranger = "0" * 16 + good[16:]
    for bad in ["", "x", flipped, stranger, good + "0", good.upper()]:
        member = authd.member()
        details = refused(Code.UNAUTHENTICATED, authd.join, member, bad)
        assert details == "the token is not known here"
    # what was wrong with it is told only to who has its secret
    expired = authd.token(ttl_s=1)
    time.sleep(1.2)
    assert "expired" in refused(
        Code.PERMISSION_DENIED, authd.join, authd.member(), expired)
    assert "another role" in refused(
        Code.PERMISSION_DENIED, authd.join, authd.member(), good, "node",
        name="a")
    named = authd.token("node", agent_name="db-1")
    assert "another agent name" in refused(
        Code.PERMISSION_DENIED, authd.join, authd.member(), named, "node",
        name="db-2")
    member = authd.member()
    authd.join(member, named, "node")
    assert member.names() == ["URI:peerway://agent/db-1"]


def test_removed_token_is_of_no_use(authd):
    answer = authd.daemon.ask("token.add", {"role": "proxy"})
    listed = {t["id"]: t for t in authd.daemon.ask("token.ls")["tokens"]}
    assert listed[answer["id"]]["role"] == "proxy"
    assert answer["token"] not in str(listed)
    authd.daemon.ask("token.rm", {"id": answer["id"]})
    assert answer["id"] not in str(authd.daemon.ask("token.ls"))
    refused(Code.UNAUTHENTICATED, authd.join, authd.member(), answer["token"])
    with pytest.raises(ctl.Failed):
        authd.daemon.ask("token.rm", {"id": answer["id"]})


def test_bad_join_requests(authd):
    token = authd.token()
    node = authd.token("node")
    member = authd.member()
    invalid = Code.INVALID_ARGUMENT
    refused(invalid, authd.join, member, token, "none")
    refused(invalid, authd.join, authd.member("not-a-uuid"), token)
    refused(invalid, authd.join, member, token, csr=b"")
    refused(invalid, authd.join, member, token, csr=b"\x30\x03abc")
    refused(invalid, authd.join, member, token, csr=member.csr() + b"x")
    refused(invalid, authd.join, member, token, names=["not a name"])
    refused(invalid, authd.join, member, token,
            names=["41.teleport.cluster.local"])
    refused(invalid, authd.join, member, node, "node", name="")
    refused(invalid, authd.join, member, node, "node", name="Two.Labels")


def test_uuid_belongs_to_its_key(authd):
    member = authd.joined()
    thief = authd.member(member.uuid)
    refused(Code.ALREADY_EXISTS, authd.join, thief, authd.token())
    authd.join(member, authd.token())
    # an agent on the same host has the uuid for its own role
    agent = authd.member(member.uuid)
    authd.join(agent, authd.token("node"), "node", name="a")
    refused(Code.ALREADY_EXISTS, authd.join, authd.member(member.uuid),
            authd.token("node"), "node", name="a")


def test_tokens_stay_out_of_the_log(authd):
    token = authd.token()
    authd.join(authd.member(), token)
    refused(Code.UNAUTHENTICATED, authd.join, authd.member(),
            token[:-1] + "z")
    log = authd.daemon.log_text(whole=True)
    assert token[:16] in log  # its id may be there
    assert token[17:50] not in log


# Renewal


def renew(authd, cert, csr):
    reply = authd.stub().Renew(
        authd.auth.RenewRequest(cert=cert, csr=csr), timeout=CALL_TIMEOUT)
    return reply


def test_renewal_gives_the_same_again(authd):
    token = authd.token(names=["proxy1.example.com"])
    member = authd.member()
    authd.join(member, token)
    before, names = member.cert, member.names()
    # anybody may carry it: the proof is in the request
    member.cert = renew(authd, member.der(), member.csr()).cert_chain
    assert member.cert != before
    assert member.names() == names
    assert f"CN = {member.uuid}." in member.text()
    assert "O = Proxy" in member.text()
    agent = authd.joined("node", name="db-7")
    agent.cert = renew(authd, agent.der(), agent.csr()).cert_chain
    assert agent.names() == ["URI:peerway://agent/db-7"]


def test_renewal_needs_the_key(authd):
    member, other = authd.joined(), authd.joined()
    refused(Code.PERMISSION_DENIED, renew, authd, member.der(), other.csr())
    refused(Code.INVALID_ARGUMENT, renew, authd, b"", member.csr())
    refused(Code.INVALID_ARGUMENT, renew, authd, member.der(), b"junk")
    refused(Code.INVALID_ARGUMENT, renew, authd, member.der()[:-1],
            member.csr())
    # a certificate of its own making, or of the user CA
    forged = authd.member(member.uuid)
    forged.cert = run(
        "openssl", "req", "-x509", "-new", "-key", forged.key, "-subj",
        f"/CN={member.uuid}.{authd.ca['cluster_name']}/O=Proxy").decode()
    refused(Code.UNAUTHENTICATED, renew, authd, forged.der(), forged.csr())
    user = issue_user(authd, "alice")
    refused(Code.UNAUTHENTICATED, renew, authd, user.der(), user.csr())


# Users


def issue_user(authd, name, **args):
    user = authd.member()
    csr = base64.b64encode(user.csr()).decode()
    answer = authd.daemon.ask("identity.issue",
                              {"user": name, "csr": csr, **args})
    user.cert = answer["cert_chain"]
    return user


def test_user_certificate(authd):
    user = issue_user(authd, "alice", groups=["dev", "ops"], ttl_s=600)
    text = user.text()
    subject = text.splitlines()[0]
    assert "CN = alice, O = dev, O = ops" in subject
    assert user.names() == []
    assert "TLS Web Client Authentication" in text
    assert "TLS Web Server Authentication" not in text
    assert user.cert.endswith(authd.ca["user_ca"])
    for bad in [{"ttl_s": 31 * 86400}, {"ttl_s": 5}, {"groups": [""]},
                {"groups": ["g" * 64]}, {"groups": ["x"] * 33},
                {"groups": "dev"}, {"groups": [1]}, {"ttl_s": "1h"}]:
        with pytest.raises(ctl.Failed):
            issue_user(authd, "bob", **bad)
    for name in ["", "a\nb", "n" * 256, " bob"]:
        with pytest.raises(ctl.Failed):
            issue_user(authd, name)
    with pytest.raises(ctl.Failed):
        authd.daemon.ask("identity.issue", {"user": "bob", "csr": "AAAA"})
    with pytest.raises(ctl.Failed):
        authd.daemon.ask("no.such.verb")


# Who may call what


def all_calls(authd, stub):
    auth = authd.auth
    lease = auth.LeaseKeepAliveRequest(lease_id=1)
    return [
        lambda: stub.LeaseGrant(
            auth.LeaseGrantRequest(proxy_id=str(uuid.uuid4())), timeout=5),
        lambda: stub.LeaseKeepAlive(lease, timeout=5),
        lambda: stub.LeaseRevoke(
            auth.LeaseRevokeRequest(lease_id=1), timeout=5),
        lambda: stub.Publish(
            auth.PublishRequest(lease_id=1, epoch=1), timeout=5),
        lambda: stub.Lookup(
            auth.LookupRequest(agent_id=str(uuid.uuid4())), timeout=5),
        lambda: next(stub.Watch(auth.WatchRequest(), timeout=5)),
    ]


def test_agents_and_strangers_may_nothing(authd):
    for caller in [None, authd.joined("node")]:
        for call in all_calls(authd, authd.stub(caller)):
            refused(Code.PERMISSION_DENIED, call)


def test_users_are_not_hosts(authd):
    user = issue_user(authd, "mallory", groups=["Proxy", "peerway-admin"])
    for call in all_calls(authd, authd.stub(user))[:2]:
        refused(Code.UNAVAILABLE, call)


def test_a_proxy_writes_its_own_only(authd):
    one, two = authd.proxy(), authd.proxy()
    denied = Code.PERMISSION_DENIED
    refused(denied, one.grant, two.member.uuid)
    mine, theirs = one.grant(), two.grant()
    agent = str(uuid.uuid4())
    refused(denied, one.publish, mine, proxy=two.record())
    refused(denied, one.publish, mine, put=[two.tunnel(agent)])
    # of leases there are only one's own
    refused(Code.NOT_FOUND, one.publish, theirs, proxy=one.record())
    refused(Code.NOT_FOUND, one.keepalive, theirs)
    refused(Code.NOT_FOUND, one.revoke, theirs)
    two.publish(theirs, put=[two.tunnel(agent)])
    # removing is of one's own by its nature: the other's stays
    one.publish(mine, remove_agent_id=[agent])
    found = one.stub.Lookup(
        authd.auth.LookupRequest(agent_id=agent), timeout=5)
    assert [t.proxy_id for t in found.tunnels] == [two.member.uuid]
    one.revoke(mine)
    two.revoke(theirs)


def test_bad_records_are_refused(authd):
    proxy = authd.proxy()
    lease = proxy.grant()
    agent = str(uuid.uuid4())
    service = authd.record.Service
    label = authd.record.Label
    bad = [
        {"put": [proxy.tunnel("not-a-uuid")]},
        {"put": [proxy.tunnel(agent, name="")]},
        {"put": [proxy.tunnel(agent, name="Two.Labels")]},
        {"put": [proxy.tunnel(agent), proxy.tunnel(agent)]},
        {"put": [proxy.tunnel(agent)], "remove_agent_id": [agent]},
        {"put": [proxy.tunnel(str(uuid.uuid4())) for _ in range(128)]},
        {"put": [proxy.tunnel(agent, services=[service(name="a b")])]},
        {"put": [proxy.tunnel(agent, services=[
            service(name="ssh", type="node", port=70000)])]},
        {"put": [proxy.tunnel(agent, services=[
            service(name=f"s{i}", type="node") for i in range(257)])]},
        {"put": [proxy.tunnel(agent, services=[
            service(name=f"s{i}", type="t" * 250) for i in range(256)])]},
        {"put": [proxy.tunnel(agent, labels=[
            label(name="n", value="v" * 300)])]},
        {"put": [proxy.tunnel(agent, labels=[
            label(name="n", value="v") for _ in range(65)])]},
        {"remove_agent_id": ["../config"]},
        {"proxy": proxy.record(hostname="h" * 300)},
        {"proxy": proxy.record(region="a\nb")},
        {"proxy": proxy.record(public_addr=["a:1"] * 17)},
        {"epoch": 0},
    ]
    for fields in bad:
        refused(Code.INVALID_ARGUMENT, proxy.publish, lease, **fields)
    proxy.revoke(lease)


# Leases and epochs


def test_older_epoch_is_refused(authd):
    proxy = authd.proxy()
    first = proxy.grant()
    assert first.previous_lease_id == 0
    assert first.ttl_ms == LEASE_TTL * 1000
    proxy.publish(first, proxy=proxy.record())
    second = proxy.grant()
    assert second.epoch == first.epoch + 1
    assert second.previous_lease_id == first.lease_id
    agent = str(uuid.uuid4())
    refused(Code.FAILED_PRECONDITION, proxy.publish, first,
            put=[proxy.tunnel(agent)])
    # neither with the new number on the old lease, nor the reverse
    refused(Code.FAILED_PRECONDITION, proxy.publish, second,
            epoch=first.epoch, put=[proxy.tunnel(agent)])
    watch = proxy.watch().snapshot()
    assert watch.state[proxy.member.uuid].epoch == first.epoch
    # the new life publishes, then revokes the old: nothing disappears
    proxy.publish(second, proxy=proxy.record(), put=[proxy.tunnel(agent)])
    proxy.revoke(first)
    watch.until(lambda state: (agent, proxy.member.uuid) in state)
    assert watch.state[proxy.member.uuid].epoch == second.epoch
    refused(Code.NOT_FOUND, proxy.keepalive, first)
    proxy.publish(second, proxy=proxy.record(hostname="later"))
    watch.until(lambda state: state[proxy.member.uuid].hostname == "later")
    watch.close()
    proxy.revoke(second)


def test_lease_end_takes_all_in_one_step(authd):
    proxy, other = authd.proxy(), authd.proxy()
    lease, others = proxy.grant(), other.grant()
    agents = [str(uuid.uuid4()) for _ in range(300)]
    proxy.publish(lease, proxy=proxy.record())
    for start in range(0, len(agents), 100):
        proxy.publish(lease, put=[proxy.tunnel(agent)
                                  for agent in agents[start:start + 100]])
    other.publish(others, proxy=other.record())
    watch = other.watch().snapshot()
    assert all((agent, proxy.member.uuid) in watch.state for agent in agents)
    message = watch.until(lambda state: proxy.member.uuid not in state)
    # the message may have other revisions too, of other proxies' leases
    own = [c for c in message.changes
           if proxy.member.uuid in (c.proxy_removed, c.tunnel_removed.proxy_id)]
    removed = [c.WhichOneof("what") for c in own]
    assert removed.count("tunnel_removed") == len(agents)
    assert removed.count("proxy_removed") == 1
    assert len({c.revision for c in own}) == 1
    refused(Code.NOT_FOUND, proxy.keepalive, lease)
    refused(Code.NOT_FOUND, proxy.publish, lease, proxy=proxy.record())
    watch.close()


def test_leases_of_one_proxy_are_bounded(authd):
    proxy = authd.proxy()
    first = proxy.grant()
    proxy.publish(first, proxy=proxy.record())
    before = authd.daemon.status()["leases"]
    for _ in range(20):
        last = proxy.grant()
        # the one that the records hang on is spared
        assert last.previous_lease_id == first.lease_id
        proxy.keepalive(first)
    assert authd.daemon.status()["leases"] <= before + 4
    proxy.publish(last, proxy=proxy.record())
    proxy.revoke(last)


def test_metrics(authd):
    def metrics():
        url = f"http://{authd.host.diag['authd']}/metrics"
        with urllib.request.urlopen(url, timeout=5) as answer:
            text = answer.read().decode()
        return dict(line.rsplit(" ", 1) for line in text.splitlines()
                    if not line.startswith("#"))

    before = metrics()
    proxy = authd.proxy()
    refused(Code.UNAUTHENTICATED, authd.join, authd.member(), "x")
    lease = proxy.grant()
    proxy.publish(lease, proxy=proxy.record())
    watch = proxy.watch().snapshot()
    after = metrics()

    def grown(name):
        return int(after[name]) - int(before[name])

    assert grown('peerway_authd_joins_total{result="ok"}') == 1
    assert grown('peerway_authd_joins_total{result="refused"}') == 1
    assert grown("peerway_authd_lease_grants_total") == 1
    assert grown('peerway_authd_batches_total{result="ok"}') == 1
    assert grown("peerway_authd_snapshots_total") == 1
    assert grown("peerway_authd_store_revision") > 0
    assert int(after["peerway_authd_watchers"]) >= 1
    assert after["peerway_authd_store_failing"] == "0"
    watch.close()
    proxy.revoke(lease)


def test_keepalive_keeps(authd):
    wait_for(lambda: authd.daemon.status()["leases"] == 0,
             what="leases of other tests end")
    proxy = authd.proxy()
    lease = proxy.grant()
    proxy.publish(lease, proxy=proxy.record())
    before = authd.daemon.status()["store"]["revision"]
    end = time.monotonic() + 2 * LEASE_TTL
    while time.monotonic() < end:
        assert proxy.keepalive(lease).ttl_ms == LEASE_TTL * 1000
        time.sleep(LEASE_TTL / 4)
    assert proxy.member.uuid in proxy.watch().snapshot().state
    # and costs the store nothing
    assert authd.daemon.status()["store"]["revision"] == before
    proxy.revoke(lease)


# Watching


def test_watch_resumes(authd):
    proxy = authd.proxy()
    lease = proxy.grant()
    proxy.publish(lease, proxy=proxy.record(hostname="one"))
    watch = proxy.watch().snapshot()
    watch.close()
    proxy.publish(lease, proxy=proxy.record(hostname="two"))
    agent = str(uuid.uuid4())
    proxy.publish(lease, put=[proxy.tunnel(agent)])
    again = proxy.watch(watch.store_id, watch.revision + 1)
    hello = again.next()
    assert not hello.snapshot and not hello.changes
    assert hello.revision == watch.revision
    missed = []
    while (agent, proxy.member.uuid) not in again.state:
        missed += again.next().changes
    own = [change for change in missed
           if proxy.member.uuid in (change.proxy_put.id,
                                    change.tunnel_put.proxy_id)]
    assert [c.WhichOneof("what") for c in own] == ["proxy_put", "tunnel_put"]
    assert own[0].proxy_put.hostname == "two"
    assert own[0].revision < own[1].revision
    again.close()
    # of another store, or from a revision that has not been
    for store, revision in [("other", watch.revision + 1),
                            (watch.store_id, watch.revision + 1000),
                            (watch.store_id, 0)]:
        fresh = proxy.watch(store, revision).snapshot()
        assert fresh.state[proxy.member.uuid].hostname == "two"
        assert (agent, proxy.member.uuid) in fresh.state
        fresh.close()
    proxy.revoke(lease)


def test_changes_of_a_moment_come_together(authd):
    """In order and each once, the same to all who watch."""
    proxy = authd.proxy()
    lease = proxy.grant()
    proxy.publish(lease, proxy=proxy.record())
    watches = [authd.proxy().watch().snapshot() for _ in range(3)]
    agents = [str(uuid.uuid4()) for _ in range(200)]
    answers = [
        proxy.stub.Publish.future(
            authd.auth.PublishRequest(
                lease_id=lease.lease_id, epoch=lease.epoch,
                put=[proxy.tunnel(agent)]),
            timeout=CALL_TIMEOUT)
        for agent in agents]
    last = max(answer.result().revision for answer in answers)
    seen = [[] for _ in watches]
    for watch, messages in zip(watches, seen):
        while watch.revision < last:
            messages.append(watch.next())
    assert all((agent, proxy.member.uuid) in watch.state
               for watch in watches for agent in agents)
    assert len(seen[0]) <= 100, len(seen[0])
    told = [[change for message in messages for change in message.changes]
            for messages in seen]
    assert told[0] == told[1] == told[2]
    assert len(told[0]) >= len(agents)
    for watch in watches:
        watch.close()
    proxy.revoke(lease)


def test_secrets_are_never_served(authd):
    token = authd.token()
    proxy = authd.proxy()
    lease = proxy.grant()
    watch = proxy.watch()
    seen = []
    while True:
        message = watch.next()
        seen.append(message.SerializeToString())
        if message.complete:
            break
    proxy.publish(lease, proxy=proxy.record(hostname="mark"))
    authd.token()
    while proxy.member.uuid not in watch.state:
        seen.append(watch.next().SerializeToString())
    everything = b"".join(seen)
    assert b"PRIVATE KEY" not in everything and b"secret" not in everything
    assert token[:16].encode() not in everything
    watch.close()
    proxy.revoke(lease)


def test_watches_of_one_proxy_are_bounded(authd):
    proxy = authd.proxy()
    watches = [proxy.watch().snapshot() for _ in range(5)]
    with pytest.raises(grpc.RpcError) as error:
        while True:
            watches[0].next()
    assert error.value.code() == Code.ABORTED
    for watch in watches[1:]:
        watch.close()


def test_slow_watcher_is_not_buffered_for(own_authd):
    """Much is published while nobody reads: authd holds little of it, and the
    watcher gets all of it, in order, once it reads."""
    authd = own_authd
    proxy, slow = authd.proxy(), authd.proxy()
    lease = proxy.grant()
    proxy.publish(lease, proxy=proxy.record())
    watch = slow.watch().snapshot()
    label = authd.record.Label
    before = memory_kib(authd.daemon.pid)
    count = 40
    agents = [str(uuid.uuid4()) for _ in range(100)]
    labels = [label(name=f"n{i}", value="v" * 200) for i in range(30)]
    for turn in range(count):
        proxy.keepalive(lease)
        proxy.publish(lease, put=[
            proxy.tunnel(agent, since_ms=turn, labels=labels)
            for agent in agents])
    # 40 x 100 x 6 KiB went by
    held = memory_kib(authd.daemon.pid) - before
    assert held < 16 * 1024, held
    turns = []
    while not turns or turns[-1] < count - 1:
        message = watch.next()
        proxy.keepalive(lease)
        if message.changes:
            assert len(message.changes) == len(agents)
            turns.append(message.changes[0].tunnel_put.since_ms)
    assert turns == list(range(count))
    watch.close()


def memory_kib(pid):
    with open(f"/proc/{pid}/status", encoding="ascii") as status:
        return int(re.search(r"RssAnon:\s+(\d+)", status.read())[1])


def test_large_snapshot_comes_in_parts(authd):
    proxy = authd.proxy()
    lease = proxy.grant()
    agents = [str(uuid.uuid4()) for _ in range(900)]
    for start in range(0, len(agents), 100):
        proxy.publish(lease, put=[proxy.tunnel(agent)
                                  for agent in agents[start:start + 100]])
    watch = proxy.watch()
    parts = 0
    revisions = set()
    while True:
        message = watch.next()
        parts += 1
        revisions.add(message.revision)
        if parts == 1:
            # what changes meanwhile comes behind the snapshot
            proxy.publish(lease, remove_agent_id=agents[:1])
        if message.complete:
            break
    assert parts >= 4
    assert len(revisions) == 1
    assert all((agent, proxy.member.uuid) in watch.state for agent in agents)
    watch.until(lambda state: (agents[0], proxy.member.uuid) not in state)
    watch.close()
    proxy.revoke(lease)


# authd away


def test_restart_gives_leases_a_full_ttl(own_authd):
    authd = own_authd
    proxy = authd.proxy()
    lease = proxy.grant()
    proxy.publish(lease, proxy=proxy.record())
    watch = proxy.watch().snapshot()
    store, revision = watch.store_id, watch.revision
    authd.daemon.stop()
    time.sleep(2 * LEASE_TTL)
    authd.daemon.start()
    authd.daemon.wait_ready()
    proxy = Proxy(authd, proxy.member)
    time.sleep(LEASE_TTL / 2)
    # same store, same history, nothing lost
    watch = proxy.watch(store, revision + 1)
    hello = watch.next()
    assert hello.store_id == store and not hello.snapshot
    assert not hello.changes
    proxy.keepalive(lease)
    watch.close()
    assert proxy.member.uuid in proxy.watch().snapshot().state
    # its certificate and its lease are good, its epoch goes on
    assert proxy.grant().epoch == lease.epoch + 1


def test_kill_loses_nothing_that_was_answered(own_authd):
    authd = own_authd
    proxy = authd.proxy()
    lease = proxy.grant()
    answer = proxy.publish(lease, proxy=proxy.record(hostname="kept"))
    authd.daemon.kill()
    authd.daemon.start()
    authd.daemon.wait_ready()
    proxy = Proxy(authd, proxy.member)
    watch = proxy.watch().snapshot()
    assert watch.revision >= answer.revision
    assert watch.state[proxy.member.uuid].hostname == "kept"
    assert authd.daemon.ask("ca") == authd.ca
    watch.close()


def test_stall_ends_no_lease(own_authd):
    authd = own_authd
    proxy = authd.proxy()
    lease = proxy.grant()
    proxy.publish(lease, proxy=proxy.record())
    authd.daemon.send_signal(signal.SIGSTOP)
    time.sleep(2 * LEASE_TTL)
    authd.daemon.send_signal(signal.SIGCONT)
    authd.daemon.wait_log("stood still")
    proxy.keepalive(lease)
    assert proxy.member.uuid in proxy.watch().snapshot().state


def test_changed_strategy_reaches_watchers(own_authd):
    authd = own_authd
    proxy = authd.proxy()
    watch = proxy.watch().snapshot()
    before = watch.state["config"]
    assert before.cluster_name == authd.ca["cluster_name"]
    assert before.strategy.type == 1
    watch.close()
    authd.daemon.restart()
    authd.daemon.wait_ready()
    # unchanged settings are no change
    assert authd.daemon.status()["store"]["revision"] == watch.revision
    authd.host.config["auth_service"]["tunnel_strategy"] = {
        "type": "agent_mesh"}
    authd.host.write_config()
    authd.daemon.restart()
    authd.daemon.wait_ready()
    watch = Proxy(authd, proxy.member).watch(
        watch.store_id, watch.revision + 1)
    watch.until(lambda state: "config" in state)
    assert watch.state["config"].strategy.type == 0
    watch.close()


def test_store_of_another_cluster_is_refused(own_authd):
    authd = own_authd
    authd.daemon.stop()
    authd.host.write_config({"peerway": {"cluster_name": "elsewhere"}})
    authd.daemon.start()
    wait_for(lambda: not authd.daemon.running(), what="authd ends")
    assert authd.daemon.popen.returncode == 1
    assert "cluster of another name" in authd.daemon.log_text()
    authd.daemon.expected_end = True


def test_keys_are_nobody_elses(authd):
    directory = authd.host.data_dir / "authd"
    assert directory.stat().st_mode & 0o777 == 0o700
    for path in directory.iterdir():
        assert path.stat().st_mode & 0o777 == 0o600, path


def test_stopped_while_it_starts(own_authd):
    """SIGTERM at any moment ends it in order."""
    authd = own_authd
    authd.daemon.stop()
    for ms in range(0, 60, 4):
        authd.daemon.start()
        time.sleep(0.01 + ms / 1000)
        status = authd.daemon.stop()
        # before its signal handlers are there, the signal itself ends it
        assert status in (0, -signal.SIGTERM), (ms, status)
    authd.daemon.start()
    authd.daemon.wait_ready()
    authd.daemon.send_signal(signal.SIGINT)
    assert authd.daemon.stop() == 0
    assert "ERROR" not in authd.daemon.log_text(whole=True)
