# SPDX-License-Identifier: Apache-2.0
"""The unit tests of the local messages, links and sockets pass under valgrind:
no error, no leak, and no descriptor left open at the end."""

import os
import re
import shutil
import subprocess

import pytest

import suite

MODULES = ["ipc", "ipc_link", "sock", "loop"]


@pytest.mark.parametrize("module", MODULES)
def test_no_leak_of_memory_or_descriptors(module, tmp_path):
    assert shutil.which("valgrind"), "valgrind is not installed"
    program = suite.BUILD / "tests" / f"test_shared_{module}"
    if b"__asan_init" in program.read_bytes():
        pytest.skip("built with AddressSanitizer, which valgrind cannot run")
    log = tmp_path / "valgrind"
    result = subprocess.run(
        ["valgrind", "--track-fds=yes", "--leak-check=full",
         "--errors-for-leak-kinds=definite", "--error-exitcode=99",
         "--child-silent-after-fork=yes", f"--log-file={log}", program],
        env={**os.environ, "PEERWAY_VALGRIND": "1"},
        stdin=subprocess.DEVNULL, capture_output=True, timeout=120,
        check=False,
    )
    report = log.read_text()
    assert result.returncode == 0, result.stderr.decode() + report
    counted = re.search(r"FILE DESCRIPTORS: (\d+) open \((\d+) std\)", report)
    assert counted, report
    # The log is valgrind's own.
    left = [
        line
        for line in re.findall(r"Open file descriptor \d+:.*", report)
        if str(log) not in line
    ]
    assert not [line for line in left if not is_standard(line)], report


def is_standard(line):
    return re.search(r"descriptor [012]:", line) is not None
