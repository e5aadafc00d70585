"""Finding, reading and checking the configuration file of both programs.

`load()` gives a frozen `Config`; what is wrong comes back all at once as `ConfigError`, each item
with its path, the value and a hint. Nothing that the file names is opened here.
"""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError

from shared.errors import ConfigError
from shared.section_types import Section
from shared.sections import Config

ENVIRONMENT_VARIABLE = "MAILBOX_PUSHER_CONFIG"
SYSTEM_PATH = Path("/etc/mailbox-pusher/config.toml")

__all__ = ["Config", "Setting", "find", "load", "needs_restart", "parse", "settings"]


class Setting(NamedTuple):
    """One effective key, for `config show` and the reference page."""

    path: str
    value: object
    origin: str
    live: bool
    description: str


def find(path: Path | None) -> Path | None:
    """Return the file to read: the argument, the environment's, the system's, or none at all."""
    if path is not None:
        return path
    if named := os.environ.get(ENVIRONMENT_VARIABLE):
        return Path(named)
    return SYSTEM_PATH if SYSTEM_PATH.exists() else None


def load(path: Path | None = None) -> Config:
    """Return the checked configuration of the file found for `path`, or the embedded defaults.

    Relative paths in the file are relative to its folder; those of the defaults to the working
    directory. Raises ConfigError with every problem at once.
    """
    found = find(path)
    if found is None:
        return Config()
    return parse(_read(found), found.parent.absolute())


def parse(text: str, folder: Path) -> Config:
    """Return the configuration written in `text`, whose relative paths start at `folder`."""
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError([f"not TOML: {error}"]) from error
    try:
        return Config.model_validate(raw, context=folder)
    except ValidationError as error:
        raise ConfigError([_problem(dict(item)) for item in error.errors()]) from error


def settings(config: Config, origin: str = "file") -> Iterator[Setting]:
    """Yield every effective key in the order of the model; `origin` names the file read."""
    for name in Config.model_fields:
        section: Section = getattr(config, name)
        values = section.model_dump(mode="json")
        for key, info in type(section).model_fields.items():
            extra = info.json_schema_extra
            yield Setting(
                path=f"{name}.{key}",
                value=values[key],
                origin=origin if key in section.model_fields_set else "default",
                live=isinstance(extra, dict) and bool(extra.get("reload")),
                description=info.description or "",
            )


def needs_restart(old: Config, new: Config) -> list[str]:
    """Return the paths of changed keys that a running pusher cannot take over."""
    before = {setting.path: setting.value for setting in settings(old)}
    return [
        setting.path
        for setting in settings(new)
        if not setting.live and before[setting.path] != setting.value
    ]


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError([f"{path}: cannot be read: {error}"]) from error


def _problem(item: dict[str, Any]) -> str:
    location = tuple(str(part) for part in item["loc"])
    path = ".".join(location) or "file"
    if item["type"] == "extra_forbidden":
        return f"{path}: unknown key{_did_you_mean(location)}"
    message = str(item["msg"]).removeprefix("Value error, ")
    value = item.get("input")
    shown = "" if isinstance(value, dict | Section) else f" (got {value!r})"
    return f"{path}: {message[:1].lower()}{message[1:]}{shown}"


def _did_you_mean(location: tuple[str, ...]) -> str:
    known = _known_keys(location[:-1])
    close = difflib.get_close_matches(location[-1], known, n=1, cutoff=0.6)
    if close:
        return f"; did you mean {close[0]!r}?"
    return f"; known here: {', '.join(sorted(known))}" if known else ""


def _known_keys(location: tuple[str, ...]) -> list[str]:
    if not location:
        return list(Config.model_fields)
    field = Config.model_fields.get(location[0])
    annotation = field.annotation if field else None
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return list(annotation.model_fields)
    return []
