# SPDX-License-Identifier: Apache-2.0
"""A local process in python: framing of proto/ipc.h, and peerctl's questions."""

import array
import json
import os
import re
import socket
import struct

import stubs

IPC_H = (stubs.PROTO / "ipc.h").read_text()


def _numbers():
    """The enumerators of ipc.h, as C counts them."""
    table, value = {}, -1
    for name, given in re.findall(r"^\t(IPC_\w+)(?: = (\d+))?,", IPC_H, re.M):
        value = int(given) if given else value + 1
        table[name] = value
    return table


TYPES = _numbers()
MAGIC = int(re.search(r"IPC_MAGIC (0x\w+)u", IPC_H)[1], 16)
VERSION = int(re.search(r"IPC_VERSION (\d+)", IPC_H)[1])
MESSAGE_MAX = int(re.search(r"IPC_MESSAGE_MAX (\d+)", IPC_H)[1])


def frame(kind, payload=b"", magic=MAGIC, reserved=0):
    """One datagram; kind is a name of ipc.h or a number."""
    number = TYPES[kind] if isinstance(kind, str) else kind
    if not isinstance(payload, bytes):
        payload = payload.SerializeToString()
    return struct.pack("<IHH", magic, number, reserved) + payload


class Link:
    """A connection to a daemon's socket, HELLO not yet sent."""

    def __init__(self, path, timeout=10):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.socket.settimeout(timeout)
        self.socket.connect(str(path))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.socket.close()

    def hello(self, peer="PEER_CTL", version=VERSION, worker=0, workers=1):
        ipc = stubs.load("ipc_pb2")
        self.send(
            "IPC_HELLO",
            ipc.Hello(
                version=version,
                peer=ipc.Peer.Value(peer),
                worker=worker,
                workers=workers,
                pid=os.getpid(),
                build="test",
            ),
        )
        return self

    def send(self, kind, payload=b"", fds=()):
        self.send_raw(frame(kind, payload), fds)

    def send_raw(self, data, fds=()):
        rights = []
        if fds:
            numbers = array.array("i", fds)
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, numbers)]
        self.socket.sendmsg([data], rights)

    def receive(self):
        """(type's number, payload, descriptors), or None at the end."""
        data, ancillary, _, _ = self.socket.recvmsg(
            MESSAGE_MAX, socket.CMSG_SPACE(16)
        )
        if not data:
            return None
        fds = array.array("i")
        for level, kind, value in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                fds.frombytes(value[: len(value) - len(value) % 4])
        return struct.unpack("<IHH", data[:8])[1], data[8:], list(fds)

    def receive_type(self, kind):
        """The payload of the next message of that type; others are skipped."""
        while True:
            message = self.receive()
            assert message, f"closed by the daemon while waiting for {kind}"
            for fd in message[2]:
                os.close(fd)
            if message[0] == TYPES[kind]:
                return message[1]

    def closed_by_peer(self):
        """Waits until the daemon has closed the link (or the timeout)."""
        try:
            while self.receive():
                pass
        except ConnectionResetError:
            pass
        except socket.timeout:
            return False
        return True


class Failed(Exception):
    """The daemon answered that it cannot."""


def ask(path, verb, args=None, timeout=10):
    """One question to the daemon at path; gives the JSON answer."""
    ipc = stubs.load("ipc_pb2")
    with Link(path, timeout) as link:
        link.hello()
        link.send(
            "IPC_CTL_REQUEST",
            ipc.CtlRequest(id=1, verb=verb, args=json.dumps(args or {})),
        )
        parts = b""
        while True:
            reply = ipc.CtlReply.FromString(link.receive_type("IPC_CTL_REPLY"))
            parts += reply.part
            if reply.last:
                break
    if not reply.ok:
        raise Failed(parts.decode())
    return json.loads(parts)
