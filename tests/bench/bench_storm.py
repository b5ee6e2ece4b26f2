# SPDX-License-Identifier: Apache-2.0
"""A storm: of three proxy hosts two are killed (-9) and started again at once,
and all their agents come back. Prints a JSON object.

    bench_storm.py [--build DIR] [--label TEXT] [--agents N] [--proxies N]
                   [--kill N] [--workers N] [--count N] [--quiet SECONDS]
                   [--set KEY=VALUE]... [--timeline]

A client of the proxy that survives dials one of its agents 50 times a second,
before the storm (quiet) and until all are back (storm): TCP, TLS, CONNECT, 200.
Dials are due by the clock, so a slow one hides none behind it. The swarm runs at
the lowest priority, since it stands for other machines. All are back: each agent
of the swarm has a tunnel again.
"""

import argparse
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
PERIOD = 0.02
DIALERS = 32  # at most so many at once
DIAL_TIMEOUT = 20
PROBE = "probe"
READY_TIMEOUT = 300
BACK_TIMEOUT = 240
PUT_OFF = "peerway_proxy_tunnels_put_off_total"


class Dialer:
    """Dials by the clock until its input ends, then prints what became of it:
    a list of [when due, seconds or null, route or error]."""

    def __init__(self, addr, target, directory):
        import connect
        import suite

        self._connect = connect
        self._addr = addr
        self._head = f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n"
        files = (directory / f for f in ("cert.pem", "key.pem", "host_ca.pem"))
        self._context = connect.client_context(connect.Identity(*files))
        self._name = connect.server_name(suite.CLUSTER_NAME)
        self._lock = threading.Lock()
        self._next = time.monotonic()
        self._stop = threading.Event()
        self._results = []

    def _dial(self, due):
        try:
            with self._connect.TlsStream(
                self._addr, self._context, self._name, DIAL_TIMEOUT
            ) as stream:
                stream.sendall(self._head.encode())
                status, headers = self._connect.read_head(stream)
                seconds = time.monotonic() - due
            if status == 200:
                return due, seconds, headers["peerway-route"]
            return due, None, str(status)
        except Exception as error:  # counted, whatever it is
            return due, None, f"{type(error).__name__}: {error}"

    def _dial_by_the_clock(self):
        while True:
            with self._lock:
                due, self._next = self._next, self._next + PERIOD
            if self._stop.wait(max(0, due - time.monotonic())):
                return
            result = self._dial(due)
            with self._lock:
                self._results.append(result)

    def run(self):
        threads = [
            threading.Thread(target=self._dial_by_the_clock)
            for _ in range(DIALERS)
        ]
        for thread in threads:
            thread.start()
        sys.stdin.read()
        self._stop.set()
        for thread in threads:
            thread.join()
        json.dump(sorted(self._results), sys.stdout)


