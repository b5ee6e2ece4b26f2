# SPDX-License-Identifier: Apache-2.0
"""What docs/operations.md says is done, on machines with an init of their own:
from nothing to three proxies behind a balancer, then an upgrade of all.

What it types on every host (packages, build, install) is done for all of them by
tests/run and by the image that they are made of."""

import contextlib
import re
import threading
import time

import pytest

import container
import guide
import netns
from hosts import SLOW
from process import wait_for

ADDRESSES = {
    "auth": "10.80.0.10",
    "proxy1": "10.80.0.11",
    "proxy2": "10.80.0.12",
    "proxy3": "10.80.0.13",
    "lb": "10.80.0.20",
    "web1": "10.80.0.30",
    "laptop": "10.80.0.40",
}
NAMES = {
    "auth.internal": "auth",
    "proxy1.internal": "proxy1",
    "proxy2.internal": "proxy2",
    "proxy3.internal": "proxy3",
    "proxy.example.com": "lb",
}
INSTALLED = "meson install -C build"
PIN = "sha256:" + 64 * "0"


class Machines:
    """The hosts of the guide, and what has to be carried between them by hand."""

    def __init__(self, stack):
        image = container.image()
        self.switch = netns.Switch()
        stack.callback(self.switch.close)
        self.hosts = {}
        for name, address in ADDRESSES.items():
            host = stack.enter_context(
                container.Container(
                    image, "/sbin/init",
                    options=["--systemd=always", "--hostname", name,
                             "--workdir", "/root"],
                )
            )
            self.switch.plug(host.network, address)
            host.write("/etc/hosts", "127.0.0.1 localhost\n" + "".join(
                f"{ADDRESSES[to]} {name}\n" for name, to in NAMES.items()
            ))
            self.hosts[name] = host
        self.pin = None

    def type(self, name, text):
        """A block of commands in a shell; what they print."""
        host = self.hosts[name]
        try:
            return host.exec(
                "timeout", str(60 * SLOW), "sh", "-eu", "-c", text,
                timeout=70 * SLOW,
            )
        except AssertionError as error:
            journal = host.exec("journalctl", "--no-pager", "-n", "40")
            raise AssertionError(f"on {name}: {error}\n{journal}") from None

    def carry(self, name, what, to=None, where=None):
        """A file or directory of auth's."""
        source = self.hosts["auth"].root / "root" / what
        wanted = self.hosts[to or name].root / (where or f"root/{what}")
        files = sorted(source.iterdir()) if source.is_dir() else [source]
        for file in files:
            inside = wanted / file.name if source.is_dir() else wanted
            inside.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            inside.write_bytes(file.read_bytes())
            inside.chmod(0o600)

    def boot(self):
        for name, host in self.hosts.items():
            wait_for(
                lambda host=host: host.exec(
                    "sh", "-c", "systemctl is-system-running || true"
                ).strip() in ("running", "degraded"),
                60 * SLOW, f"{name} has booted",
            )


def as_on(number, text):
    """What is said of proxy1, of another."""
    return text.replace("proxy1", f"proxy{number}").replace(
        ADDRESSES["proxy1"], ADDRESSES[f"proxy{number}"]
    )


def on_all_proxies(step):
    """A step of proxy1's that the text wants on the others likewise."""
    return "the others" in step.before


def follow(machines, step, after=lambda host, printed: None):
    """Does a step of the guide; what was typed and printed goes to after."""
    numbers = (1, 2, 3) if on_all_proxies(step) else (1,)
    for number in numbers:
        host = as_on(number, step.host)
        text = as_on(number, step.text)
        if step.path:
            if machines.pin:
                text = text.replace(PIN, machines.pin)
            machines.hosts[host].write(step.path, text)
            continue
        text = "\n".join(
            line for line in text.splitlines() if line != INSTALLED
        )
        for word in text.split():
            if word.endswith(".token") and host != "auth":
                machines.carry(host, word)
        after(host, machines.type(host, text))


