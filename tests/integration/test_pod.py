# SPDX-License-Identifier: Apache-2.0
"""The manifests of deploy/kubernetes in real pods: two proxies, authd, an agent beside
nginx. A client reaches nginx through the proxy that has not got the tunnel; what is
killed comes back, and nobody who does not depend on it notices; a pod is stopped as
Kubernetes does it, and a session that is open goes on to its end."""

import os
import re
import signal
from pathlib import Path

import pytest

import connect
import pods as podman
from hosts import START_TIMEOUT
from process import wait_for
from traffic import Dialer

UID = 10001
AUTHD = "peerway-auth-pod-0-authd"
AGENT = "web-pod-0-agent"
TARGET = "http.web"
REQUEST = b"GET / HTTP/1.1\r\nHost: web\r\n\r\n"


def manifest(name):
    return (podman.KUBERNETES / f"{name}.yaml").read_text()


def proxy_manifest(name):
    """As sed makes it."""
    return manifest("proxy").replace("proxy-1", name)


def get(stream):
    """A request of a connection that is kept."""
    stream.sendall(REQUEST)
    status, headers = connect.read_head(stream)
    body = stream.recv_exactly(int(headers["content-length"]))
    assert (status, body) == (200, b"hello from the pod\n")


def token(pods, *args):
    """What the comments in the manifests have one type behind kubectl exec:
    (token, CA pin)."""
    out = pods.exec(AUTHD, "peerctl", "token", "add", *args)
    return re.fullmatch(r"(\S+)\t.*\t(\S+)", out.splitlines()[-1]).groups()


def identity(pods, directory):
    pods.exec(AUTHD, "peerctl", "identity", "issue", "alice", "--out",
              "/run/peerway/alice")
    made = Path(f"/proc/{pods.pid(AUTHD)}/root/run/peerway/alice")
    files = ("cert.pem", "key.pem", "host_ca.pem")
    for name in files:
        (directory / name).write_bytes((made / name).read_bytes())
    return connect.Identity(*(directory / name for name in files))


class Fleet:
    def __init__(self, pods, directory):
        self.pods = pods
        pods.play(manifest("auth"), 10)
        self.wait_executable(AUTHD)
        proxy_token, pin = token(pods, "--role", "proxy", "--ttl", "24h")
        agent_token, _ = token(
            pods, "--role", "node", "--agent-name", "web", "--ttl", "8760h"
        )
        pods.configure({
            "sha256:" + "0" * 64: pin,
            "peerway-auth:3025": f"{podman.SUBNET}10:3025",
            "peerway-proxy:3080": f"{podman.SUBNET}11:3080",
        })
        pods.secret("peerway-proxy-join", proxy_token)
        pods.secret("peerway-agent-web-join", agent_token)
        alice = identity(pods, directory)
        self.proxies = []
        for number in (1, 2):
            name = f"proxy-{number}"
            pods.play(proxy_manifest(name), 10 + number)
            self.proxies.append(
                podman.PodProxy(pods, name, 10 + number, alice)
            )
        pods.play(manifest("agent-sidecar"), 13)
        self.wait_whole()

    def wait_executable(self, name):
        wait_for(
            lambda: not self.pods.popen("exec", name, "peerctl", "token", "ls")
            .wait(),
            START_TIMEOUT, "authd answers",
        )

    def wait_whole(self):
        """Ready, every proxy to every other, one tunnel."""
        for proxy in self.proxies:
            wait_for(proxy.is_ready, START_TIMEOUT, f"{proxy.name} is ready")
        ids = {proxy.uuid for proxy in self.proxies}
        for proxy in self.proxies:
            wait_for(
                lambda: ids == {proxy.uuid} | proxy.ready_peers(),
                START_TIMEOUT, f"{proxy.name} has its peer",
            )
            wait_for(
                lambda: proxy.holders("web") == {self.holder().uuid},
                START_TIMEOUT, f"{proxy.name} knows who holds the agent",
            )

    def holder(self):
        found = [p for p in self.proxies if p.tunnel_names() == ["web"]]
        if len(found) != 1:
            raise OSError(f"held by {found}")  # not yet, for wait_for()
        return found[0]

    def other(self):
        holder = self.holder()
        return next(p for p in self.proxies if p is not holder)

    def containers(self):
        return [AUTHD, AGENT] + [
            proxy.container(daemon)
            for proxy in self.proxies
            for daemon in proxy.PORTS
        ]

    def kill(self, name):
        """-9 to a container's first process; returns when another runs."""
        old = self.pods.pid(name)
        os.kill(old, signal.SIGKILL)
        wait_for(
            lambda: self.pods.pid(name) not in (0, old),
            START_TIMEOUT, f"{name} was started again",
        )


class WebDialer(Dialer):
    def _one(self, proxy, target):
        with proxy.dial(target) as connection:
            get(connection)
            return connection.route


@pytest.fixture(scope="module")
def fleet(tmp_path_factory):
    podman.make_images()
    with podman.Pods() as pods:
        yield Fleet(pods, tmp_path_factory.mktemp("identity"))


