# SPDX-License-Identifier: Apache-2.0
"""SIGHUP: a daemon takes up what can change while it runs, names what cannot,
and a bad file changes nothing; sessions go on meanwhile, and a thousand of them
leave nothing behind."""

import os
import re
import signal
import subprocess
import time
from pathlib import Path

import grpc
import pytest

import connect
import stubs
import suite
from process import descriptor_table, wait_for
from test_rotation import own_files
from traffic import Beat, echo_once, plain

READ = "configuration read again"
BAD = "configuration stays as it was: "
RESTART = "needs a restart: key="


@pytest.fixture(scope="module")
def fleet(module_cluster, echo):
    cluster = module_cluster(
        proxies=2, agents=["node-1"], workers=2, services=echo.services()
    )
    for daemon in cluster.daemons():
        # or memory given back would count as held under ASan
        daemon.env["ASAN_OPTIONS"] = ":".join(
            [daemon.env.get("ASAN_OPTIONS", ""), "quarantine_size_mb=0",
             "thread_local_quarantine_size_kb=0"])
    first = cluster.proxies[0]
    first.allowed = first.tcp_listener("echo.node-1")
    cluster.start()
    return cluster


def hangup(daemon, says=READ):
    """Sends it; gives where the log was before."""
    mark = daemon.log_mark()
    daemon.send_signal(signal.SIGHUP)
    daemon.wait_log(says, suite.START_TIMEOUT, mark)
    return mark


def reload(host, daemon, config, says=READ):
    host.write_config(config)
    return hangup(daemon, says)


def daemons(fleet):
    """(host, daemon) of each kind, with the sessions' own host last."""
    first = fleet.proxies[0]
    return [
        (fleet.auth, fleet.auth.authd),
        (first, first.routed),
        (first, first.peerd),
        (first, first.proxy),
        (fleet.agents[0], fleet.agents[0].agent),
    ]


ONLY_BY_RESTART = {
    "authd": ("auth_service.listen_addr", {"auth_service": {}}),
    "routed": ("proxy_service.region", {}),
    "peerd": ("proxy_service.peer_connections", {}),
    "proxy": ("proxy_service.workers", {}),
    "agent": ("agent_service.max_streams", {}),
}
OTHER_VALUE = {
    "auth_service.listen_addr": "127.0.0.1:1",
    "proxy_service.region": "elsewhere",
    "proxy_service.peer_connections": 2,
    "proxy_service.workers": 3,
    "agent_service.max_streams": 77,
}


def test_log_level_and_restart_and_a_bad_file(fleet):
    """For each daemon: the level is taken up, a key that is fixed is named and
    stays, and a file with an error is told with its line and changes nothing;
    a stream under traffic notices none of it."""
    beats = [Beat(p.name, p.dial("echo.node-1")) for p in fleet.proxies]
    for host, daemon in daemons(fleet):
        name = daemon.name.split(".")[1]
        key = ONLY_BY_RESTART[name][0]
        section, _, short = key.partition(".")
        before = host.config[section].get(short)

        mark = reload(
            host, daemon, {"peerway": {"log": {"level": "warn"}},
                           section: {short: OTHER_VALUE[key]}},
            RESTART + re.escape(key) + r"\b",
        )
        # nothing at info any more, not even the line on the next one
        quiet = daemon.log_mark()
        daemon.send_signal(signal.SIGHUP)
        daemon.wait_log(RESTART + re.escape(key), mark=quiet)
        assert not daemon.log_matches(READ, quiet)

        if before is None:
            del host.config[section][short]
        else:
            host.config[section][short] = before
        mark = reload(host, daemon, {"peerway": {"log": {"level": "debug"}}})
        assert not daemon.log_matches(RESTART, mark)

        good = host.config_path.read_text()
        lines = good.splitlines()
        at = next(i for i, l in enumerate(lines) if '"debug"' in l)
        lines[at] = lines[at].replace("debug", "loud")
        host.config_path.write_text("\n".join(lines) + "\n")
        hangup(
            daemon,
            f"error.*{BAD}{re.escape(str(host.config_path))}:{at + 1}: "
            r"peerway\.log\.level: .*loud.* is not error, warn",
        )
        host.config_path.unlink()
        hangup(daemon, f"error.*{BAD}.*cannot be read: No such file|"
                       f"error.*{BAD}.*: No such file")
        host.config_path.write_text(good)
        reload(host, daemon, {"peerway": {"log": {"level": "info",
                                                  "format": "json"}}})
        daemon.wait_log(r'^\{"time".*configuration read again', mark=mark)
        reload(host, daemon, {"peerway": {"log": {"format": "text"}}})
    for proxy in fleet.proxies:
        with proxy.dial("echo.node-1") as connection:
            assert (connection.route == "peer") == (
                proxy is not fleet.holder("node-1"))
            echo_once(connection)
    for beat in beats:
        beat.check_alive()
        beat.stop()


