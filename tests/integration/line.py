# SPDX-License-Identifier: Apache-2.0
"""A line between two programs that can be cut: then bytes vanish, and nobody
is told."""

import selectors
import socket
import threading

import connect


class Line:
    """addr is where to connect to instead of target."""

    def __init__(self, target, address="127.0.0.1"):
        self._target = connect.split_addr(target)
        self._listener = socket.create_server((address, 0))
        self.addr = f"{address}:{self._listener.getsockname()[1]}"
        self._whole = threading.Event()
        self._whole.set()
        self._ended = False
        self._pairs = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while not self._ended:
            try:
                near, _ = self._listener.accept()
                self._whole.wait()
                far = socket.create_connection(self._target, 10)
            except OSError:
                continue
            self._pairs.append((near, far))
            threading.Thread(
                target=self._carry, args=(near, far), daemon=True
            ).start()

    def _carry(self, near, far):
        other = {near: far, far: near}
        with selectors.DefaultSelector() as selector, near, far:
            for sock in other:
                selector.register(sock, selectors.EVENT_READ)
            try:
                while not self._ended:
                    for key, _ in selector.select(0.5):
                        self._whole.wait()
                        data = key.fileobj.recv(65536)
                        if not data:
                            return
                        other[key.fileobj].sendall(data)
            except OSError:
                pass

    def cut(self):
        self._whole.clear()

    def mend(self):
        """What was under way comes late, on connections that may have been
        given up meanwhile."""
        self._whole.set()

    def close(self):
        self._ended = True
        self._whole.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
