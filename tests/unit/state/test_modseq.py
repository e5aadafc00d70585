"""The newest numbers of an account: they only rise, or say when not, and ids stand for them."""

from __future__ import annotations

import itertools
from collections.abc import Iterable

import pytest

from pusher.protocol.counters import Counters
from pusher.protocol.numbers import (
    CALENDAR,
    CONTACTS,
    DELIVERY,
    HIGHEST,
    MAIL,
    MAIL_FOLDERS,
    POSITIONS,
    RESYNC,
    SHARED,
    SIEVE,
    SUBMISSION,
)
from pusher.state.modseq import SET_BACK_SECONDS, Missed, ModseqTable

NOW = 1_800_000_000.0
MAILBOX, OTHER_MAILBOX = 1, 2


def counted(
    mail: int, calendar: int = 0, contacts: int = 0, *, uidvalidity: int = 1000, folders: int = 0
) -> Counters:
    highest = max(mail, calendar, contacts, folders)
    return Counters(
        highest, mail, calendar, contacts, 0, folders, 0, 0, 0, 0, 0, uidvalidity=uidvalidity
    )


class Account:
    """One account of a table, and its clock."""

    def __init__(self, table: ModseqTable | None = None, name: str = "alice") -> None:
        self.table = ModseqTable() if table is None else table
        self.name = name
        self.now = NOW

    def apply(
        self,
        counters: Counters | None = None,
        modseq: int | None = None,
        *,
        position: int = MAIL,
        fresh: bool = False,
        mailbox: int = MAILBOX,
        also: Iterable[tuple[int, int]] = (),
    ) -> int:
        return self.table.apply(
            self.name,
            position,
            counters,
            modseq,
            fresh=fresh,
            now=self.now,
            mailbox=mailbox,
            also=also,
        )

    def fresh(self, counters: Counters) -> int:
        return self.apply(counters, fresh=True)

    def late(self, counters: Counters, modseq: int | None = None) -> int:
        return self.apply(counters, modseq)

    @property
    def id(self) -> int:
        numbers = self.table.numbers(self.name)
        assert numbers is not None
        return numbers.id

    def values(self, *positions: int) -> list[int]:
        numbers = self.table.numbers(self.name)
        assert numbers is not None
        return [numbers.values[position] for position in positions or range(POSITIONS)]

    def missed(self, event_id: int | str) -> Missed:
        return self.table.missed(self.name, str(event_id))

    def restarted(self, *, gapless: bool) -> Account:
        table = ModseqTable()
        table.restore(self.table.records(), gapless=gapless)
        again = Account(table, self.name)
        again.now = self.now + 1
        return again


# --- counters ------------------------------------------------------------------------------------


def test_each_position_keeps_its_own_maximum() -> None:
    alice = Account()
    alice.fresh(counted(10, 20, 5))
    alice.fresh(counted(30, 20, 25))
    alice.fresh(counted(15, 28, 5))
    assert alice.values(HIGHEST, MAIL, CALENDAR, CONTACTS) == [30, 30, 28, 25]


def test_the_mask_names_what_moved_and_is_zero_for_a_repetition() -> None:
    alice = Account()
    alice.fresh(counted(10, 20, 5))
    assert alice.fresh(counted(21, 20, 5)) == 1 << HIGHEST | 1 << MAIL
    assert alice.fresh(counted(21, 20, 5)) == 0
    assert alice.fresh(counted(21, 20, 22)) == 1 << HIGHEST | 1 << CONTACTS


def test_counters_that_lag_behind_lower_nothing() -> None:
    # What an LMTP delivery gives: the newest numbers first, then those from before the change.
    alice = Account()
    alice.fresh(counted(3))
    before = alice.values()
    assert alice.late(counted(2), modseq=3) == 0
    assert alice.values() == before


def test_a_specific_event_that_comes_first_is_told_at_once_by_its_modseq() -> None:
    # What a STORE gives: the lagging event first, then MailboxModseq.
    alice = Account()
    alice.fresh(counted(2))
    assert alice.late(counted(2), modseq=3) == 1 << HIGHEST | 1 << MAIL
    assert alice.fresh(counted(3)) == 0


def test_late_counters_without_modseq_are_not_news_where_mailbox_modseq_follows() -> None:
    alice = Account()
    alice.fresh(counted(2))
    assert alice.late(counted(2)) == 0


def test_late_counters_without_modseq_are_news_where_nothing_follows() -> None:
    alice = Account()
    alice.late(counted(2), modseq=3)
    for _ in range(3):  # three changes of three messages each, as told by a server that has no more
        before = alice.id
        assert alice.late(counted(2)) & 1 << MAIL
        assert alice.id > before


# --- uidvalidity ---------------------------------------------------------------------------------


