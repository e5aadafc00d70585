"""Figures beside their peers: ratios, targets, JSON lines, the table. Knows nothing of servers."""

import json
import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TextIO


@dataclass(frozen=True)
class Target:
    """What a figure must hold: an upper or lower bound on the ratio to the peer or on the value."""

    of: str  # "ratio" or "value"
    bound: float
    at_least: bool = False

    def __str__(self) -> str:
        sign = ">=" if self.at_least else "<="
        return f"{self.of} {sign} {self.bound:g}"

    def holds(self, value: float | None, ratio: float | None) -> bool:
        """Whether the figure is within the bound; what was not measured never is."""
        figure = ratio if self.of == "ratio" else value
        if figure is None or not math.isfinite(figure):
            return False
        return figure >= self.bound if self.at_least else figure <= self.bound


def ratio_at_most(bound: float) -> Target:
    """At most `bound` times the peer's figure."""
    return Target("ratio", bound)


def ratio_at_least(bound: float) -> Target:
    """At least `bound` times the peer's figure."""
    return Target("ratio", bound, at_least=True)


def value_at_most(bound: float) -> Target:
    """At most `bound`, in the figure's own unit."""
    return Target("value", bound)


def value_at_least(bound: float) -> Target:
    """At least `bound`, in the figure's own unit."""
    return Target("value", bound, at_least=True)


@dataclass(frozen=True)
class Figure:
    """One result: a line of the output."""

    bench: str
    metric: str
    value: float | None
    unit: str
    peer: str | None = None
    peer_value: float | None = None
    ratio: float | None = None
    target: Target | None = None
    spread: tuple[float, float] | None = None

    @property
    def ok(self) -> bool | None:
        """Whether the target was held; None where there is none."""
        return self.target.holds(self.value, self.ratio) if self.target else None

    def as_json(self) -> str:
        """The figure as one JSON object on one line."""
        return json.dumps(
            {
                "bench": self.bench,
                "metric": self.metric,
                "value": _rounded(self.value),
                "unit": self.unit,
                "peer": self.peer,
                "peer_value": _rounded(self.peer_value),
                "ratio": _rounded(self.ratio),
                "target": str(self.target) if self.target else None,
                "ok": self.ok,
            }
        )


def ratios(ours: Sequence[float | None], peers: Sequence[float | None]) -> list[float]:
    """Ours ÷ peer for every round in which both were measured."""
    return [
        mine / other
        for mine, other in zip(ours, peers, strict=False)
        if mine is not None and other is not None and other > 0
    ]


def median(values: Iterable[float | None]) -> float | None:
    """The median of what was measured, None of nothing."""
    present = [value for value in values if value is not None]
    return statistics.median(present) if present else None


def compare(
    bench: str,
    metric: str,
    unit: str,
    ours: Sequence[float | None],
    peer: str | None = None,
    peers: Sequence[float | None] = (),
    target: Target | None = None,
) -> Figure:
    """The figure of rounds taken in turn: its ratio is the median of the per-round ratios.

    What disturbs a shared machine disturbs neighbours in time alike, so the ratio within a round
    is steadier than the ratio of two medians.
    """
    per_round = ratios(ours, peers)
    return Figure(
        bench=bench,
        metric=metric,
        value=median(ours),
        unit=unit,
        peer=peer,
        peer_value=median(peers),
        ratio=median(per_round),
        target=target,
        spread=(min(per_round), max(per_round)) if per_round else None,
    )


def table(figures: Sequence[Figure], out: TextIO) -> None:
    """Write the figures as a table for human eyes."""
    heads = ("bench", "metric", "value", "unit", "peer", "its", "ratio", "min..max", "target", "")
    rows = [heads, *(_row(figure) for figure in figures)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(heads))]
    numbers = {2, 5, 6}
    for row in rows:
        cells = (
            text.rjust(width) if column in numbers else text.ljust(width)
            for column, (text, width) in enumerate(zip(row, widths, strict=True))
        )
        print("  ".join(cells).rstrip(), file=out)


def _row(figure: Figure) -> tuple[str, ...]:
    verdict = {True: "ok", False: "MISSED", None: "shown"}[figure.ok]
    spread = f"{figure.spread[0]:.2f}..{figure.spread[1]:.2f}" if figure.spread else ""
    return (
        figure.bench,
        figure.metric,
        _text(figure.value),
        figure.unit,
        figure.peer or "",
        _text(figure.peer_value),
        _text(figure.ratio),
        spread,
        str(figure.target) if figure.target else "",
        verdict,
    )


def _rounded(value: float | None) -> float | None:
    """Four significant digits: more would be noise. JSON has no infinity."""
    if value is None or not math.isfinite(value):
        return None
    return float(f"{value:.4g}")


def _text(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}"
