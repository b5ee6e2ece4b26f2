# SPDX-License-Identifier: Apache-2.0
"""What the hop between two peers costs: two real peerds on loopback, routed and
the workers played by tests/integration/mesh.py. Prints a JSON object a line.

    bench_peer.py [--build DIR] [--label TEXT] [--set KEY=VALUE] MODE ...

    bulk STREAMS MEGABYTES up|down|both
    echo STREAMS ROUNDS SIZE
    stalled STREAMS client|service
    rtt MS MEGABYTES
    idle STREAMS

bench_streams makes the load on descriptors that it inherits; CPU seconds are
those of the two peerds alone, A where the client is and B where the service is.
"""

import argparse
import json
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
TICK = os.sysconf("SC_CLK_TCK")
LOAD_TIMEOUT = 180


def cpu_seconds(pid):
    """User and system time of all threads."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICK


def memory_mib(pid):
    """(VmRSS, RssAnon)"""
    values = {}
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        name, _, rest = line.partition(":")
        if name in ("VmRSS", "RssAnon"):
            values[name] = int(rest.split()[0]) / 1024
    return values["VmRSS"], values["RssAnon"]


class Mesh:
    """Two hosts, a tunnel of one agent at B, and streams between them."""

    AGENT = "11111111-1111-4111-8111-111111111111"

    def __init__(self, build, keys, delay_ms=0):
        self.closing = []
        self.tools = build / "tests" / "bench"
        self.dir = tempfile.mkdtemp(prefix="bench-peer-")
        self.arrived = threading.Condition()
        self.services = []
        try:
            self._start(keys, delay_ms)
        except BaseException:
            self.close()
            raise

    def _start(self, keys, delay_ms):
        import mesh
        from hosts import Network

        network = Network()
        self.closing.append(network.close)
        pki = mesh.Pki(self.dir + "/pki")
        self.hosts = []
        for number in (1, 2):
            host = mesh.Host(self.dir, network, pki, number, True, **keys)
            self.hosts.append(host)
            self.closing.append(host.close)
            host.start()
        left, right = self.hosts
        self.pids = [host.peerd.popen.pid for host in self.hosts]
        addr = right.peer_addr
        if delay_ms:
            addr = f"{network.address(9)}:{Network.free_port(network.address(9))}"
            self._relay(addr, right.peer_addr, delay_ms)
        left.know((right.id, addr))
        self.client = left.worker()
        self.service = right.worker(serve=self._serve)
        self.closing += [self.client.close, self.service.close]
        left.wait_peer(right.id)
        self.service.tunnel_up(self.AGENT)
        right.wait_tunnel(self.AGENT)
        left.cache.put_tunnel(self.AGENT, right.id)

    def _relay(self, listen, target, delay_ms):
        relay = subprocess.Popen(
            [self.tools / "bench_delay", listen, target, str(delay_ms)]
        )
        self.closing.append(lambda: (relay.kill(), relay.wait()))

    def _serve(self, dial, fd):
        with self.arrived:
            self.services.append(socket.socket(fileno=fd))
            self.arrived.notify_all()

    def dial(self):
        """(the client's end, the service's end)"""
        answer, client = self.client.connect(self.AGENT)
        if not getattr(answer, "route", None):
            raise SystemExit(f"bench_peer: the dial failed: {answer}")
        with self.arrived:
            if not self.arrived.wait_for(lambda: self.services, 10):
                raise SystemExit("bench_peer: the service saw no connection")
            return client, self.services.pop()

    def open(self, count):
        return [self.dial() for _ in range(count)]

    def load(self, pairs, *argv):
        """Runs bench_streams; its figures and the peerds' CPU seconds."""
        fds = [(a.fileno(), b.fileno()) for a, b in pairs]
        before = [cpu_seconds(pid) for pid in self.pids]
        done = subprocess.run(
            [self.tools / "bench_streams", *map(str, argv)],
            input="".join(f"{a} {b}\n" for a, b in fds),
            pass_fds={fd for pair in fds for fd in pair},
            stdout=subprocess.PIPE,
            text=True,
            timeout=LOAD_TIMEOUT,
            check=True,
        )
        after = [cpu_seconds(pid) for pid in self.pids]
        cpu = [b - a for a, b in zip(before, after)]
        return json.loads(done.stdout), cpu

    def memory(self):
        names = ("a_rss_mib", "a_rss_anon_mib", "b_rss_mib", "b_rss_anon_mib")
        values = [v for pid in self.pids for v in memory_mib(pid)]
        return {name: round(v, 1) for name, v in zip(names, values)}

    def close(self):
        while self.closing:
            self.closing.pop()()
        shutil.rmtree(self.dir, ignore_errors=True)


def directed(pairs, way):
    """Pairs in the order in which bytes go: up is from client to service."""
    turned = [(b, a) for a, b in pairs]
    return {"up": pairs, "down": turned, "both": pairs + turned}[way]


def bulk(mesh, streams, megabytes, way):
    pairs = directed(mesh.open(streams), way)
    share = megabytes * 1000000 // len(pairs)
    result, cpu = mesh.load(pairs, "bulk", share)
    gigabytes = share * len(pairs) / 1e9
    return {
        "streams": streams,
        "way": way,
        "mb_per_s": result["mb_per_s"],
        "a_cpu_s_per_gb": round(cpu[0] / gigabytes, 2),
        "b_cpu_s_per_gb": round(cpu[1] / gigabytes, 2),
    }


