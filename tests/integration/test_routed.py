# SPDX-License-Identifier: Apache-2.0
"""routed between a real authd and a worker that the test plays: tunnels become
records everywhere, and no death of routed, authd or the cache file costs one."""

import os
import signal
import sqlite3
import subprocess
import sys
import time
import uuid

import pytest

import ctl
import hosts
import stubs
import suite
from process import wait_for

LEASE_TTL = 5


class Worker:
    """A worker of the proxy, as routed sees one."""

    def __init__(self, host, number=0, workers=1, tunnels=()):
        self.ipc = stubs.load("ipc_pb2")
        self.record = stubs.load("record_pb2")
        self.tunnels = dict(tunnels)  # tunnel id -> message
        self.link = wait_for(
            lambda: ctl.Link(host.run_dir / "routed.sock"),
            10 * hosts.SLOW,
            "routed listens",
        )
        self.link.hello("PEER_WORKER", worker=number, workers=workers)

    def sync(self):
        self.link.send(
            "IPC_TUNNEL_SYNC",
            self.ipc.TunnelSync(
                first=True, last=True, tunnels=self.tunnels.values()
            ),
        )
        return self

    def tunnel(self, number, name, agent_id):
        return self.ipc.Tunnel(
            tunnel_id=number,
            remote_addr="127.0.0.1:1",
            record=self.record.TunnelRecord(
                agent_id=agent_id,
                name=name,
                since_ms=int(time.time() * 1000),
                labels=[self.record.Label(name="env", value="test")],
                services=[
                    self.record.Service(name="ssh", type="node", port=22)
                ],
            ),
        )

    def up(self, number, name, agent_id=None):
        """Gives the agent's id."""
        agent_id = agent_id or str(uuid.uuid4())
        self.tunnels[number] = self.tunnel(number, name, agent_id)
        self.link.send(
            "IPC_TUNNEL_UP", self.ipc.TunnelUp(tunnel=self.tunnels[number])
        )
        return agent_id

    def down(self, number):
        del self.tunnels[number]
        self.link.send(
            "IPC_TUNNEL_DOWN",
            self.ipc.TunnelDown(tunnel_id=number, reason="test"),
        )

    def close(self):
        self.link.close()


@pytest.fixture
def fleet():
    """One authd, two hosts with nothing but routed."""
    cluster = suite.Cluster(proxies=2)
    cluster.start_auth()
    cluster.start_routeds()
    yield cluster
    found = [
        text for text in cluster.complaints()
        if "authd" in text or "routed" in text
    ]
    cluster.close()
    assert not found, found


def agents_of(host):
    """Name -> ids of the holders; nothing while routed is away or rebuilds."""
    try:
        return host.agents()
    except (OSError, ctl.Failed):
        return {}


def wait_agents(host, expected, timeout=10):
    wait_for(
        lambda: agents_of(host) == expected,
        timeout * hosts.SLOW,
        f"{host.name} sees {expected}",
    )


def wait_proxies(host, ids, timeout=10):
    """Until host knows just these; gives id -> record."""

    def known():
        records = host.routed.ask("proxies")["proxies"]
        found = {record["id"]: record for record in records}
        return found if set(found) == ids else None

    return wait_for(
        known, timeout * hosts.SLOW, f"{host.name} knows the proxies {ids}"
    )


def test_tunnels_become_records_on_every_host(fleet):
    one, two = fleet.proxies
    worker = Worker(one).sync()
    agent_id = worker.up(1, "node-1")
    for host in (one, two):
        wait_agents(host, {"node-1": {one.uuid}})
    (agent,) = two.routed.ask("routes", {"agent": "node-1"})["agents"]
    assert agent["agent_id"] == agent_id
    assert agent["labels"] == {"env": "test"}
    assert agent["services"] == [{"name": "ssh", "type": "node", "port": 22}]
    assert two.routed.ask("routes", {"agent": agent_id})["agents"] == [agent]
    assert two.routed.ask("routes", {"agent": "node-2"})["agents"] == []
    status = one.routed.status()
    assert status["tunnels_published"] == 1
    assert status["tunnels_pending"] == 0
    proxies = wait_proxies(two, {one.uuid, two.uuid})
    record = proxies[one.uuid]
    assert record["peer_addr"] == one.peer_addr
    assert record["public_addr"] == [one.listen_addr]
    assert record["strategy"]["type"] == "proxy_peering"
    worker.down(1)
    wait_agents(two, {})
    worker.close()


