# SPDX-License-Identifier: Apache-2.0
"""2,000 agents on two proxies, and two more are added: seconds until all four
are within 10 % of even, with dials of agents through all of them meanwhile.
Prints a JSON object.

    bench_rebalance.py [--build DIR] [--agents N] [--rate N]"""

import json
import time

from fleet import fleet, options


def measure(cluster, swarm, keys):
    from process import wait_for
    from swarm import spread
    from traffic import Dialer

    targets = [f"echo.{name}" for name in swarm.names[::20]]
    dialer = Dialer(cluster.proxies, targets, 50)
    for _ in range(2):
        proxy = cluster.add_proxy()
        proxy.config["proxy_service"].update(keys)
        proxy.join()
        proxy.start()
    began = time.monotonic()
    even = swarm.count / 4

    def is_even():
        return all(abs(n - even) <= even / 10 for n in spread(cluster.proxies))

    wait_for(is_even, 300, "tunnels are even", interval=0.2)
    took = time.monotonic() - began
    tunnels = spread(cluster.proxies)
    dialer.stop()
    return {
        "bench": "rebalance",
        "agents": swarm.count,
        "rate": keys["rebalance"]["rate"],
        "even_s": round(took, 1),
        "tunnels": tunnels,
        "dials": dialer.done,
        "dials_failed": len(dialer.failures),
    }


def main():
    args = options(__doc__, agents=2000, rate=10)
    keys = {"rebalance": {"threshold": 10, "rate": args.rate}}
    with fleet(args.agents, proxies=2, keys=keys) as (cluster, swarm):
        print(json.dumps(measure(cluster, swarm, keys)), flush=True)


if __name__ == "__main__":
    main()
