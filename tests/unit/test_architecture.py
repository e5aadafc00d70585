"""Who may import whom, and what may stand only in one place; the tree shows it, this keeps it."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROGRAMS = ("pusher", "notifyd", "shared")
SOURCES = sorted(path for name in PROGRAMS for path in (ROOT / name).rglob("*.py"))
RUNTIMES = {"trio", "asyncio", "anyio"}
WORLD = RUNTIMES | {"socket", "select", "ssl", "os", "time", "random", "secrets", "threading"}
THEIRS = set(sys.stdlib_module_names)

#: Folder: what its files must not import. The longest folder that fits a file counts as well.
FORBIDDEN = {
    "shared": {"pusher", "notifyd", *RUNTIMES},
    "pusher": {"notifyd", "asyncio"},
    "notifyd": {"pusher", "trio", "anyio"},
    "pusher/protocol": WORLD,
    "pusher/state": WORLD,
    "notifyd/compose": WORLD,
}
#: Folder: all that its files may import beside the standard library.
ALLOWED = {
    "pusher/protocol": {"pusher.protocol", "shared", "msgspec", "httptools", "hpack"},
    "pusher/state": {"pusher.protocol", "pusher.state", "shared"},
    "notifyd/compose": {"notifyd.compose", "shared", "babel", "jinja2"},
}
#: Module: who may import it.
ONLY_FOR = {
    "pusher.app": {"pusher/__main__.py"},
    "notifyd.app": {"notifyd/__main__.py"},
    "pusher.__main__": set[str](),
    "notifyd.__main__": set[str](),
}
#: Text: the only file whose code may contain it.
ONLY_IN = {
    "vnd.cmu.": "pusher/protocol/mboxevent.py",
    "vnd.fastmail.": "pusher/protocol/mboxevent.py",
}
OTHERS = (
    *("bench", "bin", "demo", "docs", "systemd", "templates", "tests"),
    *("pyproject.toml", "README.md"),
)
BINARY = {".pyc", ".png", ".woff2"}


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def is_within(module: str, names: set[str]) -> bool:
    return any(module == name or module.startswith(f"{name}.") for name in names)


def strings(path: Path) -> Iterator[str]:
    """The texts in a file's code, without docstrings."""
    tree = ast.parse(path.read_text("utf-8"))
    documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, documented) and node.body and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and id(node) not in docstrings:
            value = node.value.decode("latin-1") if isinstance(node.value, bytes) else node.value
            if isinstance(value, str):
                yield value


sources = pytest.mark.parametrize("path", SOURCES, ids=name_of)


@sources
def test_imports_go_one_way(path: Path) -> None:
    name, imported = name_of(path), list(imports(path))
    for folder, forbidden in FORBIDDEN.items():
        if name.startswith(f"{folder}/"):
            assert [module for module in imported if is_within(module, forbidden)] == []
    for folder, allowed in ALLOWED.items():
        if name.startswith(f"{folder}/"):
            others = [each for each in imported if each.partition(".")[0] not in THEIRS]
            assert [module for module in others if not is_within(module, allowed)] == []
    for module, users in ONLY_FOR.items():
        assert name in users or not any(is_within(each, {module}) for each in imported)


@sources
def test_each_vendors_words_stand_in_one_file(path: Path) -> None:
    for text, only in ONLY_IN.items():
        if name_of(path) != only:
            assert [each for each in strings(path) if text in each] == []


@pytest.mark.parametrize("name", [*PROGRAMS, *OTHERS])
def test_no_file_knows_the_machine_it_was_written_on(name: str) -> None:
    for path in [ROOT / name, *(ROOT / name).rglob("*")]:
        if path.is_file() and path.suffix not in BINARY:
            text = path.read_text("utf-8", "replace")
            assert [home for home in (f"{ROOT}/", "/" + "work/") if home in text] == [], path
