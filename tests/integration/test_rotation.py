# SPDX-License-Identifier: Apache-2.0
"""CAs are replaced under traffic: start, everything re-issued, finish, without
a lost stream or a failed dial; the same back; who was away hears why."""

import json
import os
import shutil
import signal
import subprocess
import threading
import time

import grpc
import pytest

from hosts import CLUSTER_NAME, SLOW, START_TIMEOUT, binary
from process import wait_for
from relay import Relay
from traffic import Beat

RENEW_TIMEOUT = 60 * SLOW


def rotate(cluster, verb, *args):
    """peerctl ca rotate; its answer."""
    return json.loads(
        cluster.peerctl("ca", "rotate", verb, *args, "--format", "json")
    )


def status(cluster):
    return rotate(cluster, "status")


def rotating(cluster, ca):
    """What monitoring sees."""
    series = cluster.auth.authd.metrics()
    return series[f'peerway_authd_ca_rotating{{ca="{ca}"}}']


def remaining(cluster):
    """The ids of those that are still to be re-issued."""
    return [host["id"] for host in status(cluster)["host"]["remaining"]]


def all_reissued(cluster):
    return remaining(cluster) == []


def trusted(proxy):
    """How many host CAs a proxy host's daemons trust."""
    pem = (proxy.data_dir / "identity/current/host_ca.pem").read_text()
    return pem.count("BEGIN CERTIFICATE")


class Dials:
    """Dials through every proxy, one after another, until stop()."""

    def __init__(self, cluster, targets):
        self.failed = []
        self.counts = {proxy.name: 0 for proxy in cluster.proxies}
        self.user = "alice"
        self._cluster = cluster
        self._targets = targets
        self._stopping = threading.Event()
        self._threads = [
            threading.Thread(target=self._run, args=(proxy,), daemon=True)
            for proxy in cluster.proxies
        ]
        for thread in self._threads:
            thread.start()

    def _run(self, proxy):
        while not self._stopping.is_set():
            for target in self._targets:
                try:
                    with proxy.dial(target, self.user) as connection:
                        connection.sendall(b"x" * 100)
                        assert connection.recv_exactly(100) == b"x" * 100
                except Exception as error:
                    self.failed.append((proxy.name, target, repr(error)))
                self.counts[proxy.name] += 1
            self._stopping.wait(0.05)

    def use(self, user):
        """From now on as that user; returns when nobody else dials."""
        self.user = user
        before = dict(self.counts)
        wait_for(
            lambda: all(self.counts[n] > before[n] + 1 for n in before),
            30 * SLOW,
            f"all dial as {user}",
        )

    def stop(self):
        self._stopping.set()
        for thread in self._threads:
            thread.join(30)

    def check(self):
        assert not self.failed, self.failed[:5]


class Traffic:
    """A beat through each proxy to each agent, and dials."""

    def __init__(self, cluster):
        self.beats = []
        targets = [f"echo.{agent.name}" for agent in cluster.agents]
        for proxy in cluster.proxies:
            for target in targets:
                self.beats.append(
                    Beat(f"{proxy.name} to {target}", proxy.dial(target))
                )
        self.dials = Dials(cluster, targets)

    def check(self):
        for beat in self.beats:
            beat.check_alive(rounds=5, timeout=20 * SLOW)
        self.dials.check()

    def stop(self):
        self.check()
        self.dials.stop()
        for beat in self.beats:
            beat.stop()
        self.dials.check()
        assert all(count > 5 for count in self.dials.counts.values())


@pytest.fixture
def fleet(make_cluster, echo):
    cluster = make_cluster(
        proxies=3, agents=["db-1", "db-2"], services=echo.services()
    ).start()
    cluster.identity()
    return cluster


def wait_reissued(cluster):
    wait_for(
        lambda: all_reissued(cluster),
        RENEW_TIMEOUT,
        "all certificates are re-issued",
    )


