# SPDX-License-Identifier: Apache-2.0
"""peerctl doctor: all well on a healthy host; each thing that is made wrong is
found, with what to do about it, within a few seconds; exit status 1 only when
something is to be mended."""

import json
import os
import resource
import socket
import time

import pytest

import suite
from hosts import yaml_text
from process import wait_for
from terminal import Terminal, plain
from test_outages import clock  # noqa: F401, a fixture


@pytest.fixture(scope="module")
def fleet(module_cluster, echo):
    return module_cluster(
        proxies=2, agents=["node-1"], services=echo.services()
    ).start()


def doctor(fleet, host, config=None, **kwargs):
    """The findings of a host, or with a configuration that differs."""
    began = time.monotonic()
    args = ["-c", config] if config else []
    result = fleet.peerctl_run(
        *args, "doctor", "--format", "json", host=host, **kwargs)
    assert time.monotonic() - began < 15 * suite.SLOW
    assert result.stderr == "", result.stderr
    answer = json.loads(result.stdout)
    findings = answer["findings"]
    for finding in findings:
        assert finding["state"] in ("ok", "warn", "fail")
        assert (finding["do"] is None) == (finding["state"] == "ok"), finding
        assert finding["do"] != "" and finding["what"] != "?"
    for state in ("ok", "warn", "fail"):
        assert answer[state] == sum(f["state"] == state for f in findings)
    assert result.returncode == (1 if answer["fail"] else 0)
    return findings


def has(findings, check, state, text):
    return any(
        f["check"] == check and f["state"] == state and text in f["what"]
        for f in findings
    )


def changed(host, path, edit):
    """The host's configuration with an edit, as another file."""
    config = json.loads(json.dumps(host.config))
    edit(config)
    path.write_text(yaml_text(config))
    return path


def failures(findings):
    return [f for f in findings if f["state"] == "fail"]


def test_a_healthy_host(fleet):
    for host, checks in [
        (fleet.auth, {"names", "ports"}),
        (fleet.proxies[0], {"auth", "peers", "certificates", "names"}),
        (fleet.agents[0], {"proxies", "certificates"}),
    ]:
        findings = doctor(fleet, host)
        assert not failures(findings), failures(findings)
        seen = {f["check"] for f in findings}
        assert checks | {"configuration", "daemons", "descriptors", "kernel",
                         "clock", "directories"} <= seen
        for daemon in host.daemon_names:
            assert has(findings, "daemons", "ok", f"{daemon} is ready")
    findings = doctor(fleet, fleet.proxies[0])
    assert has(findings, "peers", "ok", "1 peer: 1 ready")
    assert has(findings, "auth", "ok", "answers, verified")
    assert has(findings, "ports", "ok", "peerd listens at ")


def test_lines_on_a_terminal_and_a_table_elsewhere(fleet):
    host = fleet.proxies[0]
    argv = [suite.binary("peerctl"), "-c", host.config_path, "doctor"]
    with Terminal(argv) as terminal:
        assert terminal.wait() == 0
        lines = plain(terminal.text)
        assert "\x1b[32m" in terminal.text
    assert any(line.startswith("ok   auth: ") for line in lines)
    assert lines[-1].split()[1:2] == ["well,"]
    rows = fleet.peerctl("doctor", host=host).splitlines()
    assert rows[0] == "CHECK\tSTATE\tWHAT\tDO"
    assert all(row.count("\t") == 3 for row in rows)


def test_a_bad_file_and_wrong_usage(fleet, tmp_path):
    bad = tmp_path / "bad.yaml"
    bad.write_text("peerway:\n  cluster_nam: x\n")
    result = fleet.peerctl_run("-c", bad, "doctor")
    assert result.returncode == 1
    assert f"{bad}:2: " in result.stderr and "unknown key" in result.stderr
    assert fleet.peerctl_run("doctor", "--no-such").returncode == 2


def test_what_the_configuration_of_a_proxy_gets_wrong(fleet, tmp_path):
    """Told before the first start, too: with this file no daemon runs."""
    host = fleet.proxies[0]
    silent = socket.create_server((host.address, 0))
    taken = socket.create_server((host.address, 0))

    def edit(config):
        peerway, proxy = config["peerway"], config["proxy_service"]
        peerway["cluster_name"] = "other"
        peerway["run_dir"] = str(tmp_path / "nowhere")
        peerway["auth_servers"] = [
            f"{host.address}:1",
            f"{host.address}:{silent.getsockname()[1]}",
            "no-such-name.invalid",
            host.listen_addr,
            fleet.auth.listen_addr,
        ]
        proxy["public_addr"] = ["proxy.no-such-name.invalid:3080"]
        proxy["tunnel_listen_addr"] = "{}:{}".format(*taken.getsockname())

    findings = doctor(fleet, host, changed(host, tmp_path / "c.yaml", edit))
    for check, state, text in [
        ("daemons", "fail", "routed is not running on this host"),
        ("directories", "warn", "run_dir"),
        ("ports", "fail", "is taken by "),
        ("names", "fail", "no-such-name.invalid:3025 of auth_servers is not found"),
        ("names", "fail", "proxy.no-such-name.invalid:3080 of proxy_service"),
        ("certificates", "fail", "not one of a host of other"),
        ("auth", "fail", f"{host.address}:1 cannot be reached: cannot connect"),
        ("auth", "fail", f"{silent.getsockname()[1]} cannot be reached: "),
        ("auth", "fail", "no-such-name.invalid:3025 cannot be reached"),
        ("peers", "warn", "peerd does not run"),
    ]:
        assert has(findings, check, state, text), (check, state, text, findings)
    silent.close()
    taken.close()