class Dialer:
    """Dials a target through the balancer every 50 ms, as the guide's person."""

    def __init__(self, laptop):
        self.process = laptop.popen(
            "sh", "-c",
            "while ! test -e /root/enough; do"
            "  if printf 'GET / HTTP/1.0\\r\\n\\r\\n' |"
            "    PEERWAY_PROXY=proxy.example.com peerctl connect www.web1"
            "    2>/root/why | grep -q nginx;"
            "  then echo good; else echo bad $(cat /root/why); fi;"
            "  sleep 0.05; done",
            stdout=-1, text=True,
        )
        self.laptop = laptop
        self.good, self.bad = 0, []
        self.thread = threading.Thread(target=self._count)
        self.thread.start()

    def _count(self):
        for line in self.process.stdout:
            if line == "good\n":
                self.good += 1
            else:
                self.bad.append(f"{time.strftime('%H:%M:%S')} {line}")

    def go_on(self):
        """Until more dials have succeeded."""
        enough = self.good + 10
        wait_for(lambda: self.good >= enough, 30 * SLOW, "dials succeed")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.laptop.write("/root/enough", "")
        self.thread.join(60)
        self.process.wait(60)


@pytest.fixture(scope="module")
def machines():
    with contextlib.ExitStack() as stack:
        machines = Machines(stack)
        machines.boot()
        yield machines


def test_from_nothing_to_three_proxies(machines):
    heading = "From nothing to three proxies"
    printed = {}

    def after(host, text):
        printed[host] = text
        if "CA PIN" in text:
            head, line = [l.split("\t") for l in text.splitlines()[:2]]
            machines.pin = line[head.index("CA PIN")]

    machines.type("web1", "systemctl start nginx")
    # Debian's unit binds /dev/log, which a container may not
    machines.hosts["lb"].write(
        "/etc/systemd/system/haproxy.service.d/container.conf",
        "[Service]\nBindReadOnlyPaths=\n",
    )
    machines.type("lb", "systemctl daemon-reload")
    steps = list(guide.steps(heading, guide.section(heading)))
    typed = [step for step in steps if step.host]
    assert [step.text for step in steps if not step.host] == [
        "deploy/install-packages\n"
        "meson setup build --buildtype=release\n"
        "ninja -C build\n"
        f"{INSTALLED}\n"
        "systemd-sysusers\n"
        "systemd-tmpfiles --create"
    ]
    for host in machines.hosts:
        machines.type(host, "systemd-sysusers; systemd-tmpfiles --create")
    for step in typed:
        if "peerctl ls" in step.text:
            wait_for(
                lambda: "web1" in machines.type("proxy1", "peerctl ls"),
                60 * SLOW, "the agent is there",
            )
            wait_for(
                lambda: len(set(re.findall(
                    r"\bproxy\d\b",
                    machines.type("proxy1", "peerctl routes web1"),
                ))) == 2,
                60 * SLOW, "it is held by two",
            )
        follow(machines, step, after)
        if "identity issue" in step.text:
            machines.carry("laptop", "alice", where="root/.peerway")
    assert printed["laptop"].count("<h1>Welcome to nginx") == 2
    problems = [
        line
        for line in machines.type("proxy2", "peerctl status").splitlines()
        if line.startswith("!")
    ]
    assert not problems


def test_upgrading(machines):
    """No dial through the balancer fails until the agent itself restarts."""
    steps = list(guide.steps("Upgrading", guide.section("Upgrading")))
    assert [step.host for step in steps] == ["auth", "proxy1", "web1"]
    with Dialer(machines.hosts["laptop"]) as dialer:
        dialer.go_on()
        for step in steps[:-1]:
            follow(machines, step)
        dialer.go_on()
        assert not dialer.bad, dialer.bad[:5]
        follow(machines, steps[-1])
        dialer.go_on()
