# SPDX-License-Identifier: Apache-2.0
"""A client of 3080 in python: TLS, CONNECT, and the route in the answer.

The TLS state machine runs on memory buffers, because only so can a python
client shut down its sending side and go on reading.
"""

import socket
import ssl
import threading
from collections import namedtuple

Identity = namedtuple("Identity", "cert key host_ca")

CHUNK = 256 * 1024


class Refused(Exception):
    """The proxy answered CONNECT with something else than 200."""

    def __init__(self, status, body, headers):
        super().__init__(f"{status}: {body}")
        self.status = status
        self.body = body
        self.headers = headers


def server_name(cluster):
    return cluster.encode().hex() + ".teleport.cluster.local"


def split_addr(addr):
    host, _, port = addr.rpartition(":")
    return host, int(port)


def client_context(identity, alpn=None):
    """Trusts the host CA; shows the identity's certificate if it has one."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_verify_locations(identity.host_ca)
    if identity.cert:
        context.load_cert_chain(identity.cert, identity.key)
    if alpn:
        context.set_alpn_protocols([alpn])
    return context


class TlsStream:
    """A byte stream over TLS with half-close; blocking, with a timeout."""

    def __init__(self, addr, context, name, timeout=10, source=None):
        self.timeout = timeout
        self.socket = socket.create_connection(
            split_addr(addr), timeout, (source, 0) if source else None
        )
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._in = ssl.MemoryBIO()
        self._out = ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._in, self._out, False, name)
        self._lock = threading.Lock()  # one thread may read, one write
        self._flush_lock = threading.Lock()
        try:
            self._handshake()
        except BaseException:
            self.socket.close()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def _flush(self):
        with self._flush_lock:
            with self._lock:
                data = self._out.read()
            if data:
                self.socket.sendall(data)

    def _feed(self):
        data = self.socket.recv(CHUNK)
        with self._lock:
            if data:
                self._in.write(data)
            else:
                self._in.write_eof()
        return bool(data)

    def _handshake(self):
        while True:
            try:
                self._tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                self._flush()
                self._feed()
            except ssl.SSLError:
                self._flush()  # the alert
                raise
        self._flush()

    def peer_certificate(self):
        """Of the other side, as DER."""
        return self._tls.getpeercert(True)

    def settimeout(self, seconds):
        self.socket.settimeout(seconds)

    def sendall(self, data):
        view = memoryview(data)
        while view:
            with self._lock:
                sent = self._tls.write(view[:CHUNK])
            view = view[sent:]
            self._flush()

    def recv(self, size=CHUNK):
        """Some bytes; b"" at the other side's orderly end."""
        while True:
            try:
                with self._lock:
                    return self._tls.read(size)
            except ssl.SSLWantReadError:
                self._feed()
            except ssl.SSLZeroReturnError:
                return b""

    def recv_exactly(self, size):
        data = bytearray()
        while len(data) < size:
            part = self.recv(size - len(data))
            if not part:
                raise EOFError(f"ended after {len(data)} of {size} bytes")
            data += part
        return bytes(data)

    def recv_all(self):
        data = bytearray()
        while part := self.recv():
            data += part
        return bytes(data)

    def shutdown_write(self):
        """close_notify; what the other side still sends can be read."""
        with self._lock:
            try:
                self._tls.unwrap()
            except ssl.SSLWantReadError:
                pass
        self._flush()

    def ended(self, timeout):
        """Whether the other side's end (or reset) comes within timeout; what
        it sends before is dropped."""
        self.socket.settimeout(timeout)
        try:
            while self.recv():
                pass
        except socket.timeout:
            return False
        except (OSError, ssl.SSLError):
            pass
        return True

    def abort(self):
        """Closes with a reset, as a client that was killed."""
        linger = b"\x01\0\0\0\0\0\0\0"
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.socket.close()

    def close(self):
        self.socket.close()

    def fileno(self):
        return self.socket.fileno()


class Connection(TlsStream):
    """A joined connection to a target; what the proxy said about its route."""

    headers = None

    @property
    def route(self):
        return self.headers["peerway-route"]

    @property
    def proxy(self):
        return self.headers["peerway-proxy"]

    @property
    def worker(self):
        return int(self.headers["peerway-worker"])

    @property
    def tunnel_worker(self):
        return self.headers["peerway-tunnel-worker"]

    @property
    def connection_id(self):
        return self.headers["peerway-connection-id"]


def read_head(stream):
    """(status, headers) of an HTTP/1.1 answer, and not one byte more."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        byte = stream.recv(1)
        if not byte:
            raise EOFError(f"ended within the answer's head: {head!r}")
        head += byte
        assert len(head) < 16384
    lines = head.decode("latin-1").split("\r\n")
    pairs = (line.partition(":") for line in lines[1:] if line)
    headers = {name.lower(): value.strip() for name, _, value in pairs}
    return int(lines[0].split()[1]), headers


def request(stream, text, body=b""):
    """Sends one HTTP/1.1 request; gives status, headers, body."""
    stream.sendall(text.encode() + body)
    status, headers = read_head(stream)
    length = headers.get("content-length")
    if length is not None:
        return status, headers, stream.recv_exactly(int(length))
    return status, headers, stream.recv_all()


def dial(addr, target, identity, cluster, timeout=10, source=None):
    """CONNECT target through the proxy at addr; gives a Connection or raises
    Refused."""
    stream = Connection(
        addr, client_context(identity), server_name(cluster), timeout, source
    )
    try:
        stream.sendall(
            f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n".encode()
        )
        status, headers = read_head(stream)
        if status != 200:
            length = int(headers.get("content-length", 0))
            body = stream.recv_exactly(length) if length else stream.recv_all()
            raise Refused(status, body.decode(errors="replace"), headers)
    except BaseException:
        stream.close()
        raise
    stream.headers = headers
    return stream


class Forwarder:
    """A local port whose connections are dialed to one target, for programs
    that know nothing of CONNECT. routes collects what the proxies answered."""

    def __init__(self, dialer):
        self._dialer = dialer
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.routes = []
        self.errors = []
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(10)

    def _accept(self):
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(
                target=self._serve, args=(client,), daemon=True
            ).start()

    def _serve(self, client):
        with client:
            try:
                remote = self._dialer()
            except (OSError, Refused) as error:
                self.errors.append(error)
                return
            self.routes.append(remote.route)
            with remote:
                back = threading.Thread(
                    target=self._to_client, args=(remote, client), daemon=True
                )
                back.start()
                self._to_remote(client, remote)
                back.join(60)

    @staticmethod
    def _to_remote(client, remote):
        try:
            while data := client.recv(CHUNK):
                remote.sendall(data)
            remote.shutdown_write()
        except OSError:
            pass

    @staticmethod
    def _to_client(remote, client):
        try:
            while data := remote.recv():
                client.sendall(data)
        except OSError:
            pass
        try:
            client.shutdown(socket.SHUT_WR)
        except OSError:
            pass

