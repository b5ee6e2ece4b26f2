# SPDX-License-Identifier: Apache-2.0
"""Watchers of turmoil.py: some never leave, some come and go, some go on from a
past revision, some read slowly. Each writes down what it was told."""

import dataclasses
import itertools

import grpc

from history import Message, Watch, digest

# After so many messages one that comes and goes has had enough.
ENOUGH = (3, 250)
FUTURE = 1 << 40


class Watcher:
    """kind: "steady" goes on where it was; "fresh" begins with a snapshot each
    time; "past" goes on from any earlier revision; "slow" is steady and slow."""

    def __init__(self, run, number, kind, stubs):
        self.run = run
        self.name = f"{kind}-{number}"
        self.kind = kind
        self.stubs = stubs
        self.server = number
        self.rng = run.rng(f"watcher {number}")
        self.store_id = ""
        self.position = 0  # state is as of this revision
        self.call = None
        self.watch = None
        self.count = 0

    def play(self):
        while not self.run.closing.is_set():
            self._watch(*self._begin(), self._enough())
            self.run.pause(self.rng.uniform(0.05, 0.3))

    def reached(self, revision):
        return self.position >= revision

    def cancel(self):
        if self.call:
            self.call.cancel()

    def _begin(self):
        """(store id, revision) to ask for."""
        if self.kind == "fresh":
            return self.rng.choices(
                [("", 0), ("another", 7), (self.run.store_id, FUTURE)], [8, 1, 1]
            )[0]
        if self.kind == "past" and self.run.newest:
            first = self.rng.randint(self.run.first + 1, self.run.newest + 1)
            return self.run.store_id, first
        return self.store_id, self.position + 1 if self.position else 0

    def snapshot(self):
        """One of now: (revision, state)."""
        self._watch("", 0, lambda message: message.complete)
        messages = self.watch.messages
        assert messages and messages[-1].complete, self.watch.status
        pairs = [pair for message in messages for pair in message.changes]
        return messages[-1].revision, {key: value for key, value, _ in pairs}

    def _enough(self):
        """A condition on which to leave."""
        if self.kind not in ("fresh", "past"):
            return lambda message: False
        left = self.rng.randint(*ENOUGH)

        def enough(message):
            nonlocal left
            left -= 1
            return left <= 0 and not self.run.over.is_set()

        return enough

    def _slowness(self):
        """Now and then for so long that authd stops reading for it."""
        if self.rng.random() < 0.03:
            return self.rng.uniform(3, 6)
        return self.rng.choice([0, 0.02, 0.1, 0.1, 0.2])

    def _watch(self, store_id, start, enough):
        self.count += 1
        self.position = 0 if self.kind in ("fresh", "past") else self.position
        watch = Watch(f"{self.name}.{self.count}", self.run.now(), store_id, start)
        self.watch = watch
        self.run.history.watches.append(watch)
        request = self.run.authd.auth.WatchRequest(
            store_id=store_id, from_revision=start)
        try:
            stub = self.stubs[self.server % len(self.stubs)]
            self.call = stub.Watch(request, wait_for_ready=True)
            for message in self.call:
                self._hear(watch, message)
                if enough(message):
                    self.call.cancel()
                    break
                if self.kind == "slow":
                    self.run.pause(self._slowness())
        except grpc.RpcError as error:
            watch.status = error.code().name
            self.server += 1

    def _hear(self, watch, message):
        self.run.history.store_id = self.run.store_id or message.store_id
        odd = ""
        if message.store_id != self.run.store_id:
            odd = f"store {message.store_id}"
        heard = Message(self.run.now(), message.revision, message.head,
                        message.snapshot, message.complete, odd=odd)
        for part in self._parts(message):
            watch.messages.append(dataclasses.replace(heard, **part))
        if message.revision > self.run.newest and (
            message.changes or message.complete
        ):
            self.run.newest = message.revision
        if not message.snapshot or message.complete:
            self.store_id = message.store_id
            self.position = message.revision

    def _parts(self, message):
        """A message may tell of several revisions, each of which is then one
        of ours."""
        if message.snapshot:
            yield {"changes": self._shared(
                (*self._change(c), c.revision) for c in message.changes)}
            return
        revision = None
        for revision, changes in itertools.groupby(
            message.changes, lambda change: change.revision
        ):
            yield {"revision": revision,
                   "changes": self._shared(map(self._change, changes))}
        if revision != message.revision:
            yield {}

    def _shared(self, changes):
        changes = tuple(changes)
        return self.run.shared.setdefault(changes, changes)

    @staticmethod
    def _change(change):
        what = change.WhichOneof("what")
        value = getattr(change, what)
        if what == "config":
            return "config", digest(value.SerializeToString())
        if what == "proxy_put":
            return f"proxy/{value.id}", digest(value.SerializeToString())
        if what == "proxy_removed":
            return f"proxy/{value}", None
        key = f"tunnel/{value.agent_id}/{value.proxy_id}"
        if what == "tunnel_put":
            return key, digest(value.SerializeToString())
        return key, None
