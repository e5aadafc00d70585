"""What can be used in a `with` and is closed at its end."""

from __future__ import annotations

from types import TracebackType
from typing import Self


class Closing:
    """`with` gives the object itself and calls `close` afterwards; subclasses define that."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End it."""
        raise NotImplementedError
