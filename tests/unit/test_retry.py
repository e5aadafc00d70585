"""When a failed job is tried again."""

from __future__ import annotations

import pytest

from shared.retry import RetryPolicy

POLICY = RetryPolicy(first_seconds=10, most_seconds=100, max_age_seconds=1000)


@pytest.mark.parametrize(
    ("attempt", "jitter", "wait"),
    [(1, 1.0, 10), (1, 0.0, 5), (2, 1.0, 20), (4, 1.0, 80), (5, 1.0, 100), (10_000, 1.0, 100)],
)
def test_waits_double_up_to_the_longest_and_are_spread(
    attempt: int, jitter: float, wait: float
) -> None:
    assert POLICY.delay(attempt, 0, jitter) == wait


def test_the_service_may_ask_for_a_longer_wait_not_for_a_shorter_one() -> None:
    assert POLICY.delay(1, 0, 1.0, after=60) == 60
    assert POLICY.delay(1, 0, 1.0, after=1) == 10


def test_what_would_come_too_late_is_given_up() -> None:
    assert POLICY.delay(1, 990, 1.0) == 10
    assert POLICY.delay(1, 991, 1.0) is None
    assert POLICY.delay(1, 0, 1.0, after=3600) is None
