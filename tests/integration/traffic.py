# SPDX-License-Identifier: Apache-2.0
"""Streams that are watched while something is done to the fleet."""

import os
import socket
import threading
import time

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


class Dialer:
    """Dials targets through proxies in turn, so many a second, as clients
    that come meanwhile. A dial carries bytes there and back."""

    def __init__(self, proxies, targets, rate, threads=4):
        self._pairs = [(p, t) for t in targets for p in proxies]
        proxies[0].cluster.identity()  # issued by an authd that may go away
        self._interval = threads / rate
        self._threads = [
            threading.Thread(target=self._run, args=(n, threads), daemon=True)
            for n in range(threads)
        ]
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._out = set()  # proxies that are not dialed through
        self._under_way = {p: 0 for p in proxies}
        self.done = 0
        self.routes = {}
        self.failures = []
        for thread in self._threads:
            thread.start()

    def _one(self, proxy, target):
        with proxy.dial(target) as connection:
            echo_once(connection, 100)
            return connection.route

    def _run(self, number, step):
        due = time.monotonic() + number * self._interval / step
        while not self._stopping.wait(max(0, due - time.monotonic())):
            due += self._interval
            with self._lock:
                pairs = [p for p in self._pairs if p[0] not in self._out]
                proxy, target = pairs[self.done % len(pairs)]
                self.done += 1
                self._under_way[proxy] += 1
            try:
                route = self._one(proxy, target)
                with self._lock:
                    self.routes[route] = self.routes.get(route, 0) + 1
            except Exception as error:  # any failure is one
                with self._lock:
                    self.failures.append((proxy.name, target, f"{error!r}"))
            finally:
                with self._lock:
                    self._under_way[proxy] -= 1

    def leave_out(self, proxy):
        """No more dials through proxy, as when it is no longer ready for the
        balancer; returns when the last has ended."""
        with self._lock:
            self._out.add(proxy)
        wait_for(
            lambda: not self._under_way[proxy],
            20,
            f"no dial through {proxy.name} is under way",
        )

    def take_in(self, proxy):
        with self._lock:
            self._out.discard(proxy)
            self._under_way.setdefault(proxy, 0)

    def wait_more(self, count, timeout=60):
        """Until so many more were dialed."""
        goal = self.done + count
        wait_for(lambda: self.done >= goal, timeout, f"{count} more dials")

    def stop(self):
        self._stopping.set()
        for thread in self._threads:
            thread.join(60)

    def check(self):
        """Ends it: not one may have failed."""
        self.stop()
        assert not self.failures, (
            f"{len(self.failures)} of {self.done} dials failed:"
            f" {self.failures[:5]}"
        )
        assert self.done
