"""Deadlines are told late by a quarter of a second at most, never early, never twice."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from pusher.state.deadlines import Deadlines

TIMES = st.floats(min_value=0, max_value=1000)


@dataclass(eq=False)
class Thing:
    deadline: float


@given(st.lists(TIMES), st.sets(st.integers(0, 20)))
def test_each_is_told_once_and_soon(times: list[float], finished: set[int]) -> None:
    deadlines: Deadlines[Thing] = Deadlines()
    things = [Thing(time) for time in times]
    for thing in things:
        deadlines.add(thing)
        assert deadlines.next_at() <= thing.deadline + 0.25
    left = [thing for number, thing in enumerate(things) if number not in finished]
    for number in finished:
        if number < len(things):
            deadlines.discard(things[number])
    told = []
    while (now := deadlines.next_at()) < float("inf"):
        due = deadlines.take_due(now)
        assert all(thing.deadline <= now <= thing.deadline + 0.25 for thing in due)
        told += due
    assert sorted(map(id, told)) == sorted(map(id, left))


def test_only_a_first_one_in_its_slot_may_change_the_next_time() -> None:
    deadlines: Deadlines[Thing] = Deadlines()
    assert deadlines.add(Thing(10.0))
    assert not deadlines.add(Thing(10.1))
    assert deadlines.add(Thing(5.0))
    assert deadlines.take_due(4.9) == []


def test_finishing_twice_does_no_harm() -> None:
    deadlines: Deadlines[Thing] = Deadlines()
    thing = Thing(1)
    deadlines.add(thing)
    deadlines.discard(thing)
    deadlines.discard(thing)
    assert deadlines.take_due(9) == []
