# SPDX-License-Identifier: Apache-2.0
"""Debian's supervisord, running hosts of a cluster by the files that are
shipped (deploy/supervisor). Of those only the paths, the user and the place of
the logs are others here; see Supervisord.add()."""

import os
import re
import signal
import subprocess
import xmlrpc.client

from supervisor.xmlrpc import SupervisorTransport

from hosts import (
    BUILD,
    START_TIMEOUT,
    AgentHost,
    AuthHost,
    Daemon,
    ProxyHost,
    binary,
)
from process import Process, group_pids, wait_for

GROUPS = {
    AuthHost: "peerway-auth",
    ProxyHost: "peerway-proxy-host",
    AgentHost: "peerway-agent",
}

MAIN = """\
[supervisord]
nodaemon=true
user=root
logfile={dir}/supervisord.log
pidfile={dir}/pid
childlogdir={dir}
[unix_http_server]
file={dir}/sock
[rpcinterface:supervisor]
supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface
[supervisorctl]
serverurl=unix://{dir}/sock
[include]
files={dir}/conf.d/*.conf
"""


class Supervised(Daemon):
    """A daemon that supervisord starts, and starts again."""

    def __init__(self, supervisord, host, name):
        super().__init__(host, name)
        self.supervisord = supervisord
        self.program = f"{GROUPS[type(host)]}:{name}"

    def info(self):
        for info in self.supervisord.rpc.getAllProcessInfo():
            if f"{info['group']}:{info['name']}" == self.program:
                return info
        return {"statename": "UNKNOWN", "pid": 0}  # not added yet

    @property
    def pid(self):
        return self.info()["pid"]

    def pids(self):
        return group_pids(self.pid)

    def running(self):
        return self.supervisord.process.running() and self.info()[
            "statename"
        ] in ("STARTING", "RUNNING")

    def check_running(self):
        return True  # what has ended is started again

    def start(self):
        self.supervisord.add(self.host)
        return self

    def kill(self, number=signal.SIGKILL):
        """Its main process alone; returns once another has been started and
        nothing is left of the old one."""
        old, group = self.pid, self.pids()
        os.kill(old, number)
        wait_for(
            lambda: self.pid not in (0, old),
            START_TIMEOUT,
            f"supervisord has started {self.name} again",
        )
        wait_for(
            lambda: not set(group) & set(group_pids(old)),
            START_TIMEOUT,
            f"nothing is left of the {self.name} that was killed",
        )


class Supervisord:
    """One for a cluster; close() it before the cluster."""

    def __init__(self, cluster, account):
        self.dir = cluster.dir / "supervisord"
        (self.dir / "conf.d").mkdir(parents=True)
        self.account = account
        self.conf = self.dir / "supervisord.conf"
        self.conf.write_text(MAIN.format(dir=self.dir))
        self.process = Process(
            "supervisord",
            ["/usr/bin/supervisord", "-c", self.conf],
            self.dir / "out",
        ).start()
        wait_for(
            lambda: self.rpc.getState(), START_TIMEOUT, "supervisord answers"
        )

    @property
    def rpc(self):
        """Anew for each question: a connection that failed once is of no use."""
        return xmlrpc.client.ServerProxy(
            "http://127.0.0.1",
            SupervisorTransport(None, None, f"unix://{self.dir}/sock"),
        ).supervisor

    def adopt(self, host):
        """From now on host's daemons are supervisord's."""
        host.make_daemons(lambda *args: Supervised(self, *args))

    def add(self, host):
        """The group of host: its file into conf.d, and supervisorctl update."""
        group = GROUPS[type(host)]
        to = self.dir / "conf.d" / f"{group}.conf"
        if to.exists():
            return
        text = (BUILD / "deploy" / f"{group}.conf").read_text()
        for pattern, value in (
            (r"^command=\S+/(\w+)", lambda m: f"command={binary(m[1])}"),
            (r"/etc/peerway/peerway\.yaml", str(host.config_path)),
            (r"^user=\S+", f"user={self.account}"),
            (r"/var/log/supervisor/peerway-", f"{host.dir}/"),
        ):
            text, count = re.subn(pattern, value, text, flags=re.MULTILINE)
            assert count == len(host.daemons), (pattern, text)
        to.write_text(text)
        self.ctl("update")

    def argv(self, *args):
        return ["/usr/bin/supervisorctl", "-c", str(self.conf), *args]

    def ctl(self, *args):
        """supervisorctl; gives its stdout."""
        result = subprocess.run(
            self.argv(*args),
            text=True,
            capture_output=True,
            stdin=subprocess.DEVNULL,
            timeout=60 + START_TIMEOUT,
            check=False,
        )
        assert result.returncode == 0, f"{args}: {result.stdout}{result.stderr}"
        return result.stdout

    def log(self):
        return (self.dir / "supervisord.log").read_text()

    def close(self):
        self.process.stop(timeout=60)
