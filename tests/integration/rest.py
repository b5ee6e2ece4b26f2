# SPDX-License-Identifier: Apache-2.0
"""What a cluster writes when nothing happens."""

import os
import time
from pathlib import Path

from hosts import SLOW
from process import wait_for


def readings(cluster):
    """Of authd: its store's revision and writes, bytes it had written to files,
    CPU seconds."""
    authd = cluster.auth.authd
    metrics = authd.metrics()
    io = dict(
        line.split(": ")
        for line in Path(f"/proc/{authd.pid}/io").read_text().splitlines()
    )
    stat = Path(f"/proc/{authd.pid}/stat").read_text().rpartition(")")[2].split()
    return {
        "revisions": int(metrics["peerway_authd_store_revision"]),
        "writes": int(metrics["peerway_authd_store_writes_total"]),
        "bytes": int(io["write_bytes"]),
        "cpu_s": (int(stat[11]) + int(stat[12])) / os.sysconf("SC_CLK_TCK"),
    }


def wait_quiet(cluster, seconds=6, timeout=60):
    """Until the beginning is over: nothing was written for so long."""
    last = {"writes": None, "since": time.monotonic()}

    def is_quiet():
        writes = readings(cluster)["writes"]
        if writes != last["writes"]:
            last.update(writes=writes, since=time.monotonic())
        return time.monotonic() - last["since"] >= seconds

    wait_for(is_quiet, timeout * SLOW, "authd writes nothing", interval=0.2)


def at_rest(cluster, seconds):
    """By how much readings() grow in that time."""
    before = readings(cluster)
    time.sleep(seconds)  # that nothing happens is what is waited for
    after = readings(cluster)
    return {name: round(after[name] - before[name], 2) for name in after}
