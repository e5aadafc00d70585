"""What the values in the tables of the configuration file may be, and how a table is checked.

Knows paths, addresses, sizes and origins; not which table has which.
"""

from __future__ import annotations

import ipaddress
import os
import re
from pathlib import Path
from typing import Annotated, NamedTuple

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    ValidationInfo,
)
from pydantic.config import JsonDict


class Address(NamedTuple):
    """Where a TCP listener binds."""

    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


def _address(value: object) -> object:
    if not isinstance(value, str):
        return value
    host, colon, port = value.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not colon or not host or not re.fullmatch(r"\d{1,5}", port) or int(port) > 65535:
        raise ValueError('expected "HOST:PORT", such as "127.0.0.1:8400" or "[::1]:8400"')
    try:
        ipaddress.ip_address(host)
    except ValueError:
        raise ValueError("expected an IP address, not a name, before the port") from None
    return Address(host, int(port))


def _mode(value: object) -> object:
    if isinstance(value, str):
        if not re.fullmatch(r"0?[0-7]{3}", value):
            raise ValueError('expected an octal mode as text, such as "0660"')
        return int(value, 8)
    raise ValueError('expected an octal mode as text, such as "0660"')


def _byte_count(value: object) -> object:
    if isinstance(value, str):
        match = re.fullmatch(r"(\d+)\s*([kKMG]?)i?B?", value)
        if not match:
            raise ValueError('expected a number of bytes, such as 1048576 or "64 MiB"')
        return int(match[1]) << {"": 0, "k": 10, "K": 10, "M": 20, "G": 30}[match[2]]
    return value


def _origin(value: object) -> object:
    if isinstance(value, str) and value != "*" and not re.fullmatch(r"https?://[^/\s]+", value):
        raise ValueError('expected an origin such as "https://mail.example.org", without a path')
    return value


def _anchored(value: Path, info: ValidationInfo) -> Path:
    """Make a path of the file absolute, starting at the file's folder."""
    return (info.context or Path()).absolute() / value


def _readable(value: Path) -> Path:
    if not os.access(value, os.R_OK):
        raise ValueError("no permission to read it" if value.exists() else "no such file")
    return value


def anchored_url(value: str, info: ValidationInfo) -> str:
    """Do the same for the path in an SQLite URL."""
    scheme, slashes, path = value.partition(":///")
    if scheme != "sqlite" or not path or Path(path).is_absolute():
        return value
    return f"{scheme}{slashes}{_anchored(Path(path), info)}"


FilePath = Annotated[Path, AfterValidator(_anchored)]
SecretFile = Annotated[FilePath, AfterValidator(_readable)]
ListenAddress = Annotated[Address, BeforeValidator(_address), PlainSerializer(str, return_type=str)]
FileMode = Annotated[
    int, BeforeValidator(_mode), PlainSerializer(lambda mode: f"{mode:04o}", return_type=str)
]
ByteCount = Annotated[int, BeforeValidator(_byte_count), Field(ge=0)]
Origin = Annotated[str, BeforeValidator(_origin)]

#: Marks a field that a running pusher takes over on SIGHUP.
LIVE: JsonDict = {"reload": True}


class Section(BaseModel):
    """One table of the file: unknown keys are errors, values are fixed once read."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=False)
