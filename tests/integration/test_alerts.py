# SPDX-License-Identifier: Apache-2.0
"""The alerts that are shipped, in a real Prometheus over a real fleet: a
rolling restart of the proxies fires none, and a stopped peer fires two that
name it, within two minutes."""

import os
import re
import signal
import time
from pathlib import Path

import pytest

import services
from hosts import SLOW, SOURCE
from process import wait_for

INTERVAL = 10
FIRES_WITHIN = 120 * max(1, SLOW / 2)


@pytest.fixture(scope="module")
def fleet(module_cluster, echo):
    cluster = module_cluster(
        proxies=3, agents=["db-1"], services=echo.services()
    )
    cluster.start()
    targets = [daemon.diag for daemon in cluster.daemons()]
    prometheus = services.Prometheus(targets, INTERVAL)
    cluster.add_service(prometheus)
    wait_for(
        lambda: len(prometheus.query("up == 1")) == len(targets),
        60 * SLOW,
        "every daemon is scraped",
    )
    return cluster, prometheus


def settle(cluster, prometheus):
    """Until nothing can fire any more of what has been seen so far."""
    cluster.wait_peers()

    def quiet():
        # that of pings looks at five minutes; promtool's tests are its own
        names = {a["labels"]["alertname"] for a in prometheus.alerts("pending")}
        return not names - {"PeerwayPeerPingsFailing"}

    wait_for(quiet, 120 * SLOW, "no alert is pending")


def fired(prometheus):
    """Names of all alerts that ever fired."""
    seen = prometheus.query('count_over_time(ALERTS{alertstate="firing"}[1h])')
    return {labels["alertname"] for labels, _ in seen}


def test_a_rolling_restart_fires_nothing(fleet):
    cluster, prometheus = fleet
    for proxy in cluster.proxies:
        proxy.stop()
        down = f'up{{instance="{proxy.peerd.diag}"}} == 0'
        # away for long enough to be noticed
        wait_for(lambda: prometheus.query(down), 60 * SLOW, "it is missed")
        proxy.start().wait_ready()
        cluster.wait_peers()
        cluster.wait_agents()
    settle(cluster, prometheus)
    seen = prometheus.query('count_over_time(ALERTS{alertstate="pending"}[1h])')
    assert "PeerwayDown" in {labels["alertname"] for labels, _ in seen}
    assert fired(prometheus) == set()


def test_a_stopped_peer_is_reported_within_two_minutes(fleet):
    cluster, prometheus = fleet
    settle(cluster, prometheus)
    before = fired(prometheus)
    stopped = cluster.proxies[2]
    os.kill(stopped.peerd.pid, signal.SIGSTOP)
    start = time.monotonic()
    try:
        def both():
            alerts = {a["labels"]["alertname"]: a for a in prometheus.alerts()}
            wanted = {"PeerwayPeerUnreachable", "PeerwayDown"}
            return wanted <= set(alerts) and alerts

        alerts = wait_for(both, FIRES_WITHIN, "the alerts fire", interval=1)
        print(f"both fired after {time.monotonic() - start:.0f} s")
        peer = alerts["PeerwayPeerUnreachable"]
        assert peer["labels"]["peer_id"] == stopped.uuid
        assert peer["annotations"]["summary"].endswith("by 2 other proxies")
        assert stopped.uuid in peer["annotations"]["description"]
        assert alerts["PeerwayDown"]["labels"]["instance"] == stopped.peerd.diag
        assert fired(prometheus) - before == {
            "PeerwayPeerUnreachable",
            "PeerwayDown",
        }
    finally:
        os.kill(stopped.peerd.pid, signal.SIGCONT)
    # and it is over once the peer is back
    wait_for(lambda: not prometheus.alerts(), 60 * SLOW, "the alerts end")
    cluster.wait_peers()


def test_every_alert_says_what_to_do_and_has_a_test():
    rules = services.Prometheus.RULES.read_text()
    tests = Path(SOURCE / "tests/prometheus/alerts.test.yml").read_text()
    names = re.findall(r"- alert: (\w+)", rules)
    assert len(names) > 10
    assert rules.count("summary:") == rules.count("description:") == len(names)
    for name in names:
        assert f'alertname="{name}"' in tests
    services.run("promtool", "check", "rules", services.Prometheus.RULES)
    services.run(
        "promtool", "test", "rules", SOURCE / "tests/prometheus/alerts.test.yml"
    )
