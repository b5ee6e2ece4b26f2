# SPDX-License-Identifier: Apache-2.0
"""The units that are shipped, on a Debian with systemd: hardened; any member of a
proxy host starts first; who is killed or stands still comes back; a restart of one
leaves what the others do alone; stopping the target drains, and peerd and routed
outlive the proxy."""

import itertools
import json
import re
import socket
import subprocess
import time
from pathlib import Path

import pytest

import connect
import container
import ctl
import services
from hosts import BUILD, CLUSTER_NAME, SLOW, yaml_text
from process import wait_for

MEMBERS = ("routed", "peerd", "proxy")
ALL = (*MEMBERS, "auth", "agent")
UNITS = [f"peerway-{name}.service" for name in ALL]
TARGET = "peerway-proxy-host.target"
LISTEN = "127.0.0.1:3080"
ECHO = 7000
MOST_EXPOSED = 2.0
DRAIN_TIMEOUT = 300  # s
WATCHDOG = 3  # s, as the test sets it
COMES_BACK = 20 * SLOW


def auth_config():
    return {
        "peerway": {
            "cluster_name": CLUSTER_NAME,
            "data_dir": "/var/lib/peerway-auth",
            "run_dir": "/run/peerway-auth",
        },
        "auth_service": {
            "enabled": True,
            "listen_addr": "127.0.0.1:3025",
            "tunnel_strategy": {
                "type": "proxy_peering", "agent_connection_count": 1,
            },
        },
    }


def proxy_config(join):
    return {
        "peerway": {
            "cluster_name": CLUSTER_NAME,
            "auth_servers": ["localhost:3025"],  # names are looked up
            "join": join,
        },
        "proxy_service": {
            "enabled": True,
            "listen_addr": LISTEN,
            "tunnel_listen_addr": "127.0.0.1:3024",
            "peer_listen_addr": "127.0.0.1:3021",
            "peer_public_addr": "127.0.0.1:3021",
            "public_addr": [LISTEN],
            "workers": 1,
            "drain_timeout": f"{DRAIN_TIMEOUT}s",
        },
    }


def agent_config(join):
    return {
        "peerway": {
            "cluster_name": CLUSTER_NAME,
            "data_dir": "/var/lib/peerway-agent",
            "join": join,
        },
        "agent_service": {
            "enabled": True,
            "name": "db-1",
            "proxy_server": ["localhost:3080"],
            "services": [
                {"name": "echo", "type": "app", "addr": f"127.0.0.1:{ECHO}"}
            ],
        },
    }


