# SPDX-License-Identifier: Apache-2.0
"""A proxy host, authd and an agent under Debian's supervisord, by the files that
are shipped: whoever is killed comes back, a restart costs no dial elsewhere, and
the group stops in order: what is open goes on until it ends by itself."""

import pwd
import re
import subprocess

import pytest

from hosts import START_TIMEOUT
from process import wait_for
from supervisord import Supervisord
from traffic import Beat, Dialer, echo_once

ACCOUNT = pwd.getpwnam("nobody")
USERS = dict.fromkeys(
    "authd routed peerd proxy agent".split(), (ACCOUNT.pw_uid, ACCOUNT.pw_gid)
)
GROUP = "peerway-proxy-host:*"


@pytest.fixture(scope="module")
def fleet(module_cluster, echo):
    """The first of two proxy hosts, authd and the agent under supervisord."""
    cluster = module_cluster(
        proxies=2, agents=["db-1"], services=echo.services(), users=USERS
    )
    cluster.proxies[0].config["proxy_service"]["drain_timeout"] = "60s"
    cluster.supervisord = cluster.add_service(
        Supervisord(cluster, ACCOUNT.pw_name)
    )
    for host in (cluster.auth, cluster.proxies[0], cluster.agents[0]):
        cluster.supervisord.adopt(host)
    yield cluster.start()
    cluster.supervisord.close()


def check_dials(cluster):
    """Through both hosts, to wherever the agent has its tunnel."""
    for proxy in cluster.proxies:
        with proxy.dial("echo.db-1") as connection:
            holds = proxy is cluster.holder("db-1")
            assert connection.route == ("local" if holds else "peer")
            echo_once(connection)


def test_who_is_killed_is_started_again(fleet):
    check_dials(fleet)
    for daemon in (
        fleet.auth.authd,
        *fleet.proxies[0].daemons,
        fleet.agents[0].agent,
    ):
        daemon.kill()
        daemon.wait_ready()
        fleet.wait_peers()
        fleet.wait_agents(holders=1)
        check_dials(fleet)


def test_no_dial_through_another_host_fails_in_a_restart(fleet):
    host, other = fleet.proxies
    before = [daemon.pid for daemon in host.daemons]
    dialer = Dialer([other], ["echo.db-1"], 20)
    dialer.wait_more(20)
    fleet.supervisord.ctl("restart", GROUP)
    host.wait_ready()
    fleet.wait_peers()
    dialer.wait_more(20)
    dialer.check()
    assert not set(before) & {daemon.pid for daemon in host.daemons}


def test_the_group_reads_its_file_again(fleet):
    daemons = fleet.proxies[0].daemons
    marks = [daemon.log_mark() for daemon in daemons]
    fleet.supervisord.ctl("signal", "HUP", GROUP)
    for daemon, mark in zip(daemons, marks):
        daemon.wait_log("configuration read again", mark=mark)


def test_the_group_stops_when_its_last_session_has_ended(fleet):
    host, other = fleet.proxies
    daemons = {daemon: daemon.pid for daemon in host.daemons}
    marks = {daemon: daemon.log_mark() for daemon in host.daemons}
    beat = Beat("session", host.dial("echo.db-1"))
    beat.check_alive()
    stop = subprocess.Popen(
        fleet.supervisord.argv("stop", GROUP),
        stdout=subprocess.PIPE,
        text=True,
    )
    for daemon in daemons:  # all were told at once
        daemon.wait_log(
            "stopping when|draining: until|stopping: signal=15",
            mark=marks[daemon],
        )
    wait_for(
        lambda: other.agents()["db-1"] == {other.uuid},
        START_TIMEOUT,
        "the agent has its tunnel at the other host",
    )
    with other.dial("echo.db-1") as connection:
        assert connection.route == "local"
        echo_once(connection)
    beat.check_alive()
    assert stop.poll() is None
    for daemon, pid in daemons.items():
        assert daemon.info()["statename"] == "STOPPING"
        assert daemon.pid == pid and daemon.pids()

    beat.stop()
    out, _ = stop.communicate(timeout=START_TIMEOUT)
    assert stop.returncode == 0, out
    ended = re.findall(r"stopped: (\w+) \((.*)\)", fleet.supervisord.log())
    assert sorted(ended[-3:]) == [
        (name, "exit status 0") for name in ("peerd", "proxy", "routed")
    ]
    # Two of them outlived the workers, and nothing was cut.
    for daemon, line in (
        (host.peerd, "stopping: streams=0 workers=0"),
        (host.routed, "stopping: workers=0"),
        (host.proxy, "drained: .*sessions=0"),
    ):
        assert daemon.log_matches(line, marks[daemon])
    wait_for(
        lambda: host.uuid not in other.ready_peers(),
        START_TIMEOUT,
        "the host's record is gone",
    )
