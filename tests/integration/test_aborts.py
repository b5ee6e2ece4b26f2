# SPDX-License-Identifier: Apache-2.0
"""Clients that hang up are normal: thousands of dials aborted within seconds
leave the tunnel and its other streams untouched, and nothing is left over."""

import random
import threading
import time

import pytest

import connect
import suite
from traffic import (
    Beat,
    abort,
    check_descriptors,
    check_route,
    plain,
    settled_descriptors,
)

DIALS = 5000
THREADS = 8


def abort_plain(addr, turn):
    stream = plain(addr)
    if turn % 3 == 1:
        stream.sendall(b"half a quest")
    elif turn % 3 == 2:
        stream.sendall(b"x")
        stream.recv(1)
    abort(stream)


def abort_tls(proxy, context):
    """Gone right behind the CONNECT, before its answer can have come."""
    stream = connect.TlsStream(
        proxy.listen_addr, context, connect.server_name(suite.CLUSTER_NAME)
    )
    stream.sendall(b"CONNECT echo.node-1 HTTP/1.1\r\nHost: echo\r\n\r\n")
    if random.random() < 0.5:
        stream.recv(1)
    stream.abort()


def in_threads(job, count):
    """job(turn) for each turn below count; gives the errors."""
    turns = iter(range(count))
    lock = threading.Lock()
    errors = []

    def work():
        while True:
            with lock:
                turn = next(turns, None)
            if turn is None:
                return
            try:
                job(turn)
            except Exception as error:
                errors.append(error)

    workers = [threading.Thread(target=work) for _ in range(THREADS)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return errors


@pytest.fixture
def fleet(make_cluster, echo):
    cluster = make_cluster(
        proxies=2, agents=["node-1"], services=echo.services()
    )
    cluster.raw = {
        proxy: proxy.tcp_listener("echo.node-1") for proxy in cluster.proxies
    }
    return cluster.start()


def tunnel_since(holder):
    (tunnel,) = holder.peerd.ask("tunnels")["tunnels"]
    return tunnel["since"]


def test_aborted_dials(fleet):
    holder = fleet.holder("node-1")
    other = fleet.others(holder)[0]
    before = settled_descriptors(fleet)
    since = tunnel_since(holder)
    beats = [
        Beat("local", holder.dial("echo.node-1")),
        Beat("peer", other.dial("echo.node-1")),
    ]

    start = time.monotonic()
    errors = in_threads(
        lambda turn: abort_plain(fleet.raw[holder], turn), DIALS
    )
    took = time.monotonic() - start
    assert not errors, errors[:3]
    assert took < 10 * suite.SLOW, f"{DIALS} aborted dials took {took:.1f} s"
    for beat in beats:
        beat.check_alive()
    assert tunnel_since(holder) == since

    context = connect.client_context(fleet.identity())
    errors = in_threads(lambda turn: abort_plain(fleet.raw[other], turn), 1000)
    errors += in_threads(lambda turn: abort_tls(other, context), 500)
    assert not errors, errors[:3]
    for beat in beats:
        beat.check_alive()
        beat.stop()
    assert tunnel_since(holder) == since
    check_route(holder, "node-1", "local")
    check_route(other, "node-1", "peer")
    check_descriptors(fleet, before)
