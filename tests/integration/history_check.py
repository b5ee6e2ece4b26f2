# SPDX-License-Identifier: Apache-2.0
"""Judges a history (history.py): check() gives what is wrong with it.

- every watch is told each change once and in order (history_truth.py);
- each acknowledged write is there, with its revision, whole and alone; one whose
  answer was lost is there whole and once, or not at all; a refused one is not;
- what a real host writes of a tunnel it has been told, and never an earlier thing
  after a later one;
- what else disappears is all that hung on one lease, at once, not before that
  lease could end and not long after (history_lease.py);
- what was told after something had been answered is not older than it;
- nothing is written under an epoch when a newer one has been granted, nor
  refused without a reason;
- each snapshot, lookup and cache is exactly the state as of its revision, and in
  the end all are what the writers meant.
"""

import bisect
from collections import defaultdict

import history_lease
from history_truth import Truth

MOST = 30  # complaints; the first ones tell


class Complaints(list):
    def __call__(self, text):
        if len(self) < MOST:
            self.append(text)


def check(history):
    complain = Complaints()
    truth = Truth(history, complain)
    replay = Replay(history, truth, complain)
    replay.run()
    check_order(history, truth, replay, complain)
    check_epochs(history, replay, complain)
    history_lease.check(history, truth, replay, complain)
    check_end(history, truth, replay, complain)
    return list(complain)


def proxy_of(key):
    return key.rpartition("/")[2] if "/" in key else ""


def difference(wanted, found):
    """In words, the first of what differs."""
    keys = [k for k in sorted(wanted | found) if wanted.get(k) != found.get(k)]
    lines = [f"{k} is {found.get(k)} not {wanted.get(k)}" for k in keys[:3]]
    return f"{len(keys)} differ: " + "; ".join(lines)