def test_limits_of_the_proxy(fleet):
    proxy = fleet.proxies[0]
    pids = proxy.worker_pids()

    def set_max(value):
        reload(proxy, proxy.proxy, {"proxy_service": {"max_clients": value}},
               f"{READ}: changed=proxy_service.max_clients")

    def refused():
        try:
            with proxy.dial("echo.node-1") as connection:
                connection.close()
            return False
        except connect.Refused as error:
            return error.status == 503

    def all_refused():
        return all(refused() for _ in range(8))

    with proxy.dial("echo.node-1") as held, proxy.dial("echo.node-1") as other:
        set_max(1)
        # either worker, or the one that has both, is full: others go in
        third = []
        deadline = time.monotonic() + suite.START_TIMEOUT
        while not all_refused():
            assert time.monotonic() < deadline, "never full"
            try:
                third.append(proxy.dial("echo.node-1"))
            except connect.Refused:
                pass
        for connection in (held, other):
            connection.sendall(b"still here")
            assert connection.recv_exactly(10) == b"still here"
        set_max(10000)
        wait_for(lambda: not refused(), suite.START_TIMEOUT, "room again")
        for connection in third:
            connection.close()
    assert proxy.worker_pids() == pids


def test_a_worker_that_starts_later_has_the_same_values(fleet):
    proxy = fleet.proxies[0]

    def closed(listen):
        """Whether a client from loopback is turned away."""
        try:
            with plain(listen) as stream:
                stream.sendall(b"x")
                return stream.recv(1) == b""
        except OSError:
            return True

    assert not closed(proxy.allowed)
    listeners = proxy.config["proxy_service"]["tcp_listeners"]
    listeners[0]["allow_from"] = ["192.0.2.0/24"]
    reload(proxy, proxy.proxy, {}, "changed=.*tcp_listeners..*allow_from")
    wait_for(lambda: all(closed(proxy.allowed) for _ in range(6)),
             suite.START_TIMEOUT, "both workers refuse loopback")
    before = proxy.worker_pids()
    for pid in before.values():
        os.kill(pid, signal.SIGKILL)
    wait_for(
        lambda: all(w["up_since"] and w["pid"] not in before.values()
                    for w in proxy.proxy.status()["workers"]),
        suite.START_TIMEOUT, "both workers are others",
    )
    wait_for(lambda: all(closed(proxy.allowed) for _ in range(6)),
             suite.START_TIMEOUT, "the new workers refuse loopback, too")
    del listeners[0]["allow_from"]
    reload(proxy, proxy.proxy, {}, READ)
    fleet.wait_agents()
    wait_for(lambda: not closed(proxy.allowed), suite.START_TIMEOUT, "let in")


def test_keep_alive_goes_to_all(fleet):
    def told():
        return all('"keep_alive_interval_ms":7000' in proxy.find()
                   .replace(" ", "") for proxy in fleet.proxies)

    reload(fleet.auth, fleet.auth.authd,
           {"auth_service": {"keep_alive_interval": "7s"}},
           f"{READ}: changed=auth_service.keep_alive_interval")
    wait_for(told, suite.START_TIMEOUT, "every proxy says 7 s")


