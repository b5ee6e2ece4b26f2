# SPDX-License-Identifier: Apache-2.0
"""The tools of the other tests can be trusted: the pump notices one changed
bit, the TLS client half-closes, wait_for() names what it missed."""

import socket
import ssl
import subprocess
import threading

import pytest

import connect
import services
from process import wait_for


def relay_flipping(port, flip_at):
    """A TCP relay to port that changes one bit of what comes back."""
    listener = socket.create_server(("127.0.0.1", 0))

    def copy(source, sink, flip):
        seen = 0
        while data := bytearray(source.recv(65536)):
            if flip is not None and seen <= flip < seen + len(data):
                data[flip - seen] ^= 1
            seen += len(data)
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)

    def serve():
        client, _ = listener.accept()
        server = socket.create_connection(("127.0.0.1", port))
        back = threading.Thread(target=copy, args=(server, client, flip_at))
        back.start()
        copy(client, server, None)
        back.join()

    threading.Thread(target=serve, daemon=True).start()
    return listener.getsockname()[1]


def transfer_through(port):
    with socket.create_connection(("127.0.0.1", port), 10) as stream:
        services.Transfer(stream, 1 << 20, 1 << 20).run()


def test_pump_notices_one_changed_bit(echo):
    transfer_through(relay_flipping(echo.port, None))
    with pytest.raises(AssertionError, match="bytes down differ"):
        transfer_through(relay_flipping(echo.port, 300_000))


def test_wait_for_names_what_it_missed():
    with pytest.raises(AssertionError, match="within 0.1 s: a miracle"):
        wait_for(lambda: False, 0.1, "a miracle")


@pytest.fixture
def certificate(tmp_path):
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt",
         "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=test", "-days",
         "1", "-addext", "subjectAltName=DNS:test", "-keyout",
         tmp_path / "key.pem", "-out", tmp_path / "cert.pem"],
        check=True, capture_output=True,
    )
    return tmp_path


def test_tls_client_reads_on_after_its_own_end(certificate):
    """Python's own SSLSocket cannot; TlsStream is made for it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate / "cert.pem", certificate / "key.pem")
    listener = socket.create_server(("127.0.0.1", 0))
    got = []

    def serve():
        tls = context.wrap_socket(listener.accept()[0], server_side=True)
        while part := tls.recv(65536):
            got.append(part)
        tls.sendall(b"x" * 3_000_000)
        tls.unwrap()

    threading.Thread(target=serve, daemon=True).start()
    identity = connect.Identity(None, None, certificate / "cert.pem")
    addr = "127.0.0.1:%d" % listener.getsockname()[1]
    with connect.TlsStream(
        addr, connect.client_context(identity), "test"
    ) as stream:
        stream.sendall(b"question")
        stream.shutdown_write()
        assert stream.recv_all() == b"x" * 3_000_000
    assert b"".join(got) == b"question"
