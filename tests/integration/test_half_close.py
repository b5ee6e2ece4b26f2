# SPDX-License-Identifier: Apache-2.0
"""The end of one direction leaves the other open, and a stream that was cut is
never taken for a whole one: across two proxies, with real programs, TLS clients
and plain ones (whose socket itself travels to peerd)."""

import hashlib
import os
import socket
import subprocess
import threading

import pytest

import services
import suite
from process import wait_for
from traffic import abort, plain

MIB = 1 << 20
TIMEOUT = 30 * suite.SLOW


class Web(services.Server):
    """HTTP/1.0 without Content-Length: the end of the body is the end."""

    def __init__(self, body):
        self.body = body
        super().__init__()

    def _serve(self, client):
        with client:
            request = b""
            while b"\r\n\r\n" not in request:
                request += client.recv(65536)
            client.sendall(b"HTTP/1.0 200 OK\r\n\r\n" + self.body)


@pytest.fixture(scope="module")
def fleet(module_cluster, sshd, postgres):
    web = Web(os.urandom(8 * MIB))
    listener = services.Listener()
    cluster = module_cluster(
        proxies=2,
        agents=["node-1"],
        services=[
            {"name": name, "type": kind, "addr": f"127.0.0.1:{port}"}
            for name, kind, port in (
                ("ssh", "node", sshd.port),
                ("pg", "db", postgres.port),
                ("web", "app", web.port),
                ("held", "app", listener.port),
            )
        ],
    )
    cluster.add_service(web)
    cluster.add_service(listener)
    cluster.web, cluster.listener = web, listener
    cluster.raw = {
        proxy: {
            name: proxy.tcp_listener(f"{name}.node-1")
            for name in ("pg", "web", "held")
        }
        for proxy in cluster.proxies
    }
    return cluster.start()


@pytest.fixture
def other(fleet):
    """The proxy without the tunnel: everything goes from peer to peer."""
    (other,) = fleet.others(fleet.holder("node-1"))
    before = other.peerd.status()["dials"]["peer"]
    yield other
    assert other.peerd.status()["dials"]["peer"] > before


def ends(fleet, proxy, kind):
    """(client's end, service's end) of a new connection by way of proxy."""
    if kind == "tls":
        client = proxy.dial("held.node-1")
        assert client.route == "peer"
    else:
        client = plain(fleet.raw[proxy]["held"])
    client.settimeout(TIMEOUT)
    service = fleet.listener.accept(TIMEOUT)
    service.settimeout(TIMEOUT)
    return client, service


def end_writing(stream):
    if hasattr(stream, "shutdown_write"):
        stream.shutdown_write()
    else:
        stream.shutdown(socket.SHUT_WR)


def read_to_end(stream):
    data = bytearray()
    while part := stream.recv(1 << 18):
        data += part
    return bytes(data)


def in_thread(job):
    got = []
    thread = threading.Thread(target=lambda: got.append(job()))
    thread.start()
    return thread, got


@pytest.mark.parametrize("first", ["client", "service"])
@pytest.mark.parametrize("kind", ["tls", "plain"])
def test_half_close_across_peers(fleet, other, kind, first):
    client, service = ends(fleet, other, kind)
    with client, service:
        one, two = (client, service) if first == "client" else (service, client)
        question, answer = os.urandom(8 * MIB + 1), os.urandom(8 * MIB + 3)
        thread, got = in_thread(lambda: read_to_end(two))
        one.sendall(question)
        end_writing(one)
        thread.join(TIMEOUT)
        assert got == [question]
        thread, got = in_thread(lambda: read_to_end(one))
        two.sendall(answer)
        end_writing(two)
        thread.join(TIMEOUT)
        assert got == [answer]


def ssh_argv(fleet, sshd, proxy, command):
    return [
        "ssh", "-F", "none", "-i", str(sshd.client_key), "-l", "root",
        "-o", f"UserKnownHostsFile={sshd.known_hosts}",
        "-o", "BatchMode=yes", "-o", "IdentitiesOnly=yes",
        "-o", "LogLevel=ERROR",
        "-o", f"ProxyCommand={fleet.proxy_command(proxy)}",
        "ssh.node-1", command,
    ]


@pytest.mark.parametrize("size", [0, 1, 8 * MIB + 7])
def test_ssh_cat(fleet, other, sshd, tmp_path, size):
    data = os.urandom(size)
    file, copy = tmp_path / "file", tmp_path / "copy"
    file.write_bytes(data)
    for command, source, want in (
        ("cat", file, data),
        (f"cat {file}", os.devnull, data),
        (f"cat > {copy}; echo done", file, b"done\n"),
    ):
        with open(source, "rb") as stdin:
            result = subprocess.run(
                ssh_argv(fleet, sshd, other, command),
                stdin=stdin, capture_output=True, timeout=TIMEOUT, check=True,
            )
        assert result.stdout == want, command
    assert copy.read_bytes() == data


