# SPDX-License-Identifier: Apache-2.0
"""One process of a test: its log, its life, its descriptors.

Every process leads a process group of its own, so that children which outlive
a killed parent (workers of proxy) are found and ended too. Nothing here sleeps
for luck: wait_for() looks again until its deadline and names what it missed.
"""

import os
import re
import signal
import subprocess
import time
from pathlib import Path


SESSION_ENDED = re.compile("(session|stream|connection) ended: ")


def wait_for(condition, timeout=10, what="the condition", interval=0.03):
    """Gives the first true value of condition(); fails with what is missing.

    An exception of OSError's family counts as "not yet" and is told at the end.
    """
    deadline = time.monotonic() + timeout
    last = None
    while True:
        try:
            value = condition()
            last = None
        except OSError as error:
            value, last = None, error
        if value:
            return value
        if time.monotonic() > deadline:
            why = f" (last error: {last})" if last else ""
            raise AssertionError(f"not within {timeout} s: {what}{why}")
        time.sleep(interval)


def group_pids(pgid):
    """The pids of a process group, without zombies."""
    found = []
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            stat = Path("/proc", entry, "stat").read_text()
        except OSError:
            continue
        fields = stat.rpartition(")")[2].split()
        if int(fields[2]) == pgid and fields[0] != "Z":
            found.append(int(entry))
    return sorted(found)


def descriptor_table(pid):
    """Descriptor number -> what it is, of a live process."""
    table = {}
    base = f"/proc/{pid}/fd"
    for number in os.listdir(base):
        try:
            table[int(number)] = os.readlink(f"{base}/{number}")
        except FileNotFoundError:
            continue
    return table


def _run_as(user):
    """user is (uid, gid); no account need exist."""

    def change():
        os.setgroups([])
        os.setgid(user[1])
        os.setuid(user[0])
        os.umask(0o027)

    return change


class Process:
    """argv, run with its output in the file log (appended to on restarts)."""

    def __init__(self, name, argv, log, user=None, env=None, cwd=None):
        self.name = name
        self.argv = [str(arg) for arg in argv]
        self.log = Path(log)
        self.user = user
        self.env = {
            name: value
            for name, value in os.environ.items()
            if name.lower() not in ("https_proxy", "no_proxy")
        }
        self.env.update(env or {})
        self.cwd = cwd
        self.popen = None
        self.log_start = 0
        self.expected_end = True  # not running, and that is right

    def __repr__(self):
        return f"<{self.name} pid {self.pid}>"

    @property
    def pid(self):
        return self.popen.pid if self.popen else None

    def start(self):
        assert not self.running(), f"{self.name} is running already"
        with open(self.log, "ab") as out:
            self.log_start = out.tell()
            self.popen = subprocess.Popen(
                self.argv,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                env=self.env,
                cwd=self.cwd,
                start_new_session=True,
                preexec_fn=_run_as(self.user) if self.user else None,
            )
        self.expected_end = False
        return self

    def running(self):
        return self.popen is not None and self.popen.poll() is None

    def check_running(self):
        assert self.running(), (
            f"{self.name} ended with {self.popen and self.popen.returncode}:\n"
            + self.tail(15)
        )
        return True

    def send_signal(self, number):
        os.kill(self.pid, number)

    def stop(self, timeout=20, told=False):
        """SIGTERM (unless told already: a second one may mean at once), waits
        for it and its group; gives the exit status."""
        self.expected_end = True
        if not self.popen:
            return None
        if self.running() and not told:
            self.send_signal(signal.SIGTERM)
        try:
            status = self.popen.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill_group()
            raise AssertionError(
                f"{self.name} did not end {timeout} s after SIGTERM:\n"
                + self.tail(15)
            ) from None
        self.kill_group()
        return status

    def kill(self, number=signal.SIGKILL):
        """Kills the main process only and waits for its end."""
        self.expected_end = True
        if self.running():
            self.send_signal(number)
        self.popen.wait(10)

    def kill_group(self):
        self.expected_end = True
        if not self.popen:
            return
        for pid in group_pids(self.popen.pid):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        self.popen.wait(10)

    def restart(self):
        self.stop()
        return self.start()

    def pids(self):
        """Its own pid and those of its children."""
        return group_pids(self.popen.pid) if self.popen else []

    def descriptors(self):
        """How many descriptors its processes hold, all together."""
        return sum(len(descriptor_table(pid)) for pid in self.pids())

    # Log

    def log_text(self, whole=False):
        """What was logged since the last start, or ever."""
        if not self.log.exists():
            return ""
        with open(self.log, "rb") as file:
            file.seek(0 if whole else self.log_start)
            return file.read().decode(errors="replace")

    def log_mark(self):
        """A position to give to log_matches() later."""
        return self.log.stat().st_size if self.log.exists() else 0

    def log_matches(self, pattern, mark=None):
        """All matches of pattern since mark (or the last start)."""
        if not self.log.exists():
            return []
        with open(self.log, "rb") as file:
            file.seek(self.log_start if mark is None else mark)
            text = file.read().decode(errors="replace")
        return list(re.finditer(pattern, text, re.MULTILINE))

    def wait_log(self, pattern, timeout=10, mark=None):
        """The first match of pattern since mark, waited for."""
        found = wait_for(
            lambda: self.log_matches(pattern, mark),
            timeout,
            f"{self.name} logs /{pattern}/",
        )
        return found[0]

    def tail(self, lines=40):
        """The last lines, and of those before them what is no session's end."""
        if not self.log.exists():
            return "(no log)"
        with open(self.log, "rb") as file:
            file.seek(max(0, self.log_mark() - 1024 * 1024))
            text = file.read().decode(errors="replace").splitlines()
        telling = [
            line for line in text[: -lines // 4] if not SESSION_ENDED.search(line)
        ]
        return "\n".join(telling[-lines:] + text[-lines // 4 :])
