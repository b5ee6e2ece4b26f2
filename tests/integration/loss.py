# SPDX-License-Identifier: Apache-2.0
"""How long agents are out of reach when a proxy host is lost.

RouteWatch reads the caches of the survivors all the while: when each of them
has a way to each agent at a living host, and what it has of the dead one.
Recovery dials: some agents, through every survivor, until each has answered."""

import sqlite3
import threading
import time

import connect
from process import wait_for

LOOK_S = 0.03


def percentile(times, percent):
    times = sorted(times)
    return times[min(len(times) - 1, int(len(times) * percent / 100))]


class RouteWatch:
    """begin() before the kill; .times: (proxy, agent's uuid) -> seconds from
    killed() until the cache had a way."""

    def __init__(self, survivors, dead_id, uuids):
        self._survivors = survivors
        self._dead = dead_id
        self._uuids = set(uuids)
        self._killed = None
        self.times = {}
        self.dead_counts = {proxy: [] for proxy in survivors}
        self._stopping = threading.Event()
        self._threads = [
            threading.Thread(target=self._run, args=(p,), daemon=True)
            for p in survivors
        ]

    def begin(self):
        for thread in self._threads:
            thread.start()
        return self

    def killed(self):
        self._killed = time.monotonic()

    def _run(self, proxy):
        path = max((proxy.data_dir / "cache").glob("cache-*.db"))
        db = sqlite3.connect(path)
        db.execute("PRAGMA query_only=1")
        missing = set(self._uuids)
        while not self._stopping.wait(LOOK_S):
            db.execute("BEGIN")  # one state of the cache
            dead = db.execute(
                "SELECT COUNT(*) FROM tunnel WHERE proxy_id = ?",
                (self._dead,),
            ).fetchone()[0]
            known = {
                row[0] for row in db.execute(
                    "SELECT agent_id FROM tunnel WHERE proxy_id != ?",
                    (self._dead,),
                )
            }
            db.execute("COMMIT")
            now = time.monotonic()
            counts = self.dead_counts[proxy]
            if not counts or counts[-1][1] != dead:
                counts.append((now, dead))
            if self._killed is None:
                continue
            for uuid in missing & known:
                self.times[proxy, uuid] = now - self._killed
            missing -= known
        db.close()

    def is_complete(self):
        return len(self.times) == len(self._uuids) * len(self._survivors)

    def stop(self):
        self._stopping.set()
        for thread in self._threads:
            thread.join()

    def forgotten(self, proxy):
        """Seconds from the kill until nothing of the dead host was left, and
        the numbers of its records that were seen on the way."""
        counts = self.dead_counts[proxy]
        return counts[-1][0] - self._killed, [n for _, n in counts]


class Recovery:
    """begin() at the kill; .times: (proxy, agent) -> seconds until a dial
    succeeded."""

    def __init__(self, proxies, names, threads=6):
        self.times = {}
        self.failed = 0
        self._todo = [(p, name) for name in names for p in proxies]
        self._lock = threading.Lock()
        self._threads = [
            threading.Thread(target=self._run, daemon=True)
            for _ in range(threads)
        ]
        self._began = None
        proxies[0].cluster.identity()

    def begin(self):
        self._began = time.monotonic()
        for thread in self._threads:
            thread.start()

    def _run(self):
        while True:
            with self._lock:
                if not self._todo:
                    return
                pair = self._todo.pop(0)
            try:
                with pair[0].dial(f"echo.{pair[1]}"):
                    self.times[pair] = time.monotonic() - self._began
            except (OSError, connect.Refused):
                with self._lock:
                    self.failed += 1
                    self._todo.append(pair)
                time.sleep(0.02)

    def wait(self, timeout):
        deadline = time.monotonic() + timeout
        for thread in self._threads:
            thread.join(max(0, deadline - time.monotonic()))
        left = [f"{p.name} {name}" for p, name in self._todo]
        assert not any(t.is_alive() for t in self._threads), (
            f"out of reach after {timeout} s: {len(left)} {left[:5]}"
        )


def lose_a_host(cluster, swarm, sample, timeout):
    """kill -9 of the first proxy host. Gives the RouteWatch and Recovery of
    the agents that it held; sample: how many of them are dialed."""
    lost, *survivors = cluster.proxies
    held = set(lost.tunnel_names())
    names = [name for name in swarm.names if name in held]
    uuids = [u for u, name in zip(swarm.uuids, swarm.names) if name in held]
    step = max(1, len(names) // sample)
    recovery = Recovery(survivors, names[::step])
    watch = RouteWatch(survivors, lost.uuid, uuids).begin()
    wait_for(
        lambda: all(watch.dead_counts.values()), 10, "the state before is seen"
    )
    lost.kill()
    watch.killed()
    recovery.begin()
    recovery.wait(timeout)
    wait_for(
        lambda: watch.is_complete()
        and all(c[-1][1] == 0 for c in watch.dead_counts.values()),
        timeout,
        "every cache has a way to every agent, and nothing of the dead host",
    )
    watch.stop()
    return watch, recovery
