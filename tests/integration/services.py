# SPDX-License-Identifier: Apache-2.0
"""Real programs behind and before the fleet: sshd, PostgreSQL, nginx, HAProxy,
Prometheus and the pump (tests/tools). Each runs in a temporary directory on a free port
of 127.0.0.1 until close()."""

import hashlib
import json
import os
import pwd
import re
import shutil
import socket
import subprocess
import tempfile
import threading
import urllib.parse
import urllib.request
from pathlib import Path

import connect
import suite
from process import Process, wait_for

ANSWERS_TIMEOUT = 20


def free_port(address="127.0.0.1"):
    return suite.Network.free_port(address)


def answers(address, port):
    with socket.create_connection((address, port), 1):
        return True


def run(*argv, **kwargs):
    """Runs a program that must succeed; gives its stdout."""
    result = subprocess.run(
        [str(arg) for arg in argv],
        text=True,
        capture_output=True,
        stdin=subprocess.DEVNULL,
        timeout=kwargs.pop("timeout", 60),
        check=False,
        **kwargs,
    )
    assert result.returncode == 0, f"{argv}: {result.stdout}{result.stderr}"
    return result.stdout


class Service:
    """A program with a directory and a port of its own."""

    def __init__(self):
        self.dir = Path(tempfile.mkdtemp(prefix="pw-service-"))
        self.port = free_port()
        self.process = None

    def launch(self, name, *argv, user=None):
        self.process = Process(name, argv, self.dir / "log", user=user)
        self.process.start()

    def wait_answers(self, address="127.0.0.1"):
        def ready():
            self.process.check_running()
            return answers(address, self.port)

        wait_for(ready, ANSWERS_TIMEOUT, f"{self.process.name} answers")

    def close(self):
        if self.process:
            self.process.kill_group()
        shutil.rmtree(self.dir, ignore_errors=True)


class Sshd(Service):
    """OpenSSH's server with throw-away keys; root logs in with client_key."""

    def __init__(self):
        super().__init__()
        self.client_key = self.dir / "client"
        for key in ("host", "client"):
            run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f",
                self.dir / key)
        shutil.copy(self.dir / "client.pub", self.dir / "authorized_keys")
        host_key = (self.dir / "host.pub").read_text()
        self.known_hosts = self.dir / "known_hosts"
        self.known_hosts.write_text("* " + host_key)
        config = self.dir / "sshd_config"
        config.write_text(
            f"ListenAddress 127.0.0.1:{self.port}\n"
            f"HostKey {self.dir}/host\n"
            f"AuthorizedKeysFile {self.dir}/authorized_keys\n"
            f"PidFile none\nUsePAM no\nStrictModes no\n"
            "PasswordAuthentication no\nPermitRootLogin prohibit-password\n"
            "MaxStartups 200\nSubsystem sftp internal-sftp\n"
        )
        os.makedirs("/run/sshd", exist_ok=True)
        self.launch("sshd", "/usr/sbin/sshd", "-D", "-e", "-f", config)
        self.wait_answers()

    def ssh(self, host, command, options=(), **kwargs):
        """Runs command there; gives its stdout."""
        return run(
            "ssh", "-F", "none", "-i", self.client_key, "-l", "root",
            "-o", f"UserKnownHostsFile={self.known_hosts}",
            "-o", "StrictHostKeyChecking=yes", "-o", "BatchMode=yes",
            "-o", "IdentitiesOnly=yes", "-o", "LogLevel=ERROR",
            *options, host, command, **kwargs,
        )


class Postgres(Service):
    """PostgreSQL from Debian's package; trust on loopback, user postgres."""

    def __init__(self):
        super().__init__()
        tools = max(Path("/usr/lib/postgresql").glob("*/bin"),
                    key=lambda path: int(path.parent.name))
        account = pwd.getpwnam("postgres")
        shutil.chown(self.dir, "postgres")
        data = self.dir / "data"
        run("runuser", "-u", "postgres", "--", tools / "initdb", "-D", data,
            "-A", "trust", "-N", "-E", "UTF8", "--locale", "C", cwd=self.dir)
        self.launch(
            "postgres", tools / "postgres", "-D", data, "-p", self.port,
            "-c", "listen_addresses=127.0.0.1", "-c", "fsync=off",
            "-c", f"unix_socket_directories={self.dir}", user=(account.pw_uid, account.pw_gid),
        )
        wait_for(
            lambda: self.query(self.port, "select 1", check=False) == "1",
            ANSWERS_TIMEOUT,
            "PostgreSQL answers",
        )

    @staticmethod
    def query(port, sql, host="127.0.0.1", check=True, timeout=30):
        """Runs psql; gives its unaligned output."""
        result = subprocess.run(
            ["psql", "-X", "-A", "-t", "-q", "-h", host, "-p", str(port),
             "-U", "postgres", "-d", "postgres", "-c", sql],
            text=True, capture_output=True, stdin=subprocess.DEVNULL,
            timeout=timeout, check=False,
            env={**os.environ, "PGCONNECT_TIMEOUT": "20",
                 "PGSSLMODE": "disable"},
        )
        if check:
            assert result.returncode == 0, result.stderr
        return result.stdout.strip()


