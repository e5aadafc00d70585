"""The figures of the benchmarks: ratios per round, targets, JSON lines, names."""

import io
import json
import math
from collections import Counter

import pytest

from bench import __main__ as command
from bench.client import readers, shuffled
from bench.report import (
    Figure,
    Target,
    compare,
    median,
    ratio_at_least,
    ratio_at_most,
    ratios,
    table,
    value_at_least,
    value_at_most,
)
from bench.rounds import Results


def test_ratio_is_the_median_of_the_rounds_not_the_ratio_of_medians() -> None:
    figure = compare("b", "m", "us", [10, 20, 90], "nchan", [20, 10, 90], ratio_at_most(1))
    assert figure.ratio == 1.0
    assert figure.spread == (0.5, 2.0)
    assert (figure.value, figure.peer_value) == (20, 20)
    assert figure.ok is True


def test_rounds_in_which_one_failed_are_left_out_of_the_ratio() -> None:
    assert ratios([1, None, 3], [2, 2, None]) == [0.5]
    assert ratios([1], [0]) == []
    assert median([None, 4, None, 2]) == 3
    assert median([None]) is None


@pytest.mark.parametrize(
    ("target", "value", "ratio", "holds"),
    [
        (ratio_at_most(0.65), 99, 0.65, True),
        (ratio_at_most(0.65), 0, 0.66, False),
        (ratio_at_least(1.5), 0, 1.5, True),
        (ratio_at_least(1.5), 99, 1.4, False),
        (value_at_most(300), 300, 9, True),
        (value_at_most(300), 301, 0, False),
        (value_at_least(6500), 6500, None, True),
        (value_at_least(6500), 6499, None, False),
        (value_at_most(300), None, None, False),
        (ratio_at_most(1), 1, None, False),
        (ratio_at_most(1), 1, math.nan, False),
    ],
)
def test_target(target: Target, value: float | None, ratio: float | None, holds: bool) -> None:
    assert target.holds(value, ratio) is holds


def test_json_line_has_exactly_the_promised_keys() -> None:
    figure = compare("streams.fan", "cpu", "us", [15.51234], "nchan", [30.6], ratio_at_most(0.65))
    line = figure.as_json()
    assert "\n" not in line
    assert json.loads(line) == {
        "bench": "streams.fan",
        "metric": "cpu",
        "value": 15.51,
        "unit": "us",
        "peer": "nchan",
        "peer_value": 30.6,
        "ratio": 0.5069,
        "target": "ratio <= 0.65",
        "ok": True,
    }


def test_figure_without_target_or_peer_is_only_shown() -> None:
    line = json.loads(Figure("b", "p99", math.inf, "us").as_json())
    assert line["ok"] is None
    assert line["target"] is None
    assert line["value"] is None


def test_table_has_a_line_per_figure_and_says_what_was_missed() -> None:
    out = io.StringIO()
    table([Figure("b", "m", 1234.5, "us"), Figure("b", "n", 2, "B", target=value_at_most(1))], out)
    _, shown, missed = out.getvalue().splitlines()
    assert "1234" in shown
    assert shown.endswith("shown")
    assert missed.endswith("MISSED")


def test_what_must_never_happen_is_the_worst_round_and_unknown_if_one_failed() -> None:
    results = Results("b", {"ours": [{"lost": 0.0}, {"lost": 3.0}]})
    assert results.worst("lost", "deliveries", value_at_most(0)).ok is False
    failed = Results("b", {"ours": [{"lost": 0.0}, {}]})
    assert failed.worst("lost", "deliveries", value_at_most(0)).ok is False


def test_accounts_have_one_to_five_readers_three_on_average() -> None:
    accounts = readers(15_000, first=100)
    assert len(accounts) == 15_000
    assert set(Counter(accounts).values()) == {1, 2, 3, 4, 5}
    assert len(set(accounts)) == 5_000
    assert sorted(shuffled(accounts)) == accounts


def test_unknown_benchmark_is_refused_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        command.main(["streams.nonsense"])
    assert "streams.fan" in capsys.readouterr().err
