# SPDX-License-Identifier: Apache-2.0
"""Machines of a test's own: network namespaces joined by a cable, on which
packets can be made to vanish.

    cable = Cable()
    with cable.left:            # this thread's sockets and children live there
        host.start()
    cable.left.drop()           # nothing goes in or out, and nobody is told
    cable.left.deliver()

The namespaces have no names. Each lives as long as a descriptor of this process
or a process in it, so that nothing stays behind, however the test ends.
"""

import ctypes
import os
import subprocess

CLONE_NEWNET = 0x40000000
libc = ctypes.CDLL(None, use_errno=True)


def _check(result):
    if result != 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))


def _own():
    """A descriptor of the namespace in which this thread is."""
    return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)


class Namespace:
    """`with` it, the calling thread is inside."""

    def __init__(self, address):
        self.address = address
        self._before = []
        outside = _own()
        try:
            _check(libc.unshare(CLONE_NEWNET))
            self.fd = _own()
            self.path = f"/proc/{os.getpid()}/fd/{self.fd}"
        finally:
            _check(libc.setns(outside, CLONE_NEWNET))
            os.close(outside)

    @classmethod
    def of(cls, pid):
        """That of a process."""
        self = cls.__new__(cls)
        self.address = None
        self._before = []
        self.path = f"/proc/{pid}/ns/net"
        self.fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        return self

    def __enter__(self):
        self._before.append(_own())
        _check(libc.setns(self.fd, CLONE_NEWNET))
        return self

    def __exit__(self, *_):
        before = self._before.pop()
        _check(libc.setns(before, CLONE_NEWNET))
        os.close(before)

    def run(self, *argv, stdin=None):
        with self:
            subprocess.run(
                [str(arg) for arg in argv],
                input=stdin,
                text=True,
                check=True,
                capture_output=True,
            )

    def drop(self, ways=("input", "output")):
        """Packets of the cable vanish; loopback goes on."""
        rules = "add table inet cut\n"
        for way in ways:
            name = "iifname" if way == "input" else "oifname"
            rules += (
                f"add chain inet cut {way} "
                f"{{ type filter hook {way} priority 0; }}\n"
                f'add rule inet cut {way} {name} "cable" drop\n'
            )
        self.run("nft", "-f", "-", stdin=rules)

    def deliver(self):
        self.run("nft", "delete", "table", "inet", "cut")

    def close(self):
        os.close(self.fd)


class Cable:
    """Two namespaces, left and right, that reach each other and nobody else."""

    def __init__(self):
        self.left = Namespace("10.77.0.1")
        self.right = Namespace("10.77.0.2")
        self.left.run(
            "ip", "link", "add", "cable", "type", "veth",
            "peer", "name", "cable", "netns", self.right.path,
        )
        for end in (self.left, self.right):
            end.run("ip", "address", "add", end.address + "/24", "dev", "cable")
            end.run("ip", "link", "set", "cable", "up")
            end.run("ip", "link", "set", "lo", "up")

    def close(self):
        self.left.close()
        self.right.close()


class Switch:
    """A network of 10.80.0.0/24 into which namespaces are plugged."""

    def __init__(self):
        self._inside = Namespace("10.80.0.1")
        self._count = 0
        self._inside.run("ip", "link", "add", "switch", "type", "bridge")
        self._inside.run("ip", "link", "set", "switch", "up")

    def plug(self, namespace, address):
        self._count += 1
        port = f"port{self._count}"
        self._inside.run(
            "ip", "link", "add", port, "type", "veth",
            "peer", "name", "eth0", "netns", namespace.path,
        )
        self._inside.run("ip", "link", "set", port, "master", "switch", "up")
        namespace.run("ip", "address", "add", address + "/24", "dev", "eth0")
        namespace.run("ip", "link", "set", "eth0", "up")

    def close(self):
        self._inside.close()
