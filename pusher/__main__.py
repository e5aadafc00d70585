"""The command `pusher`: the daemon and its operator's verbs."""

from __future__ import annotations

import json
import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import cyclopts
from cyclopts import Parameter

import shared
from shared.config import find, load, settings
from shared.errors import ConfigError, QueueError
from shared.sections import Config

EX_USAGE, EX_NOINPUT, EX_UNAVAILABLE, EX_TEMPFAIL, EX_CONFIG = 64, 66, 69, 75, 78

app = cyclopts.App(
    name="pusher",
    help="Tells open webmail pages and phones at once that something happened in a mailbox.",
    version=lambda: _version(),
    version_flags=["--version"],
)
config_app = cyclopts.App(name="config", help="Look at the configuration.")
app.command(config_app)

ConfigOption = Annotated[
    Path | None,
    Parameter(
        name="--config",
        help="TOML file; else $MAILBOX_PUSHER_CONFIG, /etc/mailbox-pusher/config.toml, or the "
        "embedded defaults.",
    ),
]
JsonOption = Annotated[bool, Parameter(name="--json", negative=(), help="Print JSON.")]


@app.command
def serve(*, config: ConfigOption = None) -> int:
    """Run the daemon. SIGTERM drains, SIGHUP reloads, SIGUSR1 dumps state to the log."""
    import trio

    from pusher.app import serve as run

    trio.run(run, load(config), config)
    return 0


@app.command
def check_config(*, config: ConfigOption = None, as_json: JsonOption = False) -> int:
    """Check the configuration; print every problem at once and exit 78, or exit 0."""
    try:
        _check(load(config))
        problems: list[str] = []
    except ConfigError as error:
        problems = error.problems
    path = find(config)
    if as_json:
        print(json.dumps({"file": str(path) if path else None, "problems": problems}))
    elif problems:
        print("\n".join(problems), file=sys.stderr)
    else:
        print(f"{path or 'embedded defaults'}: ok")
    return EX_CONFIG if problems else 0


@config_app.command(name="show")
def config_show(
    *,
    config: ConfigOption = None,
    origin: Annotated[bool, Parameter(negative=(), help="Say where each value is from.")] = False,
    as_json: JsonOption = False,
) -> int:
    """Print the configuration in effect, defaults included."""
    path = find(config)
    found = list(settings(load(config), str(path) if path else "default"))
    if as_json:
        keys = ("path", "value", "origin") if origin else ("path", "value")
        print(json.dumps([{key: getattr(setting, key) for key in keys} for setting in found]))
        return 0
    section = ""
    for setting in found:
        table, _, key = setting.path.partition(".")
        if table != section:
            print(f"{'' if not section else chr(10)}[{table}]")
            section = table
        text = f"{key} = {json.dumps(setting.value)}" if setting.value is not None else f"# {key}"
        print(f"{text:<48} # {setting.origin}" if origin else text)
    return 0


@app.command
def token(
    account: str,
    *,
    ttl: Annotated[str, Parameter(help="How long it is good: 90s, 15m, 8h, 30d.")] = "8h",
    config: ConfigOption = None,
) -> int:
    """Print a token that opens the streams of ACCOUNT."""
    from pusher import auth

    seconds = _seconds(ttl)
    if seconds is None:
        print(f"--ttl: {ttl!r} is not a time such as 90s, 15m, 8h, 30d", file=sys.stderr)
        return EX_USAGE
    print(auth.mint(load(config).auth, account, seconds))
    return 0


@app.command
def tail(
    *,
    user: Annotated[str | None, Parameter(help="Only events of this account.")] = None,
    event_type: Annotated[
        str | None, Parameter(name="--type", help="Only events of this type, e.g. MessageNew.")
    ] = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> int:
    """Show live events and what became of them, until interrupted."""
    from pusher.tail import one_line

    path = load(config).tail_path
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        try:
            connection.connect(str(path))
        except OSError as error:
            print(f"no pusher listens at {path}: {error.strerror}", file=sys.stderr)
            return EX_UNAVAILABLE
        for raw in connection.makefile("rb"):
            line = json.loads(raw)
            if user is not None and line.get("account") != user:
                continue
            happened = line.get("event", {}).get("event_type") or line.get("class")
            if event_type is not None and happened != event_type:
                continue
            print(raw.decode().rstrip() if as_json else one_line(line), flush=True)
    return 0


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; the console script. Exit codes follow sysexits.h."""
    raise SystemExit(_guarded(lambda: app(arguments, result_action="return_value")))


def _guarded(run: Callable[[], object]) -> int:
    try:
        _check_names()
        result = run()
    except ConfigError as error:
        print("\n".join(error.problems), file=sys.stderr)
        return EX_CONFIG
    except QueueError as error:
        print(f"queue: {error}", file=sys.stderr)
        return EX_TEMPFAIL
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except SystemExit as exit_:
        # The command line library ends with 1 or 2 on a command line it cannot read.
        return EX_USAGE if exit_.code in (1, 2) else int(exit_.code or 0)
    return result if isinstance(result, int) else 0


def _check(config: Config) -> None:
    from pusher import auth

    if config.auth.public_key_file is not None or "key_file" in config.auth.model_fields_set:
        auth.load(config.auth)


def _check_names() -> None:
    """Refuse to run with another distribution's `shared`; PyPI has packages of our names."""
    ours = Path(__file__).resolve().parent.parent
    theirs = Path(shared.__file__ or "").resolve().parent.parent
    if ours != theirs:
        raise ConfigError([f"another package named 'shared' is installed at {theirs}"])


def _seconds(text: str) -> float | None:
    units = {"s": 1, "m": 60, "h": 3600, "d": 86400}
    number, unit = (text[:-1], text[-1]) if text[-1:] in units else (text, "s")
    return int(number) * units[unit] if number.isascii() and number.isdecimal() else None


def _version() -> str:
    from pusher.app import version

    return f"mailbox-pusher {version()}"


if __name__ == "__main__":
    main()
