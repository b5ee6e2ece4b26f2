# SPDX-License-Identifier: Apache-2.0
"""What authd's store writes while nothing happens, with 3 proxy hosts and more
and more agents, whose proxies are played. Prints a JSON object for each.

    bench_rest.py [--build DIR] [--storage SECTION] [--hosts N] [--seconds N]

revisions and writes (transactions) of the store; bytes that authd has had
written to files, and CPU seconds it used, within so many seconds."""

import json

from fleet import options, routeds

AGENTS = (10, 1000, 20000)


def measure(args, agents):
    from rest import at_rest, wait_quiet
    from workers import Workers

    tunnels = -(-agents // args.hosts)
    with routeds(args.hosts, args.storage) as cluster:
        with Workers(cluster.proxies, tunnels) as workers:
            workers.wait_published(120)
            wait_quiet(cluster)
            return {
                "bench": "rest",
                "storage": args.storage["type"],
                "hosts": args.hosts,
                "agents": tunnels * args.hosts,
                "seconds": args.seconds,
                **at_rest(cluster, args.seconds),
            }


def main():
    args = options(__doc__, storage=True, hosts=3, seconds=120)
    for agents in AGENTS:
        print(json.dumps(measure(args, agents)), flush=True)


if __name__ == "__main__":
    main()