def wait_trusted(cluster, count):
    for proxy in cluster.proxies:
        wait_for(
            lambda: trusted(proxy) == count,
            START_TIMEOUT,
            f"{proxy.name} trusts {count} CAs",
        )
    for agent in cluster.agents:
        path = agent.data_dir / "agent/host_ca.pem"
        if agent.agent.running():
            wait_for(
                lambda: path.read_text().count("BEGIN CERT") == count,
                START_TIMEOUT,
                f"{agent.name} trusts {count} CAs",
            )


def test_a_rotation_loses_nothing(fleet):
    before = status(fleet)
    assert before["host"]["phase"] == "standby"
    old = before["host"]["active"]["pin"]
    traffic = Traffic(fleet)
    started = rotate(fleet, "start", "--ca", "host")
    assert started["changed"] and started["host"]["phase"] == "rotating"
    assert rotating(fleet, "host") == 1 and rotating(fleet, "user") == 0
    assert started["host"]["other"]["pin"] == old
    assert not rotate(fleet, "start", "--ca", "host")["changed"]
    wait_reissued(fleet)
    wait_trusted(fleet, 2)
    now = status(fleet)["host"]
    assert now["proxies"] == {
        "total": 3, "reissued": 3, "online": 3, "online_reissued": 3
    }
    assert now["agents"]["reissued"] == 2
    traffic.check()
    # users of before know only the old CA, and are spoken for
    refused = fleet.peerctl_run("ca", "rotate", "finish", "--ca", "host")
    assert refused.returncode == 1
    assert "know only the host CA that goes, the last until" in refused.stderr
    assert "proxy" not in refused.stderr and "agent" not in refused.stderr
    fleet.identity("bob")
    traffic.dials.use("bob")
    finished = rotate(fleet, "finish", "--ca", "host", "--force")
    assert finished["host"]["phase"] == "standby"
    assert rotating(fleet, "host") == 0
    assert finished["host"]["active"]["pin"] not in ("", old)
    assert finished["host"]["other"] is None
    assert not rotate(fleet, "finish", "--ca", "host")["changed"]
    wait_trusted(fleet, 1)
    fleet.wait_peers()
    traffic.stop()
    for proxy in fleet.proxies:
        assert proxy.routed.status()["last_error"] is None
        assert proxy.peerd.status()["identity"]["last_error"] == ""


def test_a_rollback_loses_nothing(fleet):
    old = status(fleet)["host"]["active"]["pin"]
    refused = fleet.peerctl_run("ca", "rotate", "rollback")
    assert refused.returncode == 1
    assert "nothing to roll back" in refused.stderr
    traffic = Traffic(fleet)
    rotate(fleet, "start")
    wait_reissued(fleet)
    back = rotate(fleet, "rollback")
    assert back["host"]["phase"] == back["user"]["phase"] == "rolling back"
    assert back["host"]["active"]["pin"] == old
    assert not rotate(fleet, "rollback")["changed"]
    wait_reissued(fleet)
    traffic.check()
    finished = rotate(fleet, "finish")
    assert finished["host"]["phase"] == "standby"
    assert finished["host"]["active"]["pin"] == old
    wait_trusted(fleet, 1)
    fleet.wait_peers()
    traffic.stop()


@pytest.fixture
def relayed(make_cluster, echo):
    """One proxy, whose routed asks authd through cluster.relay; one agent."""
    cluster = make_cluster(agents=["db-1"], services=echo.services()).start()
    (proxy,) = cluster.proxies
    cluster.relay = Relay(proxy.address, cluster.auth.listen_addr)
    proxy.common["auth_servers"] = [cluster.relay.addr]
    proxy.write_config()
    proxy.routed.restart()
    proxy.routed.wait_ready()
    yield cluster
    cluster.relay.close()