def test_a_new_mailbox_is_no_new_life() -> None:
    alice = Account()
    alice.fresh(counted(10, uidvalidity=1000))
    mask = alice.fresh(counted(10, folders=11, uidvalidity=1500))
    assert mask == 1 << HIGHEST | 1 << MAIL_FOLDERS


def test_a_late_event_from_before_a_new_mailbox_is_only_late() -> None:
    alice = Account()
    alice.fresh(counted(10, folders=11, uidvalidity=1500))
    assert alice.late(counted(9, uidvalidity=1000), modseq=10) == 0
    assert alice.fresh(counted(9, uidvalidity=1000)) == 0


def test_a_reset_account_is_told_to_start_over_and_its_ids_still_rise() -> None:
    alice = Account()
    alice.fresh(counted(500, 400))
    before = alice.id
    assert alice.fresh(counted(1, uidvalidity=2000)) & RESYNC
    assert alice.values(HIGHEST, MAIL, CALENDAR) == [1, 1, 0]
    assert alice.id > before
    assert alice.missed(before) is Missed.UNKNOWN


def test_a_late_event_of_a_former_life_heals() -> None:
    alice = Account()
    alice.fresh(counted(500))
    alice.fresh(counted(5, uidvalidity=2000))
    ids = [alice.id]
    alice.late(counted(500), modseq=501)
    ids.append(alice.id)
    assert alice.fresh(counted(6, uidvalidity=2000)) & RESYNC
    ids.append(alice.id)
    assert alice.values(HIGHEST, MAIL) == [6, 6]
    assert ids == sorted(set(ids))


@pytest.mark.parametrize(
    ("quiet_seconds", "is_set_back"),
    [(0, False), (SET_BACK_SECONDS, False), (SET_BACK_SECONDS + 1, True)],
)
def test_counters_much_older_than_the_numbers_mean_a_backup_was_restored(
    quiet_seconds: float, is_set_back: bool
) -> None:
    alice = Account()
    alice.fresh(counted(500))
    alice.now += quiet_seconds
    assert bool(alice.fresh(counted(400)) & RESYNC) is is_set_back
    assert alice.values(MAIL) == [400 if is_set_back else 500]


def test_late_counters_never_set_an_account_back() -> None:
    alice = Account()
    alice.fresh(counted(500))
    alice.now += 3600
    assert alice.late(counted(400)) == 0
    assert alice.values(MAIL) == [500]


# --- estimates -----------------------------------------------------------------------------------


def test_a_change_nobody_numbered_is_always_announced() -> None:
    alice = Account()
    seen = []
    for _ in range(5):
        assert alice.apply() == 1 << MAIL
        seen.append((alice.values(MAIL), alice.id))
    assert seen == sorted(seen)
    assert len(set(map(str, seen))) == 5


def test_an_estimate_after_a_restart_is_higher_than_any_before() -> None:
    alice = Account()
    for _ in range(500):
        alice.apply()
    again = Account()
    again.now = alice.now + 1
    again.apply()
    assert again.values(MAIL) > alice.values(MAIL)


def test_truth_above_an_estimate_is_a_plain_rise() -> None:
    alice = Account()
    alice.late(counted(2), modseq=3)
    alice.late(counted(2))  # 4 by estimate
    assert alice.fresh(counted(6)) == 1 << HIGHEST | 1 << MAIL
    assert alice.values(HIGHEST, MAIL) == [6, 6]


def test_truth_below_an_estimate_is_one_resync_and_then_the_truth() -> None:
    alice = Account()
    alice.apply()
    alice.apply()
    before = alice.id
    masks = [alice.fresh(counted(n)) for n in (7, 8, 9)]
    assert [bool(mask & RESYNC) for mask in masks] == [True, False, False]
    assert alice.values(HIGHEST, MAIL) == [9, 9]
    assert alice.id > before


def test_a_lower_modseq_of_the_same_mailbox_is_a_late_event() -> None:
    alice = Account()
    alice.apply(modseq=50)
    assert alice.apply(modseq=49) == 0
    assert alice.apply(modseq=50) == 0


def test_a_lower_modseq_of_another_mailbox_is_a_change() -> None:
    alice = Account()
    alice.apply(modseq=50)
    before = alice.id
    assert alice.apply(modseq=20, mailbox=OTHER_MAILBOX) & 1 << MAIL
    assert alice.id > before


# --- what the counters do not hold ---------------------------------------------------------------


@pytest.mark.parametrize("position", [SUBMISSION, SIEVE, DELIVERY])
def test_what_the_counters_lack_rises_by_itself(position: int) -> None:
    alice = Account()
    alice.fresh(counted(10))
    before = alice.id
    assert alice.apply(counted(10), also=[(position, 9)]) == 1 << position
    assert alice.apply(counted(10), also=[(position, 8)]) == 0
    assert alice.values(position) == [9]
    assert alice.id > before


