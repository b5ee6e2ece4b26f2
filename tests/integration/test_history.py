# SPDX-License-Identifier: Apache-2.0
"""The judge of histories (history_check.py) finds no fault with a good one, and
the fault in each of many that are broken in one place."""

import copy
import re

import pytest

import history
import history_check
from history import Call, History, Message, Outage, Reading, Watch

P, Q, R = "proxy-p", "proxy-q", "proxy-r"
A, B, C = (f"tunnel/{agent}/{P}" for agent in "abc")
PROXY = f"proxy/{P}"
REAL = f"tunnel/a/{R}"  # of a real host
TTL = 2.0


def publish(begin, end, revision, puts=None, removes=(), **facts):
    fields = {"status": "OK", "lease": 1, "epoch": 1, **facts}
    return Call("publish", P, begin, end, revision=revision, puts=puts or {},
                removes=list(removes), **fields)


def keepalive(begin, **facts):
    fields = {"status": "OK", "lease": 1, "epoch": 1, "end": begin + 0.1, **facts}
    return Call("keepalive", P, begin, **fields)


CHANGES = [  # time, revision, changes
    (1.2, 11, ((PROXY, "p1"),)),
    (2.2, 12, ((A, "a1"), (B, "b1"))),
    (3.2, 14, ((A, None), (C, "c1"))),
    (4.2, 15, ((C, "c2"),)),
    (8.2, 17, ((PROXY, None), (B, None), (C, None))),
    (9.2, 19, ((f"proxy/{Q}", "q1"),)),
]


def messages(first=0, last=99):
    return [Message(time, revision, changes=changes)
            for time, revision, changes in CHANGES if first < revision <= last]


def state_at(revision):
    state = {"config": "x"}
    for _, changed, changes in CHANGES:
        if changed <= revision:
            history_check.fold(state, changes)
    return state


def snapshot(time, revision):
    changed = {"config": 3}
    for _, when, changes in CHANGES:
        if when <= revision:
            changed.update({key: when for key, _ in changes})
    state = sorted(state_at(revision).items())
    return Message(time, revision, snapshot=True, complete=True,
                   changes=tuple((k, v, changed[k]) for k, v in state))


def good():
    """One proxy writes, loses its lease at 6.1 + TTL and is gone; another one
    writes last of all."""
    found = History(ttl=TTL, bound=1.0, store_id="s", simulated=[P, Q])
    found.calls = [
        Call("grant", P, 0.5, 0.6, "OK", lease=1, epoch=1),
        publish(1.0, 1.2, 11, {PROXY: "p1"}),
        publish(2.0, 2.2, 12, {A: "a1", B: "b1"}),
        keepalive(2.3),
        publish(3.0, 3.2, 14, {C: "c1"}, [A]),
        publish(3.3, 3.5, 14, removes=[A]),  # which changes nothing
        Call("lookup", Q, 3.6, 3.7, "OK", revision=14, agent="c",
             found={C: "c1"}),
        publish(4.0, 4.1, 0, {C: "c2"}, status="UNAVAILABLE"),  # lost, and done
        publish(4.5, 4.6, 0, {A: "a9"}, status="UNAVAILABLE"),  # lost
        keepalive(4.2),
        keepalive(6.0),
        Call("grant", P, 6.2, 6.3, "OK", lease=2, epoch=2, previous=1),
        publish(6.5, 6.6, 0, {A: "a8"}, status="FAILED_PRECONDITION"),
        keepalive(8.3, status="NOT_FOUND"),
        Call("grant", Q, 8.5, 8.6, "OK", lease=3, epoch=1),
        Call("publish", Q, 9.0, 9.1, "OK", lease=3, epoch=1, revision=19,
             puts={f"proxy/{Q}": "q1"}),
    ]
    found.watches = [
        Watch("steady.1", 0.1, "", 0, [snapshot(0.2, 10), *messages()],
              followed=True),
        Watch("past.1", 5.0, "s", 13,
              [Message(5.1, 12, head=15), *messages(12)], followed=True),
        Watch("fresh.1", 3.4, "", 0, [snapshot(3.5, 14), *messages(14, 15)]),
    ]
    found.readings = [
        Reading("cache", 4.3, 4.4, 15, state_at(15)),
        Reading("cache", 10.0, 10.1, 19, state_at(19), True),
        Reading("authd", 10.0, 10.1, 19, state_at(19), True),
    ]
    found.marker = 19
    found.model = {"config": "*", f"proxy/{Q}": "q1"}
    return found