def echo(mesh, streams, rounds, size):
    result, cpu = mesh.load(mesh.open(streams), "echo", rounds, size)
    trips = streams * rounds
    return {
        "streams": streams,
        "size": size,
        **result,
        "a_cpu_us_per_trip": round(cpu[0] / trips * 1e6, 1),
        "b_cpu_us_per_trip": round(cpu[1] / trips * 1e6, 1),
    }


def rtt(mesh, ms, megabytes):
    """The second transfer has the windows and the credit that the first won."""
    pairs = mesh.open(1)
    first, _ = mesh.load(pairs, "bulk", megabytes * 1000000)
    second, _ = mesh.load(pairs, "bulk", megabytes * 1000000)
    return {
        "rtt_ms": ms,
        "first_mb_per_s": first["mb_per_s"],
        "then_mb_per_s": second["mb_per_s"],
        **{k: v for k, v in first.items() if k.startswith("s_to_")},
    }


def flood(senders):
    """Writes until nothing has gone in for a second; bytes that went in, and
    how many streams were ended meanwhile."""
    chunk = bytes(1 << 20)
    ended = set()
    total = 0
    for sender in senders:
        sender.setblocking(False)
    quiet_since = time.monotonic()
    limit = quiet_since + 120
    while time.monotonic() - quiet_since < 1 and time.monotonic() < limit:
        for sender in set(senders) - ended:
            try:
                total += sender.send(chunk)
                quiet_since = time.monotonic()
            except BlockingIOError:
                pass
            except (BrokenPipeError, ConnectionResetError):
                ended.add(sender)
        time.sleep(0.02)
    return total, len(ended)


def alive(mesh, live):
    lone, _ = mesh.load(live, "echo", 3000, 1)
    result = {name: lone[name] for name in ("p50_ms", "p99_ms")}
    for way in ("up", "down"):
        fast, _ = mesh.load(directed(live, way), "bulk", 1000000000)
        result[f"{way}_mb_per_s"] = fast["mb_per_s"]
    return result


def stalled(mesh, streams, who):
    """who does not read while the other side sends what goes in."""
    live = mesh.open(1)
    for way in ("up", "down"):  # trains the estimate of bandwidth
        mesh.load(directed(live, way), "bulk", 2000000000)
    result = {"streams": streams, "who": who, "before": mesh.memory()}
    result["without"] = alive(mesh, live)
    pairs = mesh.open(streams)
    went_in, result["ended"] = flood([pair[1 if who == "client" else 0] for pair in pairs])
    result["mib_accepted"] = round(went_in / (1 << 20))
    result["after"] = mesh.memory()
    result["with"] = alive(mesh, live)
    result["end"] = mesh.memory()
    for name in result["with"]:
        result[f"ratio_{name}"] = round(
            result["with"][name] / result["without"][name], 2
        )
    return result


def idle(mesh, streams):
    mesh.open(10)
    before = mesh.memory()
    pairs = mesh.open(streams)
    after = mesh.memory()
    return {
        "streams": len(pairs),
        **{
            f"{side}_kib_per_stream": round(
                (after[f"{side}_rss_anon_mib"] - before[f"{side}_rss_anon_mib"])
                * 1024 / streams, 1,
            )
            for side in "ab"
        },
    }


MODES = {
    "bulk": (bulk, (int, int, str)),
    "echo": (echo, (int, int, int)),
    "rtt": (rtt, (int, int)),
    "stalled": (stalled, (int, str)),
    "idle": (idle, (int,)),
}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--build", type=Path, default=HERE.parents[1] / "build")
    parser.add_argument("--peerds", type=Path, help="another build's peerds")
    parser.add_argument("--label", default="peer")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE",
        help="of proxy_service, for both peerds, as peer_plain=yes",
    )
    parser.add_argument("mode", choices=MODES)
    parser.add_argument("args", nargs="+")
    options = parser.parse_args()
    run, kinds = MODES[options.mode]
    if len(options.args) != len(kinds):
        parser.error(f"{options.mode} takes {len(kinds)} arguments")
    args = [kind(value) for kind, value in zip(kinds, options.args)]
    build = options.build.resolve()
    os.environ["PEERWAY_BUILD"] = str((options.peerds or build).resolve())
    sys.path.insert(0, str(HERE.parent / "integration"))
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    delay_ms = args[0] // 2 if options.mode == "rtt" else 0
    # ends what it has started on SIGTERM too
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    keys = dict(item.split("=", 1) for item in options.set)
    for key, value in keys.items():
        if value in ("yes", "no"):
            keys[key] = value == "yes"
        elif value.isdigit():
            keys[key] = int(value)
    mesh = Mesh(build, keys, delay_ms)
    try:
        result = run(mesh, *args)
    finally:
        mesh.close()
    print(
        json.dumps(
            {
                "bench": options.mode,
                "kind": options.label,
                "set": options.set,
                **result,
            }
        ),
        flush=True,
    )
    os._exit(0)  # threads of the workers wait for ever


if __name__ == "__main__":
    main()
