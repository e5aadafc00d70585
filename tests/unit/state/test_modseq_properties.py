"""In whatever order: ids and numbers rise together, and the short way is no other."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from pusher.protocol.counters import Counters
from pusher.protocol.numbers import DELIVERY, POSITIONS, RESYNC, SHARED, SIEVE, SUBMISSION
from pusher.state.modseq import Missed, ModseqTable

few = st.integers(0, 6)
counters = st.tuples(*[few] * 11, st.integers(1, 3)).map(Counters._make)
maybe_modseq = st.one_of(st.none(), st.integers(0, 8))
steps = st.tuples(
    st.sampled_from(["fresh", "apply", "touch", "quiet"]),
    st.integers(0, POSITIONS - 1),
    st.one_of(st.none(), counters),
    maybe_modseq,
    st.booleans(),
    st.integers(0, 2),
    st.lists(
        st.tuples(st.sampled_from([SUBMISSION, SIEVE, DELIVERY]), st.integers(1, 8)), max_size=2
    ),
)
histories = st.lists(steps, max_size=25)
Step = tuple[str, int, Counters | None, int | None, bool, int, list[tuple[int, int]]]


def take(table: ModseqTable, step: Step, now: float, *, short: bool) -> int:
    what, position, told, modseq, fresh, mailbox, also = step
    if what == "touch":
        return table.touch("alice", SHARED, now)
    if what == "fresh" and told is not None:
        if short:
            return table.apply_newest("alice", [9, *told], now)
        return table.apply("alice", 0, told, None, fresh=True, now=now)
    return table.apply(
        "alice", position, told, modseq, fresh=fresh, now=now, mailbox=mailbox, also=also
    )


@settings(deadline=None, max_examples=300)
@given(histories)
def test_the_short_way_is_the_long_way(history: list[Step]) -> None:
    short, long = ModseqTable(), ModseqTable()
    now = 1_800_000_000.0
    for step in history:
        now += 100 if step[0] == "quiet" else 1
        assert take(short, step, now, short=True) == take(long, step, now, short=False)
        assert short.records() == long.records()
    assert sorted(short.take_unsaved(9)) == sorted(long.take_unsaved(9))


@settings(deadline=None, max_examples=300)
@given(histories, st.sampled_from(["", "packed", "restored"]))
def test_ids_are_equal_for_equal_numbers_only_and_rise_with_every_change(
    history: list[Step], interlude: str
) -> None:
    table = ModseqTable(recent=1)
    now = 1_800_000_000.0
    before: tuple[int, list[int]] | None = None
    for step in history:
        now += 100 if step[0] == "quiet" else 1
        known = "alice" in table
        mask = take(table, step, now, short=True)
        if interlude == "packed":
            table.apply("bob", 0, None, None, fresh=False, now=now)
            table.settle({"alice"})
        elif interlude == "restored":
            records = table.records()
            table = ModseqTable(recent=1)
            table.restore(records, gapless=True)
        numbers = table.numbers("alice")
        if numbers is None:
            assert not known
            continue
        values = list(numbers.values)
        if before is not None:
            assert (numbers.id > before[0]) == bool(mask)
            moved = sum(1 << at for at in range(POSITIONS) if values[at] != before[1][at])
            if not mask & RESYNC:
                assert moved == mask
                assert all(new >= old for new, old in zip(values, before[1], strict=True))
            assert table.missed("alice", str(before[0])) in (
                (Missed.NOTHING,) if not mask else (Missed.STATE, Missed.UNKNOWN)
            )
        assert table.missed("alice", str(numbers.id)) is Missed.NOTHING
        before = numbers.id, values
