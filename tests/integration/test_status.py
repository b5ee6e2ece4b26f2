# SPDX-License-Identifier: Apache-2.0
"""peerctl status and ping: one look at an 80-column terminal says what is
wrong; --watch goes on whatever happens; --on asks another proxy host; proxies
that advertise one peer address are named."""

import json
import os
import re
import signal
import subprocess

import pytest

import suite
from process import wait_for
from terminal import ESCAPE, Terminal, plain


@pytest.fixture(scope="module")
def fleet(module_cluster, echo):
    return module_cluster(
        proxies=3, agents=["node-1"], services=echo.services()
    ).start()


def argv(host, *args):
    return [suite.binary("peerctl"), "-c", host.config_path, *args]


def as_json(fleet, host, *args):
    return json.loads(fleet.peerctl(*args, "--format", "json", host=host))


def terminal_status(host, *args, **kwargs):
    with Terminal(argv(host, "status", *args), **kwargs) as terminal:
        assert terminal.wait() == 0
        return terminal.text


def test_a_healthy_host_fits_80_columns(fleet):
    lines = plain(terminal_status(fleet.proxies[0]))
    assert lines[0].startswith("2 peers: 2 ready, seen by ")
    assert fleet.proxies[0].uuid[:13] in lines[0]
    assert not [line for line in lines if line.startswith("!")]
    assert max(map(len, lines)) <= 80
    assert sum(" ready " in line for line in lines) == 2


def test_what_is_cut_is_in_wide_and_in_a_file(fleet):
    host, other = fleet.proxies[:2]
    assert other.uuid not in terminal_status(host)
    assert other.uuid in terminal_status(host, "--wide")
    result = fleet.peerctl("status", host=host)
    assert other.uuid in result and "\x1b" not in result
    heading = [line for line in result.splitlines() if "PEER\t" in line]
    assert heading[0].split("\t")[:4] == ["PEER", "STATE", "MS", "STREAMS"]


def test_colours_only_on_a_terminal_that_wants_them(fleet):
    host = fleet.proxies[0]
    assert "\x1b[32mready\x1b[0m" in terminal_status(host)
    assert not ESCAPE.search(terminal_status(host, env={"NO_COLOR": "1"}))
    assert not ESCAPE.search(terminal_status(host, env={"TERM": "dumb"}))


def test_a_silent_peer_is_the_first_thing_to_be_seen(fleet):
    host, victim = fleet.proxies[:2]
    (pid,) = victim.peerd.pids()
    os.kill(pid, signal.SIGSTOP)
    try:
        wait_for(
            lambda: victim.uuid not in host.ready_peers(), 30,
            "the silence is noticed",
        )
        lines = plain(terminal_status(host))
    finally:
        os.kill(pid, signal.SIGCONT)
    assert lines[0].startswith("2 peers: 1 ready, 1 unreachable, seen by")
    assert lines[1].startswith("! peer ")
    assert victim.uuid[:8] in lines[1] and "unreachable" in lines[1]
    assert max(map(len, lines)) <= 80
    rows = [line.split()[1] for line in lines if re.search(r" \d+ +\d+s ", line)
            and line.split()[1] in ("ready", "unreachable")]
    assert rows == ["unreachable", "ready"]
    fleet.wait_peers()


def test_a_daemon_that_is_down_is_named(fleet):
    host = fleet.proxies[0]
    host.routed.stop()
    try:
        lines = plain(terminal_status(host))
    finally:
        host.routed.start()
        host.routed.wait_ready()
    assert any(
        line.startswith("! routed is not running on this host: ")
        for line in lines
    )
    wait_for(
        lambda: host.peerd.status()["routed"], 20, "peerd has routed again"
    )


def test_watch_refreshes_in_place_until_interrupted(fleet):
    host = fleet.proxies[0]
    with Terminal(
        argv(host, "status", "--watch", "--interval", "200ms")
    ) as terminal:
        terminal.wait_text(r"(?s)(\x1b\[H\x1b\[2J.*2 ready.*){3}")
        assert terminal.interrupt() == 0
        assert terminal.process.stderr.read() == b""


def test_watch_survives_a_restart(fleet):
    """Of all daemons of the host: it says so and goes on."""
    host = fleet.proxies[0]
    with Terminal(
        argv(host, "status", "--watch", "--interval", "200ms")
    ) as terminal:
        terminal.wait_text("2 ready")
        host.peerd.stop()
        terminal.wait_text("! peerd is not running on this host")
        mark = len(terminal.text)
        host.peerd.start()
        wait_for(
            lambda: "2 ready" in terminal.text[mark:], 30, "peers are back"
        )
        assert terminal.interrupt() == 0
    fleet.wait_peers()


def test_watch_into_a_pipe_is_an_object_a_line(fleet):
    host, other = fleet.proxies[:2]
    with subprocess.Popen(
        argv(host, "status", "--watch", "--interval", "100ms", "--format",
             "json"),
        stdout=subprocess.PIPE, text=True,
    ) as process:
        for _ in range(3):
            answer = json.loads(process.stdout.readline())
            peers = answer["peerd"]["peers"]
            assert other.uuid in [peer["id"] for peer in peers]
        process.send_signal(signal.SIGINT)
        process.stdout.read()
        assert process.wait(10) == 0