class Machine(container.Container):
    """One machine that is auth host, proxy host and agent, all by units."""

    def __init__(self):
        super().__init__(
            container.image(), "/sbin/init",
            # without it systemd leaves out what needs a mount
            options=["--systemd=always", "--cap-add=SYS_ADMIN"],
        )
        wait_for(
            lambda: self.systemctl("is-system-running") == "running",
            COMES_BACK, "systemd is up",
        )
        self.identity = None
        self.drop_ins = itertools.count()

    def systemctl(self, *args, timeout=60):
        """Its output, whatever the status."""
        return subprocess.run(
            ["podman", "exec", self.id, "systemctl", *args], text=True,
            capture_output=True, env=container.environment(), timeout=timeout,
            check=False,
        ).stdout.strip()

    def act(self, *args, timeout=60):
        return self.exec("systemctl", *args, timeout=timeout)

    def add_to(self, unit, text):
        """To its [Service]."""
        number = next(self.drop_ins)
        self.write(f"/etc/systemd/system/{unit}.d/{number}.conf",
                   f"[Service]\n{text}")

    def show(self, name, prop):
        return self.systemctl(
            "show", "--value", "--property", prop, f"peerway-{name}"
        )

    def pids(self):
        """Daemon -> pid as seen in the machine; 0: it does not run."""
        shown = self.systemctl(
            "show", "--property", "MainPID", *UNITS
        ).split()
        return dict(zip(ALL, (int(line.partition("=")[2]) for line in shown)))

    def log(self, name, lines=30):
        return self.exec("journalctl", "--no-pager", "-o", "cat", "-n",
                         lines, "-u", f"peerway-{name}")

    def manager(self, mark=0):
        """What systemd itself has said, behind so many characters of it."""
        return self.exec("journalctl", "-o", "cat", "_PID=1")[mark:]

    # Setting it up

    def set_up(self):
        for name in ("auth", "agent"):
            self.add_to(f"peerway-{name}.service",
                        f"Environment=PEERWAY_CONFIG=/etc/peerway/{name}.yaml\n")
        self.write("/etc/peerway/auth.yaml", yaml_text(auth_config()))
        self.act("daemon-reload")
        self.act("start", "peerway-auth")
        pin = self.ask("peerway-auth/authd", "ca")["pin"]
        for role, name, group, make in (
            ("proxy", "peerway", "peerway", proxy_config),
            ("node", "agent", "peerway-agent", agent_config),
        ):
            token = f"/etc/peerway/{name}-token"
            self.write(token, self.token(role))
            self.exec("chown", f"root:{group}", token)
            self.exec("chmod", "0640", token)
            join = {"token_file": token, "ca_pin": pin}
            self.write(f"/etc/peerway/{name}.yaml", yaml_text(make(join)))
        self.start_echo()
        self.identity = self.issue("alice")
        self.act("start", TARGET, "peerway-agent")

    def token(self, role):
        names = ["--name", "127.0.0.1"] if role == "proxy" else []
        answer = self.exec(
            "peerctl", "-c", "/etc/peerway/auth.yaml", "token", "add",
            "--role", role, *names, "--format", "json",
        )
        return json.loads(answer)["token"] + "\n"

    def issue(self, user):
        self.exec("peerctl", "-c", "/etc/peerway/auth.yaml", "identity",
                  "issue", user, "--out", f"/root/{user}")
        files = [f"{self.root}/root/{user}/{name}.pem"
                 for name in ("cert", "key", "host_ca")]
        return connect.Identity(*map(Path, files))

    def start_echo(self):
        pump = Path(f"{self.root}/usr/local/bin/pump")
        pump.write_bytes(services.Pump.BINARY.read_bytes())
        pump.chmod(0o755)
        self.exec("systemd-run", "--unit=pump", "pump", "serve")
        line = wait_for(
            lambda: re.search(r"^pump \d+ echo (\d+)$",
                              self.exec("journalctl", "-o", "cat", "-u",
                                        "pump"), re.M),
            COMES_BACK, "the echo service says its port",
        )
        config = Path(f"{self.root}/etc/peerway/agent.yaml")
        config.write_text(config.read_text().replace(str(ECHO), line[1]))

    # Using it

    def ask(self, name, verb):
        return ctl.ask(f"{self.root}/run/{name}.sock", verb, None, 10)

    def dial(self):
        with self.network:
            return connect.dial(
                LISTEN, "echo.db-1", self.identity, CLUSTER_NAME, 15 * SLOW
            )

    def works(self):
        """A client reaches the agent's service."""
        try:
            with self.dial() as session:
                return echoes(session, b"hello")
        except connect.Refused:
            return False

    def wait_works(self, what):
        wait_for(self.works, COMES_BACK, f"a dial succeeds {what}",
                 interval=0.2)

    def wait_back(self, name, before):
        """Until a daemon has another pid and is ready; its new one."""

        def back():
            pid = self.pids()[name]
            return pid not in (0, before[name]) and (
                self.systemctl("is-active", f"peerway-{name}") == "active"
            )

        wait_for(back, COMES_BACK, f"{name} is back", interval=0.2)


def echoes(session, text):
    session.sendall(text)
    return session.recv_exactly(len(text)) == text


@pytest.fixture(scope="module")
def machine():
    with Machine() as machine:
        machine.set_up()
        machine.wait_works("after the start")
        yield machine
        print(machine.exec("journalctl", "--no-pager", "-n", "200"))


