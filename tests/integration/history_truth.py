# SPDX-License-Identifier: Apache-2.0
"""The true sequence of changes: what all watches of a history say together.

Each watch is one or more segments: a snapshot or a revision to go on from, and
the changes behind it. Where two segments overlap they must have said the same,
each revision once and none left out; together they must leave no hole, but for
revisions that a snapshot behind them shows to have changed no record: a lease
ends without one.
"""

from dataclasses import dataclass, field


@dataclass(slots=True)
class Segment:
    watch: object
    start: int  # revision of the state it begins with
    end: int
    time: float  # when that state was known
    base: dict | None  # key -> (value, revision); None: resumed
    revisions: list = field(default_factory=list)  # with changes, in order

    def is_hello_only(self):
        """Then its revision is what the caller said of itself, and the store
        may know better."""
        return self.base is None and self.start == self.end


class Truth:
    """changes: revision -> {key: value}; seen: revision -> when somebody first
    heard of it; base: the state as of first; last: all up to it is known."""

    def __init__(self, history, complain):
        self.complain = complain
        self.history = history
        self.changes = {}
        self.seen = {}
        self.segments = []
        for watch in history.watches:
            self._read(watch)
        self._join()
        for segment in self.segments:
            self._compare(segment)

    # One watch

    def _read(self, watch):
        segment, parts = None, None
        for message in watch.messages:
            if message.odd:
                self.complain(f"{watch}: {message.odd}")
            if message.snapshot:
                if parts is None:
                    if segment and message.revision < segment.start and (
                        segment.is_hello_only()
                    ):
                        self.segments.remove(segment)
                        segment = None
                    else:
                        self._check_wanted(watch, message, segment)
                    parts = []
                parts.append(message)
                if message.complete:
                    segment = self._snapshot(watch, parts)
                    parts = None
            elif parts is not None:
                self.complain(f"{watch}: changes amid a snapshot")
            elif segment is None:
                segment = self._hello(watch, message)
            else:
                self._follow(segment, message)

    def _check_wanted(self, watch, message, segment):
        """A snapshot hides a gap: it may come only where it must."""
        start = segment.end + 1 if segment else watch.from_revision
        if not segment and (
            not start
            or watch.store_id != self.history.store_id
            or start > message.revision + 1
        ):
            return
        if not any(
            begin <= message.time and start <= revision
            for begin, revision in self.history.compactions
        ):
            self.complain(f"{watch}: a snapshot instead of revision {start}")

    def _snapshot(self, watch, parts):
        revision = parts[-1].revision
        base, last = {}, ""
        for part in parts:
            if part.revision != revision:
                self.complain(f"{watch}: a snapshot of several revisions")
            for key, value, changed in part.changes:
                if key <= last:
                    self.complain(f"{watch}: {key} twice or out of order")
                if changed > revision:
                    self.complain(f"{watch}: {key} is newer than its snapshot")
                base[key] = (value, changed)
                last = key
        segment = Segment(watch, revision, revision, parts[-1].time, base)
        self.segments.append(segment)
        return segment

    def _hello(self, watch, message):
        start = watch.from_revision - 1
        if start < 0:
            self.complain(f"{watch}: no snapshot came")
        if message.changes or message.revision != start:
            self.complain(
                f"{watch}: begins with revision {message.revision}"
                f" and {len(message.changes)} changes"
            )
        segment = Segment(watch, start, start, message.time, None)
        self.segments.append(segment)
        return segment

    def _follow(self, segment, message):
        watch, revision = segment.watch, message.revision
        if revision < segment.end or (message.changes and revision == segment.end):
            self.complain(
                f"{watch}: revision {revision} after {segment.end}"
            )
            return
        segment.end = revision
        if not message.changes:
            return
        segment.revisions.append(revision)
        changes = dict(message.changes)
        if len(changes) != len(message.changes):
            self.complain(f"{watch}: a key twice in revision {revision}")
        known = self.changes.setdefault(revision, changes)
        if known != changes:
            self.complain(
                f"{watch}: revision {revision} is {changes}, to others {known}"
            )
        self.seen[revision] = min(
            self.seen.get(revision, message.time), message.time
        )

    # All together

    def _join(self):
        self.base, self.first, self.last = {}, 0, 0
        bases = [s for s in self.segments if s.base is not None]
        if not bases:
            self.complain("no watch had a snapshot")
            return
        first = min(bases, key=lambda s: s.start)
        self.base = dict(first.base)
        self.first = self.last = first.start
        for segment in sorted(self.segments, key=lambda s: s.start):
            if segment.is_hello_only():
                continue
            if segment.start > self.last and segment.base != self._state():
                self.complain(
                    f"nobody watched revisions {self.last} to {segment.start}"
                )
            self.last = max(self.last, segment.end)

    def _state(self):
        """All records as of last: key -> (value, revision)."""
        state = dict(self.base)
        for revision in self._between(self.first, self.last):
            for key, value in self.changes[revision].items():
                if value is None:
                    state.pop(key, None)
                else:
                    state[key] = (value, revision)
        return state

    def _compare(self, segment):
        """Each revision that anybody saw between its ends, once."""
        told = set(segment.revisions)
        for revision in self._between(segment.start, segment.end):
            if revision not in told:
                self.complain(f"{segment.watch}: revision {revision} is missing")

    def _between(self, start, end):
        return sorted(r for r in self.changes if start < r <= end)