def test_nc_sends_all_and_waits_for_the_answer(fleet, other, tmp_path):
    data, answer = os.urandom(4 * MIB), os.urandom(4 * MIB)
    file = tmp_path / "file"
    file.write_bytes(data)
    host, port = fleet.raw[other]["held"].rsplit(":", 1)
    with open(file, "rb") as stdin:
        nc = subprocess.Popen(
            ["nc", "-N", host, port], stdin=stdin, stdout=subprocess.PIPE
        )
    service = fleet.listener.accept(TIMEOUT)
    service.settimeout(TIMEOUT)
    with service:
        thread, out = in_thread(lambda: nc.communicate(timeout=TIMEOUT)[0])
        assert read_to_end(service) == data
        service.sendall(answer)
    thread.join(TIMEOUT)
    assert out == [answer]
    assert nc.returncode == 0


def test_postgresql_copy(fleet, other, postgres, tmp_path):
    host, port = fleet.raw[other]["pg"].rsplit(":", 1)
    rows = "".join(f"{n}\t{hashlib.md5(b'%d' % n).hexdigest()}\n"
                   for n in range(100_000))
    file = tmp_path / "rows"
    for text in (rows, ""):
        file.write_text(text)
        psql = ["psql", "-X", "-q", "-h", host, "-p", port, "-U", "postgres",
                "-d", "postgres", "-v", "ON_ERROR_STOP=1"]
        env = {**os.environ, "PGSSLMODE": "disable"}
        subprocess.run(
            psql + ["-c", "drop table if exists copied",
                    "-c", "create table copied(n int, t text)"],
            env=env, check=True, timeout=TIMEOUT, capture_output=True,
        )
        with open(file, "rb") as stdin:
            subprocess.run(
                psql + ["-c", "copy copied from stdin"], stdin=stdin,
                env=env, check=True, timeout=TIMEOUT,
            )
        out = subprocess.run(
            psql + ["-c", "copy (select * from copied order by n) to stdout"],
            env=env, check=True, timeout=TIMEOUT, capture_output=True, text=True,
        )
        assert out.stdout == text


@pytest.mark.parametrize("limit", [(), ("--limit-rate", "4M")], ids=["fast", "slow"])
def test_an_http_body_that_ends_by_closing(fleet, other, limit):
    addr = fleet.raw[other]["web"]
    result = subprocess.run(
        ["curl", "-sS", "--http1.0", *limit, f"http://{addr}/"],
        capture_output=True, timeout=TIMEOUT, check=True,
    )
    assert result.stdout == fleet.web.body


# A stream that was cut is no end


def cut(fleet, other, part):
    holder = fleet.holder("node-1")
    if part == "agent":
        fleet.agents[0].agent.kill()
    elif part == "holder's worker":
        for pid in holder.worker_pids().values():
            os.kill(pid, 9)
    elif part == "holder's peerd":
        holder.peerd.kill()
    elif part == "dialing peerd":
        other.peerd.kill()


def mend(fleet, other, part):
    holder = fleet.proxies[1 - fleet.proxies.index(other)]
    if part == "agent":
        fleet.agents[0].agent.start()
    elif part == "holder's peerd":
        holder.peerd.start()
    elif part == "dialing peerd":
        other.peerd.start()
    for proxy in fleet.proxies:
        proxy.peerd.wait_ready()

    def one_holder():
        """By the tunnels themselves, and by every cache."""
        live = {p.uuid for p in fleet.proxies if "node-1" in p.tunnel_names()}
        told = [p.agents().get("node-1") for p in fleet.proxies]
        return len(live) == 1 and told == [live] * len(told)

    wait_for(one_holder, TIMEOUT, "the agent is back")
    fleet.wait_peers()


@pytest.mark.parametrize("kind", ["tls", "plain"])
@pytest.mark.parametrize(
    "part", ["agent", "holder's worker", "holder's peerd", "dialing peerd"]
)
def test_a_download_that_is_cut_is_no_whole_one(fleet, kind, part):
    """The service sends without an announced length, and nobody says its end."""
    (other,) = fleet.others(fleet.holder("node-1"))
    client, service = ends(fleet, other, kind)
    stop = threading.Event()

    def send():
        try:
            while not stop.is_set():
                service.sendall(bytes(1 << 16))
        except OSError:
            pass

    sender = threading.Thread(target=send, daemon=True)
    sender.start()
    try:
        got = 0
        while got < 4 * MIB:
            got += len(client.recv(1 << 16))
        cut(fleet, other, part)
        with pytest.raises(OSError) as error:
            while client.recv(1 << 16):
                pass
        assert not isinstance(error.value, socket.timeout), "never ended"
    finally:
        stop.set()
        client.close()
        service.close()
        sender.join(TIMEOUT)
        mend(fleet, other, part)


@pytest.mark.parametrize("kind", ["tls", "plain"])
def test_an_upload_that_is_cut_is_no_whole_one(fleet, other, kind):
    """The client is killed: its kernel resets. The service hears no end."""
    client, service = ends(fleet, other, kind)
    with service:
        client.sendall(b"half of it")
        assert service.recv(10) == b"half of it"
        if kind == "tls":
            client.abort()
        else:
            abort(client)
        with pytest.raises(ConnectionResetError):
            service.recv(1)
    wait_for(
        lambda: other.peerd.metric("peerway_peerd_streams") == 0,
        TIMEOUT,
        "no stream is left",
    )
