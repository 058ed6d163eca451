"""Find the texts by which a model acts, in any chunking, outside code fences.

A marker (``!!PAUSE`` …) may arrive split over any number of chunks, may begin like
another marker, and may stand in a code fence, where it is only text. `MarkerScanner`
is an automaton over characters that never shows a marker nor delays more than it must:
it holds back only a tail that is still a proper prefix of some marker (the rule of
``find_partial_stop_string`` in llama.cpp), and at the same start the longest marker wins.

Code fences are read generously, a line by itself (`llmctl.fences.opening`): what may be taken
for code is none to act in. One ends with a line of at least as many of the same character and
nothing else, or with the reply; not with its list or quote, whose lines models often don't indent.

Pure: no I/O, no clock. Feeding any split of a text gives the same result once runs are
merged; `tests/llmctl/test_markers.py` proves that for every split.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from llmctl.errors import UsageError
from llmctl.events import Action
from llmctl.fences import CODE_INDENT, is_closing, opening

DEFAULT_MARKERS: Mapping[str, Action] = {
    "!!CANCEL": Action.PAUSE,
    "!!PAUSE": Action.PAUSE,
    "!!ASK": Action.ASK,
    "!!STOP": Action.STOP,
}


class Text(NamedTuple):
    """A run of ordinary text, and where it ends in the model's own text."""

    text: str
    end: int


class Marker(NamedTuple):
    """A marker that was found, and where it ends in the model's own text."""

    marker: str
    action: Action
    end: int


Item = Text | Marker


class _Fence:
    """Whether the model's text so far is inside a code fence."""

    __slots__ = ("_line", "_opened", "_room")

    def __init__(self) -> None:
        self._line: list[str] = []
        self._opened = ""
        self._room = 0  # columns that the closing fence may be indented by

    def feed(self, text: str) -> None:
        *lines, rest = text.split("\n")
        for line in lines:
            self._line.append(line)
            self._end_line("".join(self._line))
            self._line.clear()
        self._line.append(rest)

    def _end_line(self, line: str) -> None:
        if self._opened:
            if self._closes(line):
                self._opened = ""
        elif found := opening(line):
            self._opened, self._room = found[2], _columns(found[1]) + CODE_INDENT - 1

    def _closes(self, line: str) -> bool:
        bare = line.lstrip(" \t>")
        before = line[: len(line) - len(bare)]
        return is_closing(self._opened, bare) and _columns(before) <= self._room

    def holds(self) -> bool:
        """Say whether a marker that begins here would stand in code."""
        return bool(self._opened) or opening("".join(self._line)) is not None


def _columns(text: str) -> int:
    return len(text.expandtabs(CODE_INDENT))


class MarkerScanner:
    """Split a growing text into ordinary runs and markers.

    Args:
        markers: what to look for, each with its action; empty markers are a ValueError.
    """

    def __init__(self, markers: Mapping[str, Action]) -> None:
        if "" in markers:
            message = "a marker can't be empty"
            raise ValueError(message)
        self._markers = dict(markers)
        by_length = sorted(markers, key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, by_length)))
        self._first = re.compile("|".join({re.escape(marker[0]) for marker in markers}))
        self._longest = max(map(len, markers), default=0)
        self._held = ""
        self._start = 0
        self._fence = _Fence()

    @property
    def held(self) -> int:
        """How many characters are held back, waiting for what follows."""
        return len(self._held)

    def skip(self, text: str) -> None:
        """Take text that was delivered earlier: nothing in it acts again."""
        self._fence.feed(text)
        self._start += len(text)

    def feed(self, text: str) -> list[Item]:
        """Take more text; return what is decided now."""
        if not self._markers:
            self._start += len(text)
            return [Text(text, self._start)] if text else []
        self._held += text
        return self._scan(final=False)

    def finish(self) -> list[Item]:
        """The text is over: return what was held back."""
        return self._scan(final=True)

    def _scan(self, *, final: bool) -> list[Item]:
        items: list[Item] = []
        while self._held:
            at = self._next_candidate(final=final)
            if at > 0:
                self._release(at, items)
                continue
            marker = self._marker_here(final=final)
            if marker is None:
                break
            if marker and not self._fence.holds():
                self._take(marker, items)
            else:
                self._release(1, items)
        return items

    def _next_candidate(self, *, final: bool) -> int:
        """Return how many characters can be released before the next possible marker."""
        for found in self._first.finditer(self._held):
            start = found.start()
            left = len(self._held) - start
            if self._pattern.match(self._held, start):
                return start
            if not final and left < self._longest and self._may_grow(self._held[start:]):
                return start
        return len(self._held)

    def _marker_here(self, *, final: bool) -> str | None:
        """Return the marker at the start, ``""`` if there is none, None to wait."""
        if not final and self._may_grow(self._held):
            return None
        found = self._pattern.match(self._held)
        return found[0] if found else ""

    def _may_grow(self, tail: str) -> bool:
        return any(len(m) > len(tail) and m.startswith(tail) for m in self._markers)

    def _release(self, count: int, items: list[Item]) -> None:
        text, self._held = self._held[:count], self._held[count:]
        self._start += count
        self._fence.feed(text)
        if items and isinstance(items[-1], Text):
            text = items.pop().text + text  # type: ignore[union-attr]  # just seen to be a Text
        items.append(Text(text, self._start))

    def _take(self, marker: str, items: list[Item]) -> None:
        self._held = self._held[len(marker) :]
        self._start += len(marker)
        self._fence.feed(marker)  # a line is the model's, as `skip` will see it again
        items.append(Marker(marker, self._markers[marker], self._start))


def parse_markers(specs: Iterable[str]) -> dict[str, Action]:
    """Read ``TEXT[=pause|stop|ask]`` as the command line has it; no action means pause.

    Raises:
        UsageError: a marker is empty, or its action is none.
    """
    markers = {}
    for spec in specs:
        text, equals, action = spec.rpartition("=")
        if not equals:
            text, action = spec, Action.PAUSE
        elif action not in set(Action):
            hint = f"If the = belongs to the marker, add an action: '{spec}=pause'."
            raise UsageError(f"'{action}' is no action of a marker: pause, stop or ask.", hint)
        markers[text] = Action(action)
    if "" in markers:
        raise UsageError("A marker can't be empty.", "Write TEXT, or TEXT=pause, stop or ask.")
    return markers
