"""Where templates and catalogues lie: inside the installed package, or beside it in the tree."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

_PACKAGE = Path(__file__).parent


def folder(name: Literal["templates", "locale"]) -> Path:
    """Return the folder `name` of this installation."""
    installed = _PACKAGE / name
    return installed if installed.is_dir() else _PACKAGE.parent / name
