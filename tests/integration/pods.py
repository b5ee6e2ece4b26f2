# SPDX-License-Identifier: Apache-2.0
"""Pods of a test: the manifests of deploy/kubernetes, played by podman with the
image of deploy/container, each pod with an address of its own in a network that
nobody else sees.

    with Pods() as pods:
        pods.play((KUBERNETES / "auth.yaml").read_text(), 10)
        pods.exec("peerway-auth-pod-0-authd", "peerctl", "token", "ls")
        with pods.network:      # this thread's sockets live there
            ...

What Kubernetes has and podman has not: names, so that config.yaml gets addresses
here; readiness probes and preStop, which the tests do themselves.
"""

import json
import os
import socket
import subprocess
import urllib.error
import urllib.request

import container
import connect
import ctl
import netns
from hosts import CLUSTER_NAME, SLOW, SOURCE

KUBERNETES = SOURCE / "deploy" / "kubernetes"
IMAGE = "registry.example.com/peerway:0.1.0"
NGINX = "registry.example.com/nginx:1.22"
STORE = container.STORE / "pods"
NETWORK = "peerway-pods"
SUBNET = "10.89.0."
DIRECTLY = urllib.request.build_opener(urllib.request.ProxyHandler({}))

# Ports are a pod's own; paths are those of container.py, since both have one store.
CONTAINERS_CONF = """\
[containers]
default_ulimits = ["nofile={nofile}:{nofile}", "nproc=4096:4096"]
log_driver = "k8s-file"
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "none"
lock_type = "file"
enable_port_reservation = false
tmp_dir = "{shared}/run/libpod"
volume_path = "{shared}/volumes"
[network]
network_config_dir = "{store}/networks"
"""


def environment():
    """That of container.py with these settings; podman is told to leave probes,
    for which it would use systemd, to the test."""
    STORE.mkdir(parents=True, exist_ok=True)
    conf = STORE / "containers.conf"
    text = CONTAINERS_CONF.format(
        store=STORE, shared=container.STORE, nofile=container.descriptors()
    )
    if not conf.exists() or conf.read_text() != text:  # others read it as well
        conf.write_text(text)
    return {
        **container.environment(),
        "CONTAINERS_CONF": str(conf),
        "DISABLE_HC_SYSTEMD": "true",
    }


def podman(*args, text=None, **kwargs):
    """With text as its input; gives its stdout."""
    stdin, way_in = os.pipe()  # which holds all of a manifest
    with open(stdin, "rb"), open(way_in, "w", encoding="utf-8") as file:
        file.write(text or "")
        file.close()
        return container.run(
            "podman", *args, env=environment(), stdin=stdin, **kwargs
        )


def make_images():
    """By the Containerfile, but for its first stage: that would take two minutes to
    build what is built already."""
    base = container.base_image()
    context = STORE / "context"
    with container.locked():
        container.run("rm", "-rf", context)
        context.mkdir(parents=True)
        container.install().rename(context / "out")
        podman(
            "build", "--quiet", "--pull=never", "--network=host",
            "--ulimit=nproc=4096:4096",
            f"--ulimit=nofile={container.descriptors()}:{container.descriptors()}",
            *(f"--build-arg={name}={value}"
              for name, value in container.http_proxy().items()),
            f"--build-arg=BASE={base}", f"--build-context=build={context}",
            "--file", SOURCE / "deploy/container/Containerfile",
            "--tag", IMAGE, SOURCE, timeout=300,
        )
        podman("tag", base, NGINX)
        podman("image", "prune", "--force")