def served(proxy):
    """The certificate that 3080 shows."""
    identity = connect.Identity(None, None, proxy.cluster.identity().host_ca)
    with connect.TlsStream(
        proxy.listen_addr, connect.client_context(identity),
        connect.server_name(suite.CLUSTER_NAME),
    ) as stream:
        return stream.peer_certificate()


def renewed(fleet, pki):
    """What authd signs anew for the same key, as PEM."""
    auth = stubs.load("auth_pb2")
    cert = openssl("x509", "-in", pki / "cert.pem", "-outform", "DER")
    csr = openssl("req", "-new", "-key", pki / "key.pem", "-subj", "/CN=x",
                  "-outform", "DER")
    creds = grpc.ssl_channel_credentials(
        Path(pki / "host_ca.pem").read_bytes())
    name = connect.server_name(suite.CLUSTER_NAME)
    with grpc.secure_channel(
        fleet.auth.listen_addr, creds,
        [("grpc.ssl_target_name_override", name)],
    ) as channel:
        stub = stubs.load("auth_pb2_grpc").AuthServiceStub(channel)
        return stub.Renew(auth.RenewRequest(cert=cert, csr=csr),
                          timeout=suite.START_TIMEOUT).cert_chain


def openssl(*argv):
    return subprocess.run(["openssl", *map(str, argv)], check=True,
                          capture_output=True).stdout


def test_a_renewed_certificate_is_served(fleet):
    """With files of the administrator's: replaced, and SIGHUP to routed, which
    hands them to proxy and peerd. Other paths are taken up, too."""
    proxy = fleet.proxies[1]
    pki = own_files(proxy, proxy.data_dir / "identity/current")
    proxy.stop()
    proxy.start().wait_ready()
    fleet.wait_peers()
    fleet.wait_agents()
    old = served(proxy)
    beat = Beat(proxy.name, proxy.dial("echo.node-1"))
    (pki / "cert.pem").write_text(renewed(fleet, pki))
    hangup(proxy.routed)
    wait_for(lambda: served(proxy) != old, suite.START_TIMEOUT,
             "3080 serves the new certificate")
    middle = served(proxy)
    (pki / "moved.pem").write_text(renewed(fleet, pki))
    reload(proxy, proxy.routed,
           {"peerway": {"identity": {"cert": str(pki / "moved.pem")}}},
           f"{READ}: changed=peerway.identity.cert")
    wait_for(lambda: served(proxy) not in (old, middle), suite.START_TIMEOUT,
             "3080 serves that of the other path")
    beat.check_alive()
    beat.stop()


def resident(pid):
    status = Path(f"/proc/{pid}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+)", status)[1])


def test_a_thousand_leave_nothing_behind(fleet):
    first = fleet.proxies[0]
    watched = daemons(fleet)
    beat = Beat(first.name, first.dial("echo.node-1"))
    pids = {daemon: [daemon.popen.pid] for _, daemon in watched}
    pids[first.proxy] += first.worker_pids().values()

    def many(count):
        """One after another: signals that come together are one."""
        for _ in range(count):
            marks = [daemon.log_mark() for _, daemon in watched]
            for _, daemon in watched:
                daemon.send_signal(signal.SIGHUP)
            wait_for(
                lambda: all(daemon.log_mark() > mark for mark, (_, daemon)
                            in zip(marks, watched)),
                suite.START_TIMEOUT, "each has said something", 0.001)

    many(100)
    before = {pid: (resident(pid), len(descriptor_table(pid)))
              for group in pids.values() for pid in group}
    many(1000)
    for group in pids.values():
        for pid in group:
            memory, descriptors = before[pid]
            assert resident(pid) < memory + 2048 * suite.SLOW, pid
            wait_for(
                lambda: len(descriptor_table(pid)) <= descriptors + 4,
                suite.START_TIMEOUT, f"descriptors of {pid} as before",
            )
    beat.check_alive()
    beat.stop()
