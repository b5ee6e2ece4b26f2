# SPDX-License-Identifier: Apache-2.0
"""What happened while many wrote and watched records: every call with its
beginning, end and outcome, every message of every watch, every time that authd
was away, every reading of a cache. Times are seconds of one monotonic clock.

A record is known by its key, "config", "proxy/<id>" or "tunnel/<agent>/<proxy>",
and its value is a digest; None stands for "removed". history_check.py judges a
history; `history.py FILE` judges one that a failed test has left behind.
"""

import dataclasses
import hashlib
import json
import sys
from dataclasses import dataclass, field

# The caller cannot know whether it was done.
LOST = {"UNAVAILABLE", "DEADLINE_EXCEEDED", "CANCELLED", "UNKNOWN", "INTERNAL"}


@dataclass(slots=True)
class Call:
    """kind: grant, keepalive, revoke, publish or lookup; who: a proxy's id."""

    kind: str
    who: str
    begin: float
    end: float = 0.0
    status: str = ""
    lease: int = 0
    epoch: int = 0
    previous: int = 0  # of a grant
    puts: dict = field(default_factory=dict)  # key -> value
    removes: list = field(default_factory=list)  # keys
    revision: int = 0
    agent: str = ""  # of a lookup
    found: dict = field(default_factory=dict)

    @property
    def ok(self):
        return self.status == "OK"

    @property
    def lost(self):
        return self.status in LOST

    def __str__(self):
        what = f"{self.kind} of {self.who[:8]} at {self.begin:.3f}-{self.end:.3f}"
        if self.kind == "lookup":
            return f"{what}: {self.status} revision {self.revision}"
        return (f"{what}: {self.status} lease {self.lease:x} epoch {self.epoch}"
                f" revision {self.revision}")


@dataclass(slots=True)
class Message:
    """Of one revision: what came together is told apart. changes: (key, value)
    pairs in the order in which they came; in a snapshot (key, value, revision).
    """

    time: float
    revision: int
    head: int = 0
    snapshot: bool = False
    complete: bool = False
    changes: tuple = ()
    odd: str = ""  # what about it broke a rule that is seen on arrival


@dataclass(slots=True)
class Watch:
    name: str
    begin: float
    store_id: str  # as asked for
    from_revision: int  # as asked for; 0: a snapshot
    messages: list = field(default_factory=list)
    status: str = ""  # how it ended
    followed: bool = False  # it was to hear all until the end

    def __str__(self):
        return f"watch {self.name} from {self.from_revision} at {self.begin:.3f}"


@dataclass(slots=True)
class Outage:
    """Somebody was away at least from down to up, at most from begin to end.

    full_ttl: every lease had a full TTL when it came back; else, when it lasted
    longer than a moment, every lease was extended by as much (or had a full TTL
    too: History.stalls_renew).
    """

    kind: str
    begin: float
    down: float
    up: float
    end: float
    full_ttl: bool = False


@dataclass(slots=True)
class Reading:
    """A cache, or what somebody believes, at one moment."""

    name: str
    begin: float
    end: float
    revision: int
    state: dict
    last: bool = False  # of the quiet end


@dataclass
class History:
    seed: int = 0
    ttl: float = 2.0
    # A record goes within so much of its lease's end: see history_lease.py.
    bound: float = 1.0
    stalls_renew: bool = False
    calls: list = field(default_factory=list)
    watches: list = field(default_factory=list)
    outages: list = field(default_factory=list)
    readings: list = field(default_factory=list)
    compactions: list = field(default_factory=list)  # (begin, revision)
    stalls: list = field(default_factory=list)  # of the test itself: (begin, end)
    simulated: list = field(default_factory=list)  # all their writes are calls
    said: dict = field(default_factory=dict)  # value -> n, of other hosts' tunnels
    marker: int = 0  # revision of the last write of all
    model: dict = field(default_factory=dict)  # what ought to be there at last
    store_id: str = ""


def digest(data):
    return hashlib.blake2b(data, digest_size=8).hexdigest()


def save(history, path):
    """One JSON object a line."""
    lists = {"call": history.calls, "watch": history.watches,
             "outage": history.outages, "reading": history.readings}
    with open(path, "w", encoding="ascii") as file:
        for kind, items in lists.items():
            for item in items:
                json.dump({kind: dataclasses.asdict(item)}, file)
                file.write("\n")
        rest = {
            name.name: getattr(history, name.name)
            for name in dataclasses.fields(history)
            if name.name not in ("calls", "watches", "outages", "readings")
        }
        json.dump({"history": rest}, file)
        file.write("\n")


def load(path):
    history = History()
    with open(path, encoding="ascii") as file:
        for line in file:
            ((kind, fields),) = json.loads(line).items()
            if kind == "watch":
                fields["messages"] = [
                    Message(**{**m, "changes": tuple(map(tuple, m["changes"]))})
                    for m in fields["messages"]
                ]
                history.watches.append(Watch(**fields))
            elif kind == "history":
                for name, value in fields.items():
                    setattr(history, name, value)
            else:
                make, items = {
                    "call": (Call, history.calls),
                    "outage": (Outage, history.outages),
                    "reading": (Reading, history.readings),
                }[kind]
                items.append(make(**fields))
    return history


if __name__ == "__main__":
    import history_check

    found = history_check.check(load(sys.argv[1]))
    print("\n".join(found) or "no complaints")
    sys.exit(bool(found))
