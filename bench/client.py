"""The load client as an object, and the files that tell it which streams to open."""

import json
import random
import subprocess
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO

from bench import build
from bench.servers import Server


class Load:
    """One running load client."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._process = process
        self._in: IO[str] = process.stdin
        self._out: IO[str] = process.stdout

    def begin(self, *command: object) -> None:
        """Give a command without waiting for its answer."""
        print(*command, file=self._in, flush=True)

    def answer(self) -> dict[str, float]:
        """Wait for the answer to a command given with `begin`."""
        line = self._out.readline()
        if not line:
            raise RuntimeError(f"the load client ended with status {self._process.wait()}")
        answer: dict[str, float] = json.loads(line)
        return answer

    def ask(self, *command: object) -> dict[str, float]:
        """Give a command and wait for its answer."""
        self.begin(*command)
        return self.answer()


@contextmanager
def load(server: Server, count: int = 1) -> Iterator[list[Load]]:
    """Start `count` load clients against a server, each with source addresses of its own."""
    binary = str(build.program("load"))
    with ExitStack() as stack:
        clients = []
        for network in range(1, count + 1):
            process = subprocess.Popen(
                [binary, str(server.port), server.publish, str(network)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            stack.callback(_end, process)
            clients.append(Load(process))
        yield clients


def write_paths(server: Server, name: str, accounts: Iterable[int]) -> Path:
    """Write a file of streams to open, one per account number given; same account, same path."""
    path_of = _remembering(server.path)
    file = server.directory / name
    with file.open("w", encoding="ascii") as out:
        out.writelines(f"{account} {path_of(account)}\n" for account in accounts)
    return file


def readers(streams: int, first: int = 0) -> list[int]:
    """Account numbers of `streams` streams, 1 to 5 (mean 3) per account, account by account."""
    accounts: list[int] = []
    account = first
    while len(accounts) < streams:
        accounts.extend([account] * (1 + (account - first) % 5))
        account += 1
    return accounts[:streams]


def shuffled(accounts: Sequence[int]) -> list[int]:
    """The same in an order that is random, but the same every time."""
    mixed = list(accounts)
    random.Random(20261121).shuffle(mixed)
    return mixed


def _remembering(path: Callable[[int], str]) -> Callable[[int], str]:
    known: dict[int, str] = {}

    def of(account: int) -> str:
        if account not in known:
            known[account] = path(account)
        return known[account]

    return of


def _end(process: subprocess.Popen[str]) -> None:
    """The end of its input ends the client."""
    if process.stdin:
        process.stdin.close()
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if process.stdout:
        process.stdout.close()
