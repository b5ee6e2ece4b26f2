# SPDX-License-Identifier: Apache-2.0
"""An agent that cannot reach any proxy says why in one line, SIGHUP ends its
waiting, and a name that means another address is followed without being told."""

import signal
import socket
import threading

import pytest

import suite
from process import wait_for
from traffic import check_route


class Busy:
    """Stands at a proxy's address and sends agents away for 70 s."""

    ANSWER = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 70\r\n\r\n"

    def __init__(self, addr):
        host, _, port = addr.rpartition(":")
        self.socket = socket.create_server((host, int(port)), backlog=64)
        self.clients = []
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self):
        while True:
            try:
                client, _ = self.socket.accept()
            except OSError:
                return
            client.sendall(self.ANSWER)
            client.shutdown(socket.SHUT_WR)
            self.clients.append(client)

    def close(self):
        # the thread that waits in accept() would keep it listening
        self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()
        for client in self.clients:
            client.close()


@pytest.fixture
def cluster(make_cluster, echo):
    """One proxy, and an agent that has joined; neither runs."""
    cluster = make_cluster(
        proxies=1, agents=["node-1"], services=echo.services()
    )
    cluster.agents[0].config["agent_service"]["reconnect_max_interval"] = "1h"
    cluster.start()
    cluster.agents[0].stop()
    cluster.proxies[0].stop()
    return cluster


def failures(agent, reason):
    return agent.metrics()[
        f'peerway_agent_connect_failures_total{{reason="{reason}"}}'
    ]


def busy_failures(agent):
    return failures(agent, "busy")


def test_one_line_says_why_and_one_how_long(cluster):
    proxy, host = cluster.proxies[0], cluster.agents[0]
    nobody = f"{cluster.network.address(200)}:3080"
    host.write_config({"agent_service": {
        "proxy_server": [proxy.listen_addr, nobody],
        "reconnect_max_interval": "1s",
    }})
    host.agent.start()
    wait_for(
        lambda: failures(host.agent, "unreachable") >= 8,
        suite.START_TIMEOUT, "eight attempts",
    )
    (line,) = host.agent.log_matches(r"warn .*")
    assert "no proxy can be reached: " in line[0]
    for addr in (proxy.listen_addr, nobody):
        assert f"{addr}: Connection refused, next attempt in " in line[0]
    status, text = host.agent.http("/readyz")
    assert status == 503
    assert text.startswith("tunnel: none stands: no proxy can be reached: ")
    assert f"{nobody}: Connection refused" in text

    proxy.start().wait_ready()
    host.agent.wait_ready(5 * suite.SLOW)
    host.agent.wait_log(
        rf"info .*tunnel open: proxy={proxy.uuid}, after \d+ s without any"
    )
    # and again when all is lost again
    mark = host.agent.log_mark()
    proxy.kill()
    host.agent.wait_log(r"warn .*no proxy can be reached: ", mark=mark)


def test_a_full_proxy_is_left_alone_without_a_warning(cluster):
    proxy, first = cluster.proxies[0], cluster.agents[0].agent
    proxy.write_config({"proxy_service": {"max_tunnels": 1}})
    proxy.start().wait_ready()
    first.start().wait_ready()
    second = cluster.add_agent("node-2")
    second.join()
    second.agent.start()
    wait_for(
        lambda: failures(second.agent, "busy") >= 1, suite.START_TIMEOUT,
        "sent away",
    )
    wait_for(
        lambda: "busy, come back in " in second.agent.http("/readyz")[1],
        5 * suite.SLOW, "the reason in /readyz",
    )
    assert not second.agent.log_matches("warn .*")
    assert failures(second.agent, "tls") == 0
    # room again, and somebody says so
    cluster.agents[0].stop()
    second.agent.send_signal(signal.SIGHUP)
    second.agent.wait_ready(2 * suite.SLOW)
    check_route(proxy, "node-2", "local")


def test_not_joined_says_why_in_one_line(cluster):
    proxy, host = cluster.proxies[0], cluster.add_agent("node-2")
    host.write_config({"agent_service": {"reconnect_max_interval": "1s"}})
    host.join()
    host.agent.start()
    refused = f"{proxy.listen_addr}: Connection refused"
    host.agent.wait_log(f"warn .*cannot join: no proxy .*: {refused}, next")
    status, text = host.agent.http("/readyz")
    assert status == 503
    assert text.startswith("certificate: not joined yet: ")
    assert refused in text
    proxy.start().wait_ready()
    host.agent.wait_ready(5 * suite.SLOW)  # by itself
    assert len(host.agent.log_matches("warn .*")) == 1


def test_sighup_ends_all_waiting(cluster):
    proxy, agent = cluster.proxies[0], cluster.agents[0].agent
    busy = Busy(proxy.listen_addr)
    agent.start()
    wait_for(
        lambda: busy_failures(agent) >= 1, suite.START_TIMEOUT, "sent away"
    )
    busy.close()
    proxy.start().wait_ready()
    assert agent.http("/readyz")[0] == 503
    agent.send_signal(signal.SIGHUP)
    agent.wait_ready(2 * suite.SLOW)  # and not after 70 s
    cluster.wait_agents(holders=1)
    check_route(proxy, "node-1", "local")


def test_sighup_with_a_torn_configuration_reconnects_too(cluster):
    proxy, host = cluster.proxies[0], cluster.agents[0]
    busy = Busy(proxy.listen_addr)
    host.agent.start()
    wait_for(
        lambda: busy_failures(host.agent) >= 1, suite.START_TIMEOUT,
        "sent away",
    )
    busy.close()
    proxy.start().wait_ready()
    host.config_path.write_text("peerway: [")
    host.agent.send_signal(signal.SIGHUP)
    host.agent.wait_log("configuration stays as it was")
    host.agent.wait_ready(2 * suite.SLOW)


def test_sighup_joins_at_once(cluster, echo):
    """Not joined yet, and the proxy was away for a while."""
    proxy, host = cluster.proxies[0], cluster.add_agent("node-2")
    host.join()
    host.agent.start()
    wait_for(
        lambda: len(host.agent.log_matches("cannot join")) >= 1,
        suite.START_TIMEOUT, "a join that failed",
    )
    proxy.start().wait_ready()
    host.agent.send_signal(signal.SIGHUP)
    host.agent.wait_ready(2 * suite.SLOW)
    cluster.wait_agents(holders=1)
    check_route(proxy, "node-2", "local")


def test_a_name_is_looked_up_for_every_attempt(cluster):
    """Here the name's address is that of a hosts file which changes."""
    proxy, host = cluster.proxies[0], cluster.agents[0]
    hosts = host.dir / "hosts"
    hosts.write_text(f"{cluster.network.address(200)} fleet.test\n")
    port = proxy.listen_addr.rpartition(":")[2]
    host.write_config({"agent_service": {
        "proxy_server": [f"fleet.test:{port}"],
        "reconnect_max_interval": "1s",
    }})
    argv = " ".join(host.agent.argv)
    host.agent.argv = [
        "unshare", "--mount", "sh", "-c",
        f"mount --bind {hosts} /etc/hosts && exec {argv}",
    ]
    proxy.start().wait_ready()
    host.agent.start()
    host.agent.wait_log(
        rf"{cluster.network.address(200)}:{port}: Connection refused"
    )
    hosts.write_text(f"{proxy.address} fleet.test\n")
    host.agent.wait_ready(5 * suite.SLOW)
    cluster.wait_agents(holders=1)
    check_route(proxy, "node-1", "local")
