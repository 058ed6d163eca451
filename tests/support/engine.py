"""The real engine in tests: where its weights are, and replies in short form."""

from __future__ import annotations

import functools
import importlib.util
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from llmctl.backends.embedded import Embedded
from llmctl.conversation import Message, Options, Prefix, Request
from llmctl.environment import Environment
from llmctl.events import Channel, Chunk, Strategy
from llmctl.weights_pull import FILE_NAME
from tests.support.processes import REPOSITORY

STORY = "Tell me a long story about a river."
EMOJI = "Say one short sentence with the emoji 🦊🎉"


@functools.cache
def obtain_weights() -> Path | None:
    """Return the weights of ``local``, fetched if need be; None where they can't be had."""
    file = Environment.of_process().models / FILE_NAME
    if not file.is_file():
        command = (sys.executable, "-m", "llmctl", "models", "pull")
        env = {**os.environ, "LLMCTL_MODELS": str(file.parent)}
        subprocess.run(command, cwd=REPOSITORY, env=env, check=False, capture_output=True)
    return file if file.is_file() else None


def weights_or_skip() -> Path:
    """Return the weights of ``local``; skip the test where there can be no engine."""
    if importlib.util.find_spec("xllamacpp") is None:
        pytest.skip("the embedded engine is not installed")
    file = obtain_weights()
    if file is None:
        pytest.skip("the engine's weights can't be had")
    return file


def ask(*texts: str, **options: Any) -> Request:
    """Return a request; texts are the user's and the assistant's in turn."""
    roles = ("user", "assistant")
    messages = tuple(Message(roles[i % 2], text) for i, text in enumerate(texts))
    return Request("local", messages, Options(**{"temperature": 0.0, "seed": 7, **options}))


@dataclass
class Reply:
    """What a stream brought."""

    conditions: Mapping[str, Any] = field(default_factory=dict)
    chunks: list[Chunk] = field(default_factory=list)
    saved: Mapping[str, Any] | None = None

    @property
    def text(self) -> str:
        """The content."""
        return "".join(c.text for c in self.chunks if c.channel is Channel.CONTENT)

    @property
    def reasoning(self) -> str:
        """The reasoning."""
        return "".join(c.text for c in self.chunks if c.channel is Channel.REASONING)

    @property
    def tokens(self) -> int:
        """How many tokens the chunks complete."""
        return sum(c.tokens or 0 for c in self.chunks)

    @property
    def prefix(self) -> Prefix:
        """It as the beginning of a reply."""
        known = all(c.ids is not None for c in self.chunks)
        ids = tuple(i for c in self.chunks for i in c.ids or ()) if known else None
        return Prefix(self.text, ids=ids, tokens=self.tokens)


async def whole(engine: Embedded, request: Request, **how: Any) -> Reply:
    """Read a reply to its end."""
    async with engine.open(request, **how) as stream:
        return Reply(stream.conditions, [chunk async for chunk in stream])


async def cut(engine: Embedded, request: Request, chunks: int, **how: Any) -> Reply:
    """Read so many chunks, then leave and save the state."""
    async with engine.open(request, **how) as stream:
        reply = Reply(stream.conditions)
        while len(reply.chunks) < chunks:
            reply.chunks.append(await anext(aiter(stream)))
        reply.saved = await stream.save()
        return reply


async def go_on(engine: Embedded, request: Request, first: Reply, by: Strategy) -> Reply:
    """Go on behind what was read."""
    how = {"again": first.conditions, "after": first.prefix, "by": by, "saved": first.saved}
    return await whole(engine, request, **how)
