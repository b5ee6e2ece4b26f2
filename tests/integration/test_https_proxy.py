# SPDX-License-Identifier: Apache-2.0
"""An agent in a network that only an HTTP proxy leads out of joins, keeps its
tunnel and serves through it, asks it for names, and says in one line when it is
refused. The HTTP proxy is Debian's tinyproxy."""

import os
import subprocess

import pytest

import services
import suite
from hosts import Network
from netns import Cable
from process import Process
from traffic import check_route

FLEET = "fleet.test"  # a name that the HTTP proxy alone knows
PASSWORD = "%733cret"  # as it stands in a URL


class Tinyproxy:
    """At the right end of the cable, with a hosts file of its own."""

    def __init__(self, cluster, cable):
        self.dir = cluster.dir / "tinyproxy"
        self.dir.mkdir(mode=0o755)
        self.host = cable.right.address
        self.port = Network.free_port(self.host)
        self.addr = f"{self.host}:{self.port}"
        self.url = f"http://{self.addr}"
        hosts = self.dir / "hosts"
        hosts.write_text(
            f"127.0.0.1 localhost\n{cluster.proxies[0].address} {FLEET}\n"
        )
        self.config = self.dir / "tinyproxy.conf"
        self.ports = [
            p.rpartition(":")[2] for h in cluster.proxies
            for p in (h.listen_addr, h.tunnel_addr)
        ]
        self.process = Process(
            "tinyproxy",
            ["unshare", "--mount", "sh", "-c",
             f"mount --bind {hosts} /etc/hosts && "
             f"exec tinyproxy -d -c {self.config}"],
            self.dir / "log",
        )

    def start(self, login=None, ports=None):
        lines = [
            f"Listen {self.host}", f"Port {self.port}", "LogLevel Info",
            "Timeout 600", "MaxClients 100",
        ]
        lines += [f"ConnectPort {port}" for port in ports or self.ports]
        if login:
            lines.append(f"BasicAuth {login[0]} {login[1]}")
        self.config.write_text("\n".join(lines) + "\n")
        self.process.start()
        self.process.wait_log("Accepting connections")

    def asked_for(self, target):
        return self.process.log_matches(f"CONNECT {target} HTTP")

    def close(self):
        self.process.stop()


class Scene:
    def __init__(self, cluster, cable, tinyproxy):
        self.cluster = cluster
        self.cable = cable
        self.tinyproxy = tinyproxy
        self.agent = cluster.agents[0].agent
        port = cluster.proxies[0].listen_addr.rpartition(":")[2]
        self.target = f"{FLEET}:{port}"

    def start_agent(self, **env):
        self.agent.env.update(env)
        with self.cable.left:
            self.agent.start()


@pytest.fixture
def scene(make_cluster):
    cable = Cable()
    try:
        with cable.left:
            echo = services.Banner("")
        with cable.right:
            cluster = make_cluster(proxies=2)
            agent = cluster.add_agent(
                "node-1",
                proxies=["to be set"],
                services=[{
                    "name": "echo", "type": "app",
                    "addr": f"127.0.0.1:{echo.port}",
                }],
            )
            cluster.start_auth()
            for proxy in cluster.proxies:
                proxy.join()
                proxy.start()
            for proxy in cluster.proxies:
                proxy.wait_ready()
            cluster.wait_peers()
            tinyproxy = Tinyproxy(cluster, cable)
            made = Scene(cluster, cable, tinyproxy)
            agent.write_config(
                {"agent_service": {"proxy_server": [made.target]}}
            )
            agent.join()
            try:
                yield made
            finally:
                tinyproxy.close()
                # where its descriptors and diagnostics are looked at
                made.agent.stop()
                echo.close()
    finally:
        cable.close()


