"""What is public is what ``__all__`` of the documented modules says, and it is documented."""

from __future__ import annotations

import doctest
import importlib
import inspect
import pkgutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import cancelable_core
import cancelable_core.monitoring
import cancelable_core.testing

PUBLIC: list[ModuleType] = [cancelable_core, cancelable_core.monitoring, cancelable_core.testing]
MODULES = sorted(
    module.name for module in pkgutil.walk_packages(cancelable_core.__path__, "cancelable_core.")
)
SOURCES = sorted(Path(cancelable_core.__path__[0]).rglob("*.py"))


@pytest.mark.parametrize("module", PUBLIC, ids=lambda module: module.__name__)
def test_all_is_sorted_complete_and_documented(module: ModuleType) -> None:
    assert isinstance(module.__all__, tuple)
    assert list(module.__all__) == sorted(module.__all__)
    assert set(module.__all__) <= set(dir(module))
    for name in module.__all__:
        thing = getattr(module, name)
        if inspect.isclass(thing) or inspect.isfunction(thing):
            assert inspect.getdoc(thing), f"{name} has no docstring"


def test_nothing_else_is_exported() -> None:
    code = "import cancelable_core as c; [getattr(c, n) for n in c.__all__]; print(*vars(c))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    names = {name for name in done.stdout.split() if not name.startswith("_")}
    modules = {
        "annotations",
        "import_module",
        "TYPE_CHECKING",
        "testing",
        "monitoring",
        "integrations",
    }
    assert names - modules == set(cancelable_core.__all__)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'nonsense'"):
        cancelable_core.nonsense  # noqa: B018


def test_public_members_are_documented_with_what_they_raise() -> None:
    missing = []
    for name in cancelable_core.__all__:
        thing = getattr(cancelable_core, name)
        if not inspect.isclass(thing):
            continue
        for member, value in vars(thing).items():
            function = (
                value.fget if isinstance(value, property) else getattr(value, "__func__", value)
            )
            if inspect.isfunction(function) and not member.startswith("_") and not function.__doc__:
                missing.append(f"{name}.{member}")
    assert missing == []


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings_run(name: str) -> None:
    if "fastapi" in name or "asgi" in name:
        pytest.importorskip("fastapi")
    module = importlib.import_module(name)
    assert doctest.testmod(module).failed == 0


def test_it_needs_nothing_but_anyio_and_the_standard_library() -> None:
    code = (
        "import sys, anyio; before = set(sys.modules); import cancelable_core as c;"
        "[getattr(c, n) for n in c.__all__];"
        "tops = {n.partition('.')[0] for n in set(sys.modules) - before};"
        "print(*(tops - set(sys.stdlib_module_names)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) <= {
        "cancelable_core",
        "anyio",
        "sniffio",
        "idna",
        "typing_extensions",
    }


def test_it_knows_nothing_of_what_it_is_used_for() -> None:
    words = ("llm", "prompt", "chat", "openai", "logging.getLogger")
    for path in SOURCES:
        if "integrations" not in path.parts:
            found = [word for word in words if word in path.read_text().lower()]
            assert not found, f"{path.name}: {found}"


def test_files_stay_readable_in_one_sitting() -> None:
    long = {path.name: len(path.read_text().splitlines()) for path in SOURCES}
    assert {name: lines for name, lines in long.items() if lines > 500} == {}
