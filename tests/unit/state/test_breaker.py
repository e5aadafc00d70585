"""When a failing service is asked again."""

from __future__ import annotations

from pusher.state.breaker import Breaker
from shared.retry import RetryPolicy

PAUSES = RetryPolicy(first_seconds=10, most_seconds=35, max_age_seconds=float("inf"))


def test_it_opens_after_failures_in_a_row_only() -> None:
    breaker = Breaker(3, PAUSES)
    for _ in range(5):
        assert not breaker.failed(0, 1)
        assert not breaker.failed(0, 1)
        breaker.succeeded()
    assert breaker.admits(0)
    assert [breaker.failed(0, 1) for _ in range(3)] == [False, False, True]
    assert not breaker.admits(9.9)


def test_one_probe_decides_after_the_pause() -> None:
    breaker = Breaker(1, PAUSES)
    breaker.failed(0, 1)
    assert [breaker.admits(10) for _ in range(3)] == [True, False, False]
    breaker.succeeded()
    assert [breaker.admits(10) for _ in range(3)] == [True, True, True]
    assert not breaker.is_open


def test_pauses_grow_to_a_limit_and_start_again_after_success() -> None:
    breaker, now, pauses = Breaker(1, PAUSES), 0.0, []
    for _ in range(4):
        breaker.failed(now, 1)
        pause = next(step for step in range(100) if breaker.admits(now + step))
        pauses.append(pause)
        now += pause
    assert pauses == [10, 20, 35, 35]
    breaker.succeeded()
    breaker.failed(now, 1)
    assert breaker.admits(now + 10)


def test_jitter_spreads_the_upper_half_of_a_pause() -> None:
    breaker = Breaker(1, PAUSES)
    breaker.failed(0, 0)
    assert not breaker.admits(4.9)
    assert breaker.admits(5)


def test_late_failures_do_not_move_the_next_probe() -> None:
    breaker = Breaker(2, PAUSES)
    breaker.failed(0, 1)
    assert breaker.failed(0, 1)
    assert not breaker.failed(8, 1)
    assert breaker.admits(10)


def test_the_service_may_ask_for_a_pause_itself() -> None:
    breaker = Breaker(5, PAUSES)
    assert breaker.failed(0, 1, after=120)
    assert not breaker.admits(119)
    assert breaker.admits(120)


def test_what_will_not_mend_by_itself_opens_it_at_once() -> None:
    breaker = Breaker(5, PAUSES)
    assert breaker.failed(0, 1, at_once=True)
