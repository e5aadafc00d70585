"""The numbers on disk: an append-only journal of records, so that a restart knows what it knew.

Knows the file; `state.modseq` knows what a record means. Written in a thread, without fsync: what a
power cut takes makes accounts uncertain, and those are told to resync. A torn tail is cut off.

The file is a header, then batches: type, length and CRC-32 (which starts from the type), then the
records as (length of name, name, record). The last batch says whether the program ended in good
order and whether its event sockets outlive it; everything else means that events may have been
missed.
"""

from __future__ import annotations

import contextlib
import os
import struct
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

_MAGIC = b"mailbox-pusher state 1\n"
_BATCH = struct.Struct("<BII")
_NAME = struct.Struct("<HH")
_RECORDS, _CLEAN = 0, 1
#: The journal is written anew when it has grown to this many times its live content.
_SLACK = 4
_SMALLEST_REWRITE = 1 << 20


class Restored(NamedTuple):
    """What an earlier run left: records, newest last, and whether its sockets outlived it."""

    records: dict[str, bytes]
    gapless: bool


class Journal:
    """The open journal; one thread at a time."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: int | None = None
        self._size = 0
        self._live = 0

    def load(self) -> Restored:
        """Read what is there, cut off a torn tail, and open it for appending."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        data = b""
        with contextlib.suppress(FileNotFoundError):
            data = self._path.read_bytes()
        records: dict[str, bytes] = {}
        clean, end = None, len(_MAGIC)
        for kind, body, after in _batches(data):
            clean = body if kind == _CLEAN else None
            for name, record in _unpacked(body) if kind == _RECORDS else ():
                records.pop(name, None)  # newest last
                records[name] = record
            end = after
        self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        if not data.startswith(_MAGIC):
            self._size = 0
            self._put(_MAGIC)
            end = len(_MAGIC)
        # The end mark is taken off: from here on this run counts as unfinished.
        if clean is not None:
            end -= _BATCH.size + len(clean)
        os.ftruncate(self._file, end)
        os.lseek(self._file, end, os.SEEK_SET)
        self._size = self._live = end
        return Restored(records, gapless=clean == b"gapless")

    def append(self, records: Iterable[tuple[str, bytes]]) -> None:
        """Add records; OSError if the disk does not take them, then `rewrite` before the next."""
        self._write(_RECORDS, _packed(records))

    @property
    def is_long(self) -> bool:
        """True when most of the file is outdated and `rewrite` is worth it."""
        return self._size > max(_SMALLEST_REWRITE, self._live * _SLACK)

    def rewrite(self, records: Iterable[tuple[str, bytes]]) -> None:
        """Replace the file by one that has just these records."""
        draft = self._path.with_name(self._path.name + ".new")
        descriptor = os.open(draft, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        before, size = self._file, self._size
        self._file, self._size = descriptor, 0
        try:
            self._put(_MAGIC)
            self._write(_RECORDS, _packed(records))
            draft.replace(self._path)
        except OSError:
            self._file, self._size = before, size
            os.close(descriptor)
            draft.unlink(missing_ok=True)
            raise
        self._live = self._size
        if before is not None:
            os.close(before)

    def finish(self, *, gapless: bool) -> None:
        """Write the end mark and close."""
        self._write(_CLEAN, b"gapless" if gapless else b"")
        self.close()

    def close(self) -> None:
        """Close without an end mark, as a crash would."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _write(self, kind: int, body: bytes) -> None:
        self._put(_BATCH.pack(kind, len(body), zlib.crc32(body, kind)) + body)

    def _put(self, data: bytes) -> None:
        """Write all of `data`, or nothing of it."""
        assert self._file is not None
        view = memoryview(data)
        try:
            while view:
                view = view[os.write(self._file, view) :]
        except OSError:
            os.ftruncate(self._file, self._size)
            os.lseek(self._file, self._size, os.SEEK_SET)
            raise
        self._size += len(data)


def _packed(records: Iterable[tuple[str, bytes]]) -> bytes:
    parts: list[bytes] = []
    for name, record in records:
        raw = name.encode("utf-8", "surrogatepass")
        if len(raw) < 1 << 16:
            parts += (_NAME.pack(len(raw), len(record)), raw, record)
    return b"".join(parts)


def _unpacked(body: bytes) -> Iterator[tuple[str, bytes]]:
    at = 0
    while at < len(body):
        name, record = _NAME.unpack_from(body, at)
        at += _NAME.size
        yield body[at : at + name].decode("utf-8", "surrogatepass"), body[at + name :][:record]
        at += name + record


def _batches(data: bytes) -> Iterator[tuple[int, bytes, int]]:
    """Yield (type, body, offset after it) up to the first batch that is not whole."""
    if not data.startswith(_MAGIC):
        return
    at = len(_MAGIC)
    while at + _BATCH.size <= len(data):
        kind, length, checksum = _BATCH.unpack_from(data, at)
        body = data[at + _BATCH.size : at + _BATCH.size + length]
        if len(body) != length or zlib.crc32(body, kind) != checksum:
            return
        at += _BATCH.size + length
        yield kind, body, at