def steady(found):
    return found.watches[0].messages


def at(found, revision, watch=0):
    """Where the message of that revision is in a watch."""
    told = [m.revision for m in found.watches[watch].messages]
    return told.index(revision)


def call_at(found, begin):
    return next(c for c in found.calls if c.begin == begin)


def test_a_good_history_passes():
    assert history_check.check(good()) == []


def test_a_lease_without_a_record_ends_when_nobody_watches():
    found = good()
    found.watches.append(Watch("look.1", 10.2, "", 0, [snapshot(10.3, 20)]))
    found.readings.append(Reading("authd", 10.2, 10.3, 20, state_at(19), True))
    assert history_check.check(found) == []
    found.watches[-1].messages[0].changes = found.watches[-1].messages[0].changes[1:]
    assert any("nobody watched revisions 19 to 20" in line
               for line in history_check.check(found))


def test_a_history_is_the_same_when_read_again(tmp_path):
    history.save(good(), tmp_path / "h")
    assert history.load(tmp_path / "h") == good()


# What is done to a good history, and what must be said about it.


def an_event_twice(found):
    steady(found).insert(at(found, 12), steady(found)[at(found, 12)])


def an_event_twice_with_another_revision(found):
    for watch in found.watches[:1]:
        watch.messages.insert(
            at(found, 14), Message(2.3, 13, changes=((A, "a1"), (B, "b1"))))
    # nobody else watched then
    found.watches[1].from_revision, found.watches[1].messages[0].revision = 14, 13


def an_event_left_out(found):
    del steady(found)[at(found, 14)]


def an_event_left_out_after_resuming(found):
    del found.watches[1].messages[at(found, 14, 1)]


def an_event_left_out_behind_a_snapshot(found):
    found.watches[2].messages[1:1] = [Message(4.3, 16)]
    del found.watches[2].messages[2]


def out_of_order(found):
    first, second = at(found, 14), at(found, 15)
    told = steady(found)
    told[first], told[second] = told[second], told[first]


def another_value_to_one_watcher(found):
    found.watches[1].messages[at(found, 15, 1)].changes = ((C, "c3"),)


def a_part_of_a_revision(found):
    found.watches[1].messages[at(found, 17, 1)].changes = ((PROXY, None),)


def resumed_elsewhere(found):
    found.watches[1].messages[0].revision = 13


def a_snapshot_instead_of_resuming(found):
    found.watches[1].messages[:at(found, 17, 1)] = [snapshot(5.1, 15)]


def the_future_confirmed(found):
    """Nobody can go on from there, and authd says that it does."""
    found.watches.append(
        Watch("fresh.2", 9.5, "s", 100,
              [Message(9.6, 99, head=99), Message(9.7, 120)]))


def a_snapshot_amid(found):
    steady(found).insert(at(found, 15), snapshot(3.3, 14))


def a_snapshot_with_a_stale_record(found):
    part = found.watches[2].messages[0]
    part.changes = tuple(
        (k, "c0", r) if k == C else (k, v, r) for k, v, r in part.changes)


def a_snapshot_that_lacks_a_record(found):
    part = found.watches[2].messages[0]
    part.changes = tuple(c for c in part.changes if c[0] != C)


def a_snapshot_older_than_an_answer(found):
    found.watches[2].messages = [snapshot(3.5, 12), *messages(12, 15)]


def a_head_older_than_an_answer(found):
    found.watches[1].messages[0].head = 12


def nobody_watched(found):
    found.watches = [Watch("fresh.2", 2.5, "", 0, [snapshot(2.6, 12)]),
                     Watch("fresh.3", 9.5, "", 0, [snapshot(9.6, 19)])]


def an_answered_write_is_lost(found):
    found.calls.append(publish(5.0, 5.2, 16, {A: "a2"}))


def an_answered_removal_is_lost(found):
    found.calls.append(publish(5.0, 5.2, 15, removes=[C]))


