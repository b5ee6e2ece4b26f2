# SPDX-License-Identifier: Apache-2.0
"""What goes wrong in turmoil.py, one thing after the other: authd is killed or
stands still, a routed is killed or stands still or its network does, and what a
store adds."""

import datetime
import re
import signal
import time

from history import Outage

STOOD_STILL = re.compile(r"^(\S+) warn .* stood still ms=(\d+)", re.M)
BETWEEN = (0.5, 2.0)


class Faults:
    """extra: name -> function(run, generator), a store's own."""

    def __init__(self, run, extra):
        self.run = run
        self.rng = run.rng("faults")
        self.daemons = [auth.authd for auth in run.auths]
        self.kinds = {
            "kill authd": self._kill_authd,
            "stop authd": self._stop_authd,
            "kill routed": self._kill_routed,
            "stop routed": self._stop_routed,
            "hold network": self._hold_network,
            **{name: lambda act=act: act(run, self.rng)
               for name, act in extra.items()},
        }
        self.done = {name: 0 for name in self.kinds}

    def play(self):
        deck = []
        while True:
            self.run.pause(self.rng.uniform(*BETWEEN))
            if self.run.over.is_set():
                return
            if not deck:
                deck = sorted(self.kinds)
                self.rng.shuffle(deck)
            name = deck.pop()
            self.kinds[name]()
            self.done[name] += 1

    def _kill_authd(self):
        daemon = self.rng.choice(self.daemons)
        begin = self.run.now()
        daemon.kill()
        down = self.run.now()
        self.run.pause(self.rng.uniform(0, 1.5 * self.run.ttl))
        up = self.run.now()
        daemon.start()
        daemon.wait_ready()
        self._add_outage(Outage(
            "kill authd", begin, down, up, self.run.now(), full_ttl=True))

    def _stop_authd(self):
        daemon = self.rng.choice(self.daemons)
        begin = self.run.now()
        daemon.send_signal(signal.SIGSTOP)
        down = self.run.now()
        self.run.pause(self.rng.uniform(0.3, 2 * self.run.ttl))
        up = self.run.now()
        daemon.send_signal(signal.SIGCONT)
        self._add_outage(Outage("stop authd", begin, down, up, self.run.now()))

    def _add_outage(self, outage):
        if len(self.daemons) > 1:
            # the other one may have ended leases all the while, or not
            outage.full_ttl, outage.down, outage.up = False, 0.0, 0.0
        self.run.history.outages.append(outage)

    def _kill_routed(self):
        routed = self.rng.choice(self.run.hosts).host.routed
        routed.kill()
        self.run.pause(self.rng.uniform(0, 1.5 * self.run.ttl))
        routed.start()

    def _stop_routed(self):
        routed = self.rng.choice(self.run.hosts).host.routed
        routed.send_signal(signal.SIGSTOP)
        self.run.pause(self.rng.uniform(0.3, 2 * self.run.ttl))
        routed.send_signal(signal.SIGCONT)

    def _hold_network(self):
        """Between a routed and authd: what was sent arrives late, or only the
        first of it does."""
        relay = self.rng.choice(self.run.hosts).relay
        share = self.rng.random()
        relay.hold()
        self.run.pause(self.rng.uniform(0.3, 3 * self.run.ttl))
        relay.release(None if share < 0.3 else int(share * (relay.held() + 1)))

    def add_stalls(self):
        """What authd says of itself: it stood still, whether we made it or the
        machine did, and has extended its leases by as much."""
        ours = [o for o in self.run.history.outages if o.kind == "stop authd"]
        offset = time.time() - self.run.now()
        log = "".join(d.log_text(whole=True) for d in self.daemons)
        for said, ms in STOOD_STILL.findall(log):
            said = datetime.datetime.fromisoformat(said.replace("Z", "+00:00"))
            up = said.timestamp() - offset
            down = up - int(ms) / 1000
            for outage in ours:
                if down <= outage.end and outage.begin <= up:
                    outage.end = max(outage.end, up)
                    break
            else:
                self.run.history.outages.append(
                    Outage("stall", down - 0.1, down, up, up + 0.1))
