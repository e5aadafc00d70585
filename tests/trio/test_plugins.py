"""A plug-in sees what happens, and nothing it does harms anybody else."""

from __future__ import annotations

import importlib.metadata
from collections.abc import AsyncIterator
from unittest import mock

import pytest
import trio
import trio.testing

from pusher import plugins
from pusher.tap import Happening, Tap
from shared.errors import ConfigError

pytestmark = pytest.mark.trio


def happening(detail: str) -> Happening:
    return Happening(0.0, "told", detail)


async def test_a_plugin_gets_every_happening_in_order(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    seen: list[str] = []

    async def output(happenings: AsyncIterator[Happening]) -> None:
        async for each in happenings:
            seen.append(each.detail)

    tap = Tap()
    nursery.start_soon(plugins.run, "example", output, tap)
    await trio.testing.wait_all_tasks_blocked()
    for detail in "abc":
        tap.tell(happening(detail))
    await trio.testing.wait_all_tasks_blocked()
    assert seen == ["a", "b", "c"]
    nursery.cancel_scope.cancel()


async def test_a_plugin_that_fails_is_started_again_and_later_each_time(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    starts: list[float] = []

    async def output(happenings: AsyncIterator[Happening]) -> None:
        starts.append(trio.current_time())
        raise RuntimeError("broken")

    began = trio.current_time()
    with trio.move_on_after(10):
        await plugins.run("broken", output, Tap())
    assert [round(start - began) for start in starts] == [0, 1, 3, 7]


async def test_a_plugin_that_is_slow_loses_happenings_and_holds_nobody_up(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    async def output(happenings: AsyncIterator[Happening]) -> None:
        await trio.sleep_forever()

    tap = Tap()
    nursery.start_soon(plugins.run, "slow", output, tap)
    await trio.testing.wait_all_tasks_blocked()
    for number in range(plugins.KEPT + 500):
        tap.tell(happening(str(number)))
    nursery.cancel_scope.cancel()


async def test_an_unknown_or_broken_plugin_is_a_configuration_error() -> None:
    entry = importlib.metadata.EntryPoint("broken", "no_such_module:output", plugins.GROUP)
    with (
        mock.patch("importlib.metadata.entry_points", return_value=[entry]),
        pytest.raises(ConfigError) as caught,
    ):
        plugins.load(["broken", "missing"])
    assert "cannot be loaded" in caught.value.problems[0]
    assert "not installed (installed: broken)" in caught.value.problems[1]
