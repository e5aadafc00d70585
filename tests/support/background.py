"""An asyncio loop in a thread of its own, so that a test that waits and kills can have far ends."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Self, TypeVar

T = TypeVar("T")


class Background:
    """`with Background() as background: far = background.enter(FarEnd())`.

    What was entered is left, the last first, at the end. Plain attributes of a far end may be set
    from the test's thread.
    """

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._leave: list[Callable[[], Awaitable[object]]] = []

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            while self._leave:
                self.run(self._leave.pop())
        finally:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(10)
            self._loop.close()

    def enter(self, manager: AbstractAsyncContextManager[T]) -> T:
        """`async with` it in the loop; return what it gives."""
        entered = self.run(manager.__aenter__)
        self._leave.append(lambda: manager.__aexit__(None, None, None))
        return entered

    def run(self, work: Callable[[], Awaitable[T]]) -> T:
        """Call `work` in the loop and return what it comes to."""

        async def called() -> T:
            return await work()

        return asyncio.run_coroutine_threadsafe(called(), self._loop).result(30)