def test_a_record_that_authd_refuses_keeps_no_other_back(fleet):
    one, two = fleet.proxies
    worker = Worker(one)
    for number in range(1, 6):
        agent_id = str(uuid.uuid4())
        tunnel = worker.tunnel(number, f"node-{number}", agent_id)
        worker.tunnels[number] = tunnel
    worker.tunnels[3].record.labels[0].value = "bell\x07"
    worker.sync()
    names = ["node-1", "node-2", "node-4", "node-5"]
    wait_agents(two, {name: {one.uuid} for name in names})
    one.routed.wait_log(r"error .*authd refuses an agent's record", 5)
    assert one.routed.status()["auth_state"] == "connected"
    worker.up(3, "node-3")
    wait_for(lambda: "node-3" in agents_of(two), 10, "it is good again")
    worker.close()


def test_a_worker_that_is_gone_takes_its_tunnels_along(fleet):
    one, two = fleet.proxies
    first = Worker(one, number=0, workers=2).sync()
    second = Worker(one, number=1, workers=2).sync()
    moved = first.up(1, "moved")
    first.up(2, "lost")
    wait_agents(two, {"moved": {one.uuid}, "lost": {one.uuid}})
    watch = Deletions(two)
    second.up(1, "moved", moved)
    first.close()
    wait_agents(two, {"moved": {one.uuid}})
    assert watch.close() == 1
    second.close()


WATCH_TUNNELS = """
import select, sqlite3, sys

db = sqlite3.connect(sys.argv[1])
seen, gone = set(), 0
print("ready", flush=True)
while not select.select([0], [], [], 0.002)[0]:
    now = set(db.execute("select agent_id, proxy_id from tunnel"))
    gone += len(seen - now)
    seen = now
print(gone)
"""


