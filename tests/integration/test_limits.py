# SPDX-License-Identifier: Apache-2.0
"""What strangers and crowds can make a proxy hold is bounded, each bound says
its name, and nobody who was served before notices."""

import os
import resource
import signal
import socket
import time

import pytest

import connect
import suite
from process import descriptor_table, wait_for
from traffic import Beat, check_route, echo_once

HANDSHAKES = 8
CLIENTS = 6
HANDSHAKE_SECONDS = 2


@pytest.fixture(scope="module")
def fleet(module_cluster, echo):
    cluster = module_cluster(agents=["node-1"], services=echo.services())
    cluster.proxies[0].config["proxy_service"].update(
        max_handshakes=HANDSHAKES,
        max_clients=CLIENTS,
        handshake_timeout=f"{HANDSHAKE_SECONDS}s",
        drain_timeout="4s",
    )
    return cluster.start()


@pytest.fixture
def proxy(fleet):
    """Serving before and after the test, without anything left of it."""
    proxy = fleet.proxies[0]
    check_route(proxy, "node-1", "local")
    yield proxy
    check_route(proxy, "node-1", "local")
    wait_for(
        lambda: proxy.proxy.status()["clients"] == 0, 10, "all clients gone"
    )


def tls(proxy, alpn=None, identity=True):
    known = proxy.cluster.identity()
    if not identity:
        known = known._replace(cert=None)
    return connect.TlsStream(
        proxy.listen_addr,
        connect.client_context(known, alpn),
        connect.server_name(suite.CLUSTER_NAME),
        15 * suite.SLOW,
    )


def stranger(proxy, said=b"\x16"):
    """Says the first byte of a ClientHello, and no more."""
    stream = socket.create_connection(
        connect.split_addr(proxy.listen_addr), 10
    )
    stream.sendall(said)
    return stream


def closed_after(stream):
    """Seconds until the proxy closes it."""
    start = time.monotonic()
    stream.settimeout(15 * suite.SLOW)
    assert stream.recv(1) == b""
    return time.monotonic() - start


def test_who_says_nothing_makes_nobody_wait(proxy):
    silent = [stranger(proxy, b"") for _ in range(2 * HANDSHAKES)]
    start = time.monotonic()
    with tls(proxy):
        assert time.monotonic() - start < HANDSHAKE_SECONDS / 2
    for stream in silent:
        stream.close()


def test_strangers_wait_in_the_queue(proxy):
    """max_handshakes of them are accepted, each for handshake_timeout; behind
    them a client waits, but is served."""
    beat = Beat("served before", proxy.dial("echo.node-1"))
    strangers = [stranger(proxy) for _ in range(HANDSHAKES)]
    start = time.monotonic()
    with tls(proxy):
        waited = time.monotonic() - start
    assert waited > HANDSHAKE_SECONDS / 2, "nobody was made to wait"
    for stream in strangers:
        assert closed_after(stream) < 2 * HANDSHAKE_SECONDS * suite.SLOW
        stream.close()
    metrics = proxy.proxy.metrics()
    series = 'peerway_proxy_handshakes_total{outcome="timed_out"}'
    assert metrics[series] >= HANDSHAKES
    beat.check_alive()
    beat.stop()


def test_half_a_request_is_not_waited_for(proxy):
    with tls(proxy) as stream:
        stream.sendall(b"CONNECT echo.node-1 HTTP/1.1\r\nHost:")
        start = time.monotonic()
        assert stream.ended(15 * suite.SLOW)
        assert time.monotonic() - start < 2 * HANDSHAKE_SECONDS * suite.SLOW


def test_one_client_too_many_is_told_so(proxy):
    sessions = [proxy.dial("echo.node-1") for _ in range(CLIENTS)]
    with pytest.raises(connect.Refused) as caught:
        proxy.dial("echo.node-1")
    assert caught.value.status == 503
    assert "max_clients" in caught.value.body
    for session in sessions:
        echo_once(session)
        session.close()


def test_a_crowd_without_certificates_has_an_end(proxy):
    """max_clients + max_handshakes connections that ask for nothing."""
    crowd = [tls(proxy, identity=False) for _ in range(CLIENTS + HANDSHAKES)]
    with tls(proxy) as stream:  # whose handshake is done, and no more
        assert stream.ended(HANDSHAKE_SECONDS / 2)
    for stream in crowd:
        stream.close()
    metrics = proxy.proxy.metrics()
    assert metrics['peerway_proxy_handshakes_total{outcome="limit"}'] == 1


