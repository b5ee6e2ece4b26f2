# SPDX-License-Identifier: Apache-2.0
"""docs/operations.md as steps: what it says is written into which file, and typed
on which host.

    `/etc/x.yaml` on **host**:      then a fenced block: the file
    ... on **host** ...             then indented lines: typed there, one after the
                                    other in one shell
"""

import re
from dataclasses import dataclass

from hosts import SOURCE

MANUAL = SOURCE / "docs" / "operations.md"


@dataclass(frozen=True)
class Step:
    section: str  # its heading
    host: str  # "": not said
    path: str  # of the file; "": typed
    text: str
    before: str  # the paragraph above


def sections(level="##"):
    """(heading, text) of each."""
    parts = re.split(rf"^{level} (.*)\n", MANUAL.read_text(), flags=re.M)
    return list(zip(parts[1::2], parts[2::2]))


def section(heading, level="##"):
    return dict(sections(level))[heading]


BLOCKS = {
    "fenced": re.compile(r"^```\w*\n(.*?)^```\n", re.M | re.S),
    "typed": re.compile(r"(?:^    .*\n)+", re.M),
    "prose": re.compile(r"(?:^(?!    |```).*\S.*\n)+", re.M),
}


def _blocks(text):
    """(kind, match) of each paragraph and block."""
    at = 0
    while at < len(text):
        for kind, expression in BLOCKS.items():
            found = expression.match(text, at)
            if found:
                yield kind, found
                at = found.end()
                break
        else:
            at = text.index("\n", at) + 1  # an empty line


def steps(heading, text):
    """Those of a section."""
    host, path, before = "", "", ""
    for kind, found in _blocks(text):
        if kind == "prose":
            before = found.group()
            if before.startswith("#"):
                host = ""
            hosts = re.findall(r"[Oo]n \*\*(\w+)\*\*", before)
            host = hosts[-1] if hosts else host
            paths = re.match(r"`(/\S+)` on \*\*", before)
            path = paths[1] if paths else ""
        elif kind == "typed":
            lines = [line[4:] for line in found.group().splitlines()]
            yield Step(heading, host, "", "\n".join(lines), before)
        else:
            yield Step(heading, host, path, found.group(1), before)