class Deletions:
    """Counts tunnels that vanish from a host's cache, by looking all the time
    in a process of its own."""

    def __init__(self, host):
        path = host.routed.status()["cache"]["path"]
        self.process = subprocess.Popen(
            [sys.executable, "-c", WATCH_TUNNELS, path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout.readline() == "ready\n"

    def close(self):
        """How many there were."""
        out, _ = self.process.communicate("end\n", timeout=10)
        return int(out)


def test_kill_of_routed_deletes_nothing_anywhere(fleet):
    one, two = fleet.proxies
    worker = Worker(one).sync()
    worker.up(1, "node-1")
    worker.up(2, "node-2")
    expected = {"node-1": {one.uuid}, "node-2": {one.uuid}}
    wait_agents(two, expected)
    epoch = one.routed.status()["lease"]["epoch"]
    watch = Deletions(two)
    one.routed.kill()
    one.routed.start()
    again = Worker(one, tunnels=worker.tunnels).sync()
    wait_for(
        lambda: one.routed.status()["lease"]["state"] == "held"
        and one.routed.status()["lease"]["epoch"] > epoch,
        10 * hosts.SLOW,
        "everything is published under a new lease",
    )
    time.sleep(LEASE_TTL * 1.5)  # the old lease would end in it
    assert watch.close() == 0
    wait_agents(two, expected)
    again.close()


def test_a_tunnel_that_ended_while_routed_was_away_goes(fleet):
    one, two = fleet.proxies
    worker = Worker(one).sync()
    worker.up(1, "node-1")
    worker.up(2, "node-2")
    wait_agents(two, {"node-1": {one.uuid}, "node-2": {one.uuid}})
    one.routed.kill()
    one.routed.start()
    del worker.tunnels[2]
    again = Worker(one, tunnels=worker.tunnels).sync()
    wait_agents(two, {"node-1": {one.uuid}})
    again.close()


def test_without_workers_the_old_records_go_after_a_moment(fleet):
    one, two = fleet.proxies
    worker = Worker(one).sync()
    worker.up(1, "node-1")
    wait_agents(two, {"node-1": {one.uuid}})
    one.routed.kill()
    one.routed.start()
    wait_agents(two, {})
    worker.close()


def test_a_host_that_dies_loses_its_routes_with_its_lease(fleet):
    one, two = fleet.proxies
    worker = Worker(one).sync()
    worker.up(1, "node-1")
    wait_agents(two, {"node-1": {one.uuid}})
    one.kill()
    wait_agents(two, {}, LEASE_TTL * 3)
    wait_proxies(two, {two.uuid})
    one.routed.expected_end = True
    worker.close()


def test_a_lease_that_has_run_out_is_replaced(fleet):
    one, two = fleet.proxies
    worker = Worker(one).sync()
    worker.up(1, "node-1")
    wait_agents(two, {"node-1": {one.uuid}})
    epoch = one.routed.status()["lease"]["epoch"]
    os.kill(one.routed.pid, signal.SIGSTOP)
    try:
        wait_agents(two, {}, LEASE_TTL * 3)
    finally:
        os.kill(one.routed.pid, signal.SIGCONT)
    wait_agents(two, {"node-1": {one.uuid}})
    wait_proxies(two, {one.uuid, two.uuid})
    assert one.routed.status()["lease"]["epoch"] > epoch
    worker.close()


def test_authd_away_and_back(fleet):
    one, two = fleet.proxies
    worker = Worker(one).sync()
    worker.up(1, "before")
    for host in (one, two):
        wait_agents(host, {"before": {one.uuid}})
    fleet.auth.authd.kill()
    wait_for(
        lambda: one.routed.status()["auth_state"] == "unreachable",
        10 * hosts.SLOW,
        "routed notices",
    )
    assert one.routed.status()["last_error"]
    worker.up(2, "meanwhile")
    time.sleep(LEASE_TTL * 1.5)
    for host in (one, two):
        assert agents_of(host) == {"before": {one.uuid}}
        assert host.routed.is_ready()
    assert one.routed.status()["tunnels_pending"] == 1
    watch = Deletions(two)
    fleet.auth.authd.start()
    for host in (one, two):
        wait_agents(
            host, {"before": {one.uuid}, "meanwhile": {one.uuid}}, 20
        )
    assert watch.close() == 0
    assert one.routed.status()["tunnels_pending"] == 0
    worker.close()


def test_started_while_authd_is_away_the_host_has_its_cache(fleet):
    one, two = fleet.proxies
    ipc = stubs.load("ipc_pb2")
    worker = Worker(one).sync()
    worker.up(1, "node-1")
    wait_agents(two, {"node-1": {one.uuid}})
    fleet.auth.authd.kill()
    two.routed.kill()
    two.routed.start()
    two.routed.wait_ready()
    local = Worker(two).sync()
    identity = ipc.Identity.FromString(local.link.receive_type("IPC_IDENTITY"))
    assert os.path.exists(os.path.join(identity.directory, "key.pem"))
    cache = ipc.Cache.FromString(local.link.receive_type("IPC_CACHE"))
    assert os.path.exists(cache.path) and cache.proxies_changed
    assert agents_of(two) == {"node-1": {one.uuid}}
    local.up(1, "node-2")
    fleet.auth.authd.start()
    wait_agents(one, {"node-1": {one.uuid}, "node-2": {two.uuid}}, 20)
    worker.close()
    local.close()


def test_auth_servers_are_tried_in_turn(fleet):
    one, two = fleet.proxies
    one.routed.kill()
    alive = one.common["auth_servers"][0]
    one.common["auth_servers"] = [one.peer_addr, alive]  # nobody listens
    one.write_config()
    one.routed.start()
    wait_for(
        lambda: one.routed.status()["auth_state"] == "connected",
        10 * hosts.SLOW,
        "the second server is found",
    )
    assert one.routed.status()["auth_server"] == alive


def cache_paths(host):
    return sorted(
        p.name for p in (host.data_dir / "cache").iterdir()
        if p.name.endswith(".db")
    )


@pytest.mark.parametrize("damage", ["garbage", "schema", "crash"])
def test_a_bad_cache_is_set_aside_and_rebuilt(fleet, damage):
    one, two = fleet.proxies
    worker = Worker(one).sync()
    worker.up(1, "node-1")
    wait_agents(two, {"node-1": {one.uuid}})
    two.routed.kill()
    path = two.data_dir / "cache" / "cache-1.db"
    if damage == "garbage":
        os.truncate(path.with_name("cache-1.db-wal"), 0)
        path.write_bytes(b"this is not a database" * 1000)
    else:
        with sqlite3.connect(path) as db:
            db.execute(
                "pragma user_version = 99" if damage == "schema" else
                # the machine stopped in another life, and routed with it
                "update meta set value = 'another' where key = 'boot'"
            )
        db.close()
    two.routed.start()
    two.routed.wait_log(r"error .*cache is rebuilt: .*cache-1\.db\.bad-", 10)
    wait_agents(two, {"node-1": {one.uuid}})
    assert cache_paths(two) == ["cache-2.db"]
    assert two.routed.status()["cache"]["path"].endswith("cache-2.db")
    worker.close()


def test_a_cache_damaged_under_way_is_rebuilt_and_announced(fleet):
    one, two = fleet.proxies
    ipc = stubs.load("ipc_pb2")
    worker = Worker(one).sync()
    reader = Worker(two).sync()
    worker.up(1, "node-1")
    wait_agents(two, {"node-1": {one.uuid}})
    path = two.data_dir / "cache" / "cache-1.db"
    with sqlite3.connect(path) as db:
        db.execute("pragma wal_checkpoint(truncate)")
    db.close()
    with open(path, "r+b") as file:
        file.seek(4096)
        file.write(b"\xa5" * (path.stat().st_size - 4096))
    worker.up(2, "node-2")
    wait_agents(two, {"node-1": {one.uuid}, "node-2": {one.uuid}})
    while True:
        cache = ipc.Cache.FromString(reader.link.receive_type("IPC_CACHE"))
        if cache.path.endswith("cache-2.db"):
            break
    worker.close()
    reader.close()


def test_lookup_is_passed_on_and_answered_when_authd_is_away(fleet):
    one, two = fleet.proxies
    ipc = stubs.load("ipc_pb2")
    worker = Worker(one).sync()
    agent_id = worker.up(1, "node-1")
    wait_agents(two, {"node-1": {one.uuid}})
    peerd = ctl.Link(two.run_dir / "routed.sock")
    peerd.hello("PEER_PEERD")

    def lookup(number):
        peerd.send("IPC_LOOKUP", ipc.Lookup(id=number, agent_id=agent_id))
        return ipc.LookupReply.FromString(
            peerd.receive_type("IPC_LOOKUP_REPLY")
        )

    reply = lookup(7)
    assert (reply.id, reply.error) == (7, "")
    assert [t.proxy_id for t in reply.tunnels] == [one.uuid]
    fleet.auth.authd.kill()
    reply = lookup(8)
    assert reply.id == 8 and reply.error
    fleet.auth.authd.start()
    wait_for(lambda: lookup(9).error == "", 15, "authd answers again")
    peerd.close()
    worker.close()


def test_links_may_say_only_what_is_theirs(fleet):
    one = fleet.proxies[0]
    ipc = stubs.load("ipc_pb2")
    with ctl.Link(one.run_dir / "routed.sock") as link:
        link.hello("PEER_PEERD")
        link.send("IPC_TUNNEL_SYNC", ipc.TunnelSync(first=True, last=True))
        assert link.closed_by_peer()
    with ctl.Link(one.run_dir / "routed.sock") as link:
        link.hello("PEER_CTL")
        link.send("IPC_LOOKUP", ipc.Lookup(id=1, agent_id="x"))
        assert link.closed_by_peer()
    assert one.routed.status()


def test_a_clean_stop_with_no_worker_ends_the_lease_at_once(fleet):
    one, two = fleet.proxies
    worker = Worker(one).sync()
    worker.up(1, "node-1")
    wait_agents(two, {"node-1": {one.uuid}})
    worker.close()
    wait_agents(two, {})
    assert one.routed.stop() == 0
    # long before the lease would have ended
    wait_proxies(two, {two.uuid}, 2)


def test_a_stop_waits_for_workers_and_leaves_their_records(fleet):
    one, two = fleet.proxies
    worker = Worker(one).sync()
    worker.up(1, "node-1")
    wait_agents(two, {"node-1": {one.uuid}})
    watch = Deletions(two)
    assert one.routed.stop() == 0  # after drain_timeout
    one.routed.start()
    again = Worker(one, tunnels=worker.tunnels).sync()
    one.routed.wait_ready()
    time.sleep(LEASE_TTL * 1.5)
    assert watch.close() == 0
    wait_agents(two, {"node-1": {one.uuid}})
    again.close()