def test_units_are_right_and_hardened(machine):
    """systemd has nothing to say against them, finds each at most so exposed,
    and what they forbid is forbidden to the processes."""
    said = subprocess.run(
        ["podman", "exec", machine.id, "systemd-analyze", "verify", "--man=no", TARGET,
         *UNITS],
        text=True, capture_output=True, env=container.environment(), check=False,
    )
    assert (said.returncode, said.stdout + said.stderr) == (0, "")
    for unit in UNITS:
        text = machine.exec("systemd-analyze", "security", "--no-pager", unit)
        level = re.search(r"exposure level for \S+: ([\d.]+)", text)
        assert float(level[1]) <= MOST_EXPOSED, text
    for name, pid in machine.pids().items():
        proc = Path(f"{machine.root}/proc/{pid}")
        status = dict(
            line.split(":\t", 1)
            for line in (proc / "status").read_text().splitlines()
            if ":\t" in line
        )
        assert status["NoNewPrivs"] == "1", name
        assert status["Seccomp"] == "2", name
        assert int(status["CapBnd"], 16) == 0, name
        assert "0" not in status["Uid"].split(), name
        mounts = (proc / "mountinfo").read_text()
        assert re.search(r" / / ro[, ]", mounts), (name, mounts)


@pytest.mark.parametrize("first", MEMBERS)
def test_any_member_may_start_first(machine, first):
    """One by one, and each is served by those that come later."""
    machine.act("stop", TARGET)
    assert not any(machine.pids()[name] for name in MEMBERS)
    order = [first, *(name for name in reversed(MEMBERS) if name != first)]
    for name in order:
        machine.act("start", f"peerway-{name}")
    machine.wait_works(f"with {' '.join(order)}")


@pytest.mark.parametrize("name", ALL)
def test_who_is_killed_comes_back(machine, name):
    """Alone: the others are the same processes, and dials succeed again."""
    before = machine.pids()
    machine.exec("kill", "-9", before[name])
    machine.wait_back(name, before)
    machine.wait_works(f"after {name} was killed")
    after = machine.pids()
    assert {n: p for n, p in after.items() if n != name} == {
        n: p for n, p in before.items() if n != name
    }


def test_the_journal_knows_levels(machine):
    """Lines carry the journal's priority, and no time beside the journal's."""
    wanted = {"4": "warn", "6": "info"}
    read = "journalctl", "--no-pager", "-o", "json", "-u", "peerway-proxy"
    seen = set()
    for line in machine.exec(*read, "_TRANSPORT=stdout").splitlines():
        entry = json.loads(line)
        said = re.match(r"(\w+) proxy(/\d)?\[\d+\]: ", entry["MESSAGE"])
        if said:
            seen.add(said[1])
            assert wanted.get(entry["PRIORITY"]) == said[1] or (
                entry["PRIORITY"] == "3" and said[1] == "error"
            ), line
    assert {"warn", "info"} <= seen


def test_a_restart_of_one_leaves_the_others_work_alone(machine):
    """A session through the proxy goes on while everything else is restarted
    and reloaded."""
    before = machine.pids()
    with machine.dial() as session:
        assert session.route == "local"
        assert echoes(session, b"before")
        others = [f"peerway-{n}" for n in ("routed", "peerd", "auth")]
        # which does not wait for workers that stay: drain_timeout is longer
        machine.act("restart", *others, timeout=60)
        assert echoes(session, b"restarted")
        after = machine.pids()
        machine.act("reload", *UNITS)
        assert echoes(session, b"reloaded")
        assert machine.pids() == after
        for name in ("routed", "peerd", "auth"):
            assert after[name] not in (0, before[name])
        for name in ("proxy", "agent"):
            assert after[name] == before[name]
    machine.wait_works("after restarts")


def test_a_reload_is_taken_up(machine):
    """ExecReload is the SIGHUP that reads the file again."""
    config = Path(f"{machine.root}/etc/peerway/peerway.yaml")
    old = config.read_text()
    config.write_text(old.replace('"300s"', '"301s"'))
    try:
        machine.act("reload", *(f"peerway-{name}" for name in MEMBERS))
        for name in MEMBERS:
            wait_for(
                lambda: re.search("changed=.*drain_timeout", machine.log(name)),
                COMES_BACK, f"{name} says what it has taken up",
            )
    finally:
        config.write_text(old)
        machine.act("reload", *(f"peerway-{name}" for name in MEMBERS))


