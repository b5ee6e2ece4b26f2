# SPDX-License-Identifier: Apache-2.0
"""A real etcd, of one member or of three, on loopback addresses of its own.

    with Etcd(members=3) as etcd:
        etcd.start()
        cluster = Cluster(storage=etcd.storage())
        etcd.members[0].kill9()
        etcd.wait_healthy()  # the other two are enough
        etcd.members[0].start()
"""

import json
import os
import shutil
import ssl
import subprocess
import tempfile
import urllib.request
from pathlib import Path

from hosts import SLOW, Network
from process import Process, wait_for

HEALTHY_TIMEOUT = 20 * SLOW


class Member:
    """One etcd process and its data, which outlive each other."""

    def __init__(self, etcd, number):
        address = etcd.network.address(number + 1)
        self.name = f"etcd{number}"
        self.dir = etcd.dir / self.name
        self.address = address
        self.client_url = (
            f"{etcd.scheme}://{address}:{Network.free_port(address)}"
        )
        self.peer_url = f"http://{address}:{Network.free_port(address)}"
        self.process = None

    def set_up(self, etcd):
        """Once all members have their addresses."""
        cluster = [f"{m.name}={m.peer_url}" for m in etcd.members]
        self.context = etcd.tls and etcd.tls.context()
        tls = etcd.tls.server_args(self.address) if etcd.tls else []
        argv = [
            "etcd",
            "--name", self.name,
            "--data-dir", self.dir,
            "--listen-client-urls", self.client_url,
            "--advertise-client-urls", self.client_url,
            "--listen-peer-urls", self.peer_url,
            "--initial-advertise-peer-urls", self.peer_url,
            "--initial-cluster", ",".join(cluster),
            "--initial-cluster-token", etcd.dir.name,
            "--logger", "zap",
            "--log-level", "warn",
            *tls,
            *etcd.args,
        ]
        self.process = Process(self.name, argv, etcd.dir / f"{self.name}.log")

    @property
    def pid(self):
        return self.process.pid

    def running(self):
        return self.process.running()

    def start(self):
        """Does not wait: alone of three it is not healthy."""
        self.process.start()
        return self

    def stop(self):
        return self.process.stop()

    def kill9(self):
        self.process.kill()

    def restart(self):
        self.stop()
        return self.start()

    def send_signal(self, number):
        self.process.send_signal(number)

    def is_healthy(self):
        """Whether it serves, which takes a leader."""
        self.process.check_running()
        with urllib.request.urlopen(
            f"{self.client_url}/health", timeout=2, context=self.context
        ) as answer:
            return json.load(answer)["health"] == "true"

    def wait_healthy(self, timeout=HEALTHY_TIMEOUT):
        wait_for(self.is_healthy, timeout, f"{self.name} is healthy", 0.1)
        return self


class Tls:
    """A CA for etcd alone: certificates of its members and of who may ask."""

    def __init__(self, directory):
        self.dir = directory
        self._openssl(
            "req", "-x509", "-newkey", "ec", "-pkeyopt",
            "ec_paramgen_curve:P-256", "-nodes", "-days", "1", "-subj",
            "/CN=etcd CA", "-keyout", self.path("ca.key"), "-out",
            self.path("ca.pem"),
        )
        self.make("client", "subjectAltName=DNS:client")

    @staticmethod
    def _openssl(*argv):
        subprocess.run(["openssl", *map(str, argv)], check=True,
                       capture_output=True)

    def path(self, name):
        return self.dir / name

    def make(self, name, extension):
        self._openssl(
            "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
            "-nodes", "-subj", f"/CN={name}", "-keyout",
            self.path(f"{name}.key"), "-out", self.path(f"{name}.csr"),
        )
        self.path(f"{name}.ext").write_text(extension + "\n")
        self._openssl(
            "x509", "-req", "-in", self.path(f"{name}.csr"), "-days", "1",
            "-CA", self.path("ca.pem"), "-CAkey", self.path("ca.key"),
            "-extfile", self.path(f"{name}.ext"), "-out",
            self.path(f"{name}.pem"),
        )

    def server_args(self, address):
        name = f"server-{address}"
        self.make(name, f"subjectAltName=IP:{address}")
        return [
            "--cert-file", self.path(f"{name}.pem"),
            "--key-file", self.path(f"{name}.key"),
            "--client-cert-auth",
            "--trusted-ca-file", self.path("ca.pem"),
        ]

    def context(self):
        context = ssl.create_default_context(cafile=self.path("ca.pem"))
        context.load_cert_chain(
            self.path("client.pem"), self.path("client.key"))
        return context

    def ctl_args(self):
        return ["--cacert", self.path("ca.pem"), "--cert",
                self.path("client.pem"), "--key", self.path("client.key")]

    def storage(self):
        return {"ca": str(self.path("ca.pem")),
                "cert": str(self.path("client.pem")),
                "key": str(self.path("client.key"))}


