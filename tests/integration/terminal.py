# SPDX-License-Identifier: Apache-2.0
"""A program on a terminal of a size of our choice."""

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios

from process import wait_for

ESCAPE = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


class Terminal:
    """Runs argv with stdout on a pty; .text is all that has come, raw."""

    def __init__(self, argv, columns=80, rows=24, env=None):
        self.master, slave = pty.openpty()
        fcntl.ioctl(
            slave, termios.TIOCSWINSZ, struct.pack("4H", rows, columns, 0, 0)
        )
        merged = {**os.environ, "TERM": "xterm", "LC_ALL": "C.UTF-8"}
        merged.pop("NO_COLOR", None)
        merged.update(env or {})
        self.process = subprocess.Popen(
            list(map(str, argv)), stdin=subprocess.DEVNULL, stdout=slave,
            stderr=subprocess.PIPE, env=merged,
        )
        os.close(slave)
        self._bytes = b""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.process.stderr.close()
        os.close(self.master)

    @property
    def text(self):
        while select.select([self.master], [], [], 0)[0]:
            try:
                data = os.read(self.master, 65536)
            except OSError:  # the program has ended
                break
            if not data:
                break
            self._bytes += data
        return self._bytes.decode(errors="replace")

    def wait_text(self, pattern, timeout=20):
        """Until the text has the pattern; gives the match."""
        return wait_for(
            lambda: re.search(pattern, self.text), timeout, pattern
        )

    def interrupt(self, timeout=10):
        """As Ctrl-C; gives the exit status."""
        self.process.send_signal(signal.SIGINT)
        return self.wait(timeout)

    def wait(self, timeout=30):
        # The program may wait for us to read.
        wait_for(
            lambda: (self.text, self.process.poll())[1] is not None, timeout,
            "the program ends",
        )
        return self.process.returncode


def plain(text):
    """Lines without escape sequences."""
    return ESCAPE.sub("", text).replace("\r", "").splitlines()