def an_answered_write_is_done_in_part(found):
    call_at(found, 2.0).puts["tunnel/z/" + P] = "z1"


def an_answer_with_another_revision(found):
    call_at(found, 2.0).revision = 11


def revisions_fall(found):
    """The later write has the lower revision."""
    found.calls[1].begin, found.calls[1].end = 2.5, 2.6


def a_lookup_of_the_past(found):
    lookup = next(c for c in found.calls if c.kind == "lookup")
    lookup.revision, lookup.found = 12, {}


def a_wrong_lookup(found):
    next(c for c in found.calls if c.kind == "lookup").found = {}


def a_write_before_it_began(found):
    call_at(found, 4.0).begin = 5.0
    call_at(found, 5.0).end = 5.1


def a_lost_write_is_done_twice(found):
    for watch in found.watches[:2]:
        where = at(found, 17, found.watches.index(watch))
        watch.messages.insert(where, Message(4.9, 16, changes=((C, "c2"),)))


def a_lost_write_is_done_in_part(found):
    call_at(found, 4.0).puts[B] = "b2"


def a_refused_write_is_done(found):
    for watch in found.watches[:2]:
        where = at(found, 17, found.watches.index(watch))
        watch.messages.insert(where, Message(7.0, 16, changes=((A, "a8"),)))


def a_stale_write_is_accepted(found):
    call = call_at(found, 6.5)
    call.status, call.revision = "OK", 16
    a_refused_write_is_done(found)


def a_stale_write_arrives_late(found):
    """Lost before the new epoch was granted, and done after a write under it."""
    found.calls += [publish(6.1, 6.15, 0, {A: "a7"}, status="UNAVAILABLE"),
                    publish(6.4, 6.45, 16, {C: "c7"}, lease=2, epoch=2)]
    for watch in found.watches[:2]:
        where = at(found, 17, found.watches.index(watch))
        watch.messages[where:where + 1] = [
            Message(6.5, 16, changes=((C, "c7"),)),
            Message(6.6, 17, changes=((A, "a7"),)),
        ]


def a_refusal_without_a_reason(found):
    found.calls.remove(call_at(found, 6.2))


def a_record_that_nobody_wrote(found):
    for watch in found.watches[:2]:
        where = at(found, 17, found.watches.index(watch))
        watch.messages.insert(where, Message(7.0, 16, changes=((A, "?"),)))


def a_record_outlives_its_lease(found):
    """By 1.2 s."""
    for watch in found.watches[:2]:
        watch.messages[at(found, 17, found.watches.index(watch))].time = 9.3
    for call in found.calls:
        if call.begin > 8.2:
            call.begin, call.end = call.begin + 2, call.end + 2
    for watch in found.watches[:2]:
        watch.messages[-1].time = 11.5
    for reading in found.readings[1:]:
        reading.begin, reading.end = 12.0, 12.1


def a_record_never_goes(found):
    for watch in found.watches[:2]:
        del watch.messages[at(found, 17, found.watches.index(watch))]
    for reading in found.readings[1:]:
        reading.state.update({PROXY: "p1", B: "b1", C: "c2"})
        reading.begin, reading.end = 30.0, 30.1
    found.model.update({PROXY: "p1", B: "b1", C: "c2"})
    found.calls.remove(call_at(found, 8.3))


def a_record_outlives_a_revocation(found):
    found.calls.append(Call("revoke", P, 6.7, 6.8, "OK", lease=1))
    found.calls.remove(call_at(found, 8.3))
    for watch in found.watches[:2]:
        watch.messages[at(found, 17, found.watches.index(watch))].time = 7.9


def a_revoked_record_is_seen_again(found):
    found.calls.append(Call("revoke", P, 6.7, 6.8, "OK", lease=1))
    found.watches.append(Watch("fresh.2", 7.0, "", 0, [snapshot(7.1, 15)]))


def a_lease_ends_too_early(found):
    call_at(found, 6.0).begin = 6.5
    call_at(found, 6.5).end = 6.7


def a_lease_ends_at_the_start_of_authd(found):
    """It has a full TTL then."""
    found.outages = [Outage("kill authd", 6.8, 6.9, 7.5, 7.6, full_ttl=True)]


def a_lease_ends_while_authd_stood_still(found):
    found.outages = [Outage("stop authd", 6.3, 6.35, 8.0, 8.1)]


