"""The state of the engine's one slot, kept in files.

A state is the cache of everything the slot has read and written. What is remembered of a
file is its name, which no other state has, so that discarding one never takes another's,
and the hash of its content: a file that was changed is not restored. Files are private,
and one that nobody discarded is swept away when it is a month old.
"""

from __future__ import annotations

import hashlib
import secrets
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from anyio import to_thread

from llmctl.backends.engine import Engine
from llmctl.errors import Refused

KEPT_S = 30 * 24 * 3600.0
"""Seconds after which a forgotten state is removed."""

_MAGIC = 0x67677371
"""First word of llama.cpp's sequence state files ("ggsq")."""


@dataclass(frozen=True, slots=True)
class State:
    """A slot's state on disk.

    Attributes:
        file: the file's name.
        sha256: the hash of its content.
        tokens: how many tokens it holds.
    """

    file: str
    sha256: str
    tokens: int

    def as_json(self) -> dict[str, Any]:
        """Return the form that conditions hold."""
        return {"file": self.file, "sha256": self.sha256, "tokens": self.tokens}

    @classmethod
    def from_json(cls, data: object) -> Self | None:
        """Read what `as_json` wrote; None for anything else."""
        match data:
            case {"file": str(file), "sha256": str(sha256), "tokens": int(tokens)}:
                return cls(file, sha256, tokens) if file.isalnum() else None
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
        file = folder / secrets.token_hex(16)
        state = None
        try:
            state = await self._saved(file)
        except (Refused, OSError):  # no room on the disk
            return None
        finally:
            if state is None:
                file.unlink(missing_ok=True)
        return state

    async def _saved(self, file: Path) -> State | None:
        answer = await self._engine.ask("/slots/0?action=save", {"filename": file.name})
        tokens, size = answer["n_saved"], answer["n_written"]
        self._bytes_per_token = size / max(1, tokens)
        if size > self._limit:
            return None
        return State(file.name, await to_thread.run_sync(_sha256, file), tokens)

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
            try:
                if now - file.stat().st_mtime > KEPT_S:
                    file.unlink()
            except FileNotFoundError:
                continue

    async def _size(self) -> float:
        """Return the bytes to expect, 0 before the first state."""
        slots = await self._engine.ask("/slots")
        return float(slots[0]["n_prompt_tokens"] * self._bytes_per_token)

    def _file(self, state: State) -> Path | None:
        folder = self._engine.slots
        file = None if folder is None else folder / state.file
        return file if file is not None and file.is_file() else None


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
