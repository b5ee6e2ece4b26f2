# SPDX-License-Identifier: Apache-2.0
"""100,000 tunnel records over 20 proxy hosts: one authd and 20 routeds, whose
workers are played. Prints a JSON object for each thing measured.

    bench_records.py [--build DIR] [--storage SECTION] [--hosts N] [--tunnels N]
                     [--rate N] [--seconds N] [--away N]

load: until all records were in all caches. snapshot, snapshot_busy: a routed
with an empty cache, from its start until it had all; busy: while changes flow.
change: milliseconds from a worker's report until the record was seen in a cache
(each_ms) and in the last of all (all_ms), of one change in five. lookup: of one
cache, in a loop while changes flow, by the clock and in CPU time. resync: a routed
that was away for so many seconds of changes. Memory is in MiB. Everything shares
the machine."""

import json
import os
import shutil
import subprocess
import time
from pathlib import Path

from fleet import options, routeds

TICKS = os.sysconf("SC_CLK_TCK")


def cpu_s(pid):
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def memory(pid):
    """MiB."""
    found = {}
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        name, _, value = line.partition(":")
        if name in ("VmRSS", "RssAnon", "VmHWM"):
            found[name] = round(int(value.split()[0]) / 1024, 1)
    return found


def worst_memory(hosts):
    found = [memory(host.routed.pid) for host in hosts]
    return {name: max(m[name] for m in found) for name in found[0]}


class Cpu:
    """Seconds used between begin and end."""

    def __init__(self, cluster, workers):
        self.pids = {"authd": cluster.auth.authd.pid, "workers": workers.pid}
        for host in workers.hosts:
            self.pids[host.name] = host.routed.pid
        self.began = {name: cpu_s(pid) for name, pid in self.pids.items()}

    def end(self):
        used = {
            name: cpu_s(pid) - self.began[name]
            for name, pid in self.pids.items()
        }
        authd, workers = used.pop("authd"), used.pop("workers")
        return {
            "authd": round(authd, 2),
            "routed_mean": round(sum(used.values()) / len(used), 2),
            "routed_max": round(max(used.values()), 2),
            "workers": round(workers, 2),
        }


class Observer:
    """A host without tunnels, which comes and goes."""

    def __init__(self, host):
        self.host = host
        self.authd = host.cluster.auth.authd

    def sent(self):
        metrics = self.authd.metrics()
        prefix = "peerway_authd_records_sent_total"
        return {
            "snapshots": int(metrics["peerway_authd_snapshots_total"]),
            "as_snapshot": int(metrics[prefix + '{as="snapshot"}']),
            "as_changes": int(metrics[prefix + '{as="change"}']),
        }

    def start(self, reached):
        """Seconds until reached(); what authd has sent meanwhile."""
        from process import wait_for

        before = self.sent()
        began = time.monotonic()
        self.host.routed.start()
        wait_for(reached, 120, "the observer has all records")
        took = time.monotonic() - began
        after = self.sent()
        sent = {name: after[name] - before[name] for name in after}
        return {"s": round(took, 2), **sent}

    def snapshot(self):
        self.host.routed.stop()
        shutil.rmtree(self.host.data_dir / "cache")
        found = self.start(self.host.routed.is_ready)
        return {
            **found,
            "cpu_s": round(cpu_s(self.host.routed.pid), 2),
            **memory(self.host.routed.pid),
        }

    def resync(self, away):
        from workers import is_mirrored, revision

        store = self.authd
        self.host.routed.kill()
        before = revision(self.host.cluster)
        away()
        missed = revision(self.host.cluster) - before
        assert store.running()
        found = self.start(lambda: is_mirrored([self.host]))
        return {"revisions_missed": int(missed), **found}


def flowing(workers, rate, seconds):
    workers.flow(rate)
    time.sleep(seconds)  # what is measured is what happens in this time
    return workers.result(60)


def lookups(host, agents, seconds):
    import hosts

    path = next((host.data_dir / "cache").glob("cache-*.db"))
    result = subprocess.run(
        [hosts.BUILD / "tests/tools/lookups", path, str(agents), str(seconds)],
        check=True, capture_output=True, text=True,
    )
    return json.loads(result.stdout)


def measure(cluster, workers, args):
    """(what, figures), one after the other."""
    authd = cluster.auth.authd
    observer = Observer(cluster.proxies[-1])

    def memories():
        return {"authd": memory(authd.pid), "routed": worst_memory(workers.hosts)}

    began = time.monotonic()
    workers.wait_published(300)
    yield "load", {"s": round(time.monotonic() - began, 1), **memories()}
    yield "snapshot", observer.snapshot()
    cpu = Cpu(cluster, workers)
    found = flowing(workers, args.rate, args.seconds)
    yield "change", {**found, "cpu_s": cpu.end()}
    workers.flow(args.rate)
    yield "lookup", lookups(
        workers.hosts[0], args.hosts * args.tunnels, args.seconds // 2
    )
    yield "snapshot_busy", observer.snapshot()
    workers.result(60)
    yield "resync", observer.resync(
        lambda: flowing(workers, args.rate, args.away)
    )
    yield "memory", memories()


def main():
    args = options(
        __doc__, storage=True, hosts=20, tunnels=5000, rate=200, seconds=30,
        away=60,
    )
    head = {
        "bench": "records",
        "storage": args.storage["type"],
        "cores": os.cpu_count(),
        "hosts": args.hosts,
        "records": args.hosts * args.tunnels,
        "rate": args.rate,
    }
    with routeds(args.hosts + 1, args.storage) as cluster:
        from workers import Workers

        with Workers(cluster.proxies[:-1], args.tunnels, watch=5) as workers:
            for what, found in measure(cluster, workers, args):
                print(json.dumps({**head, "what": what, **found}), flush=True)


if __name__ == "__main__":
    main()