def check_serves(scene):
    cluster, tinyproxy = scene.cluster, scene.tinyproxy
    cluster.wait_agents(holders=1)
    holder = cluster.holder("node-1")
    check_route(holder, "node-1", "local")
    check_route(cluster.others(holder)[0], "node-1", "peer")
    # the name, not an address
    assert tinyproxy.asked_for(scene.target)
    # a service beside the agent is its own business
    port = cluster.agents[0].config["agent_service"]["services"][0]["addr"]
    assert not tinyproxy.asked_for(port)


def test_joins_and_serves(scene):
    scene.tinyproxy.start()
    scene.start_agent(HTTPS_PROXY=scene.tinyproxy.url)
    check_serves(scene)


def test_joins_and_serves_with_a_password_from_the_configuration(scene):
    tinyproxy = scene.tinyproxy
    tinyproxy.start(login=("agent", "s3cret"))
    scene.cluster.agents[0].write_config({"agent_service": {
        "https_proxy": f"http://agent:{PASSWORD}@{tinyproxy.addr}",
    }})
    # which the configuration overrides
    scene.start_agent(https_proxy="http://127.0.0.1:1")
    check_serves(scene)
    assert "3cret" not in scene.agent.log_text(whole=True)


# tinyproxy answers 407 when there is no password, 401 when it is wrong.
@pytest.mark.parametrize(
    "login, answer",
    [("", "407 Proxy Authentication Required"),
     (f"agent:{PASSWORD}@", "401 Unauthorized")],
)
def test_a_refusal_is_one_line(scene, login, answer):
    tinyproxy = scene.tinyproxy
    tinyproxy.start(login=("agent", "another"))
    scene.start_agent(HTTPS_PROXY=f"http://{login}{tinyproxy.addr}")
    scene.agent.wait_log(
        rf"warn .*HTTP proxy {tinyproxy.addr} refused CONNECT to "
        rf"{scene.target}: {answer}"
    )
    assert "3cret" not in scene.agent.log_text(whole=True)


def test_a_forbidden_port_is_one_line(scene):
    scene.tinyproxy.start(ports=["443"])
    scene.start_agent(HTTPS_PROXY=scene.tinyproxy.url)
    scene.agent.wait_log(
        rf"warn .*HTTP proxy {scene.tinyproxy.addr} refused CONNECT to "
        rf"{scene.target}: 403 "
    )


def test_an_http_proxy_that_is_away_is_one_line(scene):
    scene.start_agent(HTTPS_PROXY=scene.tinyproxy.url)
    scene.agent.wait_log(
        rf"warn .*HTTP proxy {scene.tinyproxy.addr}: Connection refused"
    )
    scene.tinyproxy.start()
    check_serves(scene)


def test_no_proxy_is_an_exception(scene):
    scene.tinyproxy.start()
    scene.start_agent(
        HTTPS_PROXY=scene.tinyproxy.url, NO_PROXY="10.0.0.0/8,.test"
    )
    scene.agent.wait_log(rf"warn .*{FLEET}")  # a name that is none here
    assert not scene.tinyproxy.asked_for(scene.target)


@pytest.mark.parametrize("url", ["10.0.0.1:3128", "http://u:s3cret@", "ftp://x:1"])
def test_a_url_that_is_none_is_told_at_the_start(make_cluster, url):
    agent = make_cluster(proxies=1).add_agent("node-1")
    agent.write_config({"peerway": {"join": {
        "token_file": "/nonexistent", "ca_pin": "sha256:" + "0" * 64,
    }}})
    argv = [suite.binary("agent"), "-c", agent.config_path]
    env = {**os.environ, "HTTPS_PROXY": url}
    ran = subprocess.run(
        argv, env=env, capture_output=True, text=True, timeout=20, check=False
    )
    assert ran.returncode == 1
    assert "HTTPS_PROXY in the environment: must " in ran.stderr
    assert "s3cret" not in ran.stderr

    agent.write_config({"agent_service": {"https_proxy": url}})
    ran = subprocess.run(
        argv + ["--check-config"], capture_output=True, text=True, timeout=20,
        check=False,
    )
    assert ran.returncode == 1
    assert "agent_service.https_proxy: must " in ran.stderr
    assert "s3cret" not in ran.stderr
