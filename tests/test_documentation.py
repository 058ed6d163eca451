"""The pages: every link leads somewhere, every command in them is one, every page can be found."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer.main

from llmctl.cli import app
from llmctl.cli.tree import Node, Takes, tree_of

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    [
        *ROOT.glob("*.md"),
        *(ROOT / "docs").rglob("*.md"),
        ROOT / "examples" / "README.md",
        ROOT / "cancelable_core" / "README.md",
    ]
)
LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")
FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
NOT_MADE_HERE = ("http://", "https://", "mailto:")
named = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def prose(page: Path) -> str:
    """Return a page without its blocks of code."""
    return FENCE.sub("", page.read_text())


def anchors(page: Path) -> set[str]:
    """Return what a page's headings are called in links."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    plain = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings)
    return {heading.strip().replace(" ", "-") for heading in plain}


@named
def test_every_link_leads_somewhere(page: Path) -> None:
    for link in LINK.findall(prose(page)):
        if link.startswith(NOT_MADE_HERE):
            continue
        place, _, anchor = link.partition("#")
        target = (page.parent / place).resolve() if place else page
        assert target.exists(), link
        if anchor:
            assert anchor in anchors(target), link


def test_every_page_can_be_reached_from_the_readme() -> None:
    reached, waiting = set(), [ROOT / "README.md"]
    while waiting:
        page = waiting.pop()
        if page in reached:
            continue
        reached.add(page)
        links = (link.partition("#")[0] for link in LINK.findall(prose(page)))
        places = ((page.parent / link).resolve() for link in links if link.endswith(".md"))
        waiting += [place for place in places if place in PAGES]
    lost = {page for page in PAGES if page.is_relative_to(ROOT / "docs")} - reached
    assert lost == set()


def tree() -> Node:
    command = typer.main.get_command(app)
    return tree_of(command, command.context_class(command, **command.context_settings))


CALL = re.compile(r"(?:^|[|;&(]\s*|\$ )(llmctl(?: [^|;&#\n]*)?)", re.MULTILINE)
INLINE = re.compile(r"`(llmctl [a-z-][^`]*)`")


def commands(page: Path) -> Iterator[str]:
    """Yield each call of the program: in blocks for a shell, and in the text."""
    for kind, block in FENCE.findall(page.read_text()):
        if kind in ("sh", "bash", "console"):
            yield from CALL.findall(block.replace("\\\n", " "))
    for call in INLINE.findall(prose(page)):
        yield re.split(r" [A-Z…\[]|\|", " ".join(call.split()))[0]


COMMANDS = [
    pytest.param(line, id=f"{page.stem}: {line.strip()[:60]}")
    for page in PAGES
    for line in commands(page)
]


@pytest.mark.parametrize("line", COMMANDS)
def test_every_command_is_one(line: str) -> None:
    node, words = tree(), shlex.split(re.sub(r"[<>].*", "", line))[1:]
    waits = False
    for word in words:
        if waits:
            waits = False
        elif word.startswith("-") and word != "-":
            name, equals, _ = word.partition("=")
            options = {name: option for option in node.options for name in option.names}
            assert name in options or name == "--version", f"{name} of {' '.join(node.path)}"
            waits = not equals and options[name].takes is not Takes.NOTHING
        else:
            below = {child.path[-1]: child for child in node.children}
            if below and not node.arguments:
                assert word in below, f"'{word}' below '{' '.join(node.path)}'"
            node = below.get(word, node)


def test_there_are_commands_to_check() -> None:
    assert len(COMMANDS) > 20


@pytest.mark.parametrize("line", ["llmctl run --no-such", "llmctl keys forget", "llmctl nothing"])
def test_what_is_no_command_is_found(line: str) -> None:
    with pytest.raises(AssertionError):
        test_every_command_is_one(line)
