"""Measuring servers in turn: A B C A B C, each freshly started, so that noise meets all alike."""

import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from bench import servers
from bench.report import Figure, Target, compare
from bench.servers import Recipe, Server

#: What one server gave in one round.
Sample = dict[str, float]


@dataclass(frozen=True)
class Options:
    """How long to measure and what to start as ours."""

    quick: bool = False
    rounds: int = 4
    command: str = servers.OUR_COMMAND

    def seconds(self, full: float) -> float:
        """The length of a measured phase."""
        return full / 3 if self.quick else full

    def count(self, full: int) -> int:
        """The size of a measured phase that ends by count."""
        return full // 3 if self.quick else full


@dataclass(frozen=True)
class Results:
    """The samples of all rounds, by server; an empty sample is a failed round."""

    bench: str
    samples: dict[str, list[Sample]]

    def column(self, server: str, key: str) -> list[float | None]:
        """One measure of one server, round by round."""
        return [sample.get(key) for sample in self.samples.get(server, [])]

    def figure(
        self, metric: str, unit: str, peer: str | None = None, target: Target | None = None
    ) -> Figure:
        """Compare ours with a peer in one measure."""
        theirs = self.column(peer, metric) if peer else []
        return compare(self.bench, metric, unit, self.column("ours", metric), peer, theirs, target)

    def worst(self, metric: str, unit: str, target: Target | None = None) -> Figure:
        """The highest of all our rounds: for what must never happen. None if a round failed."""
        ours = self.column("ours", metric)
        present = [value for value in ours if value is not None]
        value = max(present) if present and len(present) == len(ours) else None
        return Figure(self.bench, metric, value, unit, target=target)


def in_turn(
    bench: str, rounds: int, recipes: Sequence[Recipe], measure: Callable[[Server], Sample]
) -> Results:
    """Measure each server once per round; a failure is told on stderr and leaves a gap."""
    takes = {recipe.name: partial(_measured, recipe, measure) for recipe in recipes}
    return taking_turns(bench, rounds, takes)


def taking_turns(
    bench: str, rounds: int, contenders: Mapping[str, Callable[[], Sample]]
) -> Results:
    """Have each contender measured once per round; an exception is told and leaves a gap."""
    samples: dict[str, list[Sample]] = {name: [] for name in contenders}
    for number in range(rounds):
        for name, measure in contenders.items():
            sample = _told(name, measure)
            samples[name].append(sample)
            shown = "  ".join(f"{key} {value:.4g}" for key, value in sample.items())
            note(f"{bench} {number + 1}/{rounds} {name}: {shown or 'failed'}")
    return Results(bench, samples)


def note(text: str) -> None:
    """Tell whoever watches."""
    print(text, file=sys.stderr, flush=True)


def _told(name: str, measure: Callable[[], Sample]) -> Sample:
    try:
        return measure()
    except Exception:  # a benchmark reports what it can
        note(f"{name}: {traceback.format_exc()}")
    return {}


def _alive(server: Server, measure: Callable[[Server], Sample]) -> Sample:
    """Measure a server; what it gave does not count if it did not live to the end."""
    try:
        sample = measure(server)
        if server.process.poll() is None:
            return sample
    except Exception:  # a benchmark reports what it can
        note(f"{server.name}: {traceback.format_exc()}")
    note(f"{server.name} (exit {server.process.poll()}) said: {server.said()}")
    return {}


def _measured(recipe: Recipe, measure: Callable[[Server], Sample]) -> Sample:
    try:
        with recipe.running() as server:
            return _alive(server, measure)
    except servers.StartError as problem:
        note(f"{recipe.name} did not start: {problem}")
    return {}
