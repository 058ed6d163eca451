"""Scripts for the back end that plays them. Pure, apart from reading the file.

A script is plain text (its words, with the blanks before them, are its tokens) or JSON::

    {"chunks": ["Some words, ", {"text": "one token", "tokens": 1, "delay_s": 0.5},
                {"text": "let me think", "channel": "reasoning"}],
     "delay_s": 0.02,                 before every chunk, in seconds; default 0
     "finish_reason": "stop",
     "supports": ["held", "replay", "prefix"],       besides these: cursor
     "faults": [{"kind": "disconnect", "after": 3}]}

``text`` may stand in place of ``chunks``: one chunk a word. ``tokens`` of a chunk is
their number, or null for "not told"; left out, every word is one. A fault is one of
`FaultKind`; it strikes after so many chunks (``after``) of the first so many requests
(``times``, default 1) for a fresh reply, and never when a reply is gone on with.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import accumulate
from pathlib import Path
from typing import Any

from llmctl.backends.surrogates import well_formed
from llmctl.errors import UsageError, reason
from llmctl.events import Channel, Chunk, Guarantee, Strategy

_WORD = re.compile(r"\s*\S+|\s+\Z")
_EARNS = {
    Strategy.HELD: Guarantee.EXACT,
    Strategy.CURSOR: Guarantee.EXACT,
    Strategy.REPLAY: Guarantee.EXACT,
    Strategy.PREFIX: Guarantee.TEXT,
}
_DEFAULT = (Strategy.HELD, Strategy.REPLAY, Strategy.PREFIX)
_FIELDS = {"chunks", "text", "delay_s", "finish_reason", "supports", "faults"}


class FaultKind(StrEnum):
    """What can go wrong with a scripted reply."""

    DISCONNECT = "disconnect"
    STALL = "stall"
    REFUSE = "refuse"
    UNREACHABLE = "unreachable"
    OVERLOADED = "overloaded"


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that goes wrong.

    Attributes:
        kind: what.
        after: chunks that come before it; only for disconnect and stall.
        times: how many fresh requests it strikes.
        retry_after_s: what an overloaded back end asks to wait, in seconds.
    """

    kind: FaultKind
    after: int = 0
    times: int = 1
    retry_after_s: float | None = None


@dataclass(frozen=True, slots=True)
class Step:
    """One chunk and the seconds before it; None means the script's own delay."""

    chunk: Chunk
    delay_s: float | None = None


@dataclass(frozen=True, slots=True)
class Script:
    """A reply written beforehand.

    Attributes:
        name: what it is called.
        steps: its chunks.
        delay_s: before every chunk, in seconds.
        finish_reason: the word for its end.
        supports: the strategies it plays along with, and what each earns.
        faults: what goes wrong.
    """

    name: str
    steps: tuple[Step, ...]
    delay_s: float = 0.0
    finish_reason: str = "stop"
    supports: Mapping[Strategy, Guarantee] = field(default_factory=lambda: _earned(_DEFAULT))
    faults: tuple[Fault, ...] = ()

    @property
    def digest(self) -> str:
        """The SHA-256 of what the reply consists of; equal digests play equal replies."""
        parts = [[s.chunk.text, s.chunk.channel, s.chunk.tokens] for s in self.steps]
        return hashlib.sha256(json.dumps([parts, self.finish_reason]).encode()).hexdigest()


def script_from_text(name: str, text: str, *, delay_s: float = 0.0) -> Script:
    """Return the script that says ``text``, a word at a time."""
    return Script(name, tuple(_words(text)), delay_s)


def script_from_file(path: Path) -> Script:
    """Read a script.

    Raises:
        UsageError: there is no such file, or it is not a script.
    """
    try:
        source = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        message = f"The script {path} can't be read: {reason(error)}."
        raise UsageError(message, "Write -m scripted:FILE.") from error
    if not source.lstrip().startswith("{"):
        return script_from_text(path.name, source)
    try:
        return script_from_json(path.name, json.loads(source))
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        hint = "Plain text is a script too; JSON begins with {."
        raise UsageError(f"{path} is not a script: {error}.", hint) from error


def script_from_json(name: str, data: Mapping[str, Any]) -> Script:
    """Return the script that parsed JSON describes.

    Raises:
        ValueError: a field or a value is not known.
        TypeError: a value is of the wrong kind.
        KeyError: a field is missing.
    """
    if unknown := set(data) - _FIELDS:
        raise ValueError(f"unknown field {', '.join(sorted(unknown))}")
    steps = _words(data["text"]) if "text" in data else map(_step, data["chunks"])
    supports = map(Strategy, data.get("supports", _DEFAULT))
    return Script(
        name,
        tuple(steps),
        float(data.get("delay_s", 0.0)),
        str(data.get("finish_reason", "stop")),
        _earned(supports),
        tuple(Fault(**{**f, "kind": FaultKind(f["kind"])}) for f in data.get("faults", ())),
    )


def _earned(supports: Iterable[Strategy]) -> dict[Strategy, Guarantee]:
    return {strategy: _EARNS[strategy] for strategy in supports}


def _words(text: str) -> Iterable[Step]:
    return (Step(_chunk(word)) for word in _WORD.findall(well_formed(text)))


def _step(entry: str | Mapping[str, Any]) -> Step:
    if isinstance(entry, str):
        return Step(_chunk(well_formed(entry)))
    chunk = _chunk(well_formed(entry["text"]), Channel(entry.get("channel", Channel.CONTENT)))
    if "tokens" in entry:
        ends = (len(chunk.text),) if entry["tokens"] == 1 else None
        chunk = chunk._replace(tokens=entry["tokens"], ends=ends)
    return Step(chunk, entry.get("delay_s"))


def _chunk(text: str, channel: Channel = Channel.CONTENT) -> Chunk:
    ends = tuple(accumulate(map(len, _WORD.findall(text))))
    return Chunk(text, channel, len(ends), ends)