def test_a_touch_is_a_change_without_a_number() -> None:
    alice = Account()
    assert alice.table.touch("alice", SHARED, NOW) == 1 << SHARED
    assert "alice" not in alice.table  # nobody's numbers yet: a reader is told to resync anyway
    alice.fresh(counted(10))
    before = alice.id
    assert alice.table.touch("alice", SHARED, NOW) == 1 << SHARED
    assert alice.id > before
    assert alice.values(MAIL) == [10]


# --- Last-Event-ID -------------------------------------------------------------------------------


def test_a_reader_that_comes_back_is_told_the_state_it_missed_or_nothing() -> None:
    alice = Account()
    alice.fresh(counted(10))
    first = alice.id
    assert alice.missed(first) is Missed.NOTHING
    alice.fresh(counted(11))
    assert alice.missed(first) is Missed.STATE
    assert alice.missed(alice.id) is Missed.NOTHING


@pytest.mark.parametrize(
    "event_id",
    ["0", "1", "", "-1", "x", "1e9", " 5", "5 ", "\u0665", "\u00b2", "9" * 64, f"{2**64}", "0x10"],
)
def test_an_id_that_was_never_given_out_is_unknown(event_id: str) -> None:
    alice = Account()
    alice.fresh(counted(10))
    alice.fresh(counted(11))
    assert alice.missed(event_id) is Missed.UNKNOWN


def test_nothing_is_known_of_an_account_never_heard_of() -> None:
    table = ModseqTable()
    assert table.numbers("alice") is None
    assert table.missed("alice", "5") is Missed.UNKNOWN


def test_which_shared_mailbox_moved_cannot_be_told_later() -> None:
    alice = Account()
    alice.fresh(counted(10))
    before = alice.id
    alice.table.touch("alice", SHARED, NOW)
    assert alice.missed(before) is Missed.UNKNOWN
    assert alice.missed(alice.id) is Missed.NOTHING


def test_a_restart_that_missed_nothing_goes_on_where_it_was() -> None:
    alice = Account()
    alice.fresh(counted(10))
    first = alice.id
    alice.fresh(counted(11))
    again = alice.restarted(gapless=True)
    assert again.values() == alice.values()
    assert again.missed(first) is Missed.STATE
    assert again.missed(alice.id) is Missed.NOTHING


def test_after_a_gap_no_earlier_id_says_anything() -> None:
    alice = Account()
    alice.fresh(counted(10))
    first = alice.id
    alice.fresh(counted(11))
    again = alice.restarted(gapless=False)
    assert again.values() == alice.values()
    assert again.missed(first) is Missed.UNKNOWN
    assert again.missed(alice.id) is Missed.UNKNOWN
    again.fresh(counted(12))
    assert again.missed(first) is Missed.UNKNOWN
    assert again.missed(alice.id) is Missed.UNKNOWN
    assert again.missed(again.id) is Missed.NOTHING


def lost_deliveries() -> Iterable[tuple[int, int]]:
    return itertools.product(range(1, 12), range(1, 30))


@pytest.mark.parametrize("gap", ["snapshot", "no snapshot"])
def test_an_id_handed_out_just_before_a_crash_cannot_stand_for_a_later_state(gap: str) -> None:
    """DELIVERY is in no counters: after a crash its part in an id is gone for good."""
    for deliveries, changes in lost_deliveries():
        alice = Account()
        alice.fresh(counted(10))
        alice.apply(counted(10), modseq=11, also=[(DELIVERY, 11)])
        saved = alice.restarted(gapless=False)
        for modseq in range(12, 12 + deliveries):
            alice.apply(counted(modseq - 1), modseq=modseq, also=[(DELIVERY, modseq)])
        told = alice.id
        after = saved if gap == "snapshot" else Account()
        after.now = alice.now + 1
        for modseq in range(12 + deliveries, 12 + deliveries + changes):
            after.fresh(counted(modseq))
            assert after.missed(told) is Missed.UNKNOWN, (deliveries, changes)


def test_two_crashes_after_one_save_give_no_id_out_twice() -> None:
    alice = Account()
    alice.fresh(counted(10))
    ids: list[int] = []
    for _ in range(3):
        again = alice.restarted(gapless=False)
        again.now = alice.now + 1 + len(ids)
        again.fresh(counted(10))
        ids.append(again.id)
    assert ids == sorted(set(ids))


def test_what_was_shared_with_an_unknown_account_is_not_forgotten_later() -> None:
    alice = Account()
    # A reader of an account without numbers has id 0; what happens now is recorded nowhere.
    alice.table.touch("alice", SHARED, NOW)
    alice.fresh(counted(10))
    assert alice.missed(0) is Missed.UNKNOWN


