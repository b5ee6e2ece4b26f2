# SPDX-License-Identifier: Apache-2.0
"""What Prometheus reads: every daemon's /metrics is as promtool wants it, and
calls between peers stand there under the reference's names, on both sides."""

import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
import uuid

import pytest

import mesh
from hosts import SLOW, Network
from process import wait_for
from traffic import dial_until, echo_once

SERVICE = "proto.ProxyService"


@pytest.fixture
def pair():
    directory = tempfile.mkdtemp(prefix="pw-metrics-")
    network = Network()
    pki = mesh.Pki(directory + "/pki")
    hosts = [mesh.Host(directory, network, pki, n).start() for n in (1, 2)]
    left, right = hosts
    left.know(right)
    right.know(left)
    for host, other in ((left, right), (right, left)):
        host.wait_peer(other.id)
        host.first = host.worker(0)
    yield left, right
    for host in hosts:
        host.close()
    network.close()
    shutil.rmtree(directory, ignore_errors=True)


def check_text(text):
    """promtool's opinion of the text of /metrics."""
    result = subprocess.run(
        ["promtool", "check", "metrics"],
        input=text,
        text=True,
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr


def test_every_daemon_s_metrics_pass_promtool(make_cluster, echo):
    cluster = make_cluster(
        proxies=2, agents=["db-1"], services=echo.services()
    ).start()
    for proxy in cluster.proxies:
        proxy.dial("echo.db-1").close()
    for daemon in cluster.daemons():
        check_text(daemon.http("/metrics")[1])


def test_every_daemon_tells_of_its_process_and_its_loop(make_cluster):
    cluster = make_cluster(proxies=1, agents=["db-1"]).start()
    for daemon in cluster.daemons():
        metrics = daemon.metrics()
        assert 0 < metrics["process_open_fds"] < metrics["process_max_fds"]
        assert metrics["process_resident_memory_bytes"] > 1 << 20
        assert metrics["process_cpu_seconds_total"] > 0
        age = time.time() - metrics["process_start_time_seconds"]
        assert -2 < age < 120 * SLOW, daemon.name
        assert any(name.startswith("peerway_build_info{") for name in metrics)
        wait_for(
            lambda: daemon.metric("peerway_event_loop_lag_seconds_count") >= 2,
            20 * SLOW, f"{daemon.name} has measured its loop",
        )
    routed = cluster.proxies[0].routed
    assert routed.metric("peerway_routed_lease_held") == 1
    assert routed.metric("peerway_routed_cache_revision") > 0
    cluster.auth.authd.stop()
    wait_for(
        lambda: routed.metric("peerway_routed_cache_age_seconds") > 5,
        20 * SLOW, "the cache grows old",
    )


def test_a_stopped_process_is_late(make_cluster):
    cluster = make_cluster(proxies=1).start()
    peerd = cluster.proxies[0].peerd
    late = 'peerway_event_loop_lag_seconds_bucket{le="0.256"}'

    def lates():
        metrics = peerd.metrics()
        count = metrics["peerway_event_loop_lag_seconds_count"]
        return count - metrics[late]

    before = lates()
    os.kill(peerd.pid, signal.SIGSTOP)
    time.sleep(2)  # how late it is to be
    os.kill(peerd.pid, signal.SIGCONT)
    wait_for(lambda: lates() > before, 10 * SLOW, "it was late")


def test_dials_are_counted_and_timed_by_route(make_cluster, echo):
    cluster = make_cluster(
        proxies=2, workers=2, agents=["db-1"], services=echo.services()
    ).start()
    cluster.wait_agents()
    holder = cluster.holder("db-1")
    other = cluster.others(holder)[0]
    for proxy, route in ((holder, "local"), (holder, "sibling"), (other, "peer")):
        stream = dial_until(
            proxy, "echo.db-1", lambda stream, route=route: stream.route == route
        )
        stream.close()
        metrics = proxy.proxy.metrics()
        labels = f'route="{route}"'
        dials = metrics[f'peerway_proxy_dials_total{{{labels},outcome="ok"}}']
        name = "peerway_proxy_dial_duration_seconds"
        assert dials >= 1
        assert metrics[f"{name}_count{{{labels}}}"] == dials
        assert 0 < metrics[f"{name}_sum{{{labels}}}"] < 30 * dials


def test_what_ends_and_what_fails_is_counted(make_cluster, echo):
    cluster = make_cluster(
        proxies=1, agents=["db-1"], services=echo.services()
    ).start()
    cluster.wait_agents()
    proxy = cluster.proxies[0]
    with pytest.raises(Exception, match="404"):
        proxy.dial("echo.nobody")
    stream = proxy.dial("echo.db-1")
    echo_once(stream)
    stream.close()
    name = "peerway_proxy_"
    moved = [
        f'{name}dials_total{{route="none",outcome="not_found"}}',
        f'{name}connections_ended_total{{reason="done"}}',
        f'{name}connections_ended_total{{reason="answered"}}',
        f'{name}session_bytes_total{{direction="sent"}}',
        f'{name}session_bytes_total{{direction="received"}}',
        f'{name}tunnel_bytes_total{{direction="in"}}',
        f'{name}tunnel_bytes_total{{direction="out"}}',
        f'{name}handshakes_total{{outcome="ok"}}',
        f"{name}open_fds",
        f"{name}max_fds",
        f"{name}tunnels",
    ]
    wait_for(
        lambda: all(proxy.proxy.metrics()[series] > 0 for series in moved),
        20 * SLOW, "all of them have moved",
    )


def carry(left, right, size):
    """A stream from left through right that carries size bytes both ways; gives
    how it is counted meanwhile, on either side."""
    agent = str(uuid.uuid4())
    right.first.tunnel_up(agent)
    right.wait_tunnel(agent)
    left.cache.put_tunnel(agent, right.id)
    answer, end = left.first.connect(agent)
    assert answer.route == left.first.ipc.ROUTE_PEER
    with end:
        end.sendall(b"x" * size)
        got = 0
        while got < size:
            got += len(end.recv(65536))
        during = left.peerd.metrics(), right.peerd.metrics()
        mesh.part(end)
        return during


def of(side, name, label="handler", method="DialNode", **more):
    labels = {"service": SERVICE, label: method, **more}
    text = ",".join(f'{key}="{value}"' for key, value in labels.items())
    return f"proxy_peer_{side}_{name}{{{text}}}"


def test_a_call_is_counted_on_both_sides(pair):
    left, right = pair
    during = carry(left, right, 40000)
    for side, metrics in zip(("client", "server"), during):
        assert metrics[of(side, "rpc", "method")] == 1
        assert metrics[of(side, "rpc_total", "method", code="OK")] == 0

    def ended(host, side):
        metrics = host.peerd.metrics()
        count = metrics[of(side, "rpc_duration_seconds_count", code="OK")]
        return count and metrics

    for host, side in ((left, "client"), (right, "server")):
        metrics = wait_for(
            lambda: ended(host, side), 5 * SLOW, f"the {side}'s call is over"
        )
        assert metrics[of(side, "rpc", "method")] == 0
        assert metrics[of(side, "rpc_total", "method", code="OK")] == 1
        for way in ("sent", "received"):
            # the payload, and a few bytes of framing with each message
            size = metrics[of(side, f"message_{way}_size_sum")]
            assert 40000 < size < 41500
            assert metrics[of(side, f"message_{way}_size_count")] >= 4
    sizes = [
        re.search('le="([^"]*)"', series)[1]
        for series in metrics
        if series.startswith("proxy_peer_server_message_sent_size_bucket")
        and "DialNode" in series
    ]
    assert sizes == [str(32 << k) for k in range(12)] + ["+Inf"]


def test_pings_and_refusals_are_counted_by_their_status(pair):
    left, right = pair
    agent = str(uuid.uuid4())
    left.cache.put_tunnel(agent, right.id)
    answer, end = left.first.connect(agent)
    end.close()
    assert "offline" in answer.message or "no app" in answer.message
    for host, side in ((left, "client"), (right, "server")):
        metrics = host.peerd.metrics()
        assert metrics[of(side, "rpc_total", "method", code="Unavailable")] >= 1
        assert metrics[of(side, "rpc", "method")] == 0
        pings = of(side, "rpc_total", "method", "Ping", code="OK")
        assert metrics[pings] >= 1
        check_text(host.peerd.http("/metrics")[1])


def test_peers_and_their_connections_have_series(pair):
    left, right = pair
    carry(left, right, 5000)
    metrics = left.peerd.metrics()
    peer = (
        f'local_id="{left.id}",peer_id="{right.id}",'
        f'peer_host="host-{right.id[:4]}",peer_group=""'
    )
    assert metrics[f'peerway_peerd_peer_state{{{peer},state="ready"}}'] == 1
    for way in ("sent", "received"):
        series = f'peerway_peerd_peer_bytes_total{{{peer},direction="{way}"}}'
        wait_for(
            lambda: left.peerd.metrics()[series] == 5000, 5 * SLOW, series
        )
    assert f"peerway_peerd_peer_streams{{{peer}}}" in metrics
    last = metrics[f"peerway_peerd_peer_last_latency_seconds{{{peer}}}"]
    assert 0 < last < SLOW
    served = [
        series
        for series in metrics
        if series.startswith("proxy_peer_server_connections{")
    ]
    # right's only connection to us, by socket addresses
    assert len(served) == 1
    assert f'local_id="{left.peer_addr}"' in served[0]
    assert served[0].endswith('state="SERVER_CONN"}')


def test_a_host_s_own_limits_have_series(pair):
    metrics = pair[0].peerd.metrics()
    assert 0 < metrics["process_open_fds"] < metrics["process_max_fds"]
    assert metrics["peerway_peerd_routed_connected"] == 1
    # mesh.Pki signs for two days
    left = metrics["peerway_peerd_certificate_not_after_seconds"] - time.time()
    assert 86400 < left <= 2 * 86400
    pair[0].routed.close()
    wait_for(
        lambda: pair[0].peerd.metric("peerway_peerd_routed_connected") == 0,
        5 * SLOW,
        "the lost routed shows",
    )


def test_an_address_of_two_proxies_is_counted(pair):
    left, right = pair
    assert left.peerd.metric("peerway_peerd_shared_addresses") == 0
    left.know((str(uuid.uuid4()), right.peer_addr))
    wait_for(
        lambda: left.peerd.metric("peerway_peerd_shared_addresses") == 1,
        5 * SLOW,
        "the shared address is counted",
    )


def test_a_name_that_is_no_text_does_not_spoil_the_page(pair):
    left, right = pair
    record = left.cache.record.ProxyRecord(
        id=right.id,
        hostname="host-HERE",
        peer_addr=right.peer_addr,
        strategy=left.cache.strategy(True),
    ).SerializeToString()
    # python's protobuf would refuse to write it
    left.cache.db.execute(
        "UPDATE proxy SET record = ? WHERE id = ?",
        [record.replace(b"HERE", b'\xff"\n\xfe'), right.id],
    )
    left.cache.db.commit()
    left.routed.announce()
    wait_for(
        lambda: 'peer_host="?"' in left.peerd.http("/metrics")[1],
        5 * SLOW,
        "the new name",
    )
    check_text(left.peerd.http("/metrics")[1])


def test_streams_of_a_replaced_connection_still_count(pair):
    left, right = pair
    agent = str(uuid.uuid4())
    right.first.tunnel_up(agent)
    right.wait_tunnel(agent)
    left.cache.put_tunnel(agent, right.id)
    answer, end = left.first.connect(agent)
    assert answer.route == left.first.ipc.ROUTE_PEER

    def exchange(total):
        end.sendall(b"x" * 1000)
        got = 0
        while got < 1000:
            got += len(end.recv(1000))
        # counted when gRPC has done with it, which may be after the answer
        wait_for(
            lambda: left.peerd.metric("peerway_peerd_peer_bytes_total")
            == 2 * total,
            5 * SLOW,
            "sent and received bytes are counted",
        )
        assert left.peerd.metric("peerway_peerd_peer_streams") == 1
        assert left.peerd.status()["peers"][0]["streams"] == 1

    with end:
        exchange(1000)
        left.routed.announce(left.pki.issue(left.id))
        left.peerd.wait_log("certificate replaced")
        left.wait_peer(right.id)
        exchange(2000)
    wait_for(
        lambda: left.peerd.metric("peerway_peerd_peer_streams") == 0,
        5 * SLOW,
        "the stream is over",
    )