class Nginx(Service):
    """A web server over its directory www."""

    def __init__(self):
        super().__init__()
        self.dir.chmod(0o755)
        self.www = self.dir / "www"
        self.www.mkdir()
        config = self.dir / "nginx.conf"
        config.write_text(
            f"pid {self.dir}/pid; error_log {self.dir}/error.log;\n"
            "daemon off; user root; worker_processes 1;\n"
            "events { worker_connections 256; }\n"
            "http { access_log off; sendfile on;\n"
            f"  client_body_temp_path {self.dir}/body;\n"
            f"  proxy_temp_path {self.dir}/proxy;\n"
            f"  fastcgi_temp_path {self.dir}/fastcgi;\n"
            f"  uwsgi_temp_path {self.dir}/uwsgi;\n"
            f"  scgi_temp_path {self.dir}/scgi;\n"
            f"  server {{ listen 127.0.0.1:{self.port};"
            f" root {self.www}; }} }}\n"
        )
        self.launch("nginx", "/usr/sbin/nginx", "-p", self.dir, "-c", config)
        self.wait_answers()


class Haproxy(Service):
    """A TCP load balancer, round robin over backends that answer."""

    def __init__(self, backends, address="127.0.0.1"):
        super().__init__()
        self.port = free_port(address)
        self.addr = f"{address}:{self.port}"
        servers = "".join(
            f"  server s{number} {backend} check inter 200 fall 1 rise 1\n"
            for number, backend in enumerate(backends)
        )
        config = self.dir / "haproxy.cfg"
        config.write_text(
            "global\n  maxconn 2000\n"
            "defaults\n  mode tcp\n  timeout connect 5s\n"
            "  timeout client 1h\n  timeout server 1h\n"
            f"listen fleet\n  bind {self.addr}\n  balance roundrobin\n"
            + servers
        )
        self.launch("haproxy", "/usr/sbin/haproxy", "-db", "-f", config)
        self.wait_answers(address)


class Prometheus(Service):
    """Debian's Prometheus with the rules that are shipped, scraping targets as
    an operator would. interval: seconds, of scrapes and of evaluations."""

    RULES = suite.SOURCE / "deploy" / "prometheus" / "peerway-alerts.yml"

    def __init__(self, targets, interval):
        super().__init__()
        config = self.dir / "prometheus.json"  # which is YAML too
        config.write_text(
            json.dumps(
                {
                    "global": {
                        "scrape_interval": f"{interval}s",
                        "scrape_timeout": f"{min(interval, 10)}s",
                        "evaluation_interval": f"{interval}s",
                    },
                    "rule_files": [str(self.RULES)],
                    "scrape_configs": [
                        {
                            "job_name": "peerway",
                            "static_configs": [{"targets": targets}],
                        }
                    ],
                }
            )
        )
        self.launch(
            "prometheus",
            "/usr/bin/prometheus",
            f"--config.file={config}",
            f"--storage.tsdb.path={self.dir}/data",
            f"--web.listen-address=127.0.0.1:{self.port}",
            "--log.level=warn",
        )
        self.wait_answers()

    def _get(self, path, **args):
        url = f"http://127.0.0.1:{self.port}/api/v1/{path}"
        if args:
            url += "?" + urllib.parse.urlencode(args)
        with urllib.request.urlopen(url, timeout=10) as answer:
            return json.load(answer)["data"]

    def query(self, expr):
        """[(labels, value)] now."""
        return [
            (found["metric"], float(found["value"][1]))
            for found in self._get("query", query=expr)["result"]
        ]

    def alerts(self, state="firing"):
        """What Alertmanager would be told, with labels and annotations."""
        return [a for a in self._get("alerts")["alerts"] if a["state"] == state]


class Pump(Service):
    """tests/tools/pump serve: .port serves transfers, .echo_port echoes."""

    BINARY = suite.BUILD / "tests" / "tools" / "pump"

    def __init__(self):
        super().__init__()
        self.launch("pump", self.BINARY, "serve")
        line = self.process.wait_log(r"^pump (\d+) echo (\d+)$")
        self.port, self.echo_port = int(line[1]), int(line[2])

    def services(self):
        """For an agent: echo and pump."""
        return [
            {"name": "echo", "type": "app",
             "addr": f"127.0.0.1:{self.echo_port}"},
            {"name": "pump", "type": "app", "addr": f"127.0.0.1:{self.port}"},
        ]


