"""Who is told about a mailbox, and who never is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pusher.protocol.acl import NOBODY, Readers, readers


def who(*users: str, groups: tuple[str, ...] = (), anyone: bool = False) -> Readers:
    return Readers(frozenset(users), frozenset(groups), anyone)


@pytest.mark.parametrize(
    ("acl", "right"),
    [
        ("", NOBODY),
        ("alice@example.org\tlrswipkxtecdan\t", who("alice@example.org")),
        ("alice\tlr", who("alice")),
        ("alice\tlr\tbob\tl\tcarol\tr\tdave\tp\t", who("alice")),
        ("dr who@example.org\tlr\tanonymous\tlr\t", who("dr who@example.org")),
        ("group:staff\tlr\tgroup:x y\tlr\tgroup:\tlr\t", who(groups=("staff", "x y"))),
        ("alice\tlr\tanyone\tlr\t", who("alice", anyone=True)),
        ("alice\tlr\tanyone\tp\t", who("alice")),
        # rights of one id add up, and everybody's are each one's
        ("alice\tl\talice\tr\t", who("alice")),
        ("alice\tl\tanyone\tr\t", who("alice")),
        # negative entries take away, wherever they stand
        ("bob\tlrswited\t-bob\txc\t", who("bob")),
        ("bob\tlrswited\t-bob\tl\t", NOBODY),
        ("-bob\tr\tbob\tlr\talice\tlr\t", who("alice")),
        ("alice\tlr\t-anyone\tr\t", NOBODY),
        ("alice\tlr\tanyone\tlr\t-bob\tr\t", who("alice")),
        ("anyone\tlr\t-anonymous\tlr\t", who(anyone=True)),
        ("alice\tlr\t-group:staff\tlr\tgroup:staff\tlr\t", who("alice")),
        # malformed
        ("alice", NOBODY),
        ("alice\tlr\tbob\t\t\t", NOBODY),
        ("alice lr", NOBODY),
        ("\tlrswipkxtecdn\tadmin\tlrswipkxtecdan\tanyone\tp\t", who("admin")),
    ],
)
def test_readers_have_both_lookup_and_read(acl: str, right: Readers) -> None:
    assert readers(acl) == right


def test_a_very_long_acl_is_read_too() -> None:
    acl = "".join(f"user{number}@example.org\tlr\t" for number in range(5000))
    assert len(readers(acl).users) == 5000


@given(st.text() | st.lists(st.text()).map("\t".join))
def test_readers_never_raises(acl: str) -> None:
    assert isinstance(readers(acl), Readers)
