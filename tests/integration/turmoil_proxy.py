# SPDX-License-Identifier: Apache-2.0
"""A proxy host of turmoil.py that is played: it holds a lease, publishes what it
wants others to know, and now and then does what goes wrong with real ones. Each
call is recorded. What it decides comes from its own generator alone."""

import threading

import grpc

from history import Call, digest

AGENTS_EACH = 60
BATCH = 100
CALL_TIMEOUT = 2.0
# Labels of a record that fills what is buffered for a slow watcher, and how many
# of the records are such.
BIG = 60
BIG_SHARE = 0.1

ACTIONS = {
    "change": 60,
    "look": 10,
    "write_stale": 6,
    "take_new_lease": 5,
    "revoke": 2,
    "lapse": 3,
    "doze": 2,
}


class Lease:
    def __init__(self, grant, now):
        self.id = grant.lease_id
        self.epoch = grant.epoch
        self.kept = True
        self.lost = False
        self.bare = True  # nothing hangs on it yet
        self.renewed = now


class Caller:
    """Calls authd as one host, and writes down how that went."""

    def __init__(self, run, member):
        self.run = run
        self.id = member.uuid
        self.stubs = run.stubs(member)
        self.server = int(self.id[:4], 16)

    @property
    def stub(self):
        """Of an auth server that has not just failed us."""
        return self.stubs[self.server % len(self.stubs)]

    def call(self, kind, method, request, **facts):
        """(what was recorded, the answer or None)."""
        call = Call(kind, self.id, self.run.now(), **facts)
        answer = None
        try:
            answer = method(request, **self._patience())
            call.status = "OK"
        except grpc.RpcError as error:
            call.status = error.code().name
        self._answered(call, answer)
        return call, answer

    def call_later(self, kind, method, request, done, **facts):
        """The same, without waiting for it."""
        call = Call(kind, self.id, self.run.now(), **facts)
        future = method.future(request, **self._patience())

        def on_done(future):
            call.status = future.code().name
            self._answered(call, None)
            done(call)

        future.add_done_callback(on_done)

    def _patience(self):
        # gRPC connects again only while somebody waits for it
        return {"timeout": CALL_TIMEOUT * self.run.slow, "wait_for_ready": True}

    def _answered(self, call, answer):
        call.end = self.run.now()
        self.server += call.lost
        if call.kind == "grant" and answer:
            call.lease, call.epoch = answer.lease_id, answer.epoch
            call.previous = answer.previous_lease_id
        elif call.kind in ("publish", "lookup") and answer:
            call.revision = answer.revision
        if call.kind == "lookup" and answer:
            call.found = {
                f"tunnel/{t.agent_id}/{t.proxy_id}": digest(t.SerializeToString())
                for t in answer.tunnels
            }
        self.run.history.calls.append(call)