class Replay:
    """Folds the truth and looks at the writers' calls on its way. Afterwards
    left: lease -> when its last record was seen to go, None: never."""

    def __init__(self, history, truth, complain):
        self.history = history
        self.truth = truth
        self.complain = complain
        self.simulated = set(history.simulated)
        self.state = dict(truth.base)  # key -> (value, revision)
        self.lease_of = {}
        self.keys_of = defaultdict(set)
        self.left = {}
        self.ended = {}  # lease -> revision
        self.done = {}  # id(call) -> revision, of publishes that happened
        self.folded = {}  # name of a watch -> (revision, what it believes)
        self.acknowledged = defaultdict(list)
        self.writer = {}  # value -> call
        self.lost_removals = []
        self.newest = {}  # key -> n of what was last written there, as said
        for call in history.calls:
            if call.kind != "publish":
                continue
            if call.ok:
                self.acknowledged[call.revision].append(call)
            elif call.lost and not call.puts:
                self.lost_removals.append(call)
            for value in call.puts.values():
                if value in self.writer:
                    complain(f"the test wrote the value {value} twice")
                self.writer[value] = call

    def run(self):
        points = self._points()
        revisions = set(self.truth.changes) | set(self.acknowledged)
        for revision in sorted(revisions | set(points)):
            if not self.truth.first < revision <= self.truth.last:
                if revision != self.truth.first:
                    self._unseen(revision, points)
                    continue
            changes = self.truth.changes.get(revision, {})
            if revision > self.truth.first:
                self._explain(revision, changes)
                self._apply(revision, changes)
            for call in self.acknowledged.get(revision, ()):
                self._check_acknowledged(call)
            for look in points.get(revision, ()):
                look(self.state)

    def _unseen(self, revision, points):
        what = [str(c) for c in self.acknowledged.get(revision, ())]
        if what or revision > self.truth.last:
            self.complain(
                f"nobody watched revision {revision}, which somebody saw {what}"
            )

    # What was seen on the way

    def _points(self):
        points = defaultdict(list)

        def add(revision, what, values, full=None):
            def look(state):
                now = {k: v for k, (v, _) in state.items()}
                if now != values:
                    self.complain(f"{what}: {difference(now, values)}")
                elif full and full != state:
                    self.complain(f"{what}: revisions of records are wrong")

            points[revision].append(look)

        for segment in self.truth.segments:
            if segment.base is not None:
                values = {k: v for k, (v, _) in segment.base.items()}
                add(segment.start, f"{segment.watch}: snapshot", values,
                    segment.base)
            if segment.watch.followed:
                points[segment.start].append(self._folder(segment))
        for reading in self.history.readings:
            name = f"{reading.name} at {reading.begin:.3f}"
            add(reading.revision, name, reading.state)
        for call in self.history.calls:
            if call.kind == "lookup" and call.ok:
                points[call.revision].append(self._lookup(call))
        return points

    def _lookup(self, call):
        def look(state):
            # by proxy; the dict of all tunnels is searched by its prefix
            prefix = f"tunnel/{call.agent}/"
            found = {k: state[k][0] for k in self._keys_of_agent(prefix)}
            if found != call.found:
                self.complain(f"{call}: {difference(found, call.found)}")

        return look

    def _keys_of_agent(self, prefix):
        return [k for k in self.state if k.startswith(prefix)]

    def _folder(self, segment):
        """What the watcher itself believes in the end."""

        def look(state):
            mine = dict(segment.base if segment.base is not None else state)
            mine = {k: v for k, (v, _) in mine.items()}
            for message in segment.watch.messages:
                if message.snapshot or message.revision <= segment.start:
                    continue
                fold(mine, message.changes)
            self.folded[segment.watch.name] = (segment.end, mine)

        return look

    # Who did it

    def _effect(self, call):
        effect = dict(call.puts)
        effect.update({k: None for k in call.removes if k in self.state})
        return effect

    def _explain(self, revision, changes):
        acknowledged = [
            call for call in self.acknowledged.get(revision, ())
            if self._effect(call)
        ]
        mine = {k: v for k, v in changes.items() if proxy_of(k) in self.simulated}
        writers = {
            id(self.writer[v]): self.writer[v]
            for v in mine.values() if v in self.writer
        }
        for call in acknowledged:
            if self._effect(call) == changes:
                self._did(call, revision)
                return
        for call in acknowledged:
            if call.puts or not changes:
                self.complain(
                    f"{call}: not done as answered: "
                    + difference(self._effect(call), changes)
                )
        if not mine:
            return
        if any(v is not None and v not in self.writer for v in mine.values()):
            self.complain(f"revision {revision}: a record that nobody wrote")
        for call in writers.values():
            if call.ok:
                self.complain(f"{call}: seen at revision {revision}")
            elif not call.lost:
                self.complain(f"{call}: refused and done at revision {revision}")
            elif self._effect(call) != changes:
                self.complain(
                    f"{call}: done in part at revision {revision}: "
                    + difference(self._effect(call), changes)
                )
            self._did(call, revision)
        if not writers:
            self._removed(revision, mine)

    def _did(self, call, revision):
        if id(call) in self.done:
            self.complain(
                f"{call}: done at revisions {self.done[id(call)]} and {revision}"
            )
        self.done[id(call)] = revision
        if call.puts and call.lease in self.ended:
            self.complain(f"{call}: its lease had ended")

    def _removed(self, revision, changes):
        for call in self.lost_removals:
            if id(call) not in self.done and self._effect(call) == changes:
                self._did(call, revision)
                return
        for lease in {self.lease_of.get(key, 0) for key in changes}:
            rest = self.keys_of[lease] - set(changes)
            if not lease:
                self.complain(f"revision {revision}: a removal by nobody")
            elif rest:
                self.complain(
                    f"revision {revision}: lease {lease:x} ended in part, "
                    f"{len(rest)} records stay"
                )
            else:
                self.ended[lease] = revision

    def _apply(self, revision, changes):
        for key, value in changes.items():
            lease = self.lease_of.pop(key, 0)
            self.keys_of[lease].discard(key)
            if lease and not self.keys_of[lease]:
                self.left[lease] = self.truth.seen[revision]
            if value is None:
                if self.state.pop(key, None) is None:
                    self.complain(f"revision {revision}: {key} was not there")
                continue
            self.state[key] = (value, revision)
            if key.startswith("tunnel/") and proxy_of(key) not in self.simulated:
                self._check_said(revision, key, value)
            call = self.writer.get(value)
            if call:
                self.lease_of[key] = call.lease
                self.keys_of[call.lease].add(key)
                self.left[call.lease] = None

    def _check_said(self, revision, key, value):
        number = self.history.said.get(value)
        if number is None:
            self.complain(f"revision {revision}: nobody said {value} of {key}")
        elif number < self.newest.get(key, 0):
            self.complain(f"revision {revision}: {key} is set back")
        else:
            self.newest[key] = number

    def _check_acknowledged(self, call):
        for key, value in call.puts.items():
            if self.state.get(key) != (value, call.revision):
                self.complain(f"{call}: {key} is lost")
                return
        for key in call.removes:
            if key in self.state:
                self.complain(f"{call}: {key} is still there")
                return