def test_watch_ends_when_nobody_reads(fleet):
    process = subprocess.Popen(
        argv(fleet.proxies[0], "status", "--watch", "--interval", "100ms"),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )
    process.stdout.readline()
    process.stdout.close()
    assert process.wait(20) == 1
    assert b"cannot write" in process.stderr.read()
    process.stderr.close()


def test_on_another_host(fleet):
    """By uuid and by a unique beginning of it."""
    host, other, third = fleet.proxies
    for name in (other.uuid, other.uuid[:13]):
        answer = as_json(fleet, host, "status", "--on", name)
        assert list(answer) == ["peerd"]
        assert answer["peerd"]["proxy_id"] == other.uuid
        peers = {peer["id"] for peer in answer["peerd"]["peers"]}
        assert peers == {host.uuid, third.uuid}
    lines = plain(terminal_status(host, "--on", other.uuid))
    assert lines[0].startswith("2 peers: 2 ready, seen by ")
    assert other.uuid[:13] in lines[0]
    assert max(map(len, lines)) <= 80


@pytest.mark.parametrize("command", [["status", "--on"], ["ping"]])
def test_no_such_peer(fleet, command):
    result = fleet.peerctl_run(*command, "nobody", host=fleet.proxies[0])
    assert result.returncode == 1
    (line,) = result.stderr.splitlines()
    assert 'no peer is called "nobody"' in line
    assert fleet.proxies[1].uuid[:8] in line, "the peers are listed"


def test_a_name_of_several_peers_is_refused(fleet):
    """On one machine all hosts have one hostname."""
    host = fleet.proxies[0]
    name = host.peerd.status()["peers"][0]["hostname"]
    result = fleet.peerctl_run("ping", name, host=host)
    assert result.returncode == 1
    assert "2 peers are called" in result.stderr


def test_peers_are_asked_nothing_that_changes_anything(fleet):
    """The verbs for peers are a table of their own."""
    host, other = fleet.proxies[:2]
    for verb in ("ping", "ask", "trace", "no-such-verb"):
        with pytest.raises(Exception, match="unknown request"):
            host.peerd.ask(
                "ask", {"peer": other.uuid, "verb": verb, "args": {}}
            )
    answer = host.peerd.ask("ask", {"peer": other.uuid, "verb": "tunnels"})
    assert "tunnels" in answer


def test_ping(fleet):
    host, other = fleet.proxies[:2]
    out = fleet.peerctl(
        "ping", other.uuid, "-c", "3", "--interval", "20ms", host=host
    )
    lines = out.splitlines()
    assert len(lines) == 4
    assert re.match(rf"{other.uuid}: ping 1: \d+\.\d+ ms$", lines[0])
    assert lines[3].startswith("3 pings, 3 answered, min/avg/max = ")
    answer = as_json(
        fleet, host, "ping", other.uuid, "--count", "2", "--interval", "20ms"
    )
    assert answer["sent"] == answer["answered"] == len(answer["pings"]) == 2
    assert 0 < answer["min_ms"] <= answer["avg_ms"] <= answer["max_ms"]


def test_ping_of_a_silent_peer_fails(fleet):
    host, victim = fleet.proxies[:2]
    (pid,) = victim.peerd.pids()
    os.kill(pid, signal.SIGSTOP)
    try:
        result = fleet.peerctl_run("ping", victim.uuid, "-c", "1", host=host)
    finally:
        os.kill(pid, signal.SIGCONT)
    assert result.returncode == 1
    assert "no answer within 5 s" in result.stdout
    assert "1 pings, none answered" in result.stdout
    fleet.wait_peers()


def test_one_peer_address_for_two(fleet):
    """Both are named, in status and once in the log, with what to do; and it
    is over when it is corrected."""
    host, first, second = fleet.proxies
    mark = host.peerd.log_mark()
    right = second.config["proxy_service"]["peer_public_addr"]
    second.config["proxy_service"]["peer_public_addr"] = first.peer_addr
    second.write_config()
    second.routed.restart()
    try:
        (group,) = wait_for(
            lambda: host.peerd.status()["duplicate_peer_addrs"], 30,
            "the duplicate is noticed",
        )
        assert group["addr"] == first.peer_addr
        assert {proxy["id"] for proxy in group["proxies"]} == {
            first.uuid, second.uuid
        }
        out = fleet.peerctl("status", host=host)
        (line,) = [
            text for text in out.splitlines()
            if text.startswith(f"! {first.peer_addr} is the peer address of")
        ]
        assert first.uuid[:8] in line and second.uuid[:8] in line
        assert "peer_public_addr" in line
        # The proxies concerned say it too.
        for proxy in (first, second):
            wait_for(
                lambda: proxy.peerd.status()["duplicate_peer_addrs"], 30,
                "those concerned notice",
            )
    finally:
        second.config["proxy_service"]["peer_public_addr"] = right
        second.write_config()
        second.routed.restart()
    wait_for(
        lambda: not host.peerd.status()["duplicate_peer_addrs"], 30,
        "the duplicate is gone",
    )
    logged = host.peerd.log_matches("one peer address, several proxies", mark)
    assert len(logged) == 1, logged
    fleet.wait_peers()
