"""The code is as docs/architecture.md draws it: this test reads the picture and the imports."""

from __future__ import annotations

import ast
import graphlib
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PICTURE = ROOT / "docs" / "architecture.md"
PACKAGES = ("llmctl", "cancelable_core")


@dataclass(frozen=True, slots=True)
class Import:
    """One module's wish for another.

    Attributes:
        by: who imports.
        name: what.
        late: it stands inside a function.
        typing: it stands under ``if TYPE_CHECKING``, so it does not happen.
    """

    by: str
    name: str
    late: bool
    typing: bool


def block(kind: str) -> list[str]:
    """Return the lines of the picture's block of that kind."""
    found = re.search(rf"^```{kind}\n(.*?)^```$", PICTURE.read_text(), re.DOTALL | re.MULTILINE)
    assert found is not None, f"docs/architecture.md has no block '{kind}'"
    return found[1].splitlines()


def short(module: str) -> str:
    """Return a module's name as the picture has it, without the application's own name."""
    return module.removeprefix("llmctl.")


@cache
def modules() -> dict[str, Path]:
    """Return every module of ours by its name."""
    found = {}
    for path in (path for package in PACKAGES for path in (ROOT / package).rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    del found["llmctl"]  # the package itself holds nothing
    return found


@cache
def imports() -> tuple[Import, ...]:
    """Return every import of every module."""
    return tuple(found for name, path in modules().items() for found in _imports_of(name, path))


def _imports_of(by: str, path: Path) -> Iterator[Import]:
    tree = ast.parse(path.read_text())
    functions = [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]
    late = {id(node) for function in functions for node in ast.walk(function)}
    guards = [n for n in ast.walk(tree) if isinstance(n, ast.If) and _is_typing(n.test)]
    typing = {id(node) for guard in guards for node in ast.walk(guard)}
    for node in ast.walk(tree):
        for name in _names(node, path):
            yield Import(by, name, id(node) in late, id(node) in typing)


def _is_typing(test: ast.expr) -> bool:
    return isinstance(test, ast.Name) and test.id == "TYPE_CHECKING"


def _names(node: ast.AST, path: Path) -> list[str]:
    match node:
        case ast.Import():
            return [alias.name for alias in node.names]
        case ast.ImportFrom():
            base = _absolute(node, path)
            inner = [f"{base}.{alias.name}" for alias in node.names]
            return [name if name in modules() else base for name in inner]
    return []


def _absolute(node: ast.ImportFrom, path: Path) -> str:
    if node.level == 0:
        return node.module or ""
    parts = path.relative_to(ROOT).parts[: -node.level]
    return ".".join([*parts, *([node.module] if node.module else [])])


def covers(prefix: str, module: str) -> bool:
    """Say whether a name of the picture stands for a module: itself or its package."""
    return short(module) == prefix or short(module).startswith(f"{prefix}.")


@cache
def places() -> dict[str, tuple[int, int]]:
    """Return where the picture has each name: its layer from the bottom, and its group."""
    found = {}
    for height, line in enumerate(reversed(block("layers"))):
        for group, names in enumerate(line.split("|")[1:]):
            found.update(dict.fromkeys(names.split(), (height, group)))
    return found


def place(module: str) -> tuple[int, int] | None:
    """Return where a module stands, None if the picture does not have it."""
    return next((at for name, at in places().items() if covers(name, module)), None)


def top(name: str) -> str:
    """Return the package that a name is in."""
    return name.partition(".")[0]


@pytest.mark.parametrize("module", sorted(modules()))
def test_every_module_stands_in_the_picture(module: str) -> None:
    assert place(module) is not None, f"put {module} into docs/architecture.md"


def test_the_picture_has_nothing_that_is_gone() -> None:
    gone = {name for name in places() if not any(covers(name, module) for module in modules())}
    assert gone == set()


def test_imports_point_down_or_stay_in_their_group() -> None:
    crossings = [
        f"{found.by} -> {found.name}"
        for found in imports()
        if top(found.name) in PACKAGES and not _is_allowed(found)
    ]
    assert crossings == []


def _is_allowed(found: Import) -> bool:
    by, on = place(found.by), place(found.name)
    return by is not None and on is not None and (on[0] < by[0] or on == by)


def test_there_are_no_import_cycles() -> None:
    graph: dict[str, set[str]] = {module: set() for module in modules()}
    for found in imports():
        if found.name in graph and found.name != found.by and not found.typing:
            graph[found.by].add(found.name)
    assert tuple(graphlib.TopologicalSorter(graph).static_order())  # raises CycleError


def test_foreign_packages_have_owners() -> None:
    owners = {words[0]: words[1:] for words in map(str.split, block("owners"))}
    strays = {
        f"{found.by} -> {found.name}"
        for found in imports()
        if _is_foreign(found.name)
        and not any(covers(o, found.by) for o in owners.get(top(found.name), []))
    }
    assert strays == set()


def _is_foreign(name: str) -> bool:
    return top(name) not in {*sys.stdlib_module_names, *PACKAGES}


def test_late_imports_of_ours_are_only_where_a_start_would_pay() -> None:
    allowed = " ".join(block("late")).split()
    late = {
        f"{found.by} -> {found.name}"
        for found in imports()
        if found.late
        and top(found.name) in PACKAGES
        and not any(covers(a, found.by) for a in allowed)
    }
    assert late == set()


def test_the_nouns_are_leaves() -> None:
    wanted = {
        found.name
        for found in imports()
        if found.by == "llmctl.events" and top(found.name) in PACKAGES
    }
    assert wanted == set()