class Dials:
    """A Dialer in a process of its own."""

    def __init__(self, proxy, target):
        directory = proxy.cluster.identity().cert.parent
        self._popen = subprocess.Popen(
            [sys.executable, __file__, "--dial", proxy.listen_addr, target,
             directory],
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def stop(self, since):
        """The results from then on."""
        results = json.loads(self._popen.communicate()[0])
        return [result for result in results if result[0] >= since]

    def kill(self):
        self._popen.kill()
        self._popen.wait()


def quantile(values, q):
    values = sorted(values)
    return values[min(len(values) - 1, int(q * len(values)))]


def milliseconds(results):
    return [1000 * seconds for _, seconds, _ in results if seconds is not None]


def summary(results):
    good = milliseconds(results)
    failed = [why for _, seconds, why in results if seconds is None]
    return {
        "dials": len(results),
        "failed": len(failed),
        "errors": sorted(set(failed))[:3],
        "p50_ms": round(quantile(good, 0.5), 1),
        "p99_ms": round(quantile(good, 0.99), 1),
        "max_ms": round(max(good), 1),
    }


def timeline(results, start):
    """Second by second, for whoever looks for the cause: dials, p50, max."""
    for second in range(int(results[-1][0] - start) + 1):
        good = milliseconds(r for r in results if int(r[0] - start) == second)
        if good:
            print(second, len(good), round(quantile(good, 0.5), 1),
                  round(max(good), 1), file=sys.stderr)


def put_off(cluster):
    return int(sum(p.proxy.metric(PUT_OFF) for p in cluster.proxies))


def dial_quietly(cluster, seconds):
    """The proxy with the probe's tunnel, and the dials through it; again when
    the agent was moved to another meanwhile."""
    while True:
        survivor = cluster.holder(PROBE)
        start = time.monotonic() + 1  # its program has begun by then
        dials = Dials(survivor, "echo." + PROBE)
        time.sleep(1 + seconds)
        results = dials.stop(start)
        if cluster.holder(PROBE) is survivor:
            return survivor, results


def storm(survivor, victims, swarm):
    """Seconds until all are back, and the dials meanwhile."""
    dials = Dials(survivor, "echo." + PROBE)
    try:
        time.sleep(1)
        start = time.monotonic()
        for victim in victims:
            victim.kill()
        for victim in victims:
            victim.start()
        lost = False
        while True:
            ready = swarm.counts()["ready"]
            seconds = time.monotonic() - start
            lost = lost or ready < swarm.count
            if lost and ready == swarm.count:
                return seconds, start, dials.stop(start)
            if seconds > BACK_TIMEOUT:
                sys.exit(f"{swarm.count - ready} agents are not back")
            time.sleep(0.2)
    finally:
        dials.kill()


def measure(args, cluster, swarm):
    survivor, quiet = dial_quietly(cluster, args.quiet)
    victims = cluster.others(survivor)[: args.kill]
    seconds, start, results = storm(survivor, victims, swarm)
    if args.timeline:
        timeline(results, start)
    quiet, stormy = summary(quiet), summary(results)
    return {
        "mode": "storm",
        "label": args.label,
        "agents": args.agents,
        "proxies": args.proxies,
        "killed": args.kill,
        "keys": args.keys,
        "back_s": round(seconds, 1),
        "put_off": put_off(cluster),
        "quiet": quiet,
        "storm": stormy,
        "p99_ratio": round(stormy["p99_ms"] / quiet["p99_ms"], 2),
    }


def run(args):
    import services
    import suite
    from swarm import Swarm

    pump = services.Pump()
    cluster = suite.Cluster(
        proxies=args.proxies,
        agents=[PROBE],
        workers=args.workers,
        strategy="proxy_peering",
        count=args.count,
        services=pump.services(),
    )
    try:
        for proxy in cluster.proxies:
            proxy.config["proxy_service"].update(args.keys)
        cluster.start()
        with Swarm(
            cluster,
            f"127.0.0.1:{pump.echo_port}",
            args.agents,
            proxies=[proxy.listen_addr for proxy in cluster.proxies],
            nice=19,
        ) as swarm:
            swarm.wait_ready(READY_TIMEOUT)
            print(json.dumps(measure(args, cluster, swarm)))
    finally:
        cluster.close()
        pump.close()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--build", type=Path, default=HERE.parents[1] / "build")
    parser.add_argument("--label", default="")
    parser.add_argument("--agents", type=int, default=5000)
    parser.add_argument("--proxies", type=int, default=3)
    parser.add_argument("--kill", type=int, default=2)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--count", type=int, default=1)
    parser.add_argument("--quiet", type=float, default=20)
    parser.add_argument("--set", action="append", default=[])
    parser.add_argument("--timeline", action="store_true")
    parser.add_argument("--dial", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    os.environ["PEERWAY_BUILD"] = str(args.build.resolve())
    sys.path.insert(0, str(HERE.parent / "integration"))
    if args.dial:
        addr, target, directory = args.dial
        Dialer(addr, target, Path(directory)).run()
        return
    args.keys = dict(item.split("=", 1) for item in args.set)
    run(args)


if __name__ == "__main__":
    main()