def a_lease_ends_in_part(found):
    for watch in found.watches[:2]:
        watch.messages[at(found, 17, found.watches.index(watch))].changes = (
            (PROXY, None), (B, None))
    for reading in found.readings[1:]:
        reading.state[C] = "c2"
    found.model[C] = "c2"


def a_lease_comes_back(found):
    found.calls.append(keepalive(9.0))


def a_write_under_an_ended_lease(found):
    found.calls += [publish(8.45, 8.5, 18, {A: "a3"})]
    for watch in found.watches[:2]:
        watch.messages.insert(-1, Message(8.5, 18, changes=((A, "a3"),)))
    for reading in found.readings[1:]:
        reading.state[A] = "a3"
    found.model[A] = "a3"


def a_real_host_writes(found, *values):
    """r1 was said before r2."""
    found.said = {"r1": 1, "r2": 2}
    for revision, value in enumerate(values, 20):
        for watch in found.watches[:2]:
            watch.messages.append(Message(
                9.5 + revision / 1000, revision, changes=((REAL, value),)))
    found.model[REAL] = values[-1]
    for reading in found.readings[1:]:
        reading.state[REAL] = values[-1]
        reading.revision = watch.messages[-1].revision


def a_real_host_sets_back(found):
    a_real_host_writes(found, "r1", "r2", "r1")


def a_real_host_sets_back_what_it_removed(found):
    a_real_host_writes(found, "r2", None, "r1")


def a_real_host_invents(found):
    a_real_host_writes(found, "r1", "r3")


def an_epoch_given_twice(found):
    call_at(found, 6.2).epoch = 1


def a_cache_differs_meanwhile(found):
    found.readings[0].state[C] = "c1"


def a_cache_differs_in_the_end(found):
    found.readings[1].state["tunnel/a/" + Q] = "ghost"


def a_cache_is_behind_in_the_end(found):
    found.readings[1].revision = 17
    del found.readings[1].state[f"proxy/{Q}"]


def the_backend_is_not_what_was_meant(found):
    found.model["tunnel/a/" + Q] = "q2"


def a_watcher_stops_in_the_end(found):
    del found.watches[1].messages[-1]


def a_watcher_hears_nothing_in_the_end(found):
    found.watches.append(Watch("slow.2", 9.5, "s", 20, followed=True))


BROKEN = {
    an_event_twice: "revision 12 after 12",
    an_event_twice_with_another_revision: "seen at revision 13",
    an_event_left_out: "steady.1.*revision 14 is missing",
    an_event_left_out_after_resuming: "past.1.*revision 14 is missing",
    an_event_left_out_behind_a_snapshot: "fresh.1.*revision 15 is missing",
    out_of_order: "revision 14 after 15",
    another_value_to_one_watcher: "to others",
    a_part_of_a_revision: "to others",
    resumed_elsewhere: "begins with revision 13",
    a_snapshot_instead_of_resuming: "a snapshot instead of revision 13",
    the_future_confirmed: "nobody watched revisions 19 to 99",
    a_snapshot_amid: "a snapshot instead of revision 15",
    a_snapshot_with_a_stale_record: "snapshot: 1 differ",
    a_snapshot_that_lacks_a_record: "snapshot: 1 differ",
    a_snapshot_older_than_an_answer: "fresh.1.*revision 12, when .* of 14",
    a_head_older_than_an_answer: "past.1.*revision 12, when .* of 15",
    nobody_watched: "nobody watched",
    an_answered_write_is_lost: "revision 16: not done as answered|is lost",
    an_answered_removal_is_lost: "is still there",
    an_answered_write_is_done_in_part: "not done as answered",
    an_answer_with_another_revision: "seen at revision 12",
    revisions_fall: "revision 11, when .* of 12",
    a_lookup_of_the_past: "lookup.*revision 12, when .* of 14",
    a_wrong_lookup: "lookup.*1 differ",
    a_write_before_it_began: "revision 15, when .* of 15",
    a_lost_write_is_done_twice: "done at revisions 15 and 16",
    a_lost_write_is_done_in_part: "done in part",
    a_refused_write_is_done: "refused and done at revision 16",
    a_stale_write_is_accepted: "done although epoch 2 was granted",
    a_stale_write_arrives_late: "done although epoch 2 was granted",
    a_refusal_without_a_reason: "there was no newer epoch",
    a_record_that_nobody_wrote: "a record that nobody wrote",
    a_record_outlives_its_lease: r"outlived it by 1\.2",
    a_record_never_goes: "outlived it by 21",
    a_record_outlives_a_revocation: r"outlived it by 1\.1",
    a_revoked_record_is_seen_again: "revision 15, when revoke",
    a_lease_ends_too_early: "too early",
    a_lease_ends_at_the_start_of_authd: "too early",
    a_lease_ends_while_authd_stood_still: "too early",
    a_lease_ends_in_part: "ended in part",
    a_lease_comes_back: "the lease had ended",
    a_write_under_an_ended_lease: "lease had ended",
    a_real_host_sets_back: "revision 22: tunnel/a/proxy-r is set back",
    a_real_host_sets_back_what_it_removed: "revision 22: .* is set back",
    a_real_host_invents: "revision 21: nobody said r3",
    an_epoch_given_twice: "epoch",
    a_cache_differs_meanwhile: "cache at 4.300: 1 differ",
    a_cache_differs_in_the_end: "cache at 10.000: 1 differ",
    a_cache_is_behind_in_the_end: "cache stopped at 17",
    the_backend_is_not_what_was_meant: "authd in the end",
    a_watcher_stops_in_the_end: "past.1 stopped at 17",
    a_watcher_hears_nothing_in_the_end: "slow.2 heard nothing",
}


