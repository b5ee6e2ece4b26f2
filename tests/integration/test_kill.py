# SPDX-License-Identifier: Apache-2.0
"""Who loses what when a process is killed with -9 under traffic:

    killed   loses                                      keeps
    worker   its TLS clients, its tunnels               all else
             (the same when it stands still)
    peerd    peered and handed-over streams             local and sibling ones
    routed   nothing; no other host sees a deletion     everything
    authd    nothing                                    everything
    agent    its own streams                            other agents'

Afterwards all routes are right within 5 s, and every daemon holds as many
descriptors as before.
"""

import os
import signal
import threading
import time

import grpc
import pytest

import stubs
import suite
from process import wait_for
from traffic import (
    Beat,
    check_descriptors,
    dial_until,
    echo_once,
    plain,
    settled_descriptors,
)

LEASE_TTL = 5  # seconds, the default


@pytest.fixture(scope="module")
def fleet(module_cluster, echo):
    """node-1 on one host, which has two workers; node-2 is for comparison."""
    cluster = module_cluster(
        proxies=2,
        workers=2,
        agents=["node-1", "node-2"],
        services=echo.services(),
    )
    cluster.raw = {
        proxy: proxy.tcp_listener("echo.node-1") for proxy in cluster.proxies
    }
    return cluster.start()


class Streams:
    """One stream of each kind to node-1, all under traffic, and one to node-2.
    """

    def __init__(self, fleet):
        self.fleet = fleet
        self.holder = fleet.holder("node-1")
        self.other = fleet.others(self.holder)[0]
        self.before = settled_descriptors(fleet)
        local = self._dial(self.holder, "local")
        self.tunnel_worker = local.worker
        sibling = self._dial(self.holder, "sibling")
        self.sibling_worker = sibling.worker
        peer = self._dial(self.other, "peer")
        self.peer_worker = peer.worker
        self.beats = {
            "local": Beat("local", local),
            "sibling": Beat("sibling", sibling),
            "peer": Beat("peer", peer),
            "raw": Beat("raw", self._raw()),
            "node-2": Beat("node-2", self.other.dial("echo.node-2")),
        }
        for beat in self.beats.values():
            beat.check_alive()

    def _dial(self, proxy, route):
        return dial_until(
            proxy, "echo.node-1", lambda connection: connection.route == route
        )

    def _raw(self):
        stream = plain(self.fleet.raw[self.other])
        echo_once(stream)
        return stream

    def check(self, lost):
        """Exactly these are lost (lost within 5 s), the others go on."""
        for name in lost:
            self.beats[name].wait_ended(suite.ROUTES_TIMEOUT)
        for name, beat in self.beats.items():
            if name not in lost:
                beat.check_alive()

    def check_routes(self, deadline):
        """Every agent through every proxy, by the right route."""
        last = None
        while time.monotonic() < deadline:
            try:
                for agent in ("node-1", "node-2"):
                    for proxy in self.fleet.proxies:
                        self._check_one(proxy, agent)
                return
            except Exception as error:
                last = error
                time.sleep(0.05)
        raise AssertionError(f"routes are not right in time: {last!r}")

    def _check_one(self, proxy, agent):
        holder = self.fleet.holder(agent)
        with proxy.dial(f"echo.{agent}", timeout=5) as connection:
            routes = ("local", "sibling") if proxy is holder else ("peer",)
            assert connection.route in routes
            assert connection.proxy == holder.uuid
            echo_once(connection)

    def finish(self):
        for beat in self.beats.values():
            beat.stop()
        check_descriptors(self.fleet, self.before)


@pytest.fixture
def streams(fleet):
    return Streams(fleet)


def soon():
    return time.monotonic() + suite.ROUTES_TIMEOUT


def kill_worker(proxy, number):
    pids = proxy.worker_pids()
    os.kill(pids[number], signal.SIGKILL)
    return pids


def holds(proxy, worker, agent):
    return agent in proxy.tunnels().get(worker, [])


def test_worker_with_a_client(fleet, streams):
    other, worker = streams.other, streams.peer_worker
    shared = streams.beats["node-2"].stream.worker == worker or holds(
        other, worker, "node-2"
    )
    pids = kill_worker(other, worker)
    deadline = soon()
    streams.check(lost=["peer"] + ["node-2"] * shared)
    streams.check_routes(deadline)
    assert other.worker_pids()[worker] != pids[worker]
    streams.finish()


