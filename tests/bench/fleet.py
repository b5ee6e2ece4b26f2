# SPDX-License-Identifier: Apache-2.0
"""What benchmarks of a whole fleet begin with: their options, and a swarm of
agents on real proxies whose routes are known everywhere."""

import argparse
import contextlib
import json
import os
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent


def _storage(text):
    """A type alone, or the whole section in JSON."""
    return json.loads(text) if text.startswith("{") else {"type": text}


def options(doc, storage=False, **numbers):
    """--build, --storage where wanted, and a number for each name with its
    default. From then on the modules of the integration tests can be imported."""
    parser = argparse.ArgumentParser(description=doc)
    parser.add_argument("--build", default=HERE.parents[1] / "build")
    if storage:
        parser.add_argument(
            "--storage", type=_storage, default="sqlite",
            help="type, or all of auth_service.storage in JSON",
        )
    for name, default in numbers.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    args = parser.parse_args()
    os.environ["PEERWAY_BUILD"] = str(Path(args.build).resolve())
    sys.path.insert(0, str(HERE.parent / "integration"))
    return args


@contextlib.contextmanager
def fleet(agents, proxies, keys=None):
    """(cluster, swarm); keys: of each host's proxy_service."""
    import services
    from process import wait_for
    from suite import Cluster
    from swarm import Swarm, known

    with contextlib.ExitStack() as stack:
        echo = services.Pump()
        stack.callback(echo.close)
        cluster = stack.enter_context(Cluster(proxies=proxies))
        for proxy in cluster.proxies:
            proxy.config["proxy_service"].update(keys or {})
        cluster.start()
        swarm = stack.enter_context(
            Swarm(
                cluster,
                f"127.0.0.1:{echo.echo_port}",
                agents,
                proxies=[p.listen_addr for p in cluster.proxies],
            )
        )
        swarm.wait_ready(120)
        wait_for(
            lambda: all(known(p, swarm) == agents for p in cluster.proxies),
            60,
            "all routes are known",
        )
        yield cluster, swarm


@contextlib.contextmanager
def routeds(hosts, storage):
    """A cluster whose proxy hosts have nothing but a routed, joined and ready."""
    from suite import Cluster

    with Cluster(proxies=hosts) as cluster:
        cluster.auth.config["auth_service"]["storage"] = storage
        cluster.auth.write_config()
        cluster.start_auth()
        cluster.start_routeds()
        yield cluster