@pytest.mark.parametrize("breaking", BROKEN, ids=lambda f: f.__name__)
def test_refused(breaking):
    found = copy.deepcopy(good())
    breaking(found)
    complaints = "\n".join(history_check.check(found))
    assert re.search(BROKEN[breaking], complaints), complaints or "no complaint"


# What looks alike and is right


def test_a_real_host_says_it_again():
    found = good()
    a_real_host_writes(found, "r1", "r1", None, "r1", "r2")
    assert history_check.check(found) == []


def test_an_outage_moves_the_end_of_a_lease():
    """Each that is too late above is in time after a restart or a stall."""
    for outage in [Outage("kill authd", 6.4, 6.5, 7.2, 7.5, full_ttl=True),
                   Outage("stop authd", 6.4, 6.5, 7.6, 7.7)]:
        found = good()
        a_record_outlives_its_lease(found)
        found.outages = [outage]
        assert history_check.check(found) == []


def test_nobody_hears_while_the_test_stands_still():
    found = good()
    a_record_outlives_its_lease(found)
    found.stalls = [(8.9, 9.2)]
    assert history_check.check(found) == []
    found.stalls = [(7.0, 8.0), (9.25, 9.9)]
    assert history_check.check(found)


def test_who_asks_for_the_future_gets_a_snapshot():
    hello = Message(9.6, 99, head=99)
    for told in ([], [hello], [snapshot(9.7, 19)], [hello, snapshot(9.7, 19)]):
        found = good()
        found.watches.append(Watch("fresh.2", 9.5, "s", 100, told))
        assert history_check.check(found) == []


def test_a_compaction_excuses_a_snapshot():
    for breaking in (a_snapshot_instead_of_resuming, a_snapshot_amid):
        found = good()
        breaking(found)
        found.compactions = [(3.25, 15)]
        assert history_check.check(found) == []


def test_authd_is_away_before_anybody_hears_of_a_revocation():
    found = good()
    a_record_outlives_a_revocation(found)
    found.outages = [Outage("stop authd", 6.85, 6.9, 7.7, 7.8)]
    assert history_check.check(found) == []
    found.outages = [Outage("stop authd", 6.85, 6.86, 6.89, 6.9)]
    assert history_check.check(found)


def test_a_proxy_with_many_leases_loses_the_oldest():
    """A further grant ends it; its records are those of an earlier life."""
    found = good()
    a_lease_ends_too_early(found)
    assert history_check.check(found)
    found.calls += [Call("grant", P, begin, begin + 0.1, "OK", lease=10 + epoch,
                         epoch=epoch) for epoch, begin in [(3, 7.0), (4, 7.2)]]
    assert history_check.check(found) == []
