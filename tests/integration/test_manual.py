# SPDX-License-Identifier: Apache-2.0
"""Every command in docs/operations.md is run by a test: those of the guide by
test_guide.py, which reads them from there, the others where TESTED says."""

import re

import pytest

import guide
from hosts import SOURCE

BY_THE_GUIDE = ("From nothing to three proxies", "Upgrading")
PROGRAMS = (
    "peerctl", "systemctl", "supervisorctl", "podman", "kubectl", "etcdctl",
    "install", "curl", "meson", "deploy/",
)
# As written, without comments -> (test, what it must contain to run it)
TESTED = {
    "peerctl drain --wait": ("test_drain.py", '"drain", "--wait"'),
    "peerctl undrain": ("test_drain.py", '"undrain"'),
    "peerctl ca rotate start": ("test_rotation.py", '"start"'),
    "peerctl ca rotate status": ("test_rotation.py", '"status"'),
    "peerctl ca rotate finish": ("test_rotation.py", '"finish"'),
    "peerctl backup /var/backups/peerway/2026-11-27.db": (
        "test_backup.py", '"backup", path'
    ),
    "peerctl doctor": ("test_doctor.py", r'"doctor", "--format"'),
    "peerctl diag": ("test_diag.py", r'"diag", host=host'),
    "systemctl start peerway-proxy-host.target": (
        "test_systemd.py", r'"start", TARGET'
    ),
    "systemctl reload peerway-proxy peerway-peerd peerway-routed": (
        "test_systemd.py", r'"reload"'
    ),
    "systemctl restart peerway-routed peerway-peerd": (
        "test_systemd.py", r'"restart"'
    ),
    "systemctl stop peerway-proxy-host.target": (
        "test_systemd.py", r'"stop", TARGET'
    ),
    "supervisorctl update": ("supervisord.py", r'self\.ctl\("update"\)'),
    "supervisorctl signal HUP 'peerway-proxy-host:*'": (
        "test_supervisor.py", r'ctl\("signal", "HUP", GROUP\)'
    ),
    "supervisorctl restart 'peerway-proxy-host:*'": (
        "test_supervisor.py", r'ctl\("restart", GROUP\)'
    ),
    "supervisorctl stop 'peerway-proxy-host:*'": (
        "test_supervisor.py", r'"stop", GROUP'
    ),
    "podman build -f deploy/container/Containerfile"
    " -t registry.example.com/peerway:0.1.0 .": ("pods.py", r'"build", "--quiet"'),
    "peerctl token add --role proxy --ttl 24h": (
        "test_pod.py", r'"--role", "proxy", "--ttl", "24h"'
    ),
    "peerctl token add --role node --agent-name web --ttl 8760h": (
        "test_pod.py", r'"--ttl", "8760h"'
    ),
}


def commands():
    for heading, text in guide.sections():
        if heading in BY_THE_GUIDE:
            continue
        for step in guide.steps(heading, text):
            for line in step.text.splitlines():
                line = re.sub(r"\s+#.*", "", line).strip()
                if line.startswith(PROGRAMS):
                    yield line


def test_every_command_of_the_manual_is_run():
    assert set(commands()) == set(TESTED)


@pytest.mark.parametrize("command", TESTED)
def test_by_the_test_that_is_named(command):
    name, pattern = TESTED[command]
    text = (SOURCE / "tests" / "integration" / name).read_text()
    assert re.search(pattern, text), f"{name} does not run: {command}"
