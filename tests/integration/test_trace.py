# SPDX-License-Identifier: Apache-2.0
"""peerctl trace: what a target is, whom a dial asks, each hop's time, and the
agent's answer; by a real dial that leaves nothing behind."""

import json
import os
import re
import signal

import pytest

import services
from process import wait_for
from terminal import Terminal, plain

import suite


@pytest.fixture(scope="module")
def listener():
    listener = services.Listener()
    yield listener
    listener.close()


@pytest.fixture(scope="module")
def fleet(module_cluster, echo, listener):
    offered = echo.services() + [
        {
            "name": "held",
            "type": "app",
            "addr": f"127.0.0.1:{listener.port}",
        },
        {"name": "closed", "type": "app", "addr": f"127.0.0.1:{services.free_port()}"}
    ]
    return module_cluster(
        proxies=3, agents=["node-1"], services=offered, workers=2, count=1
    ).start()


def trace(fleet, host, target):
    result = fleet.peerctl_run("trace", target, "--format", "json", host=host)
    answer = json.loads(result.stdout)
    assert result.returncode == (0 if answer["ok"] else 1), result.stderr
    return answer


def wait_no_streams(fleet):
    wait_for(
        lambda: not any(p.peerd.status()["streams"] for p in fleet.proxies),
        20, "the traces' streams have ended",
    )


def test_by_way_of_a_peer(fleet):
    holder = fleet.holder("node-1")
    host = fleet.others(holder)[0]
    answer = trace(fleet, host, "echo.node-1")
    assert answer["ok"] and answer["error"] is None
    found = answer["resolved"]
    assert found["agent"] == "node-1" and found["service"] == "echo"
    assert found["agent_id"] == fleet.agents[0].uuid
    assert found["known_from"] == "cache" and found["cache_revision"] > 0
    (candidate,) = answer["candidates"]
    assert candidate["proxy_id"] == holder.uuid
    assert re.match(r"ready, own region, \d+\.\d ms$", candidate["reason"])
    (attempt,) = answer["attempts"]
    assert attempt["proxy_id"] == holder.uuid and attempt["error"] is None
    assert answer["route"] == "peer" and answer["proxy_id"] == holder.uuid
    (worker,) = [w for w, names in holder.tunnels().items() if names]
    assert answer["worker"] == worker
    assert 0 < answer["worker_ms"] <= answer["ms"]
    wait_no_streams(fleet)


@pytest.mark.parametrize("route", ["peer", "sibling"])
def test_a_service_that_stays_is_left(fleet, listener, route):
    """It neither reads nor closes: the trace's connection is gone anyway."""
    host = fleet.holder("node-1")
    if route == "peer":
        host = fleet.others(host)[0]
    assert trace(fleet, host, "held.node-1")["route"] == route
    with listener.accept() as end:
        wait_no_streams(fleet)
        try:
            assert end.recv(1) == b""
        except ConnectionResetError:
            pass


def test_on_the_host_of_the_tunnel(fleet):
    holder = fleet.holder("node-1")
    answer = trace(fleet, holder, "echo.node-1")
    assert answer["ok"] and answer["route"] == "sibling"
    assert answer["resolved"]["known_from"] == "tunnel"
    assert answer["proxy_id"] == holder.uuid
    (worker,) = [w for w, names in holder.tunnels().items() if names]
    assert answer["worker"] == worker


def test_every_log_has_the_connection_id(fleet):
    holder = fleet.holder("node-1")
    host = fleet.others(holder)[0]
    answer = trace(fleet, host, "echo.node-1")
    for daemon in (host.peerd, holder.peerd):
        daemon.wait_log(f"conn={answer['connection_id']}")


def test_a_service_that_refuses(fleet):
    holder = fleet.holder("node-1")
    for host in (holder, fleet.others(holder)[0]):
        answer = trace(fleet, host, "closed.node-1")
        assert not answer["ok"]
        assert answer["error"]
        (attempt,) = answer["attempts"]
        assert attempt["proxy_id"] == holder.uuid
        assert attempt["error"]
        assert answer["resolved"]["service"] == "closed"


@pytest.mark.parametrize(
    "target, why",
    [("nobody", "no agent nobody is online"),
     ("nothing.node-1", "has no service nothing"),
     ("node-1", "ambiguous"),
     ("a.b.c.d", "")],
)
def test_a_target_that_is_none(fleet, target, why):
    result = fleet.peerctl_run("trace", target, host=fleet.proxies[0])
    assert result.returncode == 1
    (line,) = result.stderr.splitlines()
    assert line.startswith(f"peerctl: {target}: ") and why in line


def test_a_silent_holder_is_told_and_why(fleet):
    holder = fleet.holder("node-1")
    host = fleet.others(holder)[0]
    (pid,) = holder.peerd.pids()
    os.kill(pid, signal.SIGSTOP)
    try:
        wait_for(
            lambda: holder.uuid not in host.ready_peers(), 30,
            "the silence is noticed",
        )
        answer = json.loads(fleet.peerctl_run(
            "trace", "echo.node-1", "--format", "json", host=host, timeout=60
        ).stdout)
    finally:
        os.kill(pid, signal.SIGCONT)
    assert not answer["ok"]
    assert answer["candidates"][0]["reason"].startswith("unreachable, ")
    assert answer["attempts"][0]["error"]
    fleet.wait_peers()


def test_for_people_on_80_columns(fleet):
    holder = fleet.holder("node-1")
    host = fleet.others(holder)[0]
    argv = [suite.binary("peerctl"), "-c", host.config_path, "trace",
            "echo.node-1"]
    with Terminal(argv) as terminal:
        assert terminal.wait() == 0
        lines = plain(terminal.text)
    assert max(map(len, lines)) <= 80
    text = "\n".join(lines)
    assert re.search(r"^service +echo ", text, re.M)
    assert re.search(r"^known from +the cache, revision \d+$", text, re.M)
    assert re.search(r"^candidates +1\. .*: ready, own region", text, re.M)
    assert re.search(r"^route +peer, .*", text, re.M)
    assert re.search(r"^route +peer, .*", text, re.M)
    assert re.search(r"^times +\d+\.\d ms in all", text, re.M)
    assert re.search(r"^agent +connected to the service", text, re.M)
