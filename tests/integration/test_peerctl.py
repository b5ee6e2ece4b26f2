# SPDX-License-Identifier: Apache-2.0
"""What a person types: status, ls, routes, token, identity, connect; as tables
and as JSON; 0, 1 with one line why, or 2 for wrong usage."""

import json
import subprocess
import threading

import pytest

import suite


@pytest.fixture(scope="module")
def fleet(module_cluster, echo):
    return module_cluster(
        proxies=2, agents=["node-1"], services=echo.services()
    ).start()


def as_json(fleet, *args, host=None):
    return json.loads(fleet.peerctl(*args, "--format", "json", host=host))


def test_ls_names_agents_and_services(fleet):
    for proxy in fleet.proxies:
        out = fleet.peerctl("ls", host=proxy)
        assert "node-1" in out and "echo" in out
        (agent,) = as_json(fleet, "ls", host=proxy)["agents"]
        assert agent["name"] == "node-1"
        assert agent["agent_id"] == fleet.agents[0].uuid
        assert agent["labels"] == {"env": "test"}
        assert {s["name"] for s in agent["services"]} == {"echo", "pump"}
        assert [p["id"] for p in agent["proxies"]] == [
            fleet.holder("node-1").uuid
        ]


def test_routes_by_name_and_uuid(fleet):
    holder = fleet.holder("node-1")
    for proxy in fleet.proxies:
        for target in ("node-1", fleet.agents[0].uuid):
            (agent,) = as_json(fleet, "routes", target, host=proxy)["agents"]
            assert [p["id"] for p in agent["proxies"]] == [holder.uuid]
            assert holder.uuid in fleet.peerctl(
                "routes", target, host=proxy
            ) or "proxy" in fleet.peerctl("routes", target, host=proxy)


def test_status_shows_the_mesh(fleet):
    for proxy in fleet.proxies:
        (other,) = fleet.others(proxy)
        out = fleet.peerctl("status", host=proxy)
        assert "ready" in out
        text = json.dumps(as_json(fleet, "status", host=proxy))
        assert other.uuid in text and proxy.uuid in text


def test_status_of_a_host_with_a_daemon_down(fleet):
    """What answers is shown, what does not is named."""
    proxy = fleet.proxies[0]
    proxy.routed.stop()
    try:
        result = fleet.peerctl_run("status", host=proxy)
        assert "routed" in result.stdout + result.stderr
        assert fleet.others(proxy)[0].uuid in result.stdout or (
            "ready" in result.stdout
        )
    finally:
        proxy.routed.start()
        proxy.routed.wait_ready()


def test_tokens_come_and_go(fleet):
    made = as_json(fleet, "token", "add", "--role", "node", "--ttl", "10m")
    listed = as_json(fleet, "token", "ls")["tokens"]
    assert made["id"] in {token["id"] for token in listed}
    assert made["token"] not in json.dumps(listed), "ls tells the secret"
    fleet.peerctl("token", "rm", made["id"])
    listed = as_json(fleet, "token", "ls")["tokens"]
    assert made["id"] not in {token["id"] for token in listed}
    assert fleet.peerctl_run("token", "rm", made["id"]).returncode == 1


def test_identity_files(fleet):
    identity = fleet.identity("bob", groups=["ops", "dev"])
    text = subprocess.run(
        ["openssl", "x509", "-noout", "-subject", "-in", identity.cert],
        capture_output=True, text=True, check=True,
    ).stdout
    assert "CN = bob" in text and "O = ops" in text and "O = dev" in text
    assert identity.key.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    "which, route", [("holder", "local"), ("other", "peer")]
)
def test_connect_is_a_pipe(fleet, which, route):
    holder = fleet.holder("node-1")
    proxy = holder if which == "holder" else fleet.others(holder)[0]
    argv = fleet.connect_argv(proxy.listen_addr, "echo.node-1")
    data = b"some bytes\0\xff" * 100_000
    with subprocess.Popen(
        [*argv, "-v"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as pipe:
        # stdin stays open meanwhile: a peer route has no half-close.
        writer = threading.Thread(target=pipe.stdin.write, args=(data,))
        writer.start()
        assert pipe.stdout.read(len(data)) == data
        writer.join(10)
        pipe.stdin.close()
        assert pipe.stdout.read() == b""
        assert f"route={route} ".encode() in pipe.stderr.read()
        assert pipe.wait(10) == 0


def run(*args):
    return subprocess.run(
        [suite.binary("peerctl"), *args], capture_output=True, text=True,
        stdin=subprocess.DEVNULL, timeout=20, check=False,
    )


@pytest.mark.parametrize(
    "args",
    [[], ["no-such-command"], ["ls", "--colour"], ["routes"], ["connect"],
     ["token"], ["token", "add", "--role", "king"], ["identity", "issue"],
     ["--format", "xml", "ls"]],
)
def test_wrong_usage(args):
    result = run(*args)
    assert result.returncode == 2
    assert result.stderr and not result.stdout


@pytest.mark.parametrize("args", [["ls"], ["token", "ls"]])
def test_no_daemon_to_ask(tmp_path, args):
    result = run("--run-dir", str(tmp_path), *args)
    assert result.returncode == 1
    assert len(result.stderr.splitlines()) == 1
    assert str(tmp_path) in result.stderr


def test_refused_connect_says_why(fleet):
    argv = fleet.connect_argv(fleet.proxies[0].listen_addr, "echo.nobody")
    result = subprocess.run(
        argv, capture_output=True, text=True, stdin=subprocess.DEVNULL,
        timeout=30, check=False,
    )
    assert result.returncode == 1
    (line,) = result.stderr.splitlines()
    assert "nobody" in line