class Etcd:
    """members: how many; args: further options of etcd for each; tls: clients
    speak TLS with it, and show a certificate."""

    def __init__(self, members=1, args=(), tls=False):
        self.args = [str(arg) for arg in args]
        self.dir = Path(tempfile.mkdtemp(prefix="pw-etcd-"))
        self.scheme = "https" if tls else "http"
        self.tls = Tls(self.dir) if tls else None
        self.network = Network()
        self.members = [Member(self, number) for number in range(members)]
        for member in self.members:
            member.set_up(self)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    @property
    def endpoints(self):
        return [member.client_url for member in self.members]

    def storage(self, **more):
        """authd's settings for it."""
        addresses = [url.split("//")[1] for url in self.endpoints]
        if self.tls:
            more["tls"] = self.tls.storage()
        return {"type": "etcd", "endpoints": addresses, **more}

    @property
    def process(self):
        """Of the only member."""
        (member,) = self.members
        return member.process

    # All members at once

    def start(self):
        for member in self.members:
            member.start()
        return self.wait_healthy()

    def wait_healthy(self, timeout=HEALTHY_TIMEOUT):
        """Until each member that runs serves."""
        for member in self.members:
            if member.running():
                member.wait_healthy(timeout)
        return self

    def stop(self):
        for member in self.members:
            if member.running():
                member.stop()

    def kill9(self):
        for member in self.members:
            if member.running():
                member.kill9()

    def restart(self):
        self.stop()
        return self.start()

    # What etcdctl says

    def ctl(self, *args, member=None):
        """Runs etcdctl with all members, or with one; gives its stdout."""
        endpoints = [member.client_url] if member else self.endpoints
        result = subprocess.run(
            ["etcdctl", "--endpoints", ",".join(endpoints),
             *(self.tls.ctl_args() if self.tls else []),
             *(str(arg) for arg in args)],
            env={**os.environ, "ETCDCTL_API": "3"},
            text=True,
            capture_output=True,
            stdin=subprocess.DEVNULL,
            timeout=30,
            check=False,
        )
        assert result.returncode == 0, f"etcdctl {args}: {result.stderr}"
        return result.stdout

    def status(self, members=None):
        """Running member (of members) -> its status as etcdctl gives it."""
        found = {}
        for member in members or self.members:
            if member.running():
                (answer,) = json.loads(
                    self.ctl("endpoint", "status", "-w", "json", member=member)
                )
                found[member] = answer["Status"]
        return found

    def leader(self, members=None):
        """The member (of members) that leads, or None."""
        for member, status in self.status(members).items():
            if status.get("leader") == status["header"]["member_id"]:
                return member
        return None

    def revision(self):
        return max(s["header"]["revision"] for s in self.status().values())

    def compact(self, revision=None):
        """Forgets what was before revision (now); gives it."""
        revision = revision or self.revision()
        self.ctl("compact", revision)
        return revision

    # The end

    def complaints(self):
        """Members that ended by themselves."""
        return [
            f"{m.name} ended by itself: {m.process.popen.returncode}\n"
            + m.process.tail(15)
            for m in self.members
            if not m.process.expected_end and not m.process.running()
        ]

    def close(self):
        for member in self.members:
            member.process.kill_group()
        self.network.close()
        if os.environ.get("PEERWAY_TEST_KEEP"):
            print(f"kept {self.dir}")
        else:
            shutil.rmtree(self.dir, ignore_errors=True)
