# SPDX-License-Identifier: Apache-2.0
"""When more agents come at once than a proxy lets in, it tells the others when
to come back, before any TLS and so that they hear it; clients notice nothing."""

import os
import re
import signal
import socket
import ssl

import pytest

import connect
import suite
from process import descriptor_table, wait_for
from swarm import Swarm, known
from traffic import Beat, Dialer, check_route

BOUND = 4
AGENTS = 300 if suite.SLOW < 4 else 60
HELD_SECONDS = 20  # how long somebody may sit on a place
LINGERING = 512
TCP_CLOSE_WAIT = 8
FIRST_BYTE = b"\x16"  # until it has come nobody is accepted

ANSWER = re.compile(
    rb"HTTP/1\.1 503 Service Unavailable\r\n"
    rb"Retry-After: (\d+)\r\n"
    rb"Content-Length: 0\r\n"
    rb"Connection: close\r\n\r\n"
)


@pytest.fixture(scope="module")
def fleet(module_cluster, echo):
    cluster = module_cluster(agents=["node-1"], services=echo.services())
    cluster.proxies[0].config["proxy_service"].update(
        max_tunnel_handshakes=BOUND,
        handshake_timeout=f"{HELD_SECONDS * suite.SLOW:.0f}s",
    )
    return cluster.start()


@pytest.fixture
def proxy(fleet):
    proxy = fleet.proxies[0]
    wait_for(lambda: waiting(proxy) == 0, 10 * suite.SLOW, "no handshakes")
    return proxy


def waiting(proxy):
    name = 'peerway_proxy_handshakes_waiting{of="agents"}'
    return proxy.proxy.metrics()[name]


def put_off(proxy, reason="handshakes"):
    name = f'peerway_proxy_tunnels_put_off_total{{reason="{reason}"}}'
    return proxy.proxy.metrics()[name]


def client_hello(alpn="peerway-tunnel"):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.set_alpn_protocols([alpn])
    out = ssl.MemoryBIO()
    name = connect.server_name(suite.CLUSTER_NAME)
    with pytest.raises(ssl.SSLWantReadError):
        context.wrap_bio(ssl.MemoryBIO(), out, False, name).do_handshake()
    return out.read()


def agent(addr, said=None):
    """A connection that said the ClientHello of a tunnel, and no more."""
    stream = socket.create_connection(connect.split_addr(addr), 10 * suite.SLOW)
    stream.sendall(client_hello() if said is None else said)
    return stream


def hold_all_places(proxy):
    held = [agent(proxy.listen_addr) for _ in range(BOUND)]
    for stream in held:
        assert stream.recv(1) == b"\x16"  # our half of the handshake
    assert waiting(proxy) == BOUND
    return held


def answer_of(stream):
    """The whole answer up to an orderly end; a reset is an error, also one
    behind the end, which makes some systems throw the answer away."""
    text = b""
    while part := stream.recv(4096):
        text += part
    state = stream.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]
    assert state == TCP_CLOSE_WAIT
    stream.close()
    return text


def retry_after(stream):
    match = ANSWER.fullmatch(answer_of(stream))
    assert match
    return int(match[1])


def close(streams):
    for stream in streams:
        stream.close()


def test_the_refusal_on_3024_comes_with_the_first_byte(proxy):
    before = put_off(proxy)
    held = hold_all_places(proxy)
    assert 1 <= retry_after(agent(proxy.tunnel_addr, FIRST_BYTE)) <= 3
    (pid,) = proxy.worker_pids().values()
    os.kill(pid, signal.SIGSTOP)  # what is unread now at its close is a reset
    try:
        stream = agent(proxy.tunnel_addr, client_hello() + 20000 * b"x")
    finally:
        os.kill(pid, signal.SIGCONT)
    assert 1 <= retry_after(stream) <= 3
    assert put_off(proxy) == before + 2
    close(held)


def test_the_refusal_on_3080_comes_with_the_client_hello(proxy):
    before = put_off(proxy)
    held = hold_all_places(proxy)
    said = client_hello()
    stream = agent(proxy.listen_addr, said[:100])
    check_route(proxy, "node-1", "local")  # whatever it is, others come in
    assert put_off(proxy) == before
    stream.sendall(said[100:])
    assert 1 <= retry_after(stream) <= 3
    assert put_off(proxy) == before + 1
    close(held)


def test_clients_are_not_refused(proxy):
    held = hold_all_places(proxy)
    for _ in range(BOUND + 1):
        check_route(proxy, "node-1", "local")
    close(held)


