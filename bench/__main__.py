"""Entry point of `python -m bench`: JSON lines on stdout, the table and the progress on stderr."""

import argparse
import sys
from collections.abc import Callable, Iterator

from bench import durable, intake, mails, report, servers, streams
from bench.report import Figure
from bench.rounds import Options, note

Bench = Callable[[Options], Iterator[Figure]]

BENCHES: dict[str, dict[str, Bench]] = {
    "streams": streams.SCENARIOS,
    "intake": intake.SCENARIOS,
    "queue": durable.SCENARIOS,
    "notifyd": mails.SCENARIOS,
}


def main(arguments: list[str]) -> int:
    """Run the benchmarks named, or all; the status says nothing about the figures."""
    parser = _parser()
    wanted = parser.parse_args(arguments)
    try:
        chosen = [bench for name in wanted.names or BENCHES for bench in _benches(name)]
    except KeyError as unknown:
        parser.error(f"unknown benchmark {unknown}; known: {', '.join(_names())}")
    rounds = wanted.rounds or (2 if wanted.quick else 4)
    options = Options(quick=wanted.quick, rounds=rounds, command=wanted.command)
    figures = []
    for bench in chosen:
        for figure in bench(options):
            print(figure.as_json(), flush=True)
            figures.append(figure)
    report.table(figures, sys.stderr)
    missed = sum(figure.ok is False for figure in figures)
    held = sum(figure.ok is True for figure in figures)
    note(f"{held} targets held, {missed} missed")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="bin/bench", description="Benchmarks beside their peers; see bench/README.md."
    )
    parser.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        help="streams, intake, queue, notifyd, or one scenario: streams.fan",
    )
    parser.add_argument("--quick", action="store_true", help="shorter phases, two rounds")
    parser.add_argument("--rounds", type=int, help="rounds of servers in turn (4; quick: 2)")
    parser.add_argument(
        "--command",
        default=servers.OUR_COMMAND,
        help="how to start our server (default: %(default)s), to measure another build",
    )
    return parser


def _benches(name: str) -> list[Bench]:
    """The scenarios a name stands for; KeyError if it stands for none."""
    group, _, scenario = name.partition(".")
    if group not in BENCHES or (scenario and scenario not in BENCHES[group]):
        raise KeyError(name)
    return [BENCHES[group][scenario]] if scenario else list(BENCHES[group].values())


def _names() -> list[str]:
    return [f"{group}.{scenario}" for group, known in BENCHES.items() for scenario in known]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
