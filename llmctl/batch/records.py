"""What the records of `llmctl.batch.journal` look like, and what they say when read again."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import astuple
from itertools import chain, repeat
from pathlib import Path
from typing import Any

from llmctl.batch.kept import Kept
from llmctl.events import Channel, Chunk, Cursor, Guarantee, Usage
from llmctl.received import Received

DAMAGE = (ValueError, TypeError, LookupError, AttributeError, RecursionError, OverflowError)
"""What reading a record raises that is not as it was written."""

_PREFIX = "live-"
_ALWAYS = 2


def live_files(folder: Path, tag: str = "") -> list[Path]:
    """Return the files of processes that may have been killed, each one's oldest first.

    Args:
        folder: the state folder.
        tag: only of the writer with that tag.
    """
    return sorted(folder.glob(f"{_PREFIX}{tag}*.jsonl"), key=_number)


def live_path(folder: Path, tag: str = "") -> Path:
    """Return the next file's place; writers at the same time have tags of their own."""
    last = max(map(_number, live_files(folder, tag)), default=0)
    return folder / f"{_PREFIX}{tag}{last + 1}.jsonl"


def read_live(path: Path) -> Iterator[tuple[str, bytes, Kept]]:
    """Yield id, digest and what was kept of each item that was in flight when a file ended.

    A record that is torn or damaged ends the file; what stands before it counts.
    """
    items: dict[int, _Rebuilt] = {}
    with path.open("rb") as file, suppress(*DAMAGE):
        for line in file:
            _take(items, json.loads(line))
    for item in items.values():
        yield item.id, item.digest, item.finished()


def _take(items: dict[int, _Rebuilt], record: Any) -> None:  # noqa: ANN401  (JSON)
    kind, number, *rest = record
    if kind == "item":
        items[number] = _Rebuilt(rest[0], rest[1], Kept.from_json(rest[2]))
    elif kind == "end":
        items.pop(number, None)
    elif number in items:
        items[number].apply(kind, rest)


class _Rebuilt:
    """An item whose records are read again."""

    def __init__(self, id_: str, digest: str, kept: Kept) -> None:
        self.id = id_
        self.digest = bytes.fromhex(digest)
        self._kept = kept
        self._received = Received()
        for chunk in kept.chunks():
            self._received.add(chunk)

    def apply(self, kind: str, rest: list[Any]) -> None:
        match kind:
            case "got":
                self._received.add(_chunk(rest))
            case "how":
                self._kept.conditions = rest[0]
            case "on":
                note_resume(self._kept, rest[0])
            case "state":
                self._kept.saved = rest[0]
            case "shape":
                self._kept.shape = rest[0]

    def finished(self) -> Kept:
        self._kept.take(self._received)
        return self._kept


def note_resume(kept: Kept, resume: dict[str, Any]) -> None:
    """Add a resume to what is kept."""
    kept.resumes = [*kept.resumes, resume]
    new, old = Guarantee(resume["guarantee"]), Guarantee(kept.guarantee)
    kept.guarantee = str(old if new.at_least(old) else new)


def fields_of(chunk: Chunk) -> list[Any]:
    """Return what a chunk says, without the defaults at its end."""
    usage = chunk.usage.as_json() if chunk.usage else None
    values = [chunk.text, chunk.tokens, chunk.channel is Channel.REASONING, chunk.ids,
              chunk.finish_reason, chunk.context_full, usage,
              chunk.cursor and astuple(chunk.cursor), chunk.pieces - 1]  # fmt: skip
    while len(values) > _ALWAYS and not values[-1]:
        values.pop()
    return values


def _chunk(values: list[Any]) -> Chunk:
    padded = chain(values, repeat(None, 9 - len(values)))
    text, tokens, reasoning, ids, finish, full, usage, cursor, more = padded
    return Chunk(
        text,
        Channel.REASONING if reasoning else Channel.CONTENT,
        tokens,
        ids=None if ids is None else tuple(ids),
        finish_reason=finish,
        context_full=bool(full),
        usage=Usage(**usage) if usage else None,
        cursor=Cursor(*cursor) if cursor else None,
        pieces=1 + (more or 0),
    )


def _number(path: Path) -> int:
    return int(path.stem.rpartition("-")[2])