def test_an_agents_renewal_whose_answer_was_lost_is_done_again(relayed):
    """authd has noted the certificate of the new CA, and the agent has not got
    it; after the rollback it has to be asked for all the same."""
    (proxy,), (agent,) = relayed.proxies, relayed.agents
    agent.stop()
    rotate(relayed, "start", "--ca", "host")
    wait_for(
        lambda: remaining(relayed) == [agent.uuid],
        RENEW_TIMEOUT,
        "the proxy is re-issued",
    )
    proxy.routed.wait_log(
        r"certificate renewed: (.*\n)+?.* auth server answers", START_TIMEOUT
    )
    relayed.relay.hold_answers()
    mark = relayed.auth.authd.log_mark()
    agent.start()
    relayed.auth.authd.wait_log(
        f"host renewed: role=Node host={agent.uuid}", START_TIMEOUT, mark
    )
    rotate(relayed, "rollback", "--ca", "host")
    relayed.relay.cut()
    agent.agent.wait_log("cannot renew the certificate", START_TIMEOUT)
    wait_reissued(relayed)
    agent.agent.wait_log("certificate renewed", START_TIMEOUT)
    rotate(relayed, "finish", "--ca", "host")


def lose_routeds_renewal(cluster):
    """Rotates, and holds what authd answers to the renewal of the proxy host;
    false: it had got it before."""
    routed, authd = cluster.proxies[0].routed, cluster.auth.authd
    told, noted = routed.log_mark(), authd.log_mark()
    rotate(cluster, "start", "--ca", "host")
    routed.wait_log(
        r"trusted CAs are others now: (.*\n)+?.* auth server answers",
        START_TIMEOUT, told,
    )  # fmt: skip
    cluster.relay.hold_answers()
    authd.wait_log("host renewed: role=Proxy", START_TIMEOUT, noted)
    return not routed.log_matches("certificate renewed", told)


def test_a_proxys_renewal_whose_answer_was_lost_is_done_again(relayed):
    routed = relayed.proxies[0].routed
    relayed.agents[0].stop()
    for _ in range(10):  # it renews at a random time of a second
        lost = lose_routeds_renewal(relayed)
        mark = routed.log_mark()
        rotate(relayed, "rollback", "--ca", "host")
        relayed.relay.cut()
        if lost:
            break
        wait_for(
            lambda: relayed.proxies[0].uuid not in remaining(relayed),
            RENEW_TIMEOUT, "the proxy is re-issued",
        )
        rotate(relayed, "finish", "--ca", "host", "--force")
    assert lost
    routed.wait_log("certificate not renewed", START_TIMEOUT, mark)
    wait_for(
        lambda: relayed.proxies[0].uuid not in remaining(relayed),
        RENEW_TIMEOUT, "the proxy is re-issued",
    )
    routed.wait_log("certificate renewed", START_TIMEOUT, mark)


def test_a_killed_authd_goes_on_where_it_was(fleet):
    authd = fleet.auth.authd
    traffic = Traffic(fleet)
    for verb, phase in (
        ("start", "rotating"),
        ("rollback", "rolling back"),
        ("start", "rotating"),
    ):
        rotate(fleet, verb, "--ca", "host")
        authd.kill()
        authd.start()
        authd.wait_ready()
        assert status(fleet)["host"]["phase"] == phase
        # and the verb may be said again
        assert not rotate(fleet, verb, "--ca", "host")["changed"]
        wait_reissued(fleet)
        traffic.check()
    fleet.identity("bob")
    traffic.dials.use("bob")
    rotate(fleet, "finish", "--ca", "host", "--force")
    authd.kill()
    authd.start()
    authd.wait_ready()
    assert status(fleet)["host"]["phase"] == "standby"
    assert not rotate(fleet, "finish", "--ca", "host")["changed"]
    wait_trusted(fleet, 1)
    fleet.wait_peers()
    traffic.stop()


