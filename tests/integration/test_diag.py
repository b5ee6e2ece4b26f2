# SPDX-License-Identifier: Apache-2.0
"""peerctl diag: one archive with all that is asked for when something does not
work, and none of the secrets of its host, wherever they were."""

import json
import os
import re
import stat
import tarfile

import pytest

import suite

PASSWORD = "hunter2-in-a-url"
ETCD_PASSWORD = "etcd-password-of-a-file"
COMMENT = "a-password-in-a-comment"


@pytest.fixture(scope="module")
def fleet(module_cluster, echo):
    return module_cluster(
        proxies=2, agents=["node-1"], services=echo.services()
    ).start()


def diag(fleet, host, out, *args, config=None):
    """The texts of the archive, by name, and the answer."""
    before = ["-c", config] if config else []
    result = fleet.peerctl_run(
        *before, "diag", "-o", out, "--format", "json", *args, host=host)
    assert result.returncode == 0, result.stderr
    answer = json.loads(result.stdout)
    assert stat.S_IMODE(os.stat(out).st_mode) == 0o600
    texts = {}
    with tarfile.open(out, "r:gz") as archive:
        for member in archive:
            top, _, name = member.name.partition("/")
            assert re.fullmatch(r"peerway-diag-[^/]*-\d{8}T\d{6}Z", top)
            assert member.isfile() and member.mode == 0o600
            assert ".." not in name and not name.startswith("/")
            texts[name] = archive.extractfile(member).read().decode()
    assert len(texts) == answer["files"] + 1  # and the manifest
    for name in texts:
        if name != "manifest.txt":
            assert f"{name}: " in texts["manifest.txt"]
    return texts


def secrets_of(host):
    """What nobody else may read, line by line."""
    found = []
    for path in [*host.dir.rglob("*.key"), *host.dir.rglob("key.pem"),
                 *host.dir.glob("token*"), *host.dir.glob("secret-*")]:
        found += [line for line in path.read_text().splitlines()
                  if len(line) >= 6 and not line.startswith("-----")]
    assert found
    return found


def check_clean(texts, secrets):
    for name, text in texts.items():
        for secret in secrets:
            assert secret not in text, f"{secret} is in {name}"
        assert "PRIVATE KEY" not in text, name


def test_of_a_proxy_host(fleet, tmp_path):
    host = fleet.proxies[0]
    log = host.dir / "routed.log"
    texts = diag(fleet, host, tmp_path / "d.tar.gz", "--logs", log,
                 "--logs", host.dir / "no-such.log")
    for daemon in host.daemon_names:
        assert "peerway_" in texts[f"metrics/{daemon}.txt"]
        assert f"readyz/{daemon}.txt" in texts
        assert any(re.fullmatch(rf"limits/{daemon}-\d+\.txt", n) for n in texts)
        assert json.loads(texts["status.json"])[daemon]["pid"]
    findings = json.loads(texts["doctor.json"])["findings"]
    assert {"peers", "auth"} <= {f["check"] for f in findings}
    assert "host has joined" in texts["logs/1-routed.log"]
    assert "no-such.log: missing: No such file" in texts["manifest.txt"]
    assert "logs/journal.txt" in texts["manifest.txt"]
    assert "peerctl " in texts["versions.txt"] and "Linux" in texts["versions.txt"]
    assert "/proc/sys/net/core/somaxconn = " in texts["sysctl.txt"]
    assert "fastopen_key" not in texts["sysctl.txt"]
    assert re.search(rf"CN ?= ?{host.uuid}", texts["certificates.txt"])
    assert "BEGIN CERTIFICATE" in texts["certificates.txt"]
    assert host.listen_addr in texts["peerway.yaml"]
    check_clean(texts, secrets_of(host))


def test_no_secret_is_in_it(fleet, tmp_path):
    """Planted where each may be, and in a log that should not have them."""
    host = fleet.agents[0]
    auth = fleet.auth
    password = host.dir / "secret-etcd"
    password.write_text(ETCD_PASSWORD + "\n")
    sealing = host.dir / "secret-ca"
    sealing.write_text("5a" * 32 + "\n")
    config = tmp_path / "peerway.yaml"
    config.write_text(
        f"# {COMMENT}\n"
        "peerway:\n"
        f"  cluster_name: {suite.CLUSTER_NAME}\n"
        f"  data_dir: {host.data_dir}\n"
        f"  run_dir: {auth.run_dir}\n"
        f"  join: {{token_file: {host.dir}/token, ca_pin: \"{fleet.pin}\"}}\n"
        "auth_service:\n"
        f"  ca_key_file: {sealing}\n"
        "  storage:\n"
        "    type: etcd\n"
        "    endpoints: [127.0.0.1:1]\n"
        f"    user: {{name: root, password_file: {password}}}\n"
        "agent_service:\n"
        "  name: node-1\n"
        f"  proxy_server: {host.address}:1\n"
        f"  https_proxy: \"http://alice:{PASSWORD}@127.0.0.1:1\" # {COMMENT}\n"
    )
    secrets = [*secrets_of(host), PASSWORD, ETCD_PASSWORD, "5a" * 32]
    log = tmp_path / "leaky.log"
    key = (host.data_dir / "agent/key.pem").read_text()
    log.write_text("\n".join([*secrets, f"via http://alice:{PASSWORD}@h/", key,
                              "and an honest line"]) + "\n")
    texts = diag(fleet, host, tmp_path / "d.tar.gz", "--logs", log,
                 config=config)
    check_clean(texts, [*secrets, COMMENT])
    assert "and an honest line" in texts["logs/1-leaky.log"]
    assert 'https_proxy: "[removed]"' in texts["peerway.yaml"]
    assert str(password) in texts["peerway.yaml"], "paths are no secrets"
    # the token's own words are not to be had elsewhere either
    assert (host.dir / "token").read_text().strip() in secrets


def test_it_works_when_nothing_does(fleet, tmp_path):
    host = fleet.proxies[1]
    host.kill()
    texts = diag(fleet, host, tmp_path / "d.tar.gz")
    assert "is not running" in texts["status.json"]
    for daemon in host.daemon_names:
        assert f"metrics/{daemon}.txt: missing: " in texts["manifest.txt"]
    again = fleet.peerctl_run("diag", "-o", tmp_path / "d.tar.gz", host=host)
    assert again.returncode == 1 and "File exists" in again.stderr
    gone = fleet.peerctl_run("diag", "-o", tmp_path / "no/d.tar.gz", host=host)
    assert gone.returncode == 1 and "No such file" in gone.stderr
    named = fleet.peerctl_run("diag", host=host, cwd=tmp_path)
    assert named.returncode == 0
    assert re.match(r"peerway-diag-.*\.tar\.gz: \d+ files", named.stdout)
    assert (tmp_path / named.stdout.split(":")[0]).exists()
