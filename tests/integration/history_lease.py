# SPDX-License-Identifier: Apache-2.0
"""When a lease may have ended, and when it must have.

Its deadline is the TTL after authd last handled a grant or a keepalive, which
was between the call's beginning and its end. While authd does not run it does
not count: after a restart each lease has a full TTL, and after a stall of more
than STALL every lease is extended by as much, or has a full TTL too where the
store is etcd. authd looks twice a second. So

- no record may go before: the last answered keepalive's beginning + TTL;
- all must be gone at: the last keepalive's end + TTL + bound;

both shifted by outages. bound (1 s) is the half second between two looks, the
commit and the way to a watcher, with etcd 2 s more, since it counts a lease's age
in seconds; time in which the test or authd stood still, so that nobody could hear
of the end, is not counted. A revoked lease has ended when that is answered.
"""

from collections import defaultdict

STALL = 1.5
TICK = 0.5
# A proxy has four leases at most. With a further one the oldest gives way,
# except the one of its record: so three later grants may end a lease.
GRANTS_THAT_END_ONE = 3


def earliest(renewals, outages, ttl, now):
    """The first moment at which the lease can have ended, as known at now.
    renewals: (begin, end) of those answered."""
    events = [(begin, 0, None) for begin, _ in renewals]
    events += [(o.begin, 1, o) for o in outages if o.end <= now]
    deadline = 0.0
    for time, _, outage in sorted(events, key=lambda e: e[:2]):
        if not outage:
            deadline = max(deadline, time + ttl)
        elif time < deadline:
            if outage.full_ttl:
                deadline = outage.up + ttl
            elif outage.up - outage.down >= STALL:
                deadline += outage.up - outage.down
    return deadline


def latest(renewals, outages, ttl, bound, stalls_renew):
    """The last moment at which it can still have been alive."""
    events = [(end, 0, None) for _, end in renewals]
    events += [(o.begin, 1, o) for o in outages]
    deadline = 0.0
    for time, _, outage in sorted(events, key=lambda e: e[:2]):
        if not outage:
            deadline = max(deadline, time + ttl)
            for stall in outages:  # handled before the stall was noticed
                if not stall.full_ttl and stall.begin <= time <= stall.end + TICK:
                    deadline = max(deadline, time + ttl + _stall(stall))
        elif time <= deadline + bound:
            if outage.full_ttl:
                deadline = outage.end + ttl
            else:
                deadline += _stall(outage)
                if stalls_renew:
                    deadline = max(deadline, outage.end + ttl)
    return deadline


def _stall(outage):
    return outage.end - outage.begin + TICK


def check(history, truth, replay, complain):
    calls = defaultdict(list)
    grants = defaultdict(list)
    for call in sorted(history.calls, key=lambda c: c.begin):
        if call.kind == "grant":
            grants[call.who].append(call)
        if call.kind not in ("publish", "lookup"):
            check_status(call, complain)
        if call.lease:
            calls[call.lease].append(call)
    end = max((r.begin for r in history.readings if r.last), default=0.0)
    for lease, of_lease in calls.items():
        grant = next((c for c in of_lease if c.kind == "grant"), None)
        if not grant:
            continue
        check_life(of_lease, complain)
        later = [g for g in grants[grant.who] if g.begin > grant.begin]
        check_early(history, truth, replay, of_lease, later, complain)
        if lease in replay.left:
            check_late(history, of_lease, replay.left[lease] or end, complain)


def check_status(call, complain):
    allowed = ("OK",) if call.kind == "grant" else ("OK", "NOT_FOUND")
    if call.status not in allowed and not call.lost:
        complain(f"{call}: refused")


def check_life(calls, complain):
    """A lease that has ended does not come back."""
    ended = [
        c for c in calls
        if c.status == "NOT_FOUND" or (c.kind == "revoke" and c.ok)
    ]
    if not ended:
        return
    first = min(ended, key=lambda c: c.end)
    for call in calls:
        if call.ok and call.begin > first.end:
            complain(f"{call}: the lease had ended, {first}")


def check_early(history, truth, replay, calls, later_grants, complain):
    lease = calls[0].lease
    ends = [(c.end, str(c)) for c in calls if c.status == "NOT_FOUND"]
    if lease in replay.ended:
        revision = replay.ended[lease]
        ends.append((truth.seen[revision], f"revision {revision}"))
    renewals = [
        (c.begin, c.end) for c in calls if c.ok and c.kind in ("grant", "keepalive")
    ]
    for time, what in ends:
        if any(c.kind == "revoke" and c.begin < time for c in calls):
            continue
        if sum(g.begin < time for g in later_grants) >= GRANTS_THAT_END_ONE:
            continue
        first = earliest(renewals, history.outages, history.ttl, time)
        if time < first:
            complain(
                f"{what}: lease {lease:x} ended {first - time:.3f} s too early"
            )


def check_late(history, calls, left, complain):
    lease = calls[0].lease
    renewals = [
        (c.begin, _handled(c, history.outages)) for c in calls
        if (c.ok or c.lost) and c.kind in ("grant", "keepalive")
    ]
    last = latest(renewals, history.outages, history.ttl, history.bound,
                  history.stalls_renew)
    revoked = [c.end for c in calls if c.kind == "revoke" and c.ok]
    last = min([last, *revoked])
    nobody_heard = history.stalls + [(o.begin, o.end) for o in history.outages]
    excused = sum(
        max(0.0, min(left, end) - max(last, begin)) for begin, end in nobody_heard
    )
    if left > last + history.bound + excused:
        complain(
            f"lease {lease:x} of {calls[0].who[:8]} ended by {last:.3f}, "
            f"a record outlived it by {left - last:.3f} s"
        )


def _handled(call, outages):
    """When at the latest: one that was lost in a stall is found after it."""
    if call.ok:
        return call.end
    return max([call.end, *(
        o.end for o in outages
        if not o.full_ttl and o.begin <= call.end and call.begin <= o.end
    )])
