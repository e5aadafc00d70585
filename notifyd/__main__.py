"""The command `notifyd`: arguments in, exit code (sysexits.h) out."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

from cyclopts import App, CycloptsError, Parameter

from notifyd.queue_cli import EXIT_CODES, queue_app
from notifyd.queue_tables import escaped
from shared.errors import ConfigError, QueueError

DISTRIBUTION = "mailbox-pusher"

ConfigOption = Annotated[Path | None, Parameter(help="Configuration file.")]


def _app() -> App:
    app = App(
        name="notifyd",
        help="Turns slow jobs from the local queue into mail and SMS.",
        version=f"notifyd ({DISTRIBUTION}) {version(DISTRIBUTION)}",
        help_format="plaintext",
        exit_on_error=False,
        result_action="return_value",
    )
    app.command(queue_app)
    # By name: the database's library takes longer to load than the other verbs to run.
    store, mail = "notifyd.store_cli", "notifyd.trial_cli"
    app.command(serve)
    app.command(f"{store}:migrate", name="migrate", help="Make or update the database's tables.")
    app.command(f"{store}:users_app", name="users", help="Look at accounts and change them.")
    app.command(f"{mail}:test_app", name="test", help="Send one mail or SMS to see that it works.")
    return app


def serve(*, config: ConfigOption = None) -> int:
    """Work on the queue until SIGTERM. SIGHUP reloads, SIGUSR1 dumps state to the log."""
    import asyncio

    from notifyd.app import serve as work
    from shared.config import load

    asyncio.run(work(load(config), config))
    return os.EX_OK


def run(arguments: Sequence[str]) -> int:
    """Do what `arguments` say and return the exit code: 0, or one of sysexits.h."""
    try:
        result = _app()(list(arguments))
        sys.stdout.flush()
    except CycloptsError:
        return os.EX_USAGE  # cyclopts has said why on stderr
    except ConfigError as error:
        problems = [escaped(problem) for problem in error.problems]
        print("notifyd: the configuration is wrong:", *problems, sep="\n  ", file=sys.stderr)
        return os.EX_CONFIG
    except QueueError as error:
        print(f"notifyd: queue: {escaped(str(error))}", file=sys.stderr)
        return EXIT_CODES.get(error.reason, os.EX_TEMPFAIL)
    except BrokenPipeError:
        # `notifyd queue list | head`: nobody reads any more, also not what is still buffered.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return os.EX_OK
    return result if isinstance(result, int) else os.EX_OK


def main() -> None:
    """Console entry point."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a terminal that is not UTF-8
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