def test_who_was_away_during_the_start_follows(fleet, echo):
    agent, proxy = fleet.agents[1], fleet.proxies[2]
    agent.stop()
    proxy.stop()
    rotate(fleet, "start", "--ca", "host")
    wait_for(
        lambda: not any(h["online"] for h in status(fleet)["host"]["remaining"]),
        RENEW_TIMEOUT,
        "those who are there are re-issued",
    )
    remaining = status(fleet)["host"]["remaining"]
    assert {h["id"] for h in remaining} == {agent.uuid, proxy.uuid}
    # they trust the old CA only, and all others have the new one's
    agent.start()
    proxy.start()
    proxy.wait_ready()
    agent.agent.wait_ready()
    wait_reissued(fleet)
    fleet.wait_peers()
    fleet.wait_agents()
    fleet.identity("bob")
    rotate(fleet, "finish", "--ca", "host", "--force")
    wait_trusted(fleet, 1)
    fleet.wait_peers()
    with proxy.dial("echo.db-2", "bob") as connection:
        connection.sendall(b"hello")
        assert connection.recv_exactly(5) == b"hello"


def test_who_was_away_for_all_of_it_is_told_to_join_again(fleet):
    agent, proxy = fleet.agents[1], fleet.proxies[2]
    agent.stop()
    proxy.stop()
    wait_for(
        lambda: proxy.uuid not in fleet.proxies[0].ready_peers(),
        START_TIMEOUT,
        "the proxy is gone",
    )
    rotate(fleet, "start", "--ca", "host")
    wait_for(
        lambda: not any(h["online"] for h in status(fleet)["host"]["remaining"]),
        RENEW_TIMEOUT,
        "those who are there are re-issued",
    )
    rotate(fleet, "finish", "--ca", "host", "--force")
    for other in fleet.proxies[:2]:
        wait_for(lambda: trusted(other) == 1, START_TIMEOUT, "one CA")
    agent.start()
    proxy.start()
    agent.agent.wait_log(r"withdrawn.*join again", timeout=START_TIMEOUT)
    wait_for(
        lambda: says_join_again(proxy.routed.status()["last_error"]),
        START_TIMEOUT,
        "routed's status says why it is refused",
    )

    def peers_say():
        peers = proxy.peerd.status()["peers"]
        return len(peers) == 2 and all(
            p["state"] == "unreachable" and says_join_again(p["last_error"])
            for p in peers
        )

    wait_for(peers_say, START_TIMEOUT, "peerd's status says why, of each peer")
    # alice's identity is of before, too
    result = subprocess.run(
        fleet.connect_argv(fleet.proxies[0].listen_addr, "echo.db-1"),
        capture_output=True, text=True, stdin=subprocess.DEVNULL,
        timeout=60, check=False,
    )
    assert result.returncode == 1
    assert "get a new identity" in result.stderr
    # with a new token both are back
    for host in (agent, proxy):
        host.stop()
        name = "agent" if host is agent else "identity"
        shutil.rmtree(host.data_dir / name)
        # the uuid belongs to the key that went with it
        (host.data_dir / "host_uuid").unlink()
    fleet.pin = fleet.auth.authd.ask("ca")["pin"]
    proxy.join()
    proxy.start().wait_ready()
    agent.join()
    agent.start()
    agent.agent.wait_ready()
    fleet.wait_peers()
    fleet.wait_agents()


def says_join_again(text):
    return "withdrawn" in (text or "") and "join again" in text