def test_a_port_below_1024_by_the_drop_in_of_the_unit(machine):
    unit = "peerway-proxy.service"
    text = machine.exec("systemctl", "cat", unit)
    drop_in = re.search(r"^#   \[Service\]\n((?:#   \S+\n)+)", text, re.M)[1]
    config = Path(f"{machine.root}/etc/peerway/peerway.yaml")
    config.write_text(
        config.read_text()
        + '  tcp_listeners: [{"listen": "127.0.0.1:81", "target": "echo.db-1"}]\n'
    )
    machine.add_to(unit, drop_in.replace("#   ", ""))
    machine.act("daemon-reload")
    machine.act("restart", unit)

    def answers():
        with machine.network, socket.create_connection(
            ("127.0.0.1", 81), 5
        ) as client:
            client.sendall(b"hello")
            return client.recv(5) == b"hello"

    wait_for(answers, COMES_BACK, "port 81 leads to the service", interval=0.2)


def test_who_stands_still_is_started_anew(machine):
    """The watchdog; all five at once, since each takes a while."""
    for unit in UNITS:
        machine.add_to(unit, f"WatchdogSec={WATCHDOG}s\n")
    machine.act("daemon-reload")
    machine.act("restart", *UNITS, timeout=60 * SLOW)
    machine.wait_works("with a short watchdog")
    before = machine.pids()
    with machine.dial() as session:
        quiet = time.monotonic() + 1.5 * WATCHDOG
        while time.monotonic() < quiet:
            assert echoes(session, b"it turns, and says so")
            time.sleep(0.1)
    assert machine.pids() == before
    mark = len(machine.manager())
    machine.exec("kill", "-STOP", *before.values())
    for name in ALL:
        machine.wait_back(name, before)
    said = machine.manager(mark)
    for unit in UNITS:
        assert f"{unit}: Failed with result 'watchdog'" in said, said
    machine.wait_works("after the watchdog")


def test_stopping_the_target_drains(machine):
    """It waits for the session, for longer than the units' own patience; peerd
    and routed end when the proxy has gone."""
    for name in MEMBERS:
        machine.add_to(f"peerway-{name}.service", "TimeoutStopSec=1s\n")
    machine.act("daemon-reload")
    machine.exec("systemd-analyze", "log-level", "debug")
    mark = len(machine.manager())
    began = time.monotonic()
    with machine.dial() as session:
        assert echoes(session, b"before")
        before = machine.pids()
        stopping = machine.popen("systemctl", "stop", TARGET)
        wait_for(
            lambda: machine.show("proxy", "ActiveState") == "deactivating",
            COMES_BACK, "proxy drains",
        )
        while time.monotonic() < began + 4:
            assert echoes(session, b"meanwhile")
            time.sleep(0.1)
        assert stopping.poll() is None
        assert machine.pids() == before
        assert {machine.show(n, "ActiveState") for n in ("peerd", "routed")} == {
            "active"
        }
    assert stopping.wait(30 * SLOW) == 0
    assert not any(machine.pids()[name] for name in MEMBERS)
    said = machine.manager(mark)
    machine.exec("systemd-analyze", "log-level", "info")
    assert not re.search("timed out|SIGKILL|Failed with", said), said
    told = re.findall(r"STOPPING=1, EXTEND_TIMEOUT_USEC=(\d+)000000\)", said)
    assert len(told) == 3 and min(map(int, told)) > DRAIN_TIMEOUT, said
    ends = re.findall(r"peerway-(\w+).service: Deactivated successfully", said)
    assert ends[0] == "proxy" and sorted(ends) == sorted(MEMBERS), said
    machine.act("start", TARGET)
    machine.wait_works("after the host has been started again")
