# SPDX-License-Identifier: Apache-2.0
"""Whatever happens to authd and to those who use it, revisions only grow, each
watcher hears of each change once and in order, what was answered is kept, what
has an old epoch is refused, no record outlives its lease by more than a second,
and when it is quiet all caches equal the backend.

PEERWAY_SEED=n replays a seed; PEERWAY_CONSISTENCY_SECONDS is how long the turmoil
lasts."""

import collections
import os
import random

import pytest

import history
import history_check
from etcd import Etcd
from history import Outage
from hosts import SLOW
from relay import Relay
from test_auth import Authd
from turmoil import Run
from turmoil_faults import Faults

TTL = 2.0  # as test_auth.Authd configures it
SECONDS = float(os.environ.get("PEERWAY_CONSISTENCY_SECONDS", "16"))
REAL_HOSTS = 3


class SqliteStore:
    """A store: its configuration, and what can go wrong with it alone."""

    config = {"type": "sqlite"}
    auths = 1
    late = 0.0
    stalls_renew = False

    def start(self):
        pass

    def faults(self):
        return {}

    def close(self):
        pass


class EtcdStore:
    """Three members of etcd, and two auth servers on it."""

    auths = 2
    late = 2.0
    stalls_renew = True

    def __init__(self):
        self.etcd = Etcd(members=3)
        self.config = self.etcd.storage()
        self.compacted = 0

    def start(self):
        self.etcd.start()

    def faults(self):
        return {"kill one etcd": self._kill_one, "kill all etcd": self._kill_all,
                "compact": self._compact}

    def _kill_one(self, run, rng):
        self._kill(run, rng, [rng.choice(self.etcd.members)])

    def _kill_all(self, run, rng):
        self._kill(run, rng, self.etcd.members)

    def _kill(self, run, rng, members):
        begin = run.now()
        for member in members:
            member.kill9()
        run.pause(rng.uniform(0, run.ttl))
        for member in members:
            member.start()
        self.etcd.wait_healthy()
        for auth in run.auths:
            auth.authd.wait_ready()
        # authd may have noticed, or not
        run.history.outages.append(
            Outage("kill etcd", begin, begin, begin, run.now()))

    def _compact(self, run, rng):
        """No further than those have heard who are to hear of everything."""
        revision = min(
            w.position for w in run.watchers if w.kind == "steady")
        if revision > self.compacted:
            run.history.compactions.append((run.now(), revision))
            self.compacted = self.etcd.compact(revision)

    def close(self):
        self.etcd.close()


STORES = {"sqlite": SqliteStore, "etcd": EtcdStore}


@pytest.fixture(params=sorted(STORES))
def store(request):
    store = STORES[request.param]()
    try:
        store.start()
        yield store
    finally:
        store.close()


@pytest.fixture
def fleet(make_cluster, store):
    """authd on the store, and hosts with nothing but routed."""
    cluster = make_cluster(
        proxies=REAL_HOSTS, storage=store.config, auths=store.auths)
    for auth in cluster.auths:
        auth.write_config({"auth_service": {"lease_ttl": f"{TTL:.0f}s"}})
    cluster.authd = Authd(cluster)
    cluster.relays = []
    for number, host in enumerate(cluster.proxies):
        servers = [auth.listen_addr for auth in cluster.auths]
        first = number % len(servers)
        cluster.relays.append(Relay(host.address, servers[first]))
        servers[first] = cluster.relays[-1].addr
        host.common["auth_servers"] = servers[first:] + servers[:first]
    cluster.start_routeds()
    yield cluster
    for relay in cluster.relays:
        relay.close()
    cluster.authd.close()


def count(found):
    """What there was to judge."""
    calls = collections.Counter(f"{c.kind} {c.status}" for c in found.calls)
    calls["watches"] = len(found.watches)
    calls["messages"] = sum(len(w.messages) for w in found.watches)
    calls["readings"] = len(found.readings)
    calls["outages"] = len(found.outages)
    calls["stalls"] = len(found.stalls)
    return calls


def test_consistency(fleet, store, tmp_path):
    seed = int(os.environ.get("PEERWAY_SEED") or random.randrange(1 << 32))
    print(f"PEERWAY_SEED={seed}")
    run = Run(
        fleet.authd, fleet.proxies, fleet.relays, store, seed, TTL)
    faults = Faults(run, store.faults())
    complaints = ["the test itself failed"]
    try:
        run.play(SECONDS, faults)
        complaints = history_check.check(run.history)
    finally:
        if complaints:
            path = tmp_path / "history.jsonl"
            history.save(run.history, path)
            print(f"PEERWAY_SEED={seed} failed; its history: {path}")
    counted = count(run.history)
    print(dict(counted), faults.done)
    assert not complaints, f"seed {seed}:\n" + "\n".join(complaints)
    assert run.differences == {host.name: [] for host in fleet.proxies}
    check_worth(run, counted, faults)


def check_worth(run, counted, faults):
    """A turmoil in which nothing happened proves nothing."""
    assert counted["publish OK"] > 10 * SECONDS / SLOW
    assert counted["publish FAILED_PRECONDITION"] + counted["publish NOT_FOUND"]
    assert counted["keepalive OK"] and counted["lookup OK"]
    assert sum(map(bool, faults.done.values())) >= 3, faults.done
    if SECONDS >= 16:
        assert counted["grant OK"] > len(run.proxies)
