"""Every snippet of docs/cancelable and of the examples' README does what it says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Literal

import pytest

import cancelable_core
from cancelable_core.testing import run_virtual

ROOT = Path(__file__).parents[2]
PAGES = sorted((ROOT / "docs" / "cancelable").glob("*.md"))
BLOCK = re.compile(r"^```python( no-run)?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SNIPPETS = [
    pytest.param(code, marked != "", id=f"{page.stem}-{number}")
    for page in PAGES
    for number, (marked, code) in enumerate(BLOCK.findall(page.read_text()), 1)
]


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize(("code", "only_compiled"), SNIPPETS)
def test_a_snippet(code: str, only_compiled: bool, backend: Literal["asyncio", "trio"]) -> None:
    program = compile(code, "<snippet>", "exec")
    if only_compiled:
        return
    names: dict[str, Any] = {"__name__": "snippet"}
    exec(program, names)  # noqa: S102  (our own pages)
    if "main" in names:
        run_virtual(names["main"], backend=backend)
    else:
        assert "assert " in code


def test_the_pages_are_all_linked_and_every_link_leads_somewhere() -> None:
    index = (ROOT / "docs" / "cancelable" / "index.md").read_text()
    linked = set(re.findall(r"\]\((\w+\.md)\)", index))
    assert linked == {page.name for page in PAGES} - {"index.md"}


def test_names_on_the_pages_exist() -> None:
    for page in PAGES:
        for block in BLOCK.findall(page.read_text()):
            for names in re.findall(
                r"from cancelable_core import ([\w, ]+)$", block[1], re.MULTILINE
            ):
                for name in names.split(","):
                    assert name.strip() in cancelable_core.__all__, page.name
