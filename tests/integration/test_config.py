# SPDX-License-Identifier: Apache-2.0
"""Every daemon reads the same file the same way: a bad one is one line with
file, line and key on stderr and exit status 1, before anything is opened."""

import re
import subprocess

import pytest

import suite

DAEMONS = ["authd", "routed", "peerd", "proxy", "agent"]

GOOD = """\
peerway:
  cluster_name: example
  data_dir: {dir}/data
  run_dir: {dir}/run
  auth_servers: [127.0.0.1:3025]
  join: {{token_file: {dir}/token, ca_pin: "sha256:{pin}"}}
auth_service:
  enabled: yes
  tunnel_strategy: {{type: proxy_peering, agent_connection_count: 1}}
proxy_service:
  enabled: yes
  listen_addr: 0.0.0.0:3080
  public_addr: [proxy.example.com:3080]
  peer_public_addr: proxy1.internal:3021
  workers: 2
agent_service:
  enabled: yes
  name: db-host-1
  proxy_server: proxy.example.com:3080
  services:
    - {{name: ssh, type: node, addr: 127.0.0.1:22}}
"""

# what is wrong -> (text, its replacement, line, what the error says)
BAD = {
    "unknown key": ("  workers: 2", "  wokers: 2", 15, "wokers.*unknown"),
    "unknown section": ("agent_service:", "agents:", 16, "agents.*unknown"),
    "wrong type": ("  workers: 2", "  workers: [2]", 15, "workers"),
    "not a number": ("  workers: 2", "  workers: two", 15, "workers.*two"),
    "out of range": ("  workers: 2", "  workers: 65", 15, "workers.*1 to 64"),
    "octal": ("  workers: 2", "  workers: 02", 15, "workers.*octal"),
    "duplicate key": (
        "  cluster_name: example\n",
        "  cluster_name: example\n  cluster_name: other\n",
        3,
        "cluster_name.*duplicate",
    ),
    "alias": ("{dir}/data", "&here {dir}/data", 3, "data_dir.*alias"),
    "escaped NUL": ("{dir}/data", '"/tmp/a\\\\0b"', 3, "data_dir.*NUL"),
    "NUL": ("proxy.example.com:3080]", "proxy\0:3080]", 13, "NUL|control"),
    "not YAML": ("  workers: 2", "  workers: 2: 3", 15, "yaml.*mapping"),
    "relative path": ("{dir}/data", "data", 3, "data_dir.*absolute"),
    "unknown strategy": ("proxy_peering", "star", 9, "type.*star"),
}


def check(name, path):
    return subprocess.run(
        [suite.binary(name), "-c", path, "--check-config"],
        capture_output=True, timeout=20, check=False,
    )


def one_line(result):
    lines = result.stderr.decode().splitlines()
    assert len(lines) == 1, lines
    assert result.stdout == b""
    return lines[0]


def good(tmp_path):
    return GOOD.replace("{dir}", str(tmp_path)).format(pin="ab" * 32)


@pytest.mark.parametrize("name", DAEMONS)
def test_good_file(name, tmp_path):
    path = tmp_path / "peerway.yaml"
    path.write_text(good(tmp_path))
    result = check(name, path)
    assert (result.returncode, result.stdout, result.stderr) == (0, b"", b"")
    assert sorted(tmp_path.iterdir()) == [path], "something was made"


@pytest.mark.parametrize("what", BAD)
@pytest.mark.parametrize("name", DAEMONS)
def test_bad_file(name, what, tmp_path):
    text, replacement, line, says = BAD[what]
    path = tmp_path / "peerway.yaml"
    content = good(tmp_path)
    text = text.replace("{dir}", str(tmp_path))
    assert text in content
    replacement = replacement.replace("{dir}", str(tmp_path))
    path.write_bytes(
        content.replace(text, replacement.replace("\\\\", "\\")).encode()
    )
    result = check(name, path)
    assert result.returncode == 1
    error = one_line(result)
    assert error.startswith(f"{path}:{line}: "), error
    assert re.search(says, error), error
    assert list(tmp_path.iterdir()) == [path], "something was made"


@pytest.mark.parametrize("name", DAEMONS)
def test_empty_and_missing_file(name, tmp_path):
    path = tmp_path / "peerway.yaml"
    result = check(name, path)
    assert result.returncode == 1
    assert str(path) in one_line(result)
    path.touch()
    result = check(name, path)
    assert result.returncode == 1
    assert one_line(result).startswith(f"{path}:1: ")


@pytest.mark.parametrize("name", DAEMONS)
def test_wrong_usage(name):
    result = subprocess.run(
        [suite.binary(name), "--no-such-option"],
        capture_output=True, timeout=20, check=False,
    )
    assert result.returncode == 2
    assert b"--no-such-option" in result.stderr


@pytest.mark.parametrize("name", DAEMONS)
def test_without_its_section_a_daemon_says_so(name, tmp_path):
    """Not a silent exit, nor a daemon that does nothing."""
    path = tmp_path / "peerway.yaml"
    path.write_text(
        f"peerway:\n  cluster_name: example\n  data_dir: {tmp_path}/data\n"
        f"  run_dir: {tmp_path}/run\n"
    )
    result = subprocess.run(
        [suite.binary(name), "-c", path],
        capture_output=True, timeout=20, check=False,
    )
    assert result.returncode == 1
    section = {"authd": "auth", "agent": "agent"}.get(name, "proxy")
    assert f"{section}_service".encode() in result.stderr