def test_a_certificate_of_a_withdrawn_ca_is_refused(fleet):
    """By who has the new CA, when the old one's host knows that one too."""
    agent, late = fleet.agents[1], fleet.proxies[2]
    agent.stop()
    late.stop()
    rotate(fleet, "start", "--ca", "host")
    both = fleet.auth.authd.ask("ca")["host_ca"]
    wait_for(
        lambda: not any(h["online"] for h in status(fleet)["host"]["remaining"]),
        RENEW_TIMEOUT,
        "those who are there are re-issued",
    )
    rotate(fleet, "finish", "--ca", "host", "--force")
    for proxy in fleet.proxies[:2]:
        proxy.proxy.wait_log(r"certificate loaded: from=\S*/4 ", START_TIMEOUT)
    # without its routed, which would go back to the CAs in its cache
    (late.data_dir / "identity/current/host_ca.pem").write_text(both)
    late.peerd.start()
    (agent.data_dir / "agent/host_ca.pem").write_text(both)
    agent.start()
    agent.agent.wait_log(
        r"alert unknown ca.*withdrawn.*join again", timeout=START_TIMEOUT
    )
    assert not any(p.holders(agent.uuid) for p in fleet.proxies[:2])

    def peers_say():
        peers = late.peerd.status()["peers"]
        return len(peers) == 2 and all(
            says_join_again(p["last_error"]) for p in peers
        )

    wait_for(peers_say, START_TIMEOUT, "peerd's status says why, of each peer")


def test_the_user_ca_is_replaced(fleet):
    proxy = fleet.proxies[0]
    old = status(fleet)["user"]["active"]["pin"]
    assert rotate(fleet, "start", "--ca", "user")["user"]["phase"] == "rotating"
    now = status(fleet)
    assert now["host"]["phase"] == "standby"
    assert now["user"]["other"]["pin"] == old
    assert now["user"]["users_until"]
    fleet.identity("bob")
    # at once: a proxy that has not heard of the new CA yet accepts bob by the
    # cross certificate
    for user in ("bob", "alice"):
        for each in fleet.proxies:
            with each.dial("echo.db-1", user) as connection:
                connection.sendall(b"hello")
                assert connection.recv_exactly(5) == b"hello"
    refused = fleet.peerctl_run("ca", "rotate", "finish", "--ca", "user")
    assert refused.returncode == 1
    assert "certificates of the user CA that goes" in refused.stderr
    rotate(fleet, "finish", "--ca", "user", "--force")
    path = proxy.data_dir / "identity/current/user_ca.pem"
    wait_for(
        lambda: path.read_text().count("BEGIN CERT") == 1,
        START_TIMEOUT,
        "the old user CA is gone",
    )

    def alice_refused():
        result = subprocess.run(
            fleet.connect_argv(proxy.listen_addr, "echo.db-1", "alice"),
            capture_output=True, text=True, stdin=subprocess.DEVNULL,
            timeout=60, check=False,
        )
        return result.returncode == 1 and "get a new identity" in result.stderr

    wait_for(alice_refused, START_TIMEOUT, "alice is told what to do")
    with proxy.dial("echo.db-1", "bob") as connection:
        connection.sendall(b"hello")
        assert connection.recv_exactly(5) == b"hello"


def test_hosts_join_by_either_pin_until_the_finish(fleet):
    old = fleet.pin
    rotate(fleet, "start", "--ca", "host")
    new = fleet.auth.authd.ask("ca")["pin"]
    assert new != old
    for pin, name in ((old, "db-3"), (new, "db-4")):
        fleet.pin = pin
        agent = fleet.add_agent(name)
        agent.join()
        agent.start()
        agent.agent.wait_ready()
        proxy = fleet.add_proxy()
        proxy.join()
        proxy.start().wait_ready()
    fleet.wait_peers()
    fleet.wait_agents()
    wait_reissued(fleet)
    rotate(fleet, "finish", "--ca", "host", "--force")
    wait_trusted(fleet, 1)
    for proxy in fleet.proxies[:1]:
        proxy.proxy.wait_log(r"certificate loaded: from=\S*/4 ", START_TIMEOUT)
    fleet.pin = old
    late = fleet.add_agent("db-5")
    late.join()
    late.start()
    late.agent.wait_log(r"cannot join.*compare join.ca_pin", START_TIMEOUT)
    fleet.pin = new
    late.join()
    late.agent.restart()
    late.agent.wait_ready()
    fleet.wait_agents()


