# SPDX-License-Identifier: Apache-2.0
"""The agent follows its fleet: a change of strategy proxy by proxy, a proxy
that restarts, a certificate that others look after, names for addresses, and
other services while it runs."""

import os
import shutil
import signal
import subprocess
import time

import pytest

import suite
from process import wait_for
from traffic import check_route


def holders(cluster, name="node-1"):
    """How many proxy hosts have a tunnel of that agent."""
    return sum(name in proxy.tunnel_names() for proxy in cluster.proxies)


def set_strategy(cluster, strategy):
    """As an operator does it: edit, restart authd."""
    config = {"auth_service": {"tunnel_strategy": strategy}}
    cluster.auth.write_config(config)
    cluster.auth.authd.restart()
    cluster.auth.wait_ready()


def restart(host):
    host.stop()
    host.start()
    host.wait_ready()


def wait_holders(cluster, count, what):
    wait_for(lambda: holders(cluster) == count, suite.START_TIMEOUT, what)


def stays(condition, seconds):
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        assert condition()
        time.sleep(0.1)


def test_a_change_of_strategy_is_followed(make_cluster, echo):
    cluster = make_cluster(
        proxies=2, agents=["node-1"], services=echo.services()
    ).start()
    cluster.wait_agents(holders=1)
    first, second = cluster.proxies

    set_strategy(cluster, {"type": "agent_mesh"})
    restart(second)
    wait_holders(cluster, 2, "one proxy in agent_mesh is enough for all")
    restart(first)
    wait_holders(cluster, 2, "all proxies in agent_mesh")
    cluster.wait_agents(holders=2)
    check_route(first, "node-1", "local")
    check_route(second, "node-1", "local")

    set_strategy(
        cluster, {"type": "proxy_peering", "agent_connection_count": 1}
    )
    restart(first)
    wait_holders(cluster, 2, "the restarted proxy has its tunnel again")
    # longer than a surplus tunnel is left alone for
    stays(lambda: holders(cluster) == 2, 7)
    restart(second)
    wait_holders(cluster, 1, "all in proxy_peering: the surplus is closed")
    cluster.wait_peers()
    cluster.wait_agents(holders=1)
    holder = cluster.holder("node-1")
    check_route(holder, "node-1", "local")
    check_route(cluster.others(holder)[0], "node-1", "peer")


@pytest.fixture
def lone(make_cluster, echo):
    """One proxy, one agent."""
    return make_cluster(
        proxies=1, agents=["node-1"], services=echo.services()
    )


def test_a_restarted_proxy_has_its_agents_again(lone):
    lone.start()
    proxy = lone.proxies[0]
    for end in (proxy.stop, proxy.kill):
        mark = lone.agents[0].agent.log_mark()
        end()
        lone.agents[0].agent.wait_log(r"warn.*tunnel ended: ", mark=mark)
        status, text = lone.agents[0].agent.http("/readyz")
        assert status == 503 and text.startswith("tunnel: none stands")
        proxy.start().wait_ready()
        # what the cache says may be of the proxy's former life
        wait_for(
            lambda: proxy.tunnel_names() == ["node-1"],
            15 * suite.SLOW,
            "the tunnel is back",
        )
        lone.wait_agents()
        check_route(proxy, "node-1", "local")


def test_files_of_ones_own(lone):
    """A certificate that something else keeps: no token, no keystore."""
    lone.start()
    agent = lone.agents[0]
    agent.stop()
    files = agent.dir / "pki"
    shutil.move(agent.data_dir / "agent", files)
    del agent.common["join"]
    agent.write_config(
        {
            "peerway": {
                "identity": {
                    "cert": str(files / "cert.pem"),
                    "key": str(files / "key.pem"),
                    "ca": str(files / "host_ca.pem"),
                }
            }
        }
    )
    agent.start()
    lone.wait_agents()
    check_route(lone.proxies[0], "node-1", "local")
    assert not (agent.data_dir / "agent").exists()


def test_names_and_dead_addresses(lone, echo):
    """proxy_server may be a list with names; services may have names."""
    port = lone.proxies[0].listen_addr.rpartition(":")[2]
    services = [
        dict(service, addr=service["addr"].replace("127.0.0.1", "localhost"))
        for service in echo.services()
    ]
    agent = lone.add_agent(
        "node-2",
        proxies=[
            "127.0.0.1:1",
            f"no-such-name.invalid:{port}",
            lone.proxies[0].listen_addr,
        ],
        services=services,
    )
    lone.start()
    lone.wait_agents()
    check_route(lone.proxies[0], agent.name, "local")


def test_services_are_read_again_on_sighup(lone, echo):
    lone.start()
    agent, proxy = lone.agents[0], lone.proxies[0]
    services = echo.services()
    for service in services:
        service["name"] = "other-" + service["name"]
    agent.config["agent_service"]["services"] = services
    agent.write_config()
    agent.agent.popen.send_signal(signal.SIGHUP)
    agent.agent.wait_log(r"info.*announced anew: services=2")

    def announced():
        (known,) = proxy.routed.ask("ls")["agents"]
        return {service["name"] for service in known["services"]} == {
            service["name"] for service in services
        }

    wait_for(announced, 5, "the proxy knows the new services")
    check_route(proxy, "node-1", "local", service="other-echo")

    mark = agent.agent.log_mark()
    agent.config_path.write_text("peerway: {cluster_nam: x}\n")
    agent.agent.popen.send_signal(signal.SIGHUP)
    agent.agent.wait_log(r"error.*configuration stays as it was: ", mark=mark)
    check_route(proxy, "node-1", "local", service="other-echo")


CLOCK = """
#include <sys/time.h>
#include <time.h>

time_t time(time_t *out)
{
	struct timeval now;

	gettimeofday(&now, 0);
	now.tv_sec += 21 * 86400;
	if (out)
		*out = now.tv_sec;
	return now.tv_sec;
}
"""


@pytest.mark.skipif(
    suite.SLOW > 1,
    reason="sanitizers want to be loaded first",
)
def test_the_certificate_is_renewed_in_time(lone):
    """Three weeks later by the agent's clock: two thirds of 30 days are over."""
    lone.start()
    agent = lone.agents[0]
    files = agent.data_dir / "agent"
    key, cert = [(files / n).read_bytes() for n in ("key.pem", "cert.pem")]
    agent.stop()
    (agent.dir / "token").unlink()
    source, clock = agent.dir / "clock.c", agent.dir / "clock.so"
    source.write_text(CLOCK)
    subprocess.run(
        ["cc", "-shared", "-fPIC", "-o", clock, source], check=True
    )
    agent.agent.env = dict(os.environ, LD_PRELOAD=str(clock))
    mark = agent.agent.log_mark()
    agent.start()
    agent.agent.wait_log(r"info.*certificate renewed", mark=mark)
    assert (files / "key.pem").read_bytes() == key
    assert (files / "cert.pem").read_bytes() != cert
    assert (files / "key.pem").stat().st_mode & 0o777 == 0o600
    lone.wait_agents()
    check_route(lone.proxies[0], "node-1", "local")
    # once is enough, though by that clock the new one is old already
    stays(lambda: len(
        agent.agent.log_matches(r"certificate renewed", mark)) == 1, 2)