class PlayedProxy(Caller):
    """wanted: what tunnels it has; told: key -> value as last answered; dirty:
    agents about whom authd may know something else."""

    def __init__(self, run, number):
        self.rng = run.rng(f"proxy {number}")
        super().__init__(run, run.join(self.rng))
        self.auth, self.record = run.authd.auth, run.authd.record
        self.agents = self.rng.sample(run.agents, AGENTS_EACH)
        self.wanted = set()
        self.told = {}
        self.dirty = {}  # in order
        self.lease = None
        self.older = []  # revoked when all is under the present one
        self.stale = []  # (lease id, epoch) of earlier lives
        self.unsure = False  # a lost write may still arrive
        self.serial = number << 32
        run.history.simulated.append(self.id)

    # The life of it

    def play(self):
        while not self.run.over.is_set():
            if not self._has_lease():
                self.take_new_lease()
            else:
                names, weights = zip(*ACTIONS.items())
                getattr(self, self.rng.choices(names, weights)[0])()
            self.run.pause(self.rng.uniform(0.02, 0.25))

    def settle(self):
        """Until authd has answered for all that it wants, under one lease."""
        if not self._has_lease() or not self.lease.kept:
            self.unsure = True
        while True:
            self.run.check_patience(f"proxy {self.id} settles")
            if self.unsure or not self._has_lease():
                self.take_new_lease()
            elif self.dirty or self.lease.bare:
                self.publish()
            elif self.older:
                self._revoke_older()
            else:
                return

    def die(self):
        """Its host loses power: all that it said goes by itself."""
        for lease in self.leases():
            lease.kept = False
        self.told = {}

    def leases(self):
        return [*self.older, *([self.lease] if self.lease else [])]

    def _has_lease(self):
        return self.lease is not None and not self.lease.lost

    # What it does

    def take_new_lease(self):
        call, answer = self.call(
            "grant", self.stub.LeaseGrant,
            self.auth.LeaseGrantRequest(proxy_id=self.id),
        )
        if not call.ok:
            self.run.pause(self.rng.uniform(0.1, 0.4))
            return
        if self.lease:
            self.stale.append((self.lease.id, self.lease.epoch))
            if not self.lease.lost:
                self.older.append(self.lease)
        self.lease = Lease(answer, call.end)
        self.unsure = False  # whatever arrives late has an older epoch
        self.dirty.update(dict.fromkeys(sorted(self.wanted)))

    def change(self):
        for agent in self.rng.sample(self.agents, self.rng.randint(1, 8)):
            if self.rng.random() < 0.7:
                self.wanted.add(agent)
            else:
                self.wanted.discard(agent)
            self.dirty[agent] = None
        self.publish()
        if not self.dirty and self._has_lease():
            self._revoke_older()

    def publish(self):
        lease = self.lease
        batch = list(self.dirty)[:BATCH]
        puts = [self._tunnel(agent) for agent in batch if agent in self.wanted]
        removes = [agent for agent in batch if agent not in self.wanted]
        with_proxy = lease.bare or self.rng.random() < 0.1
        call = self._publish(lease.id, lease.epoch, puts, removes, with_proxy)
        if call.ok:
            lease.bare = False
            for agent in batch:
                del self.dirty[agent]
            for key in call.removes:
                self.told.pop(key, None)
            self.told.update(call.puts)
        elif call.lost:
            self.unsure = True
            self.run.pause(self.rng.uniform(0.1, 0.4))
        else:
            lease.lost = True

    def look(self):
        agent = self.rng.choice(self.run.agents)
        self.call("lookup", self.stub.Lookup,
                  self.auth.LookupRequest(agent_id=agent), agent=agent)

    def write_stale(self):
        """As an earlier life of it would, or with its epoch on the new lease."""
        if not self.stale:
            return
        lease, epoch = self.rng.choice(self.stale[-4:])
        if self.rng.random() < 0.3:
            lease = self.lease.id
        agents = self.rng.sample(self.agents, 4)
        self._publish(lease, epoch, [self._tunnel(a) for a in agents[:2]],
                      agents[2:], self.rng.random() < 0.3)

    def revoke(self):
        if self._end(self.lease):
            self.run.pause(self.rng.uniform(0, 1))

    def lapse(self):
        """Not heard of for longer than the lease lasts."""
        for lease in self.leases():
            lease.kept = False
        self.run.pause(self.run.ttl + self.rng.uniform(0.2, 1.5))
        self.publish()

    def doze(self):
        """Not heard of for less."""
        self.lease.kept = False
        self.run.pause(self.run.ttl * self.rng.uniform(0.3, 0.6))
        self.lease.kept = True

    # Its parts

    def _revoke_older(self):
        self.older = [
            lease for lease in self.older
            if not lease.lost and not self._end(lease)
        ]

    def _end(self, lease):
        call, _ = self.call(
            "revoke", self.stub.LeaseRevoke,
            self.auth.LeaseRevokeRequest(lease_id=lease.id),
            lease=lease.id, epoch=lease.epoch,
        )
        lease.lost = lease.lost or not call.lost
        return lease.lost

    def _tunnel(self, agent):
        """No two are the same."""
        self.serial += 1
        labels = []
        if self.rng.random() < BIG_SHARE:
            labels = [self.record.Label(name=f"n{i}", value="v" * 200)
                      for i in range(BIG)]
        return self.record.TunnelRecord(
            agent_id=agent, proxy_id=self.id, name=f"agent-{agent[:8]}",
            since_ms=self.serial, labels=labels,
            services=[self.record.Service(name="ssh", type="node", port=22)],
        )

    def _publish(self, lease, epoch, puts, removes, with_proxy):
        request = self.auth.PublishRequest(
            lease_id=lease, epoch=epoch, put=puts, remove_agent_id=removes)
        values = {
            f"tunnel/{t.agent_id}/{self.id}": digest(t.SerializeToString())
            for t in puts
        }
        if with_proxy:
            self.serial += 1
            request.proxy.CopyFrom(self.record.ProxyRecord(
                id=self.id, hostname=f"host-{self.serial}", epoch=epoch))
            values[f"proxy/{self.id}"] = digest(request.proxy.SerializeToString())
        call, _ = self.call(
            "publish", self.stub.Publish, request, lease=lease, epoch=epoch,
            puts=values, removes=[f"tunnel/{a}/{self.id}" for a in removes],
        )
        return call

    def write_marker(self):
        """The last write of all; its revision."""
        call = self._publish(self.lease.id, self.lease.epoch, [], [], True)
        assert call.ok, f"{call}"
        self.told.update(call.puts)
        return call.revision


class Keeper:
    """Keeps the leases of all played proxies, as each of them would."""

    def __init__(self, run, proxies):
        self.run = run
        self.proxies = proxies
        self.ended = threading.Event()

    def play(self):
        while not self.ended.wait(0.05):
            for proxy in self.proxies:
                for lease in proxy.leases():
                    self._keep(proxy, lease)

    def _keep(self, proxy, lease):
        now = self.run.now()
        if not lease.kept or lease.lost or now < lease.renewed + self.run.ttl / 3:
            return
        lease.renewed = now

        def done(call):
            if call.status == "NOT_FOUND":
                lease.lost = True

        proxy.call_later(
            "keepalive", proxy.stub.LeaseKeepAlive,
            proxy.auth.LeaseKeepAliveRequest(lease_id=lease.id), done,
            lease=lease.id, epoch=lease.epoch,
        )
