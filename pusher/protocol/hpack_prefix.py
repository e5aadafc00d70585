"""Header blocks of our requests (RFC 7541), made of pieces that are encoded once.

What all requests of one kind share is a handful of table indices, kept as bytes; what differs is
written as literals that no proxy may index (§7.1.3). Entries are added to the peer's table, never
pushed out of it, so the bytes stay right. No Huffman coding: it costs more than it saves here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Final

import msgspec
from hpack.table import HeaderTable

Fields = tuple[tuple[str, str], ...]

#: The most that one request's header fields may take: they always fit into one HEADERS frame.
MAX_FIELDS_BYTES: Final = 12_288
#: The table we ask for at most, whatever the peer offers (RFC 7541 §4.2).
MAX_TABLE_BYTES: Final = 4096

_ENTRY_OVERHEAD: Final = 32  # RFC 7541 §4.1
_INDEXED, _INSERTED, _NEVER_INDEXED, _TABLE_SIZE, _NOT_INDEXED = 0x80, 0x40, 0x10, 0x20, 0x00
_STATIC: Final = {pair: index for index, pair in enumerate(HeaderTable.STATIC_TABLE, 1)}
_STATIC_NAMES: Final = {pair[0]: index for pair, index in reversed(_STATIC.items())}
_STATIC_LENGTH: Final = len(HeaderTable.STATIC_TABLE)
_KEPT_PREFIXES: Final = 256
_NAME: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9a-z]+")


class FixedFields:
    """What all requests of one kind share; make it with `fixed_fields`, so that equals are one."""

    __slots__ = ("fields", "size_bytes")

    def __init__(self, fields: Fields) -> None:
        self.fields = tuple((name.encode(), value.encode()) for name, value in fields)
        self.size_bytes = sum(len(name) + len(value) + 8 for name, value in self.fields)


@lru_cache(1024)
def fixed_fields(authority: str, fields: Fields = (), method: str = "POST") -> FixedFields:
    """Return the fields that requests to `authority` have in common; raises ValueError if unfit.

    Credentials do not belong here: everything in it goes into the peer's table.
    """
    _check_fields(fields)
    for value in (authority, method):
        if not value:
            raise ValueError("neither authority nor method may be empty")
        _check_value(value)
    pseudo = ((":method", method), (":scheme", "https"), (":authority", authority))
    return FixedFields((*pseudo, *fields))


class Request(msgspec.Struct, frozen=True, gc=False, eq=False):
    """One request: `fields` are those that differ from push to push, credentials included.

    Raises ValueError for what may not stand in a header block (RFC 9113 §8.2.1).
    """

    path: str
    body: bytes
    fixed: FixedFields
    fields: Fields = ()

    def __post_init__(self) -> None:
        path = self.path
        if path[:1] != "/" or " " in path:
            raise ValueError("a path begins with a slash and has no spaces")
        _check_value(path)
        size = _check_fields(self.fields) + len(path) + self.fixed.size_bytes
        if size > MAX_FIELDS_BYTES:
            raise ValueError(f"more than {MAX_FIELDS_BYTES} bytes of header fields")

    def __repr__(self) -> str:  # paths hold device tokens, fields hold credentials
        return f"<Request of {len(self.body)} bytes>"


class FieldTable:
    """Our side of one connection's header compression: requests in, header blocks out.

    A block that was made must be sent, and in this order: the peer's table moves with it.
    """

    def __init__(self) -> None:
        self._size = MAX_TABLE_BYTES  # what both sides begin with
        self._used = 0
        self._inserted: dict[tuple[bytes, bytes], int] = {}
        self._prefixes: dict[FixedFields, bytes] = {}
        self._resize = b""

    def resize(self, most: int) -> None:
        """Follow the peer's SETTINGS_HEADER_TABLE_SIZE; its table is emptied with the next block.

        That block begins with the smallest size in between, which is nothing (RFC 7541 §4.2).
        """
        size = min(most, MAX_TABLE_BYTES)
        if size != self._size:
            self._size, self._used = size, 0
            self._inserted.clear()
            self._prefixes.clear()
            self._resize = _integer(_TABLE_SIZE, 5, 0) + _integer(_TABLE_SIZE, 5, size)

    def block(self, request: Request) -> bytes:
        """Return a request's header block; `:path` stands first, as it differs (RFC 9113 §8.3)."""
        fixed = request.fixed
        prefix = self._prefixes.get(fixed)
        path = request.path.encode()
        parts = [self._resize, _PATH, _length(len(path)), path, prefix or self._encode(fixed)]
        self._resize = b""
        for name, value in request.fields:
            parts += _literal_start(name), _length(len(value)), value.encode()
        return b"".join(parts)

    def _encode(self, fixed: FixedFields) -> bytes:
        before = len(self._inserted)
        block = b"".join(self._encode_field(field) for field in fixed.fields)
        if len(self._inserted) != before:
            self._prefixes.clear()  # all indices have moved, those in this block included
        elif len(self._prefixes) < _KEPT_PREFIXES:
            self._prefixes[fixed] = block
        return block

    def _encode_field(self, field: tuple[bytes, bytes]) -> bytes:
        static = _STATIC.get(field)
        if static is not None:
            return _integer(_INDEXED, 7, static)
        place = self._inserted.get(field)
        if place is not None:
            return _integer(_INDEXED, 7, _STATIC_LENGTH + len(self._inserted) - place)
        size = len(field[0]) + len(field[1]) + _ENTRY_OVERHEAD
        if self._used + size > self._size:
            return _literal(_NOT_INDEXED, 4, *field)
        self._used += size
        self._inserted[field] = len(self._inserted)
        return _literal(_INSERTED, 6, *field)


def _check_value(value: str) -> None:
    if not (value.isascii() and value.isprintable()) or value[:1] == " " or value[-1:] == " ":
        raise ValueError("a header field may hold printable ASCII characters only")


def _check_fields(fields: Fields) -> int:
    size = 0
    for name, value in fields:
        _literal_start(name)
        _check_value(value)
        size += len(name) + len(value) + 8
    return size


def _integer(pattern: int, bits: int, value: int) -> bytes:
    """Return an integer behind `pattern` in its first octet (RFC 7541 §5.1)."""
    most = (1 << bits) - 1
    if value < most:
        return bytes((pattern | value,))
    return bytes((pattern | most, *_sevens(value - most)))


def _sevens(value: int) -> Iterator[int]:
    while value > 0x7F:
        yield value & 0x7F | 0x80
        value >>= 7
    yield value


def _literal(pattern: int, bits: int, name: bytes, value: bytes) -> bytes:
    index = _STATIC_NAMES.get(name)
    start = (
        _integer(pattern, bits, index)
        if index is not None
        else bytes((pattern,)) + _length(len(name)) + name
    )
    return start + _length(len(value)) + value


def _length(size: int) -> bytes:
    return _LENGTHS[size] if size < len(_LENGTHS) else _integer(0, 7, size)


_LENGTHS: Final = [_integer(0, 7, size) for size in range(1024)]


@lru_cache(1024)
def _literal_start(name: str) -> bytes:
    """Return how a field that must not be indexed begins; raises ValueError for a bad name."""
    if not _NAME.fullmatch(name) or name in _OF_CONNECTIONS:
        raise ValueError("not the name of a header field")
    return _literal(_NEVER_INDEXED, 4, name.encode(), b"")[:-1]


#: They belong to HTTP/1.1 (RFC 9113 §8.2.2).
_OF_CONNECTIONS: Final = {
    *("connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade", "host"),
}
_PATH: Final = _literal(_NEVER_INDEXED, 4, b":path", b"")[:-1]