def own_files(host, source):
    """Makes the host use files of its administrator's: copies of source."""
    own = host.dir / "pki"
    own.mkdir()
    for name in ("cert", "key", "host_ca", "user_ca"):
        path = source / f"{name}.pem"
        if path.exists():
            shutil.copy(path, own / f"{name}.pem")
    identity = {
        "cert": str(own / "cert.pem"),
        "key": str(own / "key.pem"),
        "ca": str(own / "host_ca.pem"),
    }
    if (own / "user_ca.pem").exists():
        identity["user_ca"] = str(own / "user_ca.pem")
    host.config["peerway"].pop("join")
    host.write_config({"peerway": {"identity": identity}})
    return own


TORN = {
    "a certificate of another key": ("cert.pem", None, "does not belong"),
    "a certificate cut off": ("cert.pem", 300, "not a whole PEM"),
    "a key cut off": ("key.pem", 60, "no usable private key"),
    "an empty bundle": ("host_ca.pem", 0, "not a whole PEM"),
}


def check_torn(own, other, reload, says):
    """Each torn set is refused with a reason; the good one is taken again."""
    for what, (name, length, reason) in TORN.items():
        good = (own / name).read_text()
        torn = other if length is None else good[:length]
        (own / name).write_text(torn)
        mark = reload()
        says(reason, what, mark)
        (own / name).write_text(good)
    reload()


def test_a_torn_pair_changes_nothing(fleet):
    proxy, other, agent = fleet.proxies[0], fleet.proxies[1], fleet.agents[1]
    foreign = (other.data_dir / "identity/current/cert.pem").read_text()
    proxy_pki = own_files(proxy, proxy.data_dir / "identity/current")
    agent_pki = own_files(agent, agent.data_dir / "agent")
    proxy.stop()
    agent.stop()
    proxy.start().wait_ready()
    agent.start()
    agent.agent.wait_ready()
    fleet.wait_peers()
    fleet.wait_agents()
    traffic = Traffic(fleet)

    def reload_proxy():
        proxy.routed.popen.send_signal(signal.SIGHUP)

    def proxy_says(reason, what, _mark):
        wait_for(
            lambda: reason in (proxy.routed.status()["last_error"] or ""),
            START_TIMEOUT,
            f"routed's status says of {what}: {reason}",
        )

    check_torn(proxy_pki, foreign, reload_proxy, proxy_says)
    wait_for(
        lambda: proxy.routed.status()["last_error"] is None,
        START_TIMEOUT,
        "nothing is wrong with the good set",
    )

    def reload_agent():
        mark = agent.agent.log_mark()
        agent.agent.popen.send_signal(signal.SIGHUP)
        return mark

    def agent_says(reason, _what, mark):
        agent.agent.wait_log(
            f"certificate stays as it was.*{reason}", START_TIMEOUT, mark
        )

    check_torn(agent_pki, foreign, reload_agent, agent_says)
    agent.agent.wait_log("certificate read again", START_TIMEOUT)
    traffic.stop()


def test_grpc_clients_of_either_ca_are_served(make_cluster):
    """gRPC verifies by itself: peers (3021) and authd (3025), as python's
    client sees them that trusts one CA only."""
    cluster = make_cluster(proxies=2).start()
    first, second = cluster.proxies
    current = first.data_dir / "identity/current"
    old_cert = (current / "cert.pem").read_bytes()
    key = (current / "key.pem").read_bytes()
    old = (current / "host_ca.pem").read_bytes()
    name = CLUSTER_NAME.encode().hex() + ".teleport.cluster.local"

    def served(addr, roots):
        channel = grpc.secure_channel(
            addr,
            grpc.ssl_channel_credentials(roots, key, old_cert),
            [("grpc.ssl_target_name_override", name)],
        )
        try:
            grpc.channel_ready_future(channel).result(timeout=2 * SLOW)
            return True
        except grpc.FutureTimeoutError:
            return False
        finally:
            channel.close()

    def settle(verb, *args):
        rotate(cluster, verb, "--ca", "host", *args)
        wait_reissued(cluster)
        cluster.wait_peers()

    addrs = (second.peer_addr, cluster.auth.listen_addr)
    settle("start")
    both = cluster.auth.authd.ask("ca")["host_ca"].encode()
    end = b"-----END CERTIFICATE-----\n"
    new = both.split(end)[0] + end
    assert old != new and old in both
    for verb in (None, "rollback", "start"):
        if verb:
            settle(verb)
        for roots in (old, new):
            for addr in addrs:
                assert served(addr, roots), (verb, roots == old, addr)
    rotate(cluster, "finish", "--ca", "host", "--force")
    wait_trusted(cluster, 1)
    wait_for(
        lambda: not served(second.peer_addr, new),
        START_TIMEOUT,
        "the old certificate is refused",
    )
    assert not served(cluster.auth.listen_addr, new)
    assert not served(second.peer_addr, old)


