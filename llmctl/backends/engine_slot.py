"""The state of the engine's one slot, kept in files.

A state is the cache of everything the slot has read and written. Files are named by the
hash of their content, so that a name says what was restored, and a file that was changed
is not restored. They are private, and a state that nobody discarded is swept away when it
is a month old.
"""

from __future__ import annotations

import hashlib
import secrets
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from anyio import to_thread

from llmctl.backends.engine import Engine
from llmctl.errors import Refused

KEPT_S = 30 * 24 * 3600.0
"""Seconds after which a forgotten state is removed."""

_NEW = "new-"
_NEW_KEPT_S = 3600.0
_MAGIC = 0x67677371
"""First word of llama.cpp's sequence state files ("ggsq")."""


@dataclass(frozen=True, slots=True)
class State:
    """A slot's state on disk.

    Attributes:
        sha256: the file's hash, which is also its name.
        tokens: how many tokens it holds.
    """

    sha256: str
    tokens: int

    def as_json(self) -> dict[str, Any]:
        """Return the form that conditions hold."""
        return {"sha256": self.sha256, "tokens": self.tokens}

    @classmethod
    def from_json(cls, data: object) -> Self | None:
        """Read what `as_json` wrote; None for anything else."""
        match data:
            case {"sha256": str(sha256), "tokens": int(tokens)} if sha256.isalnum():
                return cls(sha256, tokens)
        return None


class Slot:
    """Saves, restores and forgets the slot's state.

    Args:
        engine: whose slot.
        limit: bytes above which a state is not kept.
    """

    def __init__(self, engine: Engine, limit: int) -> None:
        self._engine = engine
        self._limit = limit
        self._bytes_per_token = 0.0

    async def save(self) -> State | None:
        """Keep what the slot holds; None if it can't be or is too large."""
        folder = self._engine.slots
        if folder is None or await self._size() > self._limit:
            return None
        new = folder / f"{_NEW}{secrets.token_hex(8)}"
        try:
            answer = await self._engine.ask("/slots/0?action=save", {"filename": new.name})
            return await self._accept(new, answer)
        except (Refused, OSError):  # no room on the disk
            return None
        finally:
            new.unlink(missing_ok=True)

    async def restore(self, state: State) -> bool:
        """Put a state back into the slot; say whether it is there now."""
        file = self._file(state)
        if file is None or await to_thread.run_sync(_sha256, file) != state.sha256:
            return False
        try:
            answer = await self._engine.ask("/slots/0?action=restore", {"filename": file.name})
        except Refused:
            return False
        return bool(answer["n_restored"] == state.tokens)

    def ids(self, state: State) -> tuple[int, ...] | None:
        """Return the tokens a state holds; None if its file is gone or of an unknown form."""
        file = self._file(state)
        return None if file is None else _ids(file, state.tokens)

    def discard(self, state: State) -> None:
        """Remove a state's file."""
        file = self._file(state)
        if file is not None:
            file.unlink(missing_ok=True)

    def sweep(self, now: float) -> None:
        """Remove what processes that were killed have left and nobody came back for."""
        folder = self._engine.slots
        for file in () if folder is None else folder.iterdir():
            kept_s = _NEW_KEPT_S if file.name.startswith(_NEW) else KEPT_S
            try:
                if now - file.stat().st_mtime > kept_s:
                    file.unlink()
            except FileNotFoundError:
                continue

    async def _size(self) -> float:
        """Return the bytes to expect, 0 before the first state."""
        slots = await self._engine.ask("/slots")
        return float(slots[0]["n_prompt_tokens"] * self._bytes_per_token)

    async def _accept(self, new: Path, answer: Mapping[str, Any]) -> State | None:
        self._bytes_per_token = answer["n_written"] / max(1, answer["n_saved"])
        if answer["n_written"] > self._limit:
            return None
        return State(await to_thread.run_sync(_named, new), answer["n_saved"])

    def _file(self, state: State) -> Path | None:
        folder = self._engine.slots
        file = None if folder is None else folder / state.sha256
        return file if file is not None and file.is_file() else None


def _named(new: Path) -> str:
    """Give a file the name of its content, and return that."""
    name = _sha256(new)
    new.rename(new.with_name(name))
    return name


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _ids(file: Path, tokens: int) -> tuple[int, ...] | None:
    """Read the tokens from a state file's head.

    Words of 32 bits: magic, version, how many follow; then -1, 1, the number of tokens and
    the tokens themselves (llama.cpp's server, state version 4), or the tokens alone.
    """
    with file.open("rb") as stream:
        magic, _, count = struct.unpack("<3I", stream.read(12).ljust(12, b"\0"))
        if magic != _MAGIC or count > tokens + 16:
            return None
        words = struct.unpack(f"<{count}i", stream.read(4 * count).ljust(4 * count, b"\0"))
    if words[:1] == (-1,):
        words = words[3 : 3 + words[2]] if words[2] == tokens else ()
    return words if len(words) == tokens else None