@pytest.mark.parametrize(
    "request_text, alpn, status",
    [
        ("GET / HTTP/1.1\r\n\r\n", None, 404),
        ("POST /webapi/find HTTP/1.1\r\nContent-Length: 0\r\n\r\n", None, 405),
        ("BREW pot HTTP/1.1\r\n\r\n", None, 400),
        ("GET / HTTP/1.1\r\nA: " + 20000 * "a" + "\r\n\r\n", None, 431),
        ("POST /v1/agent/join HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}",
         None, 403),
        ("POST /v1/agent/join HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}",
         "peerway-agent", 400),
        ("POST /v1/agent/join HTTP/1.1\r\nContent-Length: 100000\r\n\r\n"
         + 100000 * " ", "peerway-agent", 413),
        ("CONNECT echo.node-1 HTTP/1.1\r\n\r\n", "peerway-agent", 403),
        ("CONNECT echo.node-1 HTTP/1.1\r\n\r\n", None, 401),
        ("GET /webapi/find HTTP/1.1\r\n\r\n", None, 200),
    ],
)
def test_what_somebody_without_a_certificate_gets(
    proxy, request_text, alpn, status
):
    with tls(proxy, alpn, identity=False) as stream:
        answer = connect.request(stream, request_text)
    assert answer[0] == status, answer
    assert answer[2]


def test_the_request_and_more_in_one_write(proxy):
    """What stands behind the head belongs to the service; so does the end."""
    with tls(proxy) as stream:
        stream.sendall(b"CONNECT echo.node-1 HTTP/1.1\r\n\r\nearly")
        stream.shutdown_write()
        assert connect.read_head(stream)[0] == 200
        assert stream.recv_all() == b"early"


def test_out_of_descriptors(fleet, proxy):
    """Listening pauses, once said; who is in goes on; it resumes by itself."""
    (pid,) = proxy.worker_pids().values()
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    beat = Beat("served before", proxy.dial("echo.node-1"))
    few = len(descriptor_table(pid)) + 3
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (few, before[1]))
    try:
        strangers = [stranger(proxy) for _ in range(HANDSHAKES)]
        wait_for(
            lambda: proxy.proxy.log_matches("accepting paused: Too many"),
            10 * suite.SLOW,
            "the pause is said",
        )
        beat.check_alive()
        for stream in strangers:
            stream.close()
        with tls(proxy) as stream:
            assert connect.request(
                stream, "GET /webapi/find HTTP/1.1\r\n\r\n"
            )[0] == 200
        beat.check_alive()
    finally:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, before)
    beat.stop()
    wait_for(
        lambda: proxy.proxy.log_matches("accepting again"),
        15 * suite.SLOW,
        "accepting again is said",
    )
    assert len(proxy.proxy.log_matches("accepting paused: Too many")) == 1


def refuses(proxy):
    try:
        stranger(proxy).close()
    except ConnectionRefusedError:
        return True
    return False


def stop_and_look(proxy):
    """SIGTERM; back once nobody is let in any more."""
    proxy.proxy.expected_end = True
    proxy.proxy.send_signal(signal.SIGTERM)
    wait_for(lambda: refuses(proxy), 10 * suite.SLOW, "the listener is closed")


def start_again(fleet, proxy):
    proxy.proxy.start()
    proxy.proxy.wait_ready()
    wait_for(
        lambda: proxy.tunnel_names() == ["node-1"] and proxy.agents(),
        20 * suite.SLOW,
        "the agent is back",
    )


def test_drain_ends_with_the_last_session(fleet, proxy):
    session = proxy.dial("echo.node-1")
    stop_and_look(proxy)
    time.sleep(0.5)
    echo_once(session)
    assert proxy.proxy.running()
    session.close()
    start = time.monotonic()
    assert proxy.proxy.popen.wait(20) == 0
    assert time.monotonic() - start < 3 * suite.SLOW
    start_again(fleet, proxy)


def test_drain_timeout_ends_what_is_left(fleet, proxy):
    session = proxy.dial("echo.node-1")
    start = time.monotonic()
    stop_and_look(proxy)
    assert session.ended(20 * suite.SLOW)
    assert time.monotonic() - start > 3.5
    assert proxy.proxy.popen.wait(20) == 0
    assert proxy.proxy.log_matches("drain_timeout is over.* sessions=1")
    session.close()
    start_again(fleet, proxy)


def test_the_workers_end_with_their_parent(fleet, proxy):
    pids = proxy.worker_pids().values()
    proxy.proxy.kill()
    wait_for(
        lambda: not any(os.path.exists(f"/proc/{pid}") for pid in pids),
        10 * suite.SLOW,
        "the workers are gone",
    )
    start_again(fleet, proxy)
