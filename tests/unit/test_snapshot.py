"""What a restart finds: whole batches only, never a wrong number, and the truth about gaps."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pusher.snapshot import _SMALLEST_REWRITE, Journal, Restored

BATCHES = [
    [("alice", b"a1"), ("bob", b"b1")],
    [("alice", b"a2")],
    [("carol", b"c1"), ("bob", b"b2"), ("jörg@exämple.org", b"")],
]


def after(batches: int) -> dict[str, bytes]:
    records: dict[str, bytes] = {}
    for batch in BATCHES[:batches]:
        records.update(batch)
    return records


def load(path: Path) -> Restored:
    journal = Journal(path)
    restored = journal.load()
    journal.close()
    return restored


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "numbers"


def written(path: Path, *, end: bool | None = None) -> list[int]:
    """Write all batches; return the length of the file before the first and after each."""
    journal = Journal(path)
    journal.load()
    lengths = [path.stat().st_size]
    for batch in BATCHES:
        journal.append(batch)
        lengths.append(path.stat().st_size)
    if end is None:
        journal.close()
    else:
        journal.finish(gapless=end)
    return lengths


def test_nothing_there_is_nothing_known(path: Path) -> None:
    assert load(path) == ({}, False)
    assert path.stat().st_mode & 0o777 == 0o600
    assert load(path) == ({}, False)


def test_the_newest_record_of_each_account_is_found(path: Path) -> None:
    written(path)
    assert load(path) == (after(3), False)


def test_what_changed_last_comes_last(path: Path) -> None:
    written(path)
    assert list(load(path).records) == ["alice", "carol", "bob", "jörg@exämple.org"]


@pytest.mark.parametrize("gapless", [True, False])
def test_a_good_end_is_good_once(path: Path, gapless: bool) -> None:
    written(path, end=gapless)
    assert load(path) == (after(3), gapless)
    assert load(path) == (after(3), False)  # that run did not end


def test_what_comes_after_an_end_undoes_it(path: Path) -> None:
    written(path, end=True)
    journal = Journal(path)
    assert journal.load().gapless
    journal.append([("dave", b"d1")])
    journal.close()
    assert load(path) == (after(3) | {"dave": b"d1"}, False)


@pytest.mark.parametrize("end", [None, True])
def test_a_tail_torn_at_any_byte_costs_its_batch_only(path: Path, end: bool | None) -> None:
    lengths = written(path, end=end)
    data = path.read_bytes()
    for length in range(len(data)):
        path.write_bytes(data[:length])
        whole = sum(length >= each for each in lengths[1:])
        assert load(path) == (after(whole), False), length
        journal = Journal(path)
        journal.load()
        journal.append([("dave", b"d1")])
        journal.finish(gapless=True)
        assert load(path) == (after(whole) | {"dave": b"d1"}, True), length


def test_a_byte_changed_anywhere_never_gives_a_wrong_record(path: Path) -> None:
    lengths = written(path, end=True)
    data = path.read_bytes()
    for at in range(len(data)):
        path.write_bytes(data[:at] + bytes([data[at] ^ 0x41]) + data[at + 1 :])
        restored = load(path)
        untouched = 0 if at < lengths[0] else sum(at >= each for each in lengths[1:])
        assert restored.records == after(untouched), at
        assert not restored.gapless


@settings(deadline=None, max_examples=200)
@given(st.binary(max_size=200), st.booleans())
def test_any_file_is_read_without_harm(
    tmp_path_factory: pytest.TempPathFactory, rubbish: bytes, has_head: bool
) -> None:
    path = tmp_path_factory.mktemp("journal") / "numbers"
    path.write_bytes((b"mailbox-pusher state 1\n" if has_head else b"") + rubbish)
    assert load(path) == ({}, False)
    journal = Journal(path)
    journal.load()
    journal.append(BATCHES[0])
    journal.close()
    assert load(path) == (after(1), False)


def test_names_that_are_no_text_survive_and_names_without_end_are_left_out(path: Path) -> None:
    journal = Journal(path)
    journal.load()
    journal.append([("half \ud800", b"1"), ("x" * 70_000, b"2"), ("", b"3"), ("y" * 65_535, b"4")])
    journal.close()
    assert load(path).records == {"half \ud800": b"1", "": b"3", "y" * 65_535: b"4"}


def test_a_journal_written_anew_has_just_what_it_was_given(path: Path) -> None:
    written(path)
    journal = Journal(path)
    journal.load()
    journal.rewrite([("alice", b"a9")])
    journal.append([("bob", b"b9")])
    journal.finish(gapless=True)
    assert load(path) == ({"alice": b"a9", "bob": b"b9"}, True)
    assert [each.name for each in path.parent.iterdir()] == ["numbers"]
    assert path.stat().st_mode & 0o777 == 0o600


def test_it_is_long_when_most_of_it_is_outdated(path: Path) -> None:
    journal = Journal(path)
    journal.load()
    records = [(f"user{number}", b"x" * 200) for number in range(1000)]
    lengths = [journal.is_long]
    while not lengths[-1]:
        journal.append(records)
        lengths.append(journal.is_long)
    assert path.stat().st_size > _SMALLEST_REWRITE
    journal.rewrite(records)
    assert not journal.is_long
    journal.append(records)
    assert not journal.is_long
    assert len(lengths) > 4
    journal.close()


# --- disks that are full -----------------------------------------------------------------------


@contextmanager
def room_for(monkeypatch: pytest.MonkeyPatch, size: int) -> Iterator[None]:
    """The disk takes so many bytes more."""
    left, write = size, os.write

    def full(descriptor: int, data: bytes) -> int:
        nonlocal left
        if not left:
            raise OSError(errno.ENOSPC, "No space left on device")
        taken = write(descriptor, data[:left])
        left -= taken
        return taken

    with monkeypatch.context() as patch:
        patch.setattr("pusher.snapshot.os.write", full)
        yield


@pytest.mark.parametrize("room", [0, 1, 5, 9, 19])
def test_a_batch_the_disk_does_not_take_leaves_the_others(
    path: Path, monkeypatch: pytest.MonkeyPatch, room: int
) -> None:
    journal = Journal(path)
    journal.load()
    journal.append(BATCHES[0])
    with room_for(monkeypatch, room), pytest.raises(OSError, match="No space"):
        journal.append(BATCHES[1])
    journal.append(BATCHES[2])
    journal.finish(gapless=True)
    assert load(path) == ({**after(1), **dict(BATCHES[2])}, True)


@pytest.mark.parametrize("room", [0, 1, 22, 23, 24, 40, 60])
def test_a_journal_that_cannot_be_written_anew_stays_as_it_was(
    path: Path, monkeypatch: pytest.MonkeyPatch, room: int
) -> None:
    written(path)
    journal = Journal(path)
    journal.load()
    with room_for(monkeypatch, room), pytest.raises(OSError, match="No space"):
        journal.rewrite([("alice", b"x" * 100)])
    with room_for(monkeypatch, room), pytest.raises(OSError, match="No space"):
        journal.append([("alice", b"x" * 100)])
    assert [each.name for each in path.parent.iterdir()] == ["numbers"]
    assert path.read_bytes().startswith(b"mailbox-pusher state 1\n")
    journal.append([("dave", b"d1")])
    journal.rewrite([*after(3).items(), ("dave", b"d2")])
    journal.close()
    assert load(path).records == after(3) | {"dave": b"d2"}


def test_a_folder_that_takes_no_files_leaves_the_journal_as_it_was(path: Path) -> None:
    written(path)
    journal = Journal(path)
    journal.load()
    draft = path.with_name("numbers.new")
    draft.mkdir()
    with pytest.raises(OSError, match="Is a directory"):
        journal.rewrite([("alice", b"x")])
    journal.append([("dave", b"d1")])
    journal.close()
    assert load(path).records == after(3) | {"dave": b"d1"}


def test_an_end_that_cannot_be_written_is_no_end(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = Journal(path)
    journal.load()
    journal.append(BATCHES[0])
    with room_for(monkeypatch, 3), pytest.raises(OSError, match="No space"):
        journal.finish(gapless=True)
    journal.close()
    assert load(path) == (after(1), False)
