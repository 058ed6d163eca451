"""The embedded engine as a back end: what is asked, and what may be claimed about it.

The engine has one slot and is never shared, so its arithmetic repeats. What a replay then
depends on is in a stream's conditions: the weights, the engine's build, processor, threads
and sizes, the rendered prompt, the sampler's options, and what the slot held when the turn
began. That start is either ``"empty"`` (the prompt is evaluated from its first token,
whatever the slot holds) or a state that was saved to a file, named by its hash.

Figures, and how they were measured: docs/engine.md.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from itertools import takewhile
from pathlib import Path
from typing import Any

import anyio
from anyio import to_thread

from llmctl import weights
from llmctl.backends.engine import Engine, EngineSettings
from llmctl.backends.engine_request import (
    Asked,
    Prompt,
    by_ids,
    by_messages,
    is_greedy,
    must_be_parsed,
    sampler,
    seeded,
)
from llmctl.backends.engine_slot import Slot, State
from llmctl.backends.engine_stream import EngineStream
from llmctl.backends.processor import processor
from llmctl.backends.speller import Speller
from llmctl.conversation import Prefix, Request
from llmctl.errors import StrategyUnavailable
from llmctl.events import Guarantee, Strategy

STATE_LIMIT_BYTES = 256 * 1024 * 1024
"""A larger state is not saved; its turn starts empty."""

SHORTEST_REUSE = 64
"""Tokens of another prompt that are worth reusing; the same conversation always is."""


class Embedded:
    """A model in a child process; satisfies `llmctl.ports.BackEnd`.

    Args:
        model: the GGUF file, or what obtains it (called by `ready`, so that no clock runs).
        home: a private directory for the engine's log, slot states and hashes of weights;
            None writes nothing to disk, which rules ``kv`` out.
        settings: sizes and threads.
        state_limit: bytes above which a slot's state is not saved.
        name: what people call it.

    Example:
        >>> Embedded(Path("model.gguf")).api
        'embedded'
    """

    api = "embedded"
    accepts_seed = True
    pays_twice = False

    def __init__(
        self,
        model: Path | Callable[[], Awaitable[Path]],
        *,
        home: Path | None = None,
        settings: EngineSettings | None = None,
        state_limit: int = STATE_LIMIT_BYTES,
        name: str = "local",
    ) -> None:
        self.name = name
        self._model = model
        self.engine = Engine(settings or EngineSettings(), home)
        self._slot = Slot(self.engine, state_limit)
        self._speller = Speller(self.engine.ask)
        self._alone = anyio.Lock()
        self._looking = anyio.Lock()
        self._identity: Mapping[str, Any] = {}
        self._props: Mapping[str, Any] = {}
        self._pid: int | None = None
        self._held: tuple[int, ...] = ()

    @property
    def supports(self) -> Mapping[Strategy, Guarantee]:
        """The ways to go on, and the best that each can earn here."""
        ways = {
            Strategy.REPLAY: Guarantee.EXACT,
            Strategy.TOKENS: Guarantee.TOKEN,
            Strategy.PREFIX: Guarantee.TOKEN,
        }
        return ways if self.engine.home is None else {Strategy.KV: Guarantee.EXACT, **ways}

    def start(self) -> None:
        """Begin to load the model if it is there; return at once."""
        if isinstance(self._model, Path):
            self.engine.start(self._model)

    async def ready(self) -> None:
        """Wait until a request can be sent.

        Raises:
            Unreachable: there are no weights, no engine, or the engine can't load them.
        """
        file = self._model if isinstance(self._model, Path) else await self._model()
        self._model = file
        self.engine.start(file)
        await self.engine.ready()
        async with self._looking:  # a chat's warm-up and its first reply come at the same time
            await self._look(file)

    async def _look(self, file: Path) -> None:
        """Find out, once for every engine process, on what a reply depends."""
        if self._pid != self.engine.pid:
            self._props = await self.engine.ask("/props")
            self._identity = await self._identify(file)
            await to_thread.run_sync(self._slot.sweep, time.time())
            self._pid, self._held = self.engine.pid, ()

    @asynccontextmanager
    async def open(
        self,
        request: Request,
        *,
        again: Mapping[str, Any] | None = None,
        after: Prefix | None = None,
        by: Strategy | None = None,
        saved: Mapping[str, Any] | None = None,
    ) -> AsyncIterator[EngineStream]:
        """Ask for a reply, or for the rest of one; see `llmctl.ports.BackEnd.open`.

        ``max_tokens`` bounds what this call generates. A continuation's conditions also say
        what it has ``earned``.

        Raises:
            Refused: the engine refuses an option, or the prompt does not fit.
            StrategyUnavailable: this way to go on does not hold here.
            Disconnected: the engine is gone.
        """
        async with self._alone:
            await self.ready()
            request = seeded(request, again)
            prompt = await self._speller.prompt(request)
            if after is None:
                asked = self._fresh(request, prompt, await self._start(prompt, again))
            else:
                asked = await self._behind(request, prompt, after, by, again=again, saved=saved)
            async with self._streaming(request, prompt, asked) as stream:
                yield stream

    def discard(self, conditions: Mapping[str, Any]) -> None:
        """Forget the state that a reply's conditions, or what it saved, name."""
        state = State.from_json(conditions.get("start"))
        if state is not None:
            self._slot.discard(state)

    async def aclose(self) -> None:
        """End the engine at once."""
        await self.engine.aclose()

    # -- what is asked

    async def _start(self, prompt: Prompt, again: Mapping[str, Any] | None) -> State | None:
        """Return where the turn starts: as recorded, from what the slot holds, or empty."""
        if again is not None:
            recorded = State.from_json(again.get("start"))
            there = recorded is not None and await self._slot.restore(recorded)
            return recorded if there else None
        return await self._slot.save() if self._is_held(prompt) else None

    def _is_held(self, prompt: Prompt) -> bool:
        """Say whether the slot holds the conversation so far, or enough of the prompt."""
        if not self._held:
            return False
        both = zip(self._held, prompt.ids, strict=False)
        shared = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], both))
        return shared >= min(len(self._held), SHORTEST_REUSE)

    def _fresh(self, request: Request, prompt: Prompt, start: State | None) -> Asked:
        if self._is_parsed(request):
            return by_messages(request, prompt, start=start)
        return by_ids(request.options, prompt.ids, start=start)

    async def _behind(  # noqa: PLR0913  (what `open` takes)
        self,
        request: Request,
        prompt: Prompt,
        after: Prefix,
        by: Strategy | None,
        *,
        again: Mapping[str, Any] | None,
        saved: Mapping[str, Any] | None,
    ) -> Asked:
        if self._is_parsed(request) and (after.reasoning or by is not Strategy.PREFIX):
            raise StrategyUnavailable("The tokens of a reply with reasoning are not all known.")
        match by:
            case Strategy.KV:
                began = self._began(request, prompt, again or {}, saved or {})
                return await self._behind_state(request, prompt, after, saved or {}, began)
            case Strategy.TOKENS if after.ids is not None:
                if await self._speller.text(after.ids) != after.text:
                    raise StrategyUnavailable("The reply's text is not that of its tokens.")
                return self._behind_ids(request, prompt, after.ids, proven=True)
            case Strategy.PREFIX:
                ids = await self._speller.ids(after.text)
                return self._behind_ids(request, prompt, ids, proven=ids == after.ids)
        raise StrategyUnavailable("The ids of the reply's tokens are not all known.")

    def _behind_ids(
        self, request: Request, prompt: Prompt, ids: tuple[int, ...], *, proven: bool
    ) -> Asked:
        earned = {
            "earned": str(Guarantee.TOKEN if proven else Guarantee.TEXT),
            "prefix_ids_proven": proven,
        }
        return by_ids(request.options, prompt.ids + ids, earned=earned)

    def _began(
        self,
        request: Request,
        prompt: Prompt,
        recorded: Mapping[str, Any],
        saved: Mapping[str, Any],
    ) -> Mapping[str, Any]:
        """Return how the turn began whose state was saved, if all its conditions hold here.

        Raises:
            StrategyUnavailable: they don't, or they are not those that the reply began under.
        """
        began: Mapping[str, Any] = saved.get("began") or {}
        here = self._conditions(request, prompt)
        if saved != {**here, "began": began, "start": saved.get("start")}:
            raise StrategyUnavailable("The saved state belongs to other conditions.")
        if recorded != {**here, **began}:
            raise StrategyUnavailable("The reply began under other conditions.")
        return began

    async def _behind_state(
        self,
        request: Request,
        prompt: Prompt,
        after: Prefix,
        saved: Mapping[str, Any],
        began: Mapping[str, Any],
    ) -> Asked:
        state = State.from_json(saved.get("start"))
        if state is None:
            raise StrategyUnavailable("No state was saved.")
        ids = prompt.ids + await self._written(prompt, after, state)
        if not await self._slot.restore(state):
            raise StrategyUnavailable("The saved state is gone.")
        earned = {"earned": str(Guarantee.EXACT), "prefix_ids_proven": True}
        asked = by_ids(request.options, ids, start=state, cached=len(ids) - 1, earned=earned)
        return replace(asked, began=began)

    async def _written(self, prompt: Prompt, after: Prefix, state: State) -> tuple[int, ...]:
        """Return the reply's own ids out of the state, also those that were never sent.

        The state lacks the token that was sampled last; if the reply's text ends with it,
        its id is found by its text.
        """
        held = self._slot.ids(state) or ()
        length = len(after.ids) if after.ids is not None else after.tokens
        if held[: len(prompt.ids)] != prompt.ids or not length:
            raise StrategyUnavailable("The saved state does not hold this reply.")
        ids = held[len(prompt.ids) :][:length]
        if len(ids) == length - 1:
            ids += await self._speller.ids(after.text.removeprefix(await self._speller.text(ids)))
        if len(ids) != length or await self._speller.text(ids) != after.text:
            raise StrategyUnavailable("The saved state does not hold all of this reply.")
        return ids

    def _is_parsed(self, request: Request) -> bool:
        return must_be_parsed(self._props["chat_template"], request.options)

    # -- what comes

    @asynccontextmanager
    async def _streaming(
        self, request: Request, prompt: Prompt, asked: Asked
    ) -> AsyncIterator[EngineStream]:
        self._held = asked.ids
        conditions = self._conditions(request, prompt)
        began: Mapping[str, Any] = {}

        async def keep() -> Mapping[str, Any] | None:
            state = await self._slot.save()
            if state is None:
                return None
            return {**conditions, "began": began, "start": state.as_json()}

        exact = is_greedy(request.options) and not self._is_parsed(request)
        async with self.engine.stream(asked.path, asked.body) as response:
            stream = EngineStream(self.engine, response, asked.reader(), keep if exact else None)
            try:
                cached = await stream.begin()
                asked.check(cached)
                began = asked.origin(cached)
                stream.conditions = {**conditions, **asked.proven(cached)}
                yield stream
            finally:
                await stream.close()

    def _conditions(self, request: Request, prompt: Prompt) -> dict[str, Any]:
        defaults = self._props["default_generation_settings"]["params"]
        return {
            **self._identity,
            "prompt": prompt.as_json(),
            "sampler": sampler(defaults, request.options),
        }

    async def _identify(self, file: Path) -> dict[str, Any]:
        """Return what does not change while the engine lives."""
        engine, facts = self.engine, self.engine.facts
        return {
            "engine": {name: facts[name] for name in ("version", "build", "system", "devices")},
            "processor": await to_thread.run_sync(processor),
            "weights": await to_thread.run_sync(weights.digest, file, engine.home),
            "context": self._props["default_generation_settings"]["n_ctx"],
            "batch": engine.settings.batch,
            "threads": engine.settings.threads,
            "slots": self._props["total_slots"],
        }
