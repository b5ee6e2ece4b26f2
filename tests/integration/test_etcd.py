# SPDX-License-Identifier: Apache-2.0
"""authd's records in etcd: the same cluster, and what only several can do."""

import base64
import json
import signal

import pytest

from etcd import Etcd
from hosts import SLOW
from process import wait_for
from traffic import Beat, Dialer, check_route

AGENTS = ["db-1", "db-2"]
TARGETS = [f"echo.{name}" for name in AGENTS]


@pytest.fixture
def fleet(make_cluster, echo):
    """A cluster of auth servers on an etcd of its own; both started."""
    etcds = []

    def make(members=1, **kwargs):
        etcd = Etcd(members=members).start()
        etcds.append(etcd)
        cluster = make_cluster(
            proxies=2, agents=AGENTS, services=echo.services(),
            storage=etcd.storage(), **kwargs,
        )
        cluster.start()
        cluster.etcd = etcd
        return cluster

    yield make
    for etcd in etcds:
        etcd.close()


def check_all_routes(cluster):
    for proxy in cluster.proxies:
        for name in AGENTS:
            here = name in proxy.tunnel_names()
            check_route(proxy, name, "local" if here else "peer")


def test_a_cluster_on_etcd(fleet):
    cluster = fleet()
    check_all_routes(cluster)
    store = cluster.auth.authd.status()["store"]
    assert store["type"] == "etcd" and not store["failing"]
    # the keys of the CAs are nobody's who can read etcd
    everything = json.loads(cluster.etcd.ctl("get", "--prefix", "", "-w", "json"))
    values = [base64.b64decode(kv.get("value", "")) for kv in everything["kvs"]]
    assert sum(value.startswith(b"sealed-1:") for value in values) == 2
    assert not any(b"PRIVATE KEY" in value for value in values)


def test_peerctl_leaves_its_backup_to_etcds_tools(fleet, tmp_path):
    cluster = fleet()
    path = tmp_path / "copy"
    result = cluster.peerctl_run("backup", path)
    assert result.returncode == 1
    assert "the store is of type etcd" in result.stderr
    assert "etcdctl snapshot save" in result.stderr
    assert not list(tmp_path.iterdir())
    path.write_bytes(b"x")
    result = cluster.peerctl_run("restore", path)
    assert result.returncode == 1
    assert "the store is of type etcd" in result.stderr


@pytest.fixture
def guarded():
    """An etcd that speaks TLS and has users; peerway may use its own keys."""
    with Etcd(tls=True) as etcd:
        etcd.start()
        etcd.ctl("user", "add", "root:secret")
        etcd.ctl("user", "add", "peerway:its password")
        etcd.ctl("role", "add", "peerway")
        etcd.ctl("role", "grant-permission", "--prefix=true", "peerway",
                 "readwrite", "/peerway/")
        etcd.ctl("user", "grant-role", "root", "root")
        etcd.ctl("user", "grant-role", "peerway", "peerway")
        etcd.ctl("auth", "enable")
        yield etcd


def test_an_etcd_with_tls_and_users(make_cluster, echo, guarded):
    password = guarded.dir / "password"
    password.write_text("its password\n")
    cluster = make_cluster(
        proxies=2, agents=AGENTS, services=echo.services(),
        storage=guarded.storage(
            user={"name": "peerway", "password_file": str(password)}),
    )
    cluster.start()
    check_all_routes(cluster)
    # its tokens die with it
    guarded.members[0].kill9()
    guarded.members[0].start()
    guarded.wait_healthy()
    cluster.agents[0].stop()
    cluster.agents[0].start()
    cluster.wait_agents(timeout=40 * SLOW)
    # what is wrong is told, and nothing of what is secret
    cluster.auth.stop()
    password.write_text("another one\n")
    cluster.auth.authd.start()
    cluster.auth.authd.wait_log("store is away.*authentication failed")
    password.write_text("its password\n")
    cluster.auth.authd.stop()
    assert not cluster.auth.authd.log_matches("another one|its password")


def test_routes_leave_with_their_host(fleet):
    cluster = fleet()
    dead, proxy = cluster.proxies
    dead.kill()
    wait_for(
        lambda: dead.uuid not in {
            p["id"] for p in proxy.routed.ask("proxies")["proxies"]},
        20 * SLOW,
        "the dead host's records end with its lease",
    )
    cluster.wait_agents()
    for name in AGENTS:
        check_route(proxy, name, "local")


