# SPDX-License-Identifier: Apache-2.0
"""The alerts that are shipped, in a real Prometheus over a real fleet: a
rolling restart of the proxies fires none, and peers that are stopped fire those
that name them, within two minutes."""

import os
import re
import signal
import time
from pathlib import Path

import pytest

import services
from hosts import SLOW, SOURCE
from process import wait_for

INTERVAL = 5  # seconds
FIRES_WITHIN = 120 * max(1, SLOW / 2)


@pytest.fixture(scope="module")
def fleet(module_cluster, echo):
    cluster = module_cluster(
        proxies=4, agents=["db-1"], services=echo.services()
    )
    # ended by the test, which keeps a session there for as long as it wants
    cluster.proxies[1].write_config({"proxy_service": {"drain_timeout": "10m"}})
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


def drain(proxy, prometheus):
    """SIGTERM to all daemons while a session goes on, for longer than the most
    urgent alerts wait."""
    state = f'peerway_peerd_peer_state{{peer_id="{proxy.uuid}",state="draining"}}'
    seen = f"min(count_over_time({state}[10m])) * {INTERVAL} >= 70"
    with proxy.dial("echo.db-1") as session:
        for daemon in proxy.daemons:
            daemon.expected_end = True
            daemon.send_signal(signal.SIGTERM)
        wait_for(lambda: prometheus.query(seen), 120 * SLOW, "draining is seen")
        session.sendall(b"still here")
        assert session.recv_exactly(10) == b"still here"
    for daemon in proxy.daemons:
        wait_for(lambda: not daemon.running(), 20 * SLOW, f"{daemon} ends")
        assert daemon.popen.returncode == 0


def test_a_rolling_restart_fires_nothing(fleet):
    cluster, prometheus = fleet
    for proxy in cluster.proxies:
        if proxy is cluster.proxies[1]:
            drain(proxy, prometheus)
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


def test_stopped_peers_are_reported_within_two_minutes(fleet):
    cluster, prometheus = fleet
    settle(cluster, prometheus)
    before = fired(prometheus)
    _, silent, stopped, _ = cluster.proxies
    # One peerd, and one host as a whole: its record goes with its lease within
    # seconds, no peer is left to be unreachable, and Prometheus alone misses it.
    daemons = [stopped.peerd, silent.peerd, silent.routed]
    for daemon in daemons:
        os.kill(daemon.pid, signal.SIGSTOP)
    start = time.monotonic()
    try:
        missed = {daemon.diag for daemon in daemons}

        def all_told():
            found = {}
            for alert in prometheus.alerts():
                name = alert["labels"]["alertname"]
                found.setdefault(name, []).append(alert)
            down = found.get("PeerwayDown", [])
            return (
                {alert["labels"]["instance"] for alert in down} == missed
                and found.get("PeerwayPeerUnreachable")
            )

        alerts = wait_for(all_told, FIRES_WITHIN, "the alerts fire", interval=1)
        print(f"all fired after {time.monotonic() - start:.0f} s")
        assert [alert["labels"]["peer_id"] for alert in alerts] == [stopped.uuid]
        told = alerts[0]["annotations"]
        assert told["summary"].endswith("cannot be reached by 2 other proxies")
        assert stopped.uuid in told["description"]
        assert fired(prometheus) - before == {
            "PeerwayPeerUnreachable",
            "PeerwayDown",
        }
    finally:
        for daemon in daemons:
            os.kill(daemon.pid, signal.SIGCONT)
    # and it is over once they are back
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
