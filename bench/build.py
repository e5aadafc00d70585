"""Compiles the C programs of the benchmarks when they are older than their sources."""

import subprocess
from pathlib import Path

_SOURCES = Path(__file__).parent / "src"
_BUILD = Path(__file__).parent / "build"
_FLAGS = ("-O2", "-Wall", "-Wextra", "-Werror")


def program(name: str) -> Path:
    """Return the path of the compiled bench/src/NAME.c."""
    source = _SOURCES / f"{name}.c"
    binary = _BUILD / name
    newest = max(path.stat().st_mtime for path in (source, _SOURCES / "common.h"))
    if not binary.exists() or binary.stat().st_mtime < newest:
        _BUILD.mkdir(exist_ok=True)
        subprocess.run(["gcc", *_FLAGS, "-o", str(binary), str(source)], check=True)
    return binary