def session_server(proxy):
    return proxy.routed.status()["auth_server"]


def test_an_auth_server_dies(fleet):
    """Each proxy host goes on with the other, from where it was."""
    cluster = fleet(auths=2)
    dialer = Dialer(cluster.proxies, TARGETS, 20 / SLOW)
    for proxy in cluster.proxies:
        wait_for(
            lambda: proxy.routed.status()["auth_state"] == "connected",
            10, "connected",
        )
    for round_ in range(2):
        first, second = cluster.auths
        first.authd.kill()
        for proxy in cluster.proxies:
            wait_for(
                lambda: proxy.routed.status()["auth_state"] == "connected"
                and session_server(proxy) == second.listen_addr,
                2 * SLOW,
                f"{proxy.name} goes on with {second.name}",
            )
        # what is published now comes to both proxies
        cluster.agents[round_].stop()
        cluster.agents[round_].start()
        cluster.wait_agents()
        first.authd.start()
        first.authd.wait_ready()
        cluster.auths.reverse()
    metrics = [auth.authd.metrics() for auth in cluster.auths]
    dialer.wait_more(20)
    dialer.stop()
    # a stopped agent is away for a moment: nothing else failed
    assert all("db-" in target for _, target, _ in dialer.failures)
    # no snapshot but for those who began
    assert all(m["peerway_authd_snapshots_total"] == 0 for m in metrics), metrics


def test_an_auth_server_is_gone_without_a_word(fleet):
    """As when its host has lost power: nothing closes the connections."""
    cluster = fleet(auths=2)
    for proxy in cluster.proxies:
        wait_for(
            lambda: proxy.routed.status()["auth_state"] == "connected",
            10, "connected",
        )
    leases = [proxy.routed.status()["lease"] for proxy in cluster.proxies]
    cluster.identity()  # nobody may be there to issue it later
    by_address = {auth.listen_addr: auth for auth in cluster.auths}
    frozen = by_address[session_server(cluster.proxies[0])]
    frozen.authd.send_signal(signal.SIGSTOP)
    try:
        for proxy in cluster.proxies:
            wait_for(
                lambda: session_server(proxy) != frozen.listen_addr
                and proxy.routed.status()["auth_state"] == "connected",
                3 * SLOW,
                f"{proxy.name} has gone on",
            )
        cluster.agents[0].stop()
        cluster.agents[0].start()
        cluster.wait_agents()
        check_all_routes(cluster)
    finally:
        frozen.authd.send_signal(signal.SIGCONT)
    # on the same leases all the time
    assert leases == [p.routed.status()["lease"] for p in cluster.proxies]


def test_an_auth_host_needs_the_key(fleet):
    cluster = fleet(auths=2)
    second = cluster.auths[1]
    second.stop()
    key = second.ca_key.read_text()
    second.ca_key.unlink()
    for wrong, expected in [(None, "the key is not here"),
                            ("00" * 32 + "\n", "another key"),
                            ("no key\n", "64 hexadecimal digits")]:
        if wrong:
            second.ca_key.write_text(wrong)
        second.authd.start()
        second.authd.expected_end = True
        wait_for(lambda: not second.authd.running(), 20 * SLOW, "it ends")
        assert second.authd.log_matches(expected), second.authd.tail(5)
    second.ca_key.write_text(key)
    second.authd.start()
    second.authd.wait_ready()


def strategy(auth):
    return auth.authd.status()["strategy"]


def test_auth_servers_that_disagree(fleet):
    """The last one that was started with a setting of its own wins; the other
    says that it was told otherwise, until it agrees."""
    cluster = fleet(auths=2)
    first, second = cluster.auths
    assert not strategy(first)["disagreement"]
    second.config["auth_service"]["tunnel_strategy"] = {
        "type": "proxy_peering", "agent_connection_count": 2}
    second.write_config()
    second.authd.restart()
    second.wait_ready()
    wait_for(lambda: strategy(first)["disagreement"], 10 * SLOW,
             "the first says that it was told otherwise")
    assert not strategy(second)["disagreement"]
    assert strategy(first)["agent_connection_count"] == 2
    assert first.authd.log_matches("strategy in force is not that of this")
    assert first.authd.metrics()["peerway_authd_strategy_disagreement"] == 1
    shown = cluster.peerctl_run("status", host=first).stdout
    assert "tunnel_strategy" in shown
    # one without a setting takes what is stored, and disagrees with nobody
    first.config["auth_service"].pop("tunnel_strategy")
    first.config_path.unlink()
    first.write_config()
    first.authd.restart()
    first.wait_ready()
    assert not strategy(first)["disagreement"]
    assert strategy(first)["agent_connection_count"] == 2


