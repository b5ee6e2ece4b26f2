# SPDX-License-Identifier: Apache-2.0
"""kill -9 of one of three proxy hosts that holds a third of the agents: how long
these are out of reach. Prints a JSON object.

    bench_loss.py [--build DIR] [--agents N] [--sample N]

route_s: until the cache of a survivor had a way to the agent at a living host,
of all agents that the dead one held, at both survivors. dial_s: until a dial
through a survivor succeeded, of a sample of them. forgotten_s: until nothing of
the dead host was left in a cache."""

import json

from fleet import fleet, options


def spread_of(times):
    from loss import percentile

    return {
        "p50": round(percentile(times, 50), 2),
        "p99": round(percentile(times, 99), 2),
        "max": round(max(times), 2),
    }


def measure(cluster, swarm, sample):
    from loss import lose_a_host

    watch, recovery = lose_a_host(cluster, swarm, sample, 60)
    forgotten = [watch.forgotten(p) for p in cluster.proxies[1:]]
    return {
        "bench": "loss",
        "agents": swarm.count,
        "held": len({uuid for _, uuid in watch.times}),
        "route_s": spread_of(watch.times.values()),
        "dial_s": spread_of(recovery.times.values()),
        "dials": len(recovery.times),
        "forgotten_s": [round(seconds, 2) for seconds, _ in forgotten],
        "one_step": all(len(counts) == 2 for _, counts in forgotten),
    }


def main():
    args = options(__doc__, agents=3000, sample=50)
    with fleet(args.agents, proxies=3) as (cluster, swarm):
        print(json.dumps(measure(cluster, swarm, args.sample)), flush=True)


if __name__ == "__main__":
    main()
