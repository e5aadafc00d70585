"""`vnd.cmu.mailboxACL` (RFC 4314): who may see a mailbox, and so has something to refresh."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from functools import lru_cache
from typing import Final, NamedTuple

#: A mailbox can be told about if it can be listed and read.
NEEDED: Final = frozenset("lr")

_LONGEST_CACHED: Final = 4096


class Readers(NamedTuple):
    """Those who may see one mailbox: user ids and group names as the server knows them.

    `anyone` is every user who has logged in, except those a negative entry shuts out, whom this
    cannot name: an `anyone` with negative entries beside it counts as nobody but those listed.
    """

    users: frozenset[str]
    groups: frozenset[str]
    anyone: bool


NOBODY: Final = Readers(frozenset(), frozenset(), False)


def readers(acl: str) -> Readers:
    """Who has both `l` and `r` in `id TAB rights TAB id TAB rights TAB`; malformed: NOBODY.

    Rights of several entries of one id add up, those of `-id` are taken away afterwards whatever
    the order. `anonymous` is dropped: nobody who can be told is anonymous.
    """
    return _cached(acl) if len(acl) <= _LONGEST_CACHED else _readers(acl)


def _readers(acl: str) -> Readers:
    parts = acl.split("\t")
    if parts[-1] == "":
        parts.pop()
    if len(parts) % 2:
        return NOBODY
    given: defaultdict[str, set[str]] = defaultdict(set)
    taken: defaultdict[str, set[str]] = defaultdict(set)
    for identifier, rights in zip(parts[::2], parts[1::2], strict=True):
        if identifier.startswith("-"):
            taken[identifier[1:]].update(rights)
        else:
            given[identifier].update(rights)
    return _sorted_out(set(_who_sees(given, taken)), bool(_shut_out(taken)))


_cached = lru_cache(maxsize=16384)(_readers)


def _who_sees(given: dict[str, set[str]], taken: dict[str, set[str]]) -> Iterator[str]:
    # Everybody's rights are each user's too, given or taken (RFC 4314 §2: the union counts).
    to_all = given.get("anyone", set())
    from_all = taken.get("anyone", set())
    for identifier, rights in given.items():
        if (rights | to_all) - taken.get(identifier, set()) - from_all >= NEEDED:
            yield identifier


def _shut_out(taken: dict[str, set[str]]) -> list[str]:
    return [name for name, rights in taken.items() if rights & NEEDED and name != "anonymous"]


def _sorted_out(seers: set[str], some_shut_out: bool) -> Readers:
    anyone = "anyone" in seers and not some_shut_out
    groups = {name.removeprefix("group:") for name in seers if name.startswith("group:")}
    users = {name for name in seers if not name.startswith("group:")}
    return Readers(frozenset(users - {"", "anonymous", "anyone"}), frozenset(groups - {""}), anyone)