@pytest.mark.parametrize("delay_ms", [0, 2, 5, 10, 20])
def test_authd_killed_amid_a_start(make_cluster, delay_ms):
    """It has happened or it has not; said again, it has."""
    cluster = make_cluster(proxies=1).start()
    authd = cluster.auth.authd
    old = status(cluster)["host"]["active"]["pin"]
    asked = subprocess.Popen(
        [binary("peerctl"), "-c", cluster.auth.config_path, "ca", "rotate",
         "start"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )
    time.sleep(delay_ms / 1000)
    authd.kill()
    asked.wait(30)
    authd.start()
    authd.wait_ready()
    assert status(cluster)["host"]["phase"] in ("standby", "rotating")
    again = rotate(cluster, "start")
    for ca in ("host", "user"):
        assert again[ca]["phase"] == "rotating"
    assert again["host"]["other"]["pin"] == old
    wait_reissued(cluster)
    wait_trusted(cluster, 2)


def test_a_set_that_the_daemons_cannot_load_changes_nothing(fleet):
    """The files are damaged between routed's word and their reading."""
    proxy = fleet.proxies[0]
    own = own_files(proxy, proxy.data_dir / "identity/current")
    proxy.stop()
    proxy.start().wait_ready()
    fleet.wait_peers()
    traffic = Traffic(fleet)
    rotate(fleet, "start", "--ca", "host")
    one = (own / "host_ca.pem").read_text()
    both = fleet.auth.authd.ask("ca")["host_ca"]
    current = proxy.data_dir / "identity/current"
    readers = [proxy.peerd.popen.pid, *proxy.worker_pids().values()]

    def reload(bundle):
        before = current.resolve()
        (own / "host_ca.pem").write_text(bundle)
        proxy.routed.popen.send_signal(signal.SIGHUP)
        wait_for(
            lambda: current.resolve() != before
            and proxy.routed.status()["identity"]["directory"]
            == str(current.resolve()),
            START_TIMEOUT,
            "another set, which routed itself has read",
        )

    for pid in readers:
        os.kill(pid, signal.SIGSTOP)
    try:
        reload(both)
        cert = (current / "cert.pem").read_text()
        (current / "cert.pem").write_text(cert[:300])
    finally:
        for pid in readers:
            os.kill(pid, signal.SIGCONT)
    wait_for(
        lambda: "not a whole PEM"
        in proxy.peerd.status()["identity"]["last_error"],
        START_TIMEOUT,
        "peerd's status says why",
    )
    wait_for(
        lambda: proxy.proxy.status()["identity"]["refused_by_workers"] == 1,
        START_TIMEOUT,
        "the proxy's status says it",
    )
    traffic.check()
    reload(one)
    wait_for(
        lambda: not proxy.peerd.status()["identity"]["last_error"]
        and not proxy.proxy.status()["identity"]["refused_by_workers"],
        START_TIMEOUT,
        "the next good set is taken",
    )
    traffic.stop()
