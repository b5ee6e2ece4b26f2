# SPDX-License-Identifier: Apache-2.0
"""What the daemons write: one line of each for a dial, with one connection id, in
text and as JSON; and few lines for what others repeat."""

import json
import re
import signal
import socket

import pytest

from hosts import SLOW
from process import wait_for
from services import free_port
from traffic import dial_until, echo_once

KEYS = {"time", "level", "process", "pid", "message", "fields"}


def lines_with(cluster, text):
    """daemon name -> its lines with that text."""
    found = {}
    for daemon in cluster.daemons():
        lines = [l for l in daemon.log_text().splitlines() if text in l]
        if lines:
            found[daemon.name] = lines
    return found


@pytest.mark.parametrize("form", ["text", "json"])
def test_one_id_tells_the_story_of_a_dial(make_cluster, echo, form):
    cluster = make_cluster(
        proxies=2, workers=2, agents=["db-1"], services=echo.services()
    )
    for host in [cluster.auth, *cluster.proxies, *cluster.agents]:
        host.config["peerway"]["log"] = {"level": "info", "format": form}
    cluster.start()
    cluster.wait_agents()
    holder = cluster.holder("db-1")
    other = cluster.others(holder)[0]
    # who has how many lines: the client's proxy one for its session, the
    # worker with the tunnel one for the stream, peerds one, the agent one
    wanted = {
        (holder, "local"): {holder.proxy.name: 1},
        (holder, "sibling"): {holder.proxy.name: 2},
        (other, "peer"): {
            other.proxy.name: 1, other.peerd.name: 1,
            holder.proxy.name: 1, holder.peerd.name: 1,
        },
    }
    for (proxy, route), counts in wanted.items():
        stream = dial_until(
            proxy, "echo.db-1", lambda s, route=route: s.route == route
        )
        echo_once(stream)
        identity = stream.connection_id
        stream.close()
        counts = {**counts, cluster.agents[0].agent.name: 1}
        wait_for(
            lambda: {
                name: len(lines)
                for name, lines in lines_with(cluster, identity).items()
            } == counts,
            10 * SLOW,
            f"{route}: {counts}",
        )
        lines = lines_with(cluster, identity)
        if form == "json":
            lines = {n: [as_text(l, identity) for l in many]
                     for n, many in lines.items()}
        check_session(
            [l for l in lines[proxy.proxy.name] if "session ended" in l], route
        )


def as_text(line, identity):
    """The same in text, of a line in JSON, whose fields have their types."""
    said = json.loads(line)
    assert set(said) == KEYS
    fields = said["fields"]
    assert fields["conn"] == identity
    for key, value in fields.items():
        number = key in ("sent", "received", "ms", "status", "attempts")
        assert isinstance(value, int if number else str), line
    return said["message"] + "".join(f" {k}={v}" for k, v in fields.items())


def check_session(lines, route):
    """The one line of the proxy that the client has dialed."""
    (line,) = lines
    assert re.search(
        rf"session ended: \S.* route={route} target=echo\.db-1 agent=\S+ "
        r"service=echo source=127\.0\.0\.1:\d+ user=\S+ sent=[1-9]\d* "
        r"received=[1-9]\d* ms=\d+ conn=[0-9a-f]{32}",
        line,
    ), line


@pytest.mark.parametrize("route", ["local", "peer"])
def test_a_session_that_is_cut_has_its_bytes(make_cluster, echo, route):
    """By the end of its proxy, when drain_timeout is over."""
    cluster = make_cluster(
        proxies=2, agents=["db-1"], services=echo.services()
    )
    for proxy in cluster.proxies:
        proxy.config["proxy_service"]["drain_timeout"] = "1s"
    cluster.start()
    cluster.wait_agents()
    proxy = cluster.holder("db-1")
    if route == "peer":
        (proxy,) = cluster.others(proxy)
    stream = proxy.dial("echo.db-1")
    echo_once(stream)
    proxy.proxy.kill(signal.SIGTERM)
    wait_for(
        lambda: re.search(
            rf"session ended: .* route={route} .* sent=[1-9]\d* "
            rf"received=[1-9]\d* .*conn={stream.connection_id}",
            proxy.proxy.log_text(),
        ),
        20 * SLOW,
        "its line tells what it has carried",
    )
    stream.close()


def test_what_others_repeat_is_said_a_few_times(make_cluster):
    """A service that is away and is asked for all the time; and a scanner."""
    cluster = make_cluster(
        proxies=1,
        agents=["db-1"],
        services=[{"name": "gone", "type": "app",
                   "addr": f"127.0.0.1:{free_port()}"}],
    ).start()
    cluster.wait_agents()
    proxy, agent = cluster.proxies[0], cluster.agents[0].agent
    for _ in range(60):
        with pytest.raises(Exception, match="502|cannot connect"):
            proxy.dial("gone.db-1")
    refused = agent.log_text().count("cannot connect to service gone")
    assert 10 <= refused < 40 * SLOW
    before = len(proxy.proxy.log_text().splitlines())
    host, port = proxy.listen_addr.split(":")
    for _ in range(1000):
        with socket.create_connection((host, int(port))) as client:
            client.sendall(b"GET / HTTP/1.0\r\n\r\n")
    assert len(proxy.proxy.log_text().splitlines()) < before + 50
    wait_for(
        lambda: re.search(
            r"lines left out: \d+ more like those before in \d+ s",
            (agent.log_text() if say_more(proxy) else ""),
        ),
        30 * SLOW,
        "what was left out is counted",
    )


def say_more(proxy):
    """Makes the agent write something."""
    with pytest.raises(Exception, match="502|cannot connect"):
        proxy.dial("gone.db-1")
    return True
