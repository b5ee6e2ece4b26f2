# SPDX-License-Identifier: Apache-2.0
"""Streams that are watched while something is done to the fleet."""

import os
import socket
import threading

import connect
from process import wait_for

BLOCK = 16 * 1024


class Beat:
    """Round trips over an echo, one after another, until stop() or an end."""

    def __init__(self, name, stream):
        self.name = name
        self.stream = stream
        self.rounds = 0
        self.error = None
        self._stopping = False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def __repr__(self):
        return f"<{self.name}: {self.rounds} rounds, {self.error!r}>"

    def _run(self):
        try:
            while not self._stopping:
                block = os.urandom(BLOCK)
                self.stream.sendall(block)
                back = b""
                while len(back) < BLOCK:
                    part = self.stream.recv(BLOCK - len(back))
                    if not part:
                        raise EOFError("ended")
                    back += part
                if back != block:
                    raise AssertionError("what came back differs")
                self.rounds += 1
        except Exception as error:  # any end is one; ended() tells it
            self.error = error
        self.stream.close()

    def ended(self):
        return not self._thread.is_alive()

    def wait_ended(self, timeout):
        wait_for(self.ended, timeout, f"{self.name} ends")
        assert not isinstance(self.error, AssertionError), self.error

    def check_alive(self, rounds=20, timeout=10):
        """Still turning: so many more rounds."""
        goal = self.rounds + rounds

        def turned():
            assert not self.ended(), f"{self.name} was lost: {self.error!r}"
            return self.rounds >= goal

        wait_for(turned, timeout, f"{self.name} goes on")

    def stop(self):
        self._stopping = True
        self._thread.join(10)
        assert self.ended(), f"{self.name} hangs"


def plain(addr, timeout=15):
    """A TCP connection with the methods that TlsStream has."""
    stream = socket.create_connection(connect.split_addr(addr), timeout)
    stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return stream


def abort(stream):
    """Closes a plain socket with a reset."""
    linger = b"\x01\0\0\0\0\0\0\0"
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    stream.close()


def echo_once(stream, size=1000):
    """One round trip of random bytes, checked."""
    data = os.urandom(size)
    stream.sendall(data)
    back = b""
    while len(back) < size:
        part = stream.recv(size - len(back))
        assert part, f"ended after {len(back)} of {size} bytes"
        back += part
    assert back == data


def check_route(proxy, agent, route, service="echo"):
    """A dial through proxy takes that route and carries bytes."""
    with proxy.dial(f"{service}.{agent}") as connection:
        assert connection.route == route, connection.headers
        echo_once(connection)


def dial_until(proxy, target, wanted, tries=60):
    """Dials until wanted(connection); the others are closed."""
    seen = []
    for _ in range(tries):
        connection = proxy.dial(target)
        if wanted(connection):
            return connection
        seen.append(dict(connection.headers))
        connection.close()
    raise AssertionError(f"no such route in {tries} dials; last: {seen[-1]}")


def descriptors(cluster):
    """Daemon -> how many descriptors its processes hold, but for the tunnels'
    own, since an agent may come back to another proxy."""
    held = {d.name: d.descriptors() for d in cluster.daemons() if d.running()}
    for proxy in cluster.proxies:
        if proxy.proxy.name in held and proxy.peerd.running():
            held[proxy.proxy.name] -= len(proxy.tunnel_names())
    return held


def settled_descriptors(cluster, timeout=10):
    """The same, once it no longer changes (three equal looks)."""
    last = []

    def settled():
        last.append(descriptors(cluster))
        return len(last) > 3 and last[-1] == last[-2] == last[-3]

    wait_for(settled, timeout, "descriptors settle", interval=0.2)
    return last[-1]


def check_descriptors(cluster, before, timeout=15):
    """Waits until every daemon holds as many as before."""
    try:
        wait_for(
            lambda: descriptors(cluster) == before,
            timeout,
            "as many descriptors as before",
            interval=0.2,
        )
    except AssertionError:
        now = descriptors(cluster)
        differing = {
            name: (before.get(name), now.get(name))
            for name in {*before, *now}
            if before.get(name) != now.get(name)
        }
        raise AssertionError(f"descriptors before, after: {differing}") from None