class Load:
    """pump load: many transfers at once through one proxy."""

    def __init__(self, proxy, target, connections, up, down, deadline,
                 user="alice"):
        identity = proxy.cluster.identity(user)
        argv = [
            Pump.BINARY, "load", "--proxy", proxy.listen_addr,
            "--target", target, "--ca", identity.host_ca,
            "--name", connect.server_name(suite.CLUSTER_NAME),
            "--cert", identity.cert, "--key", identity.key,
            "--connections", connections, "--up", up, "--down", down,
            "--deadline", int(deadline),
        ]
        self._timeout = deadline + 10
        self._popen = subprocess.Popen(
            [str(arg) for arg in argv], text=True, stdout=subprocess.PIPE
        )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._popen.kill()
        self._popen.communicate()

    def running(self):
        return self._popen.poll() is None

    def results(self):
        """One dict for each connection, when all have ended."""
        out, _ = self._popen.communicate(timeout=self._timeout)
        return [json.loads(line) for line in out.splitlines()]


class Transfer:
    """One transfer of the pump over any stream, watched and paced by a test.

    run() moves random bytes both ways at once and compares digests; up and down
    count what has been moved so far.
    """

    CHUNK = 256 * 1024

    def __init__(self, stream, up, down, on_progress=None):
        self.stream = stream
        self.total_up, self.total_down = up, down
        self.up = self.down = 0
        self._on_progress = on_progress or (lambda transfer: None)
        self._sent, self._received = hashlib.sha256(), hashlib.sha256()
        self.error = None

    def request(self):
        head = b"PUMP\0\0\0\0" + self.total_up.to_bytes(8, "little")
        self.stream.sendall(head + self.total_down.to_bytes(8, "little"))

    def _send(self):
        try:
            while self.up < self.total_up:
                size = min(self.CHUNK, self.total_up - self.up)
                data = os.urandom(size)
                self.stream.sendall(data)
                self._sent.update(data)
                self.up += size
                self._on_progress(self)
        except Exception as error:  # told by run()
            self.error = error

    def receive(self, size):
        """The next size bytes of what comes down."""
        left = size
        while left:
            data = self.stream.recv(min(left, self.CHUNK))
            if not data:
                raise EOFError(f"ended after {self.down} bytes down")
            self._received.update(data)
            self.down += len(data)
            left -= len(data)

    def receive_rest(self):
        while self.down < self.total_down:
            self.receive(min(self.CHUNK, self.total_down - self.down))
            self._on_progress(self)

    def check_digests(self):
        theirs = b""
        while len(theirs) < 64:
            data = self.stream.recv(64 - len(theirs))
            assert data, "ended before the digests"
            theirs += data
        assert theirs[:32] == self._sent.digest(), "bytes up differ"
        assert theirs[32:] == self._received.digest(), "bytes down differ"

    def run(self):
        self.request()
        sender = threading.Thread(target=self._send, daemon=True)
        sender.start()
        try:
            self.receive_rest()
        finally:
            if self.down < self.total_down:
                self.stream.close()
            sender.join(60)
        if self.error:
            raise self.error
        self.check_digests()
        return self


class Listener:
    """A service in the test's own process: accept() gives the socket, so the
    test holds both ends of a connection."""

    def __init__(self):
        self.socket = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self.port = self.socket.getsockname()[1]

    def accept(self, timeout=10):
        self.socket.settimeout(timeout)
        accepted, _ = self.socket.accept()
        accepted.settimeout(timeout)
        return accepted

    def close(self):
        self.socket.close()


def session_lines(proxy, pattern=r""):
    """What the workers of a proxy host logged about ended client sessions."""
    found = proxy.proxy.log_matches(r"session ended: .*" + pattern + r".*$")
    return [
        dict(re.findall(r"(\w+)=(\S+)", match[0])) for match in found
    ]


class Server:
    """Serves each connection in a thread, by _serve(client) of a subclass."""

    def __init__(self):
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(
                target=self._serve, args=(client,), daemon=True
            ).start()

    def close(self):
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


class Banner(Server):
    """A service that tells its name and then what it gets."""

    def __init__(self, name):
        self._name = name.encode()
        super().__init__()

    def _serve(self, client):
        with client:
            try:
                client.sendall(self._name)
                while data := client.recv(65536):
                    client.sendall(data)
            except OSError:
                pass