def test_a_reset_after_a_crash_does_not_bring_old_ids_back() -> None:
    alice = Account()
    alice.fresh(counted(100))
    saved = alice.restarted(gapless=False)
    told = []
    for modseq in range(101, 150):
        alice.fresh(counted(modseq))
        told.append(alice.id)
    for modseq in range(1, 60):
        saved.fresh(counted(modseq, uidvalidity=2000))
        assert {saved.missed(event_id) for event_id in told} == {Missed.UNKNOWN}


# --- bounds --------------------------------------------------------------------------------------


@pytest.mark.parametrize("most", [4, 10, 100])
@pytest.mark.parametrize("limit", [1, 256])
def test_no_more_accounts_are_kept_than_allowed(most: int, limit: int) -> None:
    table = ModseqTable(max_accounts=most)
    for number in range(5 * most):
        Account(table, f"user{number}").fresh(counted(number + 1))
        table.settle((), limit)
        assert len(table) <= most + 1
    assert table.forgotten == 5 * most - len(table)
    forgotten = Account(table, "user0")
    assert forgotten.missed(1) is Missed.UNKNOWN
    assert table.numbers("user0") is None


def test_accounts_with_open_streams_are_not_forgotten() -> None:
    table = ModseqTable(max_accounts=8)
    kept = {f"reader{number}" for number in range(20)}
    for name in kept:
        Account(table, name).fresh(counted(7))
        table.settle(kept)
    for number in range(500):
        Account(table, f"user{number}").fresh(counted(1))
        table.settle(kept)
    assert all(name in table for name in kept)
    assert len(table) <= 20 + 8 + 1


def test_more_saved_accounts_than_allowed_cost_only_those_too_many() -> None:
    table = ModseqTable()
    for number in range(2000):
        Account(table, f"user{number}").fresh(counted(1))
    smaller = ModseqTable(max_accounts=1000)
    smaller.restore(table.records(), gapless=True)
    assert 400 <= len(smaller) <= 1000
    assert "user1999" in smaller  # the longest quiet ones went


def test_packed_numbers_are_the_same_numbers() -> None:
    table = ModseqTable(max_accounts=1000, recent=1)
    alice = Account(table)
    alice.fresh(counted(10, 20, 30))
    alice.apply(counted(10), also=[(DELIVERY, 10)])
    before = alice.values(), alice.id
    for number in range(10):
        Account(table, f"user{number}").fresh(counted(1))
        table.settle(())
    assert (alice.values(), alice.id) == before
    assert alice.fresh(counted(31, 20, 30)) == 1 << HIGHEST | 1 << MAIL


@pytest.mark.parametrize("fresh", [True, False])
def test_numbers_no_server_counts_to_do_not_end_the_daemon(fresh: bool) -> None:
    absurd, modest = Counters(*[2**63 - 1] * 12), Counters(*[1] * 11 + [2**63 - 2])
    alice = Account(ModseqTable(recent=1))
    for _ in range(3):
        alice.apply(absurd, 2**63 - 1, fresh=fresh, also=[(DELIVERY, 2**63 - 1)])
        alice.apply(position=SIEVE)
        alice.apply(modest, fresh=fresh)
        alice.now += 3600
        alice.apply(modest, fresh=True)
    alice.table.settle(())
    alice.table.settle(())
    assert len(alice.table.records()) == 1
    assert len(alice.table.take_unsaved(10)) == 1
    assert alice.restarted(gapless=False).missed(1) is Missed.UNKNOWN


# --- saving --------------------------------------------------------------------------------------


def test_every_change_is_saved_once_in_portions() -> None:
    table = ModseqTable()
    for number in range(25):
        Account(table, f"user{number}").fresh(counted(1))
    taken = [table.take_unsaved(10) for _ in range(4)]
    assert [len(portion) for portion in taken] == [10, 10, 5, 0]
    assert not table.has_unsaved
    assert len({name for portion in taken for name, _record in portion}) == 25
    Account(table, "user3").fresh(counted(1))
    assert not table.has_unsaved  # nothing moved
    Account(table, "user3").fresh(counted(2))
    assert [name for name, _record in table.take_unsaved(10)] == ["user3"]


def test_a_forgotten_account_is_not_saved() -> None:
    table = ModseqTable(max_accounts=4)
    for number in range(50):
        Account(table, f"user{number}").fresh(counted(1))
        table.settle(())
    taken = {name for name, _record in table.take_unsaved(1000)}
    assert all(name in table for name in taken)


def test_records_of_another_layout_are_passed_over() -> None:
    table = ModseqTable()
    table.restore([("alice", b""), ("bob", b"x" * 17)], gapless=True)
    assert len(table) == 0
