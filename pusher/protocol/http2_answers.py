"""What becomes of a request, and how header blocks of answers are read (RFC 9113 §8.3.2).

A status that is known counts, even if the rest of the answer never came: then the push is neither
lost nor of unknown fate.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from hpack import Decoder
from hpack.exceptions import HPACKError

from pusher.protocol.http2_frames import END_HEADERS, END_STREAM, ErrorCode, Http2Error

#: Longest list of header fields we take; announced as SETTINGS_MAX_HEADER_LIST_SIZE.
MAX_FIELDS_BYTES: Final = 16_384
#: `:status 200` in the static table: what nearly all answers begin with.
STATUS_200: Final = 0x88
#: The statuses that have an index of their own (RFC 7541 Appendix A).
_STATUSES: Final = {0x88: 200, 0x89: 204, 0x8A: 206, 0x8B: 304, 0x8C: 400, 0x8D: 404, 0x8E: 500}
_MAX_BLOCK_BYTES: Final = 2 * MAX_FIELDS_BYTES
_MAX_BLOCK_FRAMES: Final = 64


class Answer:
    """The server answered. Names of `headers` are lower case; repeated ones are joined by commas.

    `is_whole` is false if the answer broke off after its status: then the body may be cut.
    """

    __slots__ = ("_headers", "body", "is_whole", "status")

    def __init__(
        self,
        status: int,
        headers: Mapping[str, str] | bytes = b"",
        body: bytes = b"",
        is_whole: bool = True,
    ) -> None:
        self.status = status
        self._headers = headers
        self.body = body
        self.is_whole = is_whole

    @property
    def headers(self) -> Mapping[str, str]:
        """The header fields; the block of an answer nobody asks is never decoded.

        Such a block is one that needs no table. If it makes no sense the status still counts, and
        there are no fields.
        """
        if isinstance(self._headers, bytes):
            try:
                self._headers = _joined(_decode(_tableless(), self._headers))
            except Http2Error:
                self._headers = {}
        return self._headers

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Answer) and self._key() == other._key()

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Answer({self.status}, {self.body[:80]!r}, is_whole={self.is_whole})"

    def _key(self) -> tuple[object, ...]:
        return self.status, dict(self.headers), self.body, self.is_whole


@dataclass(frozen=True, slots=True)
class NeverProcessed:
    """The server certainly did nothing with the request: sending it again is safe."""

    reason: str


@dataclass(frozen=True, slots=True)
class FateUnknown:
    """The request was sent; whether it was acted upon, nobody can say."""

    reason: str


Result = Answer | NeverProcessed | FateUnknown
Done = Callable[[Result], None]


class PartialAnswer:
    """An answer whose end has not come."""

    __slots__ = ("body", "headers", "status")

    def __init__(self, status: int, headers: Mapping[str, str] | bytes) -> None:
        self.status = status
        self.headers = headers
        self.body = bytearray()

    def answer(self, is_whole: bool) -> Answer:
        """Return it as far as it came."""
        return Answer(self.status, self.headers, bytes(self.body), is_whole)


class AnswerFields:
    """The server's side of one connection's header compression: header blocks in, fields out."""

    def __init__(self, table_bytes: int) -> None:
        self._table_bytes = table_bytes
        self._decoder = Decoder(MAX_FIELDS_BYTES)
        #: Blocks stand alone: none needs what came before, so one may be left undecoded.
        self.are_independent = False

    def agreed(self) -> None:
        """Take note that the server knows the size of our table."""
        self._decoder.max_allowed_table_size = self._table_bytes
        self._decoder.header_table_size = self._table_bytes
        self.are_independent = self._table_bytes == 0

    def read(self, block: bytes) -> tuple[int | None, Mapping[str, str] | bytes]:
        """Return the status, None if there is no good one, and the fields, or the block.

        Raises Http2Error if the block makes no sense: nothing after it could be read.
        """
        if self.are_independent and block and block[0] in _STATUSES:
            return _STATUSES[block[0]], block
        fields = _decode(self._decoder, block)
        return _status(fields), _joined(fields)


class HeaderBlock:
    """A header block that may come in several frames; nothing else may come between (§4.3)."""

    __slots__ = ("_frames", "_parts", "ends_stream", "is_open", "stream")

    def __init__(self) -> None:
        #: The block has begun and has not ended.
        self.is_open = False
        self.stream = 0
        #: The answer ends with it.
        self.ends_stream = False
        self._parts = bytearray()
        self._frames = 0

    def begin(self, flags: int, stream: int, part: bytes) -> None:
        """Take the part in a HEADERS frame."""
        self.is_open = not flags & END_HEADERS
        self.stream, self.ends_stream = stream, bool(flags & END_STREAM)
        self._parts += part
        self._frames = 1

    def go_on(self, flags: int, stream: int, part: bytes) -> None:
        """Take the part in a CONTINUATION frame."""
        if stream != self.stream:
            raise Http2Error(ErrorCode.PROTOCOL_ERROR, "header-block-interrupted")
        self.is_open = not flags & END_HEADERS
        self._parts += part
        self._frames += 1
        if len(self._parts) > _MAX_BLOCK_BYTES or self._frames > _MAX_BLOCK_FRAMES:
            raise Http2Error(ErrorCode.ENHANCE_YOUR_CALM, "header-block-too-long")

    def take(self) -> bytes:
        """Return the whole block and forget it."""
        block = bytes(self._parts)
        self._parts.clear()
        return block


def _tableless() -> Decoder:
    decoder = Decoder(MAX_FIELDS_BYTES)
    decoder.header_table_size = decoder.max_allowed_table_size = 0
    return decoder


def _decode(decoder: Decoder, block: bytes) -> list[tuple[str, str]]:
    try:
        fields: Iterable[tuple[bytes, bytes]] = decoder.decode(block, raw=True)
    except HPACKError as error:
        raise Http2Error(ErrorCode.COMPRESSION_ERROR, "header-block") from error
    return [
        (bytes(name).decode("latin-1"), bytes(value).decode("latin-1")) for name, value in fields
    ]


def _status(fields: list[tuple[str, str]]) -> int | None:
    pseudo = [field for field in fields if field[0][:1] == ":"]
    if len(pseudo) != 1 or pseudo != fields[:1] or pseudo[0][0] != ":status":
        return None
    value = pseudo[0][1]
    is_status = len(value) == 3 and value.isascii() and value.isdigit() and value[0] != "0"
    return int(value) if is_status else None


def _joined(fields: list[tuple[str, str]]) -> Mapping[str, str]:
    headers: dict[str, str] = {}
    for name, value in fields:
        if name[:1] != ":":
            headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return headers