def test_somebody_else_answers_for_the_auth_server(fleet, tmp_path):
    host = fleet.proxies[0]

    def edit(config):
        config["peerway"]["auth_servers"] = [fleet.proxies[1].listen_addr,
                                             fleet.auth.listen_addr]

    findings = doctor(fleet, host, changed(host, tmp_path / "c.yaml", edit))
    assert has(findings, "auth", "fail", "is no auth server of the cluster")
    assert has(findings, "auth", "ok", f"{fleet.auth.listen_addr} answers")


def test_what_the_configuration_of_an_agent_gets_wrong(fleet, tmp_path):
    host = fleet.agents[0]

    def edit(config):
        config["agent_service"]["proxy_server"] = [
            f"{host.address}:1", fleet.auth.listen_addr,
            fleet.proxies[0].listen_addr,
        ]

    findings = doctor(fleet, host, changed(host, tmp_path / "c.yaml", edit))
    assert has(findings, "proxies", "fail", f"{host.address}:1 cannot be")
    assert len(failures(findings)) == 2
    assert has(findings, "proxies", "ok", "answers, verified")


def test_before_the_first_start(fleet, tmp_path):
    """No certificate yet: the pin is what is trusted."""
    host = fleet.agents[0]

    def edit(config):
        config["peerway"]["data_dir"] = str(tmp_path / "data")
        config["peerway"]["join"] = {"token_file": str(tmp_path / "token"),
                                     "ca_pin": fleet.pin}

    path = changed(host, tmp_path / "c.yaml", edit)
    findings = doctor(fleet, host, path)
    assert has(findings, "certificates", "fail", "and the token")
    assert has(findings, "proxies", "ok", "answers, verified")
    (tmp_path / "token").write_text("x")
    (tmp_path / "token").chmod(0o644)
    findings = doctor(fleet, host, path)
    assert has(findings, "certificates", "warn", "has not joined yet")
    assert has(findings, "directories", "warn", "can be read by others")
    assert not (tmp_path / "data").exists(), "something was made"


def test_descriptors_that_run_out(fleet):
    host = fleet.proxies[0]
    pid = host.peerd.pids()[0]
    used = len(os.listdir(f"/proc/{pid}/fd"))
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    # it still has to answer
    resource.prlimit(
        pid, resource.RLIMIT_NOFILE, (used + used // 10, before[1]))
    try:
        findings = doctor(fleet, host)
    finally:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, before)
    assert has(findings, "descriptors", "fail", f"peerd (pid {pid}) uses")


def test_daemons_and_peers_that_are_away(fleet):
    host, other = fleet.proxies
    other.kill()
    host.proxy.kill_group()
    wait_for(lambda: not host.ready_peers(), suite.START_TIMEOUT, "it is seen")
    findings = doctor(fleet, host)
    assert has(findings, "daemons", "fail", "proxy is not running")
    assert has(findings, "peers", "fail", f"({other.uuid[:8]}) is unreachable")
    assert has(findings, "ports", "ok", "is free for proxy")
    fleet.auth.authd.kill()
    findings = doctor(fleet, host)
    assert has(findings, "auth", "fail", "cannot be reached: cannot connect")
    fleet.auth.start()
    fleet.auth.wait_ready()
    for proxy in (host, other):
        for daemon in proxy.daemons:
            if not daemon.running():
                daemon.start()
        proxy.wait_ready()
    fleet.wait_peers()
    fleet.wait_agents()


@pytest.mark.skipif(
    "asan" in os.environ.get("PEERWAY_BUILD", ""),
    reason="sanitizers want to be loaded first",
)
def test_a_clock_that_is_wrong(fleet, clock):  # noqa: F811
    host = fleet.proxies[0]
    findings = doctor(fleet, host, env=clock(600))
    assert has(findings, "clock", "fail",
               f"the clock of peer {socket.gethostname()}") or has(
               findings, "clock", "fail", "s behind this one")
    findings = doctor(fleet, host, env=clock(-7200))
    assert has(findings, "clock", "fail", "before the beginning")
    assert has(findings, "auth", "fail", "not yet valid")
