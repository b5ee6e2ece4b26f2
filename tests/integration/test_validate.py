# SPDX-License-Identifier: Apache-2.0
"""peerctl validate: authd's records, the cache and the live tunnels of a host
agree, also while much changes; what differs is named and makes exit status 1."""

import json
import sqlite3
import threading
from pathlib import Path

import pytest

from process import wait_for


@pytest.fixture(scope="module")
def fleet(module_cluster, echo):
    return module_cluster(
        proxies=2, agents=["node-1", "node-2"], services=echo.services()
    ).start()


def validate(fleet, host, *args):
    return fleet.peerctl_run("validate", *args, host=host, timeout=60)


@pytest.fixture
def cache(fleet):
    """The cache of the first proxy host, to be edited behind routed's back;
    afterwards it is as before."""
    path = fleet.proxies[0].routed.status()["cache"]["path"]
    tables = ("config", "proxy", "tunnel")
    with sqlite3.connect(path, timeout=10) as db:
        rows = {t: db.execute(f"SELECT * FROM {t}").fetchall() for t in tables}
    db = sqlite3.connect(path, timeout=10, isolation_level=None)
    yield db
    db.execute("BEGIN IMMEDIATE")
    for table, saved in rows.items():
        db.execute(f"DELETE FROM {table}")
        for row in saved:
            marks = ",".join("?" * len(row))
            db.execute(f"INSERT INTO {table} VALUES ({marks})", row)
    db.execute("COMMIT")
    db.close()


def test_a_healthy_fleet_agrees(fleet):
    for host in fleet.proxies:
        result = validate(fleet, host)
        assert result.returncode == 0, result.stdout + result.stderr
        assert "agree" in result.stdout and not result.stderr
        answer = json.loads(validate(fleet, host, "--format", "json").stdout)
        assert answer["differences"] == []
        assert answer["backend"]["store_id"] == answer["cache"]["store_id"]
        assert answer["tunnels"] == len(host.tunnel_names())
        assert not (host.data_dir / "validate").exists(), "scratch is left"


def test_a_busy_fleet_agrees(fleet):
    """An agent comes and goes all the while."""
    host = fleet.proxies[0]
    agent = fleet.agents[1]
    stop = threading.Event()

    def flap():
        while not stop.is_set():
            agent.agent.stop()
            agent.agent.start()
            agent.agent.wait_ready()

    thread = threading.Thread(target=flap)
    thread.start()
    try:
        results = [validate(fleet, host) for _ in range(5)]
    finally:
        stop.set()
        thread.join(60)
        fleet.wait_agents()
    for result in results:
        assert result.returncode == 0, result.stdout + result.stderr


def test_a_lost_record_is_named(fleet, cache):
    host = fleet.proxies[0]
    agent = fleet.agents[0]
    cache.execute("DELETE FROM tunnel WHERE agent_id = ?", [agent.uuid])
    result = validate(fleet, host)
    assert result.returncode == 1
    assert f"the cache lacks the tunnel of node-1 ({agent.uuid})" in (
        result.stdout
    )
    (line,) = result.stderr.splitlines()
    assert "difference" in line


def test_a_column_beside_the_record_is_seen(fleet, cache):
    """Dials read it, not the record."""
    other = fleet.proxies[1]
    cache.execute(
        "UPDATE proxy SET peer_addr = 'nowhere:1' WHERE id = ?", [other.uuid]
    )
    answer = json.loads(
        validate(fleet, fleet.proxies[0], "--format", "json").stdout
    )
    (difference,) = answer["differences"]
    assert difference["kind"] == "differs"
    assert difference["record"] == "proxy"
    assert difference["proxy_id"] == other.uuid
    assert difference["between"] == "authd,cache"


def test_a_tunnel_that_nobody_has_is_named(fleet, cache):
    """A record of ours for an agent that is elsewhere: two things are wrong,
    authd does not have it and no worker does."""
    host = fleet.proxies[0]
    ghost = "00000000-0000-4000-8000-00000000dead"
    record = bytes([0x0A, 36]) + ghost.encode()
    record += bytes([0x12, 36]) + host.uuid.encode()
    record += bytes([0x1A, 5]) + b"ghost"
    cache.execute(
        "INSERT INTO tunnel(agent_id, proxy_id, name, since_ms, record)"
        " VALUES (?, ?, 'ghost', 0, ?)",
        [ghost, host.uuid, record],
    )
    result = validate(fleet, host)
    assert result.returncode == 1
    lines = result.stdout.splitlines()
    assert len(lines) == 2
    assert f"ghost ({ghost})" in lines[0] and "authd has not" in lines[0]
    assert f"ghost ({ghost})" in lines[1] and "no worker" in lines[1]
    assert "2 differences" in result.stderr


def test_what_is_put_right_agrees_again(fleet):
    result = validate(fleet, fleet.proxies[0])
    assert result.returncode == 0, result.stdout


def test_a_cache_renamed_by_hand_is_made_anew(fleet):
    """What the operations manual says to do about a cache that is wrong."""
    host = fleet.proxies[1]
    path = Path(host.routed.status()["cache"]["path"])
    with sqlite3.connect(path, timeout=10) as db:
        db.execute("DELETE FROM tunnel")
    assert validate(fleet, host).returncode == 1
    host.routed.stop()
    for suffix in ("", "-wal", "-shm"):
        old = path.with_name(path.name + suffix)
        if old.exists():
            old.rename(path.with_name(f"{path.name}.bad{suffix}"))
    host.routed.start()
    host.routed.wait_ready()
    wait_for(
        lambda: host.peerd.status()["cache"]["path"] != str(path), 30,
        "peerd reads the new file",
    )
    result = validate(fleet, host)
    assert result.returncode == 0, result.stdout + result.stderr


def test_without_authd_there_is_nothing_to_compare_with(fleet):
    host = fleet.proxies[0]
    fleet.auth.authd.stop()
    try:
        wait_for(
            lambda: host.routed.status()["auth_state"] != "connected", 30,
            "routed has noticed",
        )
        result = validate(fleet, host)
    finally:
        fleet.auth.authd.start()
        fleet.auth.authd.wait_ready()
    assert result.returncode == 1
    (line,) = result.stderr.splitlines()
    assert "authd" in line and "unreachable" in line
    wait_for(
        lambda: host.is_up_to_date(), 60, "routed follows authd again"
    )


def test_wrong_usage(fleet):
    assert validate(fleet, fleet.proxies[0], "all").returncode == 2
