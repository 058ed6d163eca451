"""A back end that plays a script: for demonstrations, and for tests of everything else.

``-m scripted:NAME`` plays a built-in script, ``-m scripted:FILE`` one of your own (see
`llmctl.backends.script`). The same script always plays the same reply, so a replay can be
`exact`; holding stops it in place; without delays it is as fast as the reader.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, assert_never

import anyio
from anyio.lowlevel import checkpoint

from llmctl.backends.script import Fault, FaultKind, Script, script_from_file
from llmctl.backends.scripts import BUILT_IN
from llmctl.conversation import Prefix, Request
from llmctl.errors import (
    Disconnected,
    LlmctlError,
    Overloaded,
    Refused,
    StrategyUnavailable,
    Unreachable,
)
from llmctl.events import Channel, Chunk, Cursor, Guarantee, Strategy

_BREATH = 64
_SCRIPT = "Its faults say so: llmctl/backends/script.py tells them."
"""How many chunks may come before the loop has a turn."""


def load_script(name: str, *, folder: Path | None = None) -> Script:
    """Return a built-in script, or the one in a file.

    Args:
        name: of a built-in script, or a path.
        folder: what a relative path is relative to.

    Raises:
        UsageError: there is no such script.
    """
    make = BUILT_IN.get(name)
    return make() if make is not None else script_from_file((folder or Path()) / name)


class ScriptedBackEnd:
    """Plays one script, again and again.

    Attributes:
        name: "scripted".
        api: "scripted".
        supports: what the script says it plays along with.
        accepts_seed: a seed changes nothing, but is not refused.
        pays_twice: a replay costs nothing.

    Args:
        script: what to play.
    """

    name = "scripted"
    api = "scripted"
    accepts_seed = True
    pays_twice = False

    def __init__(self, script: Script) -> None:
        self.supports: Mapping[Strategy, Guarantee] = {
            **script.supports,
            Strategy.INSTRUCT: Guarantee.BEST_EFFORT,
        }
        self._script = script
        self._struck: Counter[Fault] = Counter()
        self._runs = itertools.count()
        self._lost: set[str] = set()

    @asynccontextmanager
    async def open(
        self,
        request: Request,
        *,
        again: Mapping[str, Any] | None = None,  # noqa: ARG002  (there is no state to restore)
        after: Prefix | None = None,
        by: Strategy | None = None,
        saved: Mapping[str, Any] | None = None,  # noqa: ARG002  (nor any to save)
    ) -> AsyncGenerator[ScriptedStream]:
        """Begin to play.

        Args:
            request: only its ``max_tokens`` is looked at.
            again: not used; the port has it.
            after: what the reply has already, for `Strategy.PREFIX` and `Strategy.CURSOR`:
                a run whose connection the script lost is kept for that.
            by: how to go on; None plays from the beginning.
            saved: not used; the port has it.

        Raises:
            StrategyUnavailable: the script does not play along, or reads otherwise.
            LlmctlError: a fault of the script.
        """
        if by is not None and by not in self.supports:
            raise StrategyUnavailable(f"This script does not go on by {by}.")
        faults = self._due() if by is None else []
        await checkpoint()
        for fault in faults:
            if error := _at_start(fault):
                raise error
        chars = self._chars_behind(after) if by is Strategy.PREFIX else 0
        stream = ScriptedStream(self._script, faults, chars, request.options.max_tokens)
        if Strategy.CURSOR in self.supports:
            stream.cursor = Cursor(f"run-{next(self._runs)}", 0, request.options.max_tokens)
        if by is Strategy.CURSOR:
            stream.read_on(self._found(after))
        try:
            yield stream
        except Disconnected:
            if stream.cursor is not None:
                self._lost.add(stream.cursor.run)
            raise

    async def ready(self) -> None:
        """Return at once: there is nothing to load."""

    def discard(self, conditions: Mapping[str, Any]) -> None:
        """Do nothing: there is nothing saved."""

    async def aclose(self) -> None:
        """Do nothing: there is nothing open."""

    def _due(self) -> list[Fault]:
        """Return the faults that strike the next fresh request."""
        due = [fault for fault in self._script.faults if self._struck[fault] < fault.times]
        early = [fault for fault in due if _at_start(fault)][:1]  # one error at a time
        self._struck.update(early or due)
        return early or due

    def _found(self, after: Prefix | None) -> Cursor:
        cursor = after and after.cursor
        if not cursor or cursor.run not in self._lost:
            raise StrategyUnavailable("The script does not keep this run.")
        return cursor

    def _chars_behind(self, after: Prefix | None) -> int:
        text = after.text if after is not None else ""
        said = "".join(s.chunk.text for s in self._script.steps if _is_content(s.chunk))
        if not said.startswith(text):
            raise StrategyUnavailable("The script does not begin with this reply's text.")
        return len(text)


class ScriptedStream:
    """One performance; `ScriptedBackEnd.open` makes them.

    Attributes:
        conditions: the script's digest: the same digest plays the same reply.
        cursor: where the performance stands, in chunks; None if it is not kept.
    """

    def __init__(
        self, script: Script, faults: list[Fault], chars: int, max_tokens: int | None
    ) -> None:
        self.conditions: Mapping[str, Any] = {"script": script.digest}
        self.cursor: Cursor | None = None
        self._script = script
        self._faults = {fault.after: fault.kind for fault in faults}
        self._chars = chars
        self._left = max_tokens
        self._can_hold = Strategy.HELD in script.supports
        self._held: anyio.Event | None = None
        self._chunks = self._rest()
        self._played = 0
        self._over = False

    def __aiter__(self) -> AsyncIterator[Chunk]:
        """Return the chunks; the last one has the finish reason."""
        return self

    async def __anext__(self) -> Chunk:
        """Return the next chunk.

        Raises:
            Disconnected: the script says so.
        """
        if self._over:
            raise StopAsyncIteration
        await self._strike(self._faults.get(self._played))
        chunk, delay_s = next(self._chunks, (None, 0.0))
        await self._wait(delay_s)
        self._played += 1
        if chunk is None:
            self._over = True
            reason = "length" if self._left == 0 else self._script.finish_reason
            return Chunk(finish_reason=reason)
        if self.cursor is not None:
            self.cursor = replace(self.cursor, at=self._played)
        return chunk._replace(cursor=self.cursor)

    def read_on(self, cursor: Cursor) -> None:
        """Pass what was played before ``cursor``."""
        for _ in range(cursor.at):
            next(self._chunks)
        self._played, self.cursor = cursor.at, cursor

    def hold(self) -> bool:
        """Stop in place, at once; say whether the script plays along."""
        if self._can_hold and self._held is None:
            self._held = anyio.Event()
        return self._can_hold

    def release(self) -> None:
        """Go on."""
        if self._held is not None:
            self._held.set()
            self._held = None

    async def save(self) -> None:
        """Return None: there is no engine whose state could be kept."""

    def _rest(self) -> Iterator[tuple[Chunk, float]]:
        """Yield the chunks behind the prefix, up to the token limit, with their delays."""
        skip = self._chars
        for step in self._script.steps:
            chunk = step.chunk
            if self._chars and not _is_content(chunk):
                continue  # a prefix has all of the reasoning before it
            skip, head = max(0, skip - len(chunk.text)), min(skip, len(chunk.text))
            chunk = self._bounded(chunk.without_head(head))
            if chunk.text:
                yield chunk, self._script.delay_s if step.delay_s is None else step.delay_s
            if self._left == 0:
                return

    def _bounded(self, chunk: Chunk) -> Chunk:
        """Return as much of a chunk as the token limit has room for."""
        if self._left is None or not chunk.text:
            return chunk
        count = 1 if chunk.tokens is None else chunk.tokens
        room, self._left = self._left, max(0, self._left - count)
        if count <= room or chunk.ends is None:
            return chunk
        ends = chunk.ends[:room]
        return chunk._replace(text=chunk.text[: ends[-1]], tokens=room, ends=ends)

    async def _wait(self, delay_s: float) -> None:
        if delay_s > 0:
            await anyio.sleep(delay_s)
        elif self._played % _BREATH == 0:
            await checkpoint()
        while self._held is not None:
            await self._held.wait()

    async def _strike(self, kind: FaultKind | None) -> None:
        match kind:
            case FaultKind.DISCONNECT:
                raise Disconnected("The script lost the connection.")
            case FaultKind.STALL:
                await anyio.sleep_forever()


def _at_start(fault: Fault) -> LlmctlError | None:
    """Return the error that takes the place of a reply, if the fault is one."""
    match fault.kind:
        case FaultKind.REFUSE:
            return Refused("The script refuses the request.", _SCRIPT)
        case FaultKind.UNREACHABLE:
            return Unreachable("The script can't be reached.", _SCRIPT)
        case FaultKind.OVERLOADED:
            return Overloaded("The script is overloaded.", _SCRIPT, retry_after=fault.retry_after_s)
        case FaultKind.DISCONNECT | FaultKind.STALL:
            return None
        case other:
            assert_never(other)


def _is_content(chunk: Chunk) -> bool:
    return chunk.channel is Channel.CONTENT