def test_a_client_reaches_nginx_through_the_other_proxy(fleet):
    for proxy, route in ((fleet.other(), "peer"), (fleet.holder(), "local")):
        with proxy.dial(TARGET) as connection:
            get(connection)
            assert connection.route == route


def test_no_container_can_do_more_than_it_has_to(fleet):
    for name in fleet.containers():
        pid = fleet.pods.pid(name)
        status = dict(
            line.split(":\t", 1)
            for line in Path(f"/proc/{pid}/status").read_text().splitlines()
        )
        assert set(status["Uid"].split()) == {str(UID)}, name
        assert int(status["CapBnd"], 16) == int(status["CapPrm"], 16) == 0
        assert status["NoNewPrivs"] == "1" and status["Seccomp"] == "2"
        mounts = Path(f"/proc/{pid}/mounts").read_text().splitlines()
        root = next(m.split() for m in mounts if m.split()[1] == "/")
        assert "ro" in root[3].split(","), name
        fleet.pods.podman("healthcheck", "run", name)  # its livenessProbe


def test_what_is_killed_comes_back_and_others_do_not_notice(fleet):
    holder, other = fleet.holder(), fleet.other()
    session = holder.dial(TARGET)
    get(session)

    # A routed: nobody at all.
    dialer = WebDialer([holder, other], [TARGET], 20)
    dialer.wait_more(10)
    fleet.kill(holder.container("routed"))
    fleet.wait_whole()
    dialer.wait_more(10)
    get(session)
    dialer.check()
    assert set(dialer.routes) == {"local", "peer"}

    # What serves a proxy's clients: not those of another.
    dialer = WebDialer([holder], [TARGET], 20)
    for daemon in ("peerd", "proxy"):
        fleet.kill(other.container(daemon))
        fleet.wait_whole()
        with other.dial(TARGET) as connection:
            get(connection)
            assert connection.route == "peer"
    get(session)
    dialer.check()
    session.close()


def test_a_new_pod_of_a_proxy_is_the_same_host_elsewhere(fleet):
    pods = fleet.pods
    proxy = fleet.other()
    uuid = proxy.uuid
    for line in pods.exec(AUTHD, "peerctl", "token", "ls").splitlines():
        if "\tproxy\t" in line:  # with which it could join anew
            pods.exec(AUTHD, "peerctl", "token", "rm", line.split("\t")[0])
    pods.remove(proxy_manifest(proxy.name))
    # Podman has the volume, and would not take it for the one that is claimed.
    claimed = re.sub(
        r"apiVersion: v1\nkind: PersistentVolumeClaim\n.*?---\n", "",
        proxy_manifest(proxy.name), flags=re.DOTALL,
    )
    pods.play(claimed, 14)
    proxy.address = f"{podman.SUBNET}14"
    fleet.wait_whole()
    assert proxy.uuid == uuid
    with proxy.dial(TARGET) as connection:
        get(connection)
        assert connection.route == "peer"


def test_a_pod_ends_when_its_last_session_has(fleet):
    """As Kubernetes ends one: SIGTERM to peerd and routed, preStop in proxy, and
    SIGTERM to it after that."""
    proxy, other = fleet.other(), fleet.holder()
    session = proxy.dial(TARGET)
    get(session)
    pre_stop = re.search(
        r"preStop:\s+exec:\s+command: \[(.*)\]", manifest("proxy")
    )[1].split(", ")
    beside = [proxy.container(name) for name in ("peerd", "routed")]
    drain = fleet.pods.popen("exec", proxy.container("proxy"), *pre_stop)
    stop = fleet.pods.popen("stop", "--time", "60", *beside)
    wait_for(
        lambda: proxy.http("proxy", "/readyz")[1].startswith("draining: ")
        and proxy.http("peerd", "/readyz")[1] == "draining\n",
        START_TIMEOUT, f"{proxy.name} drains",
    )
    for _ in range(100):
        get(session)
    with proxy.dial(TARGET) as connection:  # who comes all the same
        get(connection)
        assert connection.route == "peer"
    with other.dial(TARGET) as connection:
        get(connection)
    assert stop.poll() is None and drain.poll() is None
    session.close()

    out, _ = drain.communicate(timeout=START_TIMEOUT)
    assert drain.returncode == 0, out
    assert stop.poll() is None  # for the workers are still there
    fleet.pods.podman("stop", "--time", "60", proxy.container("proxy"))
    out, _ = stop.communicate(timeout=START_TIMEOUT)
    assert stop.returncode == 0, out
    for name in proxy.PORTS:
        state = fleet.pods.inspect(
            proxy.container(name), "{{.State.Status}} {{.State.ExitCode}}"
        )
        assert state == "exited 0", name
    wait_for(
        lambda: not other.ready_peers(), START_TIMEOUT,
        "the host's record is gone",
    )


def test_nothing_is_left_of_what_is_taken_down(fleet):
    fleet.pods.down()
    assert fleet.pods.podman("pod", "ls", "--quiet") == ""
    names = fleet.pods.podman("ps", "--all", "--pod", "--format", "{{.PodName}}")
    assert names.split() == []  # but for other tests', in no pod
    assert fleet.pods.interfaces() == {"lo", "pods"}