def test_half_of_the_places_are_for_tunnels_alone(proxy):
    """An agent that joins, or asks where to go, has to come back sooner."""
    other = client_hello("peerway-agent")
    held = [agent(proxy.listen_addr, other) for _ in range(BOUND // 2)]
    for stream in held:
        assert stream.recv(1) == b"\x16"
    assert 1 <= retry_after(agent(proxy.listen_addr, other)) <= 3
    while len(held) < BOUND:
        held.append(agent(proxy.listen_addr))
        assert held[-1].recv(1) == b"\x16"
    assert 1 <= retry_after(agent(proxy.listen_addr)) <= 3
    close(held)


def test_a_place_that_is_free_again_is_taken(proxy):
    held = hold_all_places(proxy)
    assert ANSWER.fullmatch(answer_of(agent(proxy.listen_addr)))
    held.pop().close()
    wait_for(
        lambda: waiting(proxy) == BOUND - 1, 10 * suite.SLOW, "a free place"
    )
    for addr in proxy.tunnel_addr, proxy.listen_addr:
        stream = agent(addr)
        assert stream.recv(1) == b"\x16"
        stream.close()
        wait_for(
            lambda: waiting(proxy) == BOUND - 1, 10 * suite.SLOW, "it ended"
        )
    close(held)


def test_strangers_take_no_places(proxy):
    strangers = [
        agent(proxy.tunnel_addr, said)
        for said in (b"", FIRST_BYTE, client_hello()[:100])
        for _ in range(2 * BOUND)
    ]
    stream = agent(proxy.tunnel_addr)
    assert stream.recv(1) == b"\x16"
    close(strangers + [stream])


def test_the_later_slots_for_those_who_come_later(proxy):
    """200 a second is what a proxy expects that has measured nothing yet, and
    it gives out a quarter more: 1,000 are spread over four seconds."""
    held = hold_all_places(proxy)
    times = [
        retry_after(agent(proxy.tunnel_addr, FIRST_BYTE)) for _ in range(1000)
    ]
    assert min(times) == 1
    assert max(times) >= 3
    for seconds in 1, 2, 3:
        assert times.count(seconds) > 50, times
    assert proxy.proxy.log_matches("agents told to come back later")
    close(held)


def test_those_who_stay_after_a_refusal_are_bounded(proxy):
    (pid,) = proxy.worker_pids().values()
    beat = Beat("served before", proxy.dial("echo.node-1"))
    held = hold_all_places(proxy)
    before = len(descriptor_table(pid))
    count = LINGERING + 100
    crowd = [agent(proxy.tunnel_addr, FIRST_BYTE) for _ in range(count)]
    for stream in crowd:
        assert stream.recv(4096).startswith(b"HTTP/1.1 503 ")
    # and a few that are just being accepted or refused
    assert len(descriptor_table(pid)) <= before + LINGERING + 10
    wait_for(
        lambda: len(descriptor_table(pid)) <= before,
        10 * suite.SLOW,
        "none of them is left",
    )
    close(held + crowd)
    beat.check_alive()
    beat.stop()


def test_more_tunnels_than_max_tunnels(make_cluster, echo):
    cluster = make_cluster(agents=["node-1"], services=echo.services())
    proxy = cluster.proxies[0]
    proxy.config["proxy_service"]["max_tunnels"] = 1
    cluster.start()
    assert 48 <= retry_after(agent(proxy.tunnel_addr, FIRST_BYTE)) <= 72
    assert 48 <= retry_after(agent(proxy.listen_addr)) <= 72
    assert put_off(proxy, "tunnels") == 2
    assert put_off(proxy) == 0
    check_route(proxy, "node-1", "local")


def test_all_come_back_and_dials_succeed_meanwhile(make_cluster, echo):
    """Two of three proxies are killed and started again at once."""
    cluster = make_cluster(
        proxies=3, agents=["probe"], services=echo.services()
    )
    for host in cluster.proxies:
        host.config["proxy_service"].update(
            max_tunnel_handshakes=BOUND, rebalance={"rate": 0}
        )
    cluster.start()
    survivor = cluster.holder("probe")
    addrs = [host.listen_addr for host in cluster.proxies]
    service = f"127.0.0.1:{echo.echo_port}"
    with Swarm(cluster, service, AGENTS, proxies=addrs) as swarm:
        swarm.wait_ready(60 * suite.SLOW)
        before = swarm.counts()["busy"]
        dialer = Dialer([survivor], ["echo.probe"], rate=20 / suite.SLOW)
        held = hold_all_places(survivor)  # some are put off, however few come
        for host in cluster.others(survivor):
            host.kill()
        for host in cluster.others(survivor):
            host.start()
        wait_for(
            lambda: swarm.counts()["busy"] > before,
            10 * suite.SLOW,
            "agents were told to come back later",
        )
        close(held)
        swarm.wait_ready(60 * suite.SLOW)
        dialer.check()
        assert set(dialer.routes) == {"local"}
        wait_for(
            lambda: known(survivor, swarm) == AGENTS,
            30 * suite.SLOW,
            "all are known again",
        )