def test_a_rotation_reaches_every_auth_server(fleet):
    cluster = fleet(auths=2)
    first, second = cluster.auths
    answer = json.loads(cluster.peerctl(
        "ca", "rotate", "start", "--format", "json", host=first))
    assert answer["changed"]

    def pins():
        return {auth.authd.status()["pin"] for auth in cluster.auths}

    wait_for(lambda: len(pins()) == 1, 20 * SLOW, "both sign with the same CA")
    assert pins() != {cluster.pin}
    wait_for(
        lambda: json.loads(cluster.peerctl(
            "ca", "rotate", "status", "--format", "json", host=second)
        )["host"]["remaining"] == [],
        60 * SLOW, "all have new certificates",
    )
    cluster.peerctl("ca", "rotate", "finish", "--force", host=second)
    check_all_routes(cluster)


def others(etcd, member):
    return [m for m in etcd.members if m is not member]


@pytest.mark.parametrize("how", ["killed", "stopped for good"])
def test_etcds_leader_is_lost(fleet, how):
    cluster = fleet(members=3)
    dialer = Dialer(cluster.proxies, TARGETS, 20 / SLOW)
    beats = [Beat(p.name, p.dial("echo.db-1")) for p in cluster.proxies]
    dialer.wait_more(10)
    leader = cluster.etcd.leader()
    if how == "killed":
        leader.kill9()
    else:
        leader.send_signal(signal.SIGSTOP)
    wait_for(
        lambda: cluster.etcd.leader(others(cluster.etcd, leader)),
        20 * SLOW, "the other two have a leader",
    )
    # a question is asked again of another member; of what is to be written,
    # authd says that it does not know
    cluster.peerctl("token", "ls")
    # the records go on: an agent that comes is reachable everywhere
    cluster.add_agent("db-3").join()
    cluster.agents[-1].start()
    cluster.wait_agents(timeout=40 * SLOW)
    dialer.wait_more(20)
    dialer.check()
    for beat in beats:
        beat.check_alive()
        beat.stop()
    if how == "killed":
        leader.start()
    else:
        leader.send_signal(signal.SIGCONT)
    leader.wait_healthy()


def test_etcd_without_a_quorum(fleet):
    """Longer than any lease: what is known goes on, status says what is wrong,
    and nothing is lost afterwards."""
    cluster = fleet(members=3)
    dialer = Dialer(cluster.proxies, TARGETS, 20 / SLOW)
    beats = [Beat(p.name, p.dial("echo.db-2")) for p in cluster.proxies]
    for member in cluster.etcd.members[:2]:
        member.kill9()
    for proxy in cluster.proxies:
        wait_for(
            lambda: proxy.routed.status()["auth_state"] == "unreachable"
            and "store" in proxy.routed.status()["last_error"],
            30 * SLOW,
            f"{proxy.name} says that the store is away",
        )
    assert cluster.auth.authd.status()["store"]["failing"]
    # a minute, with what it took until all said so: many times the leases' time;
    # with the sanitizers twice that time will do
    seconds = 50 if SLOW == 1 else 10
    dialer.wait_more(seconds * 20 // SLOW, timeout=150)
    for proxy in cluster.proxies:
        assert sorted(proxy.agents()) == AGENTS
    for member in cluster.etcd.members[:2]:
        member.start()
    cluster.etcd.wait_healthy()
    for proxy in cluster.proxies:
        wait_for(
            lambda: proxy.routed.status()["auth_state"] == "connected",
            30 * SLOW,
            f"{proxy.name} is connected again",
        )
    cluster.add_agent("db-3").join()
    cluster.agents[-1].start()
    cluster.wait_agents(timeout=40 * SLOW)
    dialer.check()
    for beat in beats:
        beat.check_alive()
        beat.stop()