class Pods:
    """A network and what is played in it; all is gone at the end of `with`."""

    def __init__(self):
        self.network = netns.Namespace(f"{SUBNET}1")
        self.network.run("ip", "link", "set", "lo", "up")
        self.config = (KUBERNETES / "config.yaml").read_text()
        self.played = []
        self._clear()
        self._write_network()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._clear()
        self.network.close()

    def podman(self, *args, **kwargs):
        with self.network:
            return podman(*args, **kwargs)

    def _clear(self):
        """What the manifests make, also when they were played by a test that was
        killed."""
        self.podman("pod", "rm", "--force", "--all", "--time", "0")
        self.podman("volume", "rm", "--force", "--all")
        self.podman("secret", "rm", "--all")

    def _write_network(self):
        """A bridge in the namespace, so that it goes with that."""
        ipam = {
            "type": "host-local",
            "dataDir": str(STORE / "addresses"),
            "ranges": [[{"subnet": f"{SUBNET}0/24"}]],
        }
        bridge = {
            "type": "bridge", "bridge": "pods", "isGateway": True,
            "hairpinMode": True, "capabilities": {"ips": True}, "ipam": ipam,
        }
        path = STORE / "networks" / f"{NETWORK}.conflist"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(
            {"cniVersion": "0.4.0", "name": NETWORK, "plugins": [bridge]}
        ))

    def configure(self, values):
        """config.yaml, edited: each key is to be there."""
        for old, new in values.items():
            assert old in self.config, old
            self.config = self.config.replace(old, new)

    def secret(self, name, token):
        """As Kubernetes' Secret with the key token. (podman 4.3 gives a volume
        what stands there, without decoding it.)"""
        self.podman("secret", "create", name, "-",
                    text=json.dumps({"data": {"token": token}}))

    def play(self, text, last):
        """A manifest, with config.yaml before it; its pod gets the address that
        ends in last."""
        self.podman("kube", "play", "--network", NETWORK, "--ip",
                    f"{SUBNET}{last}", "-", text=f"{self.config}---\n{text}")
        self.played.append(text)

    def down(self):
        """All that was played."""
        self.podman("kube", "down", "-", text="\n---\n".join(self.played))
        self.played = []

    def remove(self, text):
        """A pod by its manifest, with what was emptyDir in it."""
        self.podman("kube", "down", "-", text=text)
        self.played.remove(text)

    def interfaces(self):
        """Of the namespace."""
        with self.network:
            return {name for _, name in socket.if_nameindex()}

    def exec(self, name, *argv, **kwargs):
        return self.podman("exec", name, *argv, **kwargs)

    def inspect(self, name, what):
        return self.podman("inspect", "--format", what, name).strip()

    def pid(self, name):
        """Of a container's first process; 0: it does not run."""
        return int(self.inspect(name, "{{.State.Pid}}"))

    def popen(self, *args):
        """A podman that goes on meanwhile."""
        with self.network:
            return subprocess.Popen(
                ["podman", *args], env=environment(), text=True,
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
            )


class PodProxy:
    """A proxy host that is a pod: what Dialer and others want of a ProxyHost."""

    PORTS = {"proxy": 3001, "peerd": 3002, "routed": 3003}

    def __init__(self, pods, name, last, identity):
        self.cluster = self
        self.pods = pods
        self.name = name
        self.address = f"{SUBNET}{last}"
        self._identity = identity
        self._run_dir = container.STORE / "volumes" / f"{name}-run" / "_data"

    def container(self, daemon):
        return f"peerway-{self.name}-pod-0-{daemon}"

    def identity(self):
        return self._identity

    def dial(self, target):
        with self.pods.network:
            return connect.dial(
                f"{self.address}:3080", target, self._identity, CLUSTER_NAME,
                15 * SLOW,
            )

    def http(self, daemon, path):
        """(status, text) of a daemon's diagnostic address, as a probe sees it."""
        url = f"http://{self.address}:{self.PORTS[daemon]}{path}"
        with self.pods.network:
            try:
                with DIRECTLY.open(url, timeout=5) as answer:
                    return answer.status, answer.read().decode()
            except urllib.error.HTTPError as error:
                return error.code, error.read().decode()

    def is_ready(self):
        """Whether Kubernetes would send it clients."""
        return all(self.http(d, "/readyz")[0] == 200 for d in self.PORTS)

    def ask(self, daemon, verb):
        directory = os.open(self._run_dir, os.O_PATH)  # a socket's path is short
        try:
            return ctl.ask(f"/proc/self/fd/{directory}/{daemon}.sock", verb)
        finally:
            os.close(directory)

    @property
    def uuid(self):
        return self.ask("routed", "status")["proxy_id"]

    def tunnel_names(self):
        return [t["name"] for t in self.ask("peerd", "tunnels")["tunnels"]]

    def ready_peers(self):
        return {
            peer["id"]
            for peer in self.ask("peerd", "status")["peers"]
            if peer["state"] == "ready"
        }

    def holders(self, agent):
        """Ids of the proxies with a tunnel of that agent, as this one knows."""
        return {
            proxy["id"]
            for known in self.ask("routed", "ls")["agents"]
            for proxy in known["proxies"]
            if known["name"] == agent
        }
