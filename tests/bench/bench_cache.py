# SPDX-License-Identifier: Apache-2.0
"""The cache of one proxy host, alone: tests/tools/commits writes it as routed
does, tests/tools/lookups reads it as a proxy does. Prints a JSON object for each.

    bench_cache.py [--build DIR] [--records N] [--changes N] [--seconds N]

changes: in a commit; there is one every 25 ms. 0: none at all, for comparison."""

import json
import subprocess
import tempfile
from pathlib import Path

from fleet import options


def main():
    args = options(__doc__, records=100000, changes=5, seconds=10)
    tools = Path(args.build) / "tests/tools"
    head = {"bench": "cache", "records": args.records, "changes": args.changes}
    with tempfile.TemporaryDirectory(prefix="pw-cache-") as directory:
        writer = subprocess.Popen(
            [tools / "commits", directory + "/cache", str(args.records),
             str(args.changes)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        path = writer.stdout.readline().strip()
        if not args.changes:
            commits = writer.communicate()[0]
        found = subprocess.run(
            [tools / "lookups", path, str(args.records), str(args.seconds)],
            check=True, capture_output=True, text=True,
        ).stdout
        if args.changes:
            commits = writer.communicate()[0]
    for what, line in ("lookup", found), ("commit", commits):
        print(json.dumps({**head, "what": what, **json.loads(line)}))


if __name__ == "__main__":
    main()