def test_worker_with_the_tunnel(fleet, streams):
    shared = holds(streams.holder, streams.tunnel_worker, "node-2")
    kill_worker(streams.holder, streams.tunnel_worker)
    deadline = soon()
    lost = ["local", "sibling", "peer", "raw"] + ["node-2"] * shared
    streams.check(lost)
    streams.check_routes(deadline)
    streams.finish()


def test_a_worker_that_stands_still(fleet, streams):
    """The parent kills it and starts another one."""
    holder, worker = streams.holder, streams.tunnel_worker
    shared = holds(holder, worker, "node-2")
    mark = holder.proxy.log_mark()
    pids = holder.worker_pids()
    os.kill(pids[worker], signal.SIGSTOP)
    holder.proxy.wait_log(
        f"worker stands still, killed: .* worker={worker} pid={pids[worker]}",
        60 * suite.SLOW, mark)  # fmt: skip
    deadline = soon()
    lost = ["local", "sibling", "peer", "raw"] + ["node-2"] * shared
    streams.check(lost)
    streams.check_routes(deadline)
    assert holder.worker_pids()[worker] != pids[worker]
    streams.finish()


def check_peerd(streams, host):
    host.peerd.kill()
    host.peerd.start()
    deadline = soon()
    node2_peered = streams.beats["node-2"].stream.route == "peer"
    streams.check(lost=["peer", "raw"] + ["node-2"] * node2_peered)
    streams.check_routes(deadline)
    streams.finish()


def test_peerd_of_the_client(fleet, streams):
    check_peerd(streams, streams.other)


def test_peerd_of_the_tunnel(fleet, streams):
    check_peerd(streams, streams.holder)


class Watcher:
    """What another host sees of the records: routed's own call to authd."""

    def __init__(self, proxy):
        auth = stubs.load("auth_pb2")
        directory = proxy.data_dir / "identity" / "current"
        read = lambda name: (directory / name).read_bytes()
        self._channel = grpc.secure_channel(
            proxy.cluster.auth.listen_addr,
            grpc.ssl_channel_credentials(
                read("host_ca.pem"), read("key.pem"), read("cert.pem")
            ),
            [("grpc.ssl_target_name_override", server_name())],
        )
        stub = stubs.load("auth_pb2_grpc").AuthServiceStub(self._channel)
        self._call = stub.Watch(auth.WatchRequest())
        self.complete = False
        self.changes = []
        threading.Thread(target=self._read, daemon=True).start()
        wait_for(lambda: self.complete, 10, "the watcher has a snapshot")

    def _read(self):
        try:
            for response in self._call:
                if not response.snapshot:
                    self.changes.extend(response.changes)
                self.complete = self.complete or response.complete
        except grpc.RpcError:
            pass

    def kinds(self):
        return [change.WhichOneof("what") for change in self.changes]

    def close(self):
        self._call.cancel()
        self._channel.close()


def server_name():
    return suite.connect.server_name(suite.CLUSTER_NAME)


@pytest.mark.parametrize("which", ["holder", "other"])
def test_routed(fleet, streams, which):
    host = getattr(streams, which)
    watcher = Watcher(fleet.others(host)[0])
    epoch = host.routed.status()["lease"]["epoch"]
    host.routed.kill()
    streams.check(lost=[])
    streams.check_routes(soon())
    host.routed.start()
    host.routed.wait_ready()
    wait_for(
        lambda: host.routed.status()["lease"]["epoch"] > epoch,
        suite.START_TIMEOUT,
        "routed has a new lease",
    )
    wait_for(
        lambda: "proxy_put" in watcher.kinds(),
        10,
        "the watcher sees the new epoch",
    )
    # The period that is watched: the old lease would end in it.
    time.sleep(LEASE_TTL * 1.5)
    removals = [kind for kind in watcher.kinds() if kind.endswith("_removed")]
    watcher.close()
    assert removals == []
    streams.check(lost=[])
    streams.check_routes(soon())
    streams.finish()


def test_authd(fleet, streams):
    authd = fleet.auth.authd
    authd.kill()
    streams.check(lost=[])
    streams.check_routes(soon())
    authd.start()
    authd.wait_ready()
    for proxy in fleet.proxies:
        wait_for(
            lambda: proxy.routed.status()["auth_state"] == "connected",
            suite.START_TIMEOUT,
            f"{proxy.name} is connected to authd again",
        )
    streams.check(lost=[])
    streams.check_routes(soon())
    streams.finish()


def test_agent(fleet, streams):
    agent = fleet.agents[0].agent
    agent.kill()
    agent.start()
    deadline = soon()
    streams.check(lost=["local", "sibling", "peer", "raw"])
    streams.check_routes(deadline)
    streams.finish()
