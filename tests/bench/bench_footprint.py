# SPDX-License-Identifier: Apache-2.0
"""What each daemon needs: memory (RssAnon, VmRSS, MiB) and CPU (milliseconds a
second, 1000 is one core) in a fleet of two proxies, where the requests of
deploy/kubernetes come from. Prints a JSON object for each of: nothing to do, so
many tunnels on each proxy at rest, and so many dials a second besides.

    bench_footprint.py [--build DIR] [--agents N] [--rate N] [--seconds N]

agents: of the whole fleet. The agent is a real one, the others are a swarm."""

import json
import time

from bench_records import cpu_s, memory
from fleet import options


def daemons(cluster):
    """One of each kind, with all its processes."""
    found = (cluster.auth.authd, *cluster.proxies[0].daemons,
             cluster.agents[0].agent)
    return {daemon.name.rpartition(".")[2]: daemon.pids() for daemon in found}


def measure(cluster, seconds):
    pids = daemons(cluster)
    before = {name: sum(map(cpu_s, pids[name])) for name in pids}
    time.sleep(seconds)
    result = {}
    for name in pids:
        used = sum(map(cpu_s, pids[name])) - before[name]
        sizes = [memory(pid) for pid in pids[name]]
        result[name] = {
            "cpu_ms": round(1000 * used / seconds, 1),
            **{
                key: round(sum(size[key] for size in sizes), 1)
                for key in ("RssAnon", "VmRSS")
            },
        }
    return result


def main():
    args = options(__doc__, agents=2000, rate=50, seconds=30)
    import services
    from process import wait_for
    from suite import Cluster
    from swarm import Swarm, known
    from traffic import Dialer

    def show(what):
        line = {"bench": "footprint", "what": what,
                **measure(cluster, args.seconds)}
        print(json.dumps(line), flush=True)

    echo = services.Pump()
    with Cluster(proxies=2, agents=["a"], services=echo.services()) as cluster:
        cluster.start()
        show("idle")
        with Swarm(
            cluster, f"127.0.0.1:{echo.echo_port}", args.agents,
            proxies=[p.listen_addr for p in cluster.proxies],
        ) as swarm:
            swarm.wait_ready(120)
            wait_for(
                lambda: all(known(p, swarm) == args.agents
                            for p in cluster.proxies),
                60, "all routes are known",
            )
            show(f"{args.agents} agents")
            targets = [f"echo.{name}" for name in swarm.names[:100]]
            dialer = Dialer(cluster.proxies, targets, args.rate)
            show(f"{args.agents} agents, {args.rate} dials a second")
            dialer.check()
    echo.close()


if __name__ == "__main__":
    main()