def fold(state, changes):
    for key, value in changes:
        if value is None:
            state.pop(key, None)
        else:
            state[key] = value


def check_order(history, truth, replay, complain):
    """What began when something had been answered is not older than it."""
    answered = []  # (time, revision, what)
    asked = []  # (time, revision, what, is a write)
    for call in history.calls:
        revision = replay.done.get(id(call))
        if revision:
            asked.append((call.begin, revision, call, True))
        elif call.ok and call.revision:
            asked.append((call.begin, call.revision, call, False))
        if call.ok:
            told = call.revision
            if call.kind == "revoke":
                told = replay.ended.get(call.lease, 0)
            answered.append((call.end, told, call))
    for watch in history.watches:
        for number, message in enumerate(watch.messages):
            told = message.revision
            if number == 0:
                told = told if message.snapshot else message.head
                asked.append((watch.begin, told, watch, False))
            if number or message.snapshot or message.head > message.revision:
                # else it is only what the caller said itself
                answered.append((message.time, told, watch))
    for reading in history.readings:
        answered.append((reading.end, reading.revision, reading.name))
    answered.sort(key=lambda item: item[0])
    newest, where = (0, None), 0
    for begin, revision, what, is_write in sorted(asked, key=lambda i: i[0]):
        while where < len(answered) and answered[where][0] < begin:
            newest = max(newest, answered[where][1:], key=lambda item: item[0])
            where += 1
        if revision < newest[0] + is_write:
            complain(
                f"{what}: revision {revision}, when {newest[1]} had been told "
                f"of {newest[0]}"
            )


def check_epochs(history, replay, complain):
    """A write is refused from the moment when a newer epoch has been granted."""
    grants = defaultdict(list)
    for call in history.calls:
        if call.kind == "grant":
            grants[call.who].append(call)
    for calls in grants.values():
        granted = sorted((c for c in calls if c.ok), key=lambda c: c.end)
        for earlier, later in zip(granted, granted[1:]):
            if later.begin > earlier.end and later.epoch <= earlier.epoch:
                complain(f"{later}: not after {earlier}")
        if len({c.epoch for c in granted}) != len(granted):
            complain(f"an epoch was given twice to {calls[0].who}")
    writes = sorted(
        (c.begin, replay.done[id(c)]) for c in history.calls if id(c) in replay.done
    )
    # the least revision of all writes that began at or after each
    least = [float("inf")]
    for _, revision in reversed(writes):
        least.append(min(least[-1], revision))
    least.reverse()
    begins = [begin for begin, _ in writes]
    for call in history.calls:
        if call.kind != "publish":
            continue
        newer = [g for g in grants[call.who] if g.ok and g.epoch > call.epoch]
        revision = replay.done.get(id(call))
        for grant in newer:
            behind = least[bisect.bisect_right(begins, grant.end)]
            started_after = (call.ok or revision) and grant.end < call.begin
            if started_after or (revision and revision > behind):
                complain(f"{call}: done although epoch {grant.epoch} was granted")
        if call.status == "FAILED_PRECONDITION" and not any(
            g.begin < call.end for g in newer
        ) and not any(g.lost and g.begin < call.end for g in grants[call.who]):
            complain(f"{call}: refused, but there was no newer epoch")
        if call.status not in ("OK", "FAILED_PRECONDITION", "NOT_FOUND") and (
            not call.lost
        ):
            complain(f"{call}: refused")


def check_end(history, truth, replay, complain):
    """All have heard of the last write, and it is as the writers meant."""
    if truth.last < history.marker:
        complain(f"the last write, {history.marker}, was not seen")
    ends = [
        (f"watch {name}", revision, state)
        for name, (revision, state) in replay.folded.items()
    ]
    ends += [(r.name, r.revision, r.state) for r in history.readings if r.last]
    for name in {w.name for w in history.watches if w.followed}:
        if name not in replay.folded:
            complain(f"watch {name} heard nothing")
    for name, revision, state in ends:
        if revision < history.marker:
            complain(f"{name} stopped at {revision}, before the last write "
                     f"{history.marker}")
        wanted = {
            key: state.get(key) if value == "*" else value
            for key, value in history.model.items()
        }
        if wanted != state:
            complain(f"{name} in the end: {difference(wanted, state)}")
    if not any(reading.last for reading in history.readings):
        complain("nobody read the end")
