# SPDX-License-Identifier: Apache-2.0
"""A fleet in turmoil, from one seed: played proxies (turmoil_proxy.py), watchers
(turmoil_watch.py), real hosts (turmoil_host.py) and faults, all at once against
a real authd; then quiet. Gives the history of it.

Each of them decides by a generator of its own, made from the seed and its name,
so that a seed means the same decisions whatever the threads' order was.
"""

import random
import threading
import time
import traceback
import uuid

from history import History, Reading
from hosts import SLOW
from process import wait_for
from turmoil_host import CacheReader, RealHost
from turmoil_proxy import Caller, Keeper, PlayedProxy
from turmoil_watch import Watcher

PROXIES = 14
DYING = 3  # of them, in the end
AGENTS = 300
WATCHERS = ["steady", "steady", "slow", "slow", "fresh", "fresh", "past", "past"]
# Nothing is read ahead for a watcher that reads slowly.
SMALL_WINDOW = [("grpc.http2.bdp_probe", 0)]
PATIENCE = 60 * SLOW  # for the quiet end
BOUND = 1.0 * SLOW  # see history_lease.py


class Run:
    """relays: between the hosts and authd; store: late, by how much more than
    BOUND a lease may end late; stalls_renew, see history.py."""

    def __init__(self, authd, hosts, relays, store, seed, ttl):
        self.authd = authd
        self.auths = authd.cluster.auths
        self.seed = seed
        self.ttl = ttl
        self.slow = SLOW
        self.history = History(seed=seed, ttl=ttl, bound=BOUND + store.late,
                               stalls_renew=store.stalls_renew)
        self.over = threading.Event()  # of the turmoil
        self.closing = threading.Event()
        self.patience = float("inf")
        self.failures = []
        self.threads = []
        self.shared = {}  # one copy of what all watchers are told
        self.first = self.newest = 0
        self.differences = {}  # between caches and authd, as routeds find them
        rng = self.rng("agents")
        self.agents = [self.uuid(rng) for _ in range(AGENTS)]
        self.token = authd.token()
        self.proxies = [PlayedProxy(self, n) for n in range(PROXIES)]
        self.hosts = [
            RealHost(self, number, host, relay)
            for number, (host, relay) in enumerate(zip(hosts, relays))
        ]
        self.observer = Caller(self, self.join(self.rng("observer")))
        self.watchers = self._make_watchers()
        self.caches = CacheReader(self, hosts)
        self.keeper = Keeper(self, self.proxies)

    # What all use

    @property
    def store_id(self):
        return self.history.store_id

    def rng(self, name):
        return random.Random(f"{self.seed}/{name}")

    @staticmethod
    def uuid(rng):
        return str(uuid.UUID(int=rng.getrandbits(128), version=4))

    @staticmethod
    def now():
        return time.monotonic()

    def pause(self, seconds):
        """What somebody waits of his own accord; cut short by the quiet."""
        if self.over.wait(seconds):
            time.sleep(min(seconds, 0.02))

    def join(self, rng):
        member = self.authd.member(self.uuid(rng))
        self.authd.join(member, self.token)
        return member

    def stubs(self, member, **how):
        """One for each auth server."""
        return [self.authd.stub(member, address=auth.listen_addr, **how)
                for auth in self.auths]

    def check_patience(self, what):
        assert time.monotonic() < self.patience, f"not in time: {what}"

    # The course of it

    def play(self, seconds, faults):
        """Gives the history when all has become quiet."""
        self._thread(self._measure)
        self._thread(self.keeper.play)
        self._start_watchers()
        players = [*self.proxies, *self.hosts, self.caches, faults]
        threads = [self._thread(player.play) for player in players]
        self.over.wait(seconds)
        self.over.set()
        self.patience = time.monotonic() + PATIENCE
        for thread in threads:
            thread.join(PATIENCE)
        self._check_failures()
        try:
            self._calm()
        finally:
            self.closing.set()
            self.keeper.ended.set()
            for watcher in self.watchers:
                watcher.cancel()
            for thread in self.threads:
                thread.join(10)
            for host in self.hosts:
                host.close()
        self._check_failures()
        faults.add_stalls()
        return self.history

    def _calm(self):
        dying = self.rng("end").sample(self.proxies[1:], DYING)
        living = [p for p in self.proxies if p not in dying]
        for proxy in dying:
            proxy.die()
        while True:
            for settling in [*living, *self.hosts]:
                settling.settle()
            self._wait_gone({p.id for p in dying})
            self._last_look(living)
            if not any(p.lease.lost for p in living):
                return
            # this process stood still for so long: again
            self.check_patience("leases are kept")
            self.history.readings = [
                r for r in self.history.readings if not r.last
            ]

    def _wait_gone(self, dead):
        def gone():
            state = self._snapshot()[1]
            return not any(key.rpartition("/")[2] in dead for key in state)

        wait_for(gone, PATIENCE, "records of the dead go", 0.2)

    def _last_look(self, living):
        history = self.history
        history.marker = living[0].write_marker()
        for watcher in self.watchers:
            wait_for(
                lambda: watcher.reached(history.marker), PATIENCE,
                f"{watcher.name} hears of the last write",
            )
        for host in self.hosts:
            wait_for(
                lambda: self.caches.read(host.host)[0] >= history.marker,
                PATIENCE, f"{host.host.name} has the last write", 0.1,
            )
        for host in self.hosts:
            self.caches.read(host.host, last=True)
        self.differences = {
            host.host.name: host.host.routed.ask("validate", timeout=60)["differences"]
            for host in self.hosts
        }
        begin = self.now()
        revision, state = self._snapshot()
        history.readings.append(
            Reading("authd", begin, self.now(), revision, state, True))
        for watcher in self.watchers:
            watcher.watch.followed = True
        history.model = {"config": "*"}
        for host in self.hosts:
            history.model[f"proxy/{host.host.uuid}"] = "*"
            history.model.update(host.model())
        for proxy in living:
            history.model.update(proxy.told)

    # Parts

    def _snapshot(self):
        """(revision, state) as of now; it is part of the history."""
        number = len(self.history.watches)
        return Watcher(self, number, "look", self.observer.stubs).snapshot()

    def _start_watchers(self):
        """The steady ones first: what they hear of, somebody has heard of."""
        for watcher in self.watchers:
            self._thread(watcher.play)
            if watcher.kind == "steady":
                wait_for(lambda: watcher.position, PATIENCE, "a snapshot")
                self.first = self.first or watcher.position

    def _make_watchers(self):
        watchers = []
        for number, kind in enumerate(WATCHERS):
            if number % 2 == 0:  # two of each host
                member = self.join(self.rng(f"watcher {number}"))
                stubs = self.stubs(member, options=SMALL_WINDOW)
            watchers.append(Watcher(self, number, kind, stubs))
        return watchers

    def _measure(self):
        """When this process itself stood still."""
        before = self.now()
        while not self.closing.wait(0.05):
            if self.now() - before > 0.15:
                self.history.stalls.append((before, self.now()))
            before = self.now()

    def _thread(self, function):
        def run():
            try:
                function()
            except BaseException:
                self.failures.append(traceback.format_exc())
                self.over.set()

        thread = threading.Thread(target=run, daemon=True)
        self.threads.append(thread)
        thread.start()
        return thread

    def _check_failures(self):
        assert not self.failures, "\n".join(self.failures)
