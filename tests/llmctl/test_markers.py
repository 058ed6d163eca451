"""The marker scanner against a simple reading of the whole text, for every split of it."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmctl.errors import UsageError
from llmctl.events import Action
from llmctl.markers import DEFAULT_MARKERS, Marker, MarkerScanner, Text, parse_markers

Found = tuple[str, int]  # text or marker, and where it ends
OVERLAPPING = {"!!A": Action.PAUSE, "!!AB": Action.ASK, "AB!": Action.STOP, "!!ABBA": Action.PAUSE}
FENCE = re.compile(r"(?:[ \t>]|[-*+](?=[ \t])|\d{1,9}[.)](?=[ \t]))*(`{3,}[^`]*|~{3,}.*)$")


def scan(pieces: Sequence[str], markers: Mapping[str, Action]) -> list[Found]:
    """Feed the pieces; return runs (merged) and markers, each with its end."""
    scanner = MarkerScanner(markers)
    items = [item for piece in pieces for item in scanner.feed(piece)]
    found: list[Found] = []
    for item in [*items, *scanner.finish()]:
        if isinstance(item, Marker):
            assert item.action is markers[item.marker]
            found.append((f"<{item.marker}>", item.end))
        elif found and not found[-1][0].startswith("<"):
            found[-1] = (found[-1][0] + item.text, item.end)
        else:
            found.append((item.text, item.end))
    return found


def reference(text: str, markers: Mapping[str, Action]) -> list[Found]:
    """Read the whole text once, from left to right, the longest marker first."""
    found: list[Found] = []
    run, at = "", 0
    while at < len(text):
        here = max((m for m in markers if text.startswith(m, at)), key=len, default="")
        if here and not in_code(text[:at]):
            if run:
                found.append((run, at))
            run, at = "", at + len(here)
            found.append((f"<{here}>", at))
        else:
            run, at = run + text[at], at + 1
    return [*found, (run, at)] if run else found


def in_code(before: str) -> bool:
    """Tell whether what follows this text stands in a code fence."""
    *lines, last = before.split("\n")
    opened, indent = "", 0
    for line in lines:
        bare = line.lstrip(" \t>")
        if not opened:
            match = FENCE.match(line)
            opened = re.match(r"`+|~+", match[1])[0] if match else ""  # type: ignore[index]
            indent = len(line[: match.start(1)].expandtabs(4)) if match else 0
        elif len(line.removesuffix(bare).expandtabs(4)) < indent + 4:
            run = bare.rstrip()
            if len(run) >= len(opened) and set(run) == {opened[0]}:
                opened = ""
    return bool(opened) or FENCE.match(last) is not None


def splits(text: str) -> Iterator[list[str]]:
    """Yield every way to cut a text into pieces."""
    for cuts in itertools.product((False, True), repeat=max(0, len(text) - 1)):
        ends = [n + 1 for n, cut in enumerate(cuts) if cut]
        yield [text[a:b] for a, b in itertools.pairwise([0, *ends, len(text)])]


@pytest.mark.parametrize("marker", DEFAULT_MARKERS)
@pytest.mark.parametrize("around", [("", ""), ("a", "b"), ("!", "!")])
def test_every_split_of_every_marker(marker: str, around: tuple[str, str]) -> None:
    text = marker.join(around)
    expected = reference(text, DEFAULT_MARKERS)
    assert (f"<{marker}>", len(around[0]) + len(marker)) in expected
    assert all(scan(pieces, DEFAULT_MARKERS) == expected for pieces in splits(text))


@pytest.mark.parametrize(
    "text",
    ["!!ABC", "!!ABBAB!", "!!!A", "x!!AB!", "!!ABB!!A", "AB!AB!", "!!", "a!", "!!AB", "!!ABBA"],
)
def test_overlapping_prefixes_in_every_split(text: str) -> None:
    expected = reference(text, OVERLAPPING)
    assert all(scan(pieces, OVERLAPPING) == expected for pieces in splits(text))


@pytest.mark.parametrize(
    ("text", "acts"),
    [
        ("```\n!!STOP\n```", False),
        ("```\n!!STOP", False),
        ("~~~ text\n!!STOP\n~~~", False),
        ("- ```\n  !!STOP\n  ```", False),
        ("- 2) ```\n!!STOP", False),
        ("1. > ```py\n!!STOP\n```", False),
        ("> ```\n> !!STOP\n> ```", False),
        ("``` !!STOP", False),
        ("````\n```\n!!STOP", False),
        ("```\ncode\n```\n!!STOP", True),
        ("``\n!!STOP", True),
        ("a ```\n!!STOP", True),
        ("```a`b\n!!STOP", True),
        ("```\n~~~\n!!STOP", False),
        ("```\r\n!!STOP\r\n```\r\n", False),
        ("~~~ a`b\n!!STOP", False),
        ("```\ncode\n   ```\n!!STOP", True),
        ("```\ncode\n    ```\n!!STOP", False),
        ("```\ncode\n\t```\n!!STOP", False),
        ("- a\n  - ```\n    code\n    ```\n!!STOP", True),
        ("- a\n  - ```\n    code\n       ```\n!!STOP", True),
        ("- a\n  - ```\n    code\n        ```\n!!STOP", False),
    ],
)
def test_markers_in_code_are_text(text: str, acts: bool) -> None:
    expected = reference(text, DEFAULT_MARKERS)
    assert any(piece == "<!!STOP>" for piece, _ in expected) is acts
    assert scan([text], DEFAULT_MARKERS) == expected
    assert scan(list(text), DEFAULT_MARKERS) == expected


def test_a_line_is_the_models_own() -> None:
    # A reply that is read again from the journal shows the marker where it stood.
    text = "!!PAUSE```\n!!STOP"
    again = MarkerScanner(DEFAULT_MARKERS)
    again.skip("!!PAUSE")
    assert scan([text], DEFAULT_MARKERS)[-1][0] == "<!!STOP>"
    assert again.feed(text.removeprefix("!!PAUSE"))[-1] == Marker("!!STOP", Action.STOP, 17)


PIECES = st.sampled_from(
    (
        "!",
        "!!",
        "A",
        "B",
        "AB",
        "!!A",
        "!!AB",
        "!!ABBA",
        "x",
        " ",
        "\n",
        "```",
        "~~~",
        "- ",
        "`",
        "\n    ",
    )
)


@given(st.lists(PIECES, max_size=12), st.randoms(use_true_random=False))
def test_any_split_reads_as_the_whole(pieces: list[str], random: object) -> None:
    text = "".join(pieces)
    ends = sorted(random.sample(range(len(text) + 1), k=min(4, len(text))))  # type: ignore[attr-defined]
    cut = [text[a:b] for a, b in itertools.pairwise([0, *ends, len(text)])]
    expected = reference(text, OVERLAPPING)
    assert scan(cut, OVERLAPPING) == expected
    assert scan(pieces, OVERLAPPING) == expected
    assert scan(list(text), OVERLAPPING) == expected


@given(st.lists(PIECES, max_size=10), st.integers(0, 40))
def test_a_resumed_scan_goes_on_as_the_first(pieces: list[str], place: int) -> None:
    """Skip to any place where delivery can stand: between two items."""
    text = "".join(pieces)
    ends = [0, *(end for _, end in reference(text, OVERLAPPING))]
    start = ends[place % len(ends)]
    again = MarkerScanner(OVERLAPPING)
    again.skip(text[:start])
    items = [*again.feed(text[start:]), *again.finish()]
    markers = [(item.marker, item.end) for item in items if isinstance(item, Marker)]
    whole = reference(text, OVERLAPPING)
    assert markers == [(m[1:-1], end) for m, end in whole if m.startswith("<") and end > start]


def test_holds_back_no_more_than_a_possible_beginning() -> None:
    scanner = MarkerScanner(DEFAULT_MARKERS)
    assert scanner.feed("Hello! ") == [Text("Hello! ", 7)]
    assert scanner.feed("wait!!") == [Text("wait", 11)]
    assert scanner.held == 2
    assert scanner.feed("!") == [Text("!", 12)]
    assert scanner.finish() == [Text("!!", 14)]


def test_without_markers_all_is_text() -> None:
    scanner = MarkerScanner({})
    assert scanner.feed("a!!STOP") == [Text("a!!STOP", 7)]
    assert scanner.feed("") == scanner.finish() == []


def test_markers_on_the_command_line() -> None:
    assert parse_markers(["A", "B=stop", "D=ask", "E=F=pause"]) == {
        "A": Action.PAUSE,
        "B": Action.STOP,
        "D": Action.ASK,
        "E=F": Action.PAUSE,
    }
    for misspelt in ("C=x", "C=", "C=Stop", "<a=1>"):
        with pytest.raises(UsageError, match="is no action"):
            parse_markers([misspelt])
    for empty in ("", "=stop"):
        with pytest.raises(UsageError, match="empty"):
            parse_markers([empty])
    with pytest.raises(ValueError, match="empty"):
        MarkerScanner({"": Action.STOP})
