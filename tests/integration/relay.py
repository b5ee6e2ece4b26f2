# SPDX-License-Identifier: Apache-2.0
"""A network between a host and a server, in which what is sent can be held up
and arrive late, or in part: as segments do that were lost and are sent again,
also when nobody waits for them any more."""

import socket
import threading

import connect


class _Way:
    """One direction of a connection. What comes in while it is held waits; b""
    is the end of it."""

    def __init__(self, source, sink):
        self.source, self.sink = source, sink
        self.lock = threading.Lock()
        self.held = None
        threading.Thread(target=self._copy, daemon=True).start()

    def _copy(self):
        data = b"-"
        while data:
            try:
                data = self.source.recv(65536)
            except OSError:
                data = b""
            with self.lock:
                if self.held is None:
                    self._deliver(data)
                else:
                    self.held.append(data)

    def _deliver(self, data):
        try:
            if data:
                self.sink.sendall(data)
            else:
                self.sink.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # nobody is there

    def hold(self):
        with self.lock:
            if self.held is None:
                self.held = []

    def release(self, count=None):
        """The first so many pieces of what was held, or all and what comes
        then."""
        with self.lock:
            for data in self.held[:count]:
                self._deliver(data)
            self.held = None if count is None else []

    def cut(self):
        for end in (self.source, self.sink):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass


class Relay:
    """Listens on a port of address; target is "host:port"."""

    def __init__(self, address, target):
        self.target = connect.split_addr(target)
        self.listener = socket.create_server((address, 0))
        self.addr = "%s:%d" % self.listener.getsockname()[:2]
        self.connections = []  # (way there, way back)
        self.holding = []
        self.dead = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(self.target)
            except OSError:
                client.close()
                continue
            self.connections.append(
                (_Way(client, server), _Way(server, client)))

    def hold(self):
        """Nothing arrives any more on the connections of now; others can be
        made."""
        self.holding, self.connections = self.connections, []
        for pair in self.holding:
            for way in pair:
                way.hold()

    def hold_answers(self):
        """What is sent to the server arrives, what it answers does not."""
        self.holding, self.connections = self.connections, []
        for _, back in self.holding:
            back.hold()

    def cut(self):
        """Those that are held end for both sides, and what waited is lost."""
        for pair in self.holding:
            for way in pair:
                way.cut()
        self.dead.extend(self.holding)
        self.holding = []

    def held(self):
        """How many pieces wait to arrive at the server."""
        return sum(len(there.held) for there, _ in self.holding)

    def release(self, count=None):
        """The first so many pieces of each connection arrive at the server, and
        nothing more ever, nor the news that it is gone; or all arrive, both
        ways, and it goes on."""
        for there, back in self.holding:
            there.release(count)
            back.release(count if count is None else 0)
        (self.connections if count is None else self.dead).extend(self.holding)
        self.holding = []

    def close(self):
        # a thread that waits in accept() would keep it open
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        for pair in self.connections + self.holding + self.dead:
            for way in pair:
                way.cut()
