"""The ladder: the strongest way to go on that works here and now.

Rungs are tried from the strongest the back end supports down to the floor (``--require``).
A rung that finds that its claim does not hold gives way to the next one before anything
was shown.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from llmctl.conversation import Prefix, Request
from llmctl.errors import BelowRequire, PrefixRefused, Refused, StrategyUnavailable
from llmctl.events import Guarantee, Strategy
from llmctl.ports import BackEnd, Opened
from llmctl.resume.continuation import Continuation
from llmctl.resume.cursor import ReadOn
from llmctl.resume.instruct import Instruct
from llmctl.resume.replay import Replay
from llmctl.resume.rung import Rung, Standing

_SAME_RUN = {Strategy.CURSOR, Strategy.REPLAY}
"""Ways that show one run from its beginning to its end."""


def rungs(instruction: str) -> tuple[Rung, ...]:
    """Return all ways to go on, strongest first; ``instruction`` is for the last."""
    return (
        ReadOn(),
        Continuation(Strategy.KV),
        Replay(),
        Continuation(Strategy.TOKENS),
        Continuation(Strategy.PREFIX),
        Instruct(instruction),
    )


@dataclass(slots=True)
class Ladder:
    """Where a reply's chunks come from: first asked for, later gone on with.

    Attributes:
        back_end: what generates.
        request: what is asked; ``max_tokens`` bounds the whole reply.
        rungs: the ways to go on, strongest first.
        require: the weakest guarantee that will do.
        conditions: on what an exact replay depends, as recorded when the reply began.
        guarantee: the worst guarantee of all resumes so far.
        saved: engine state kept at the last cut.
        tell: says a sentence to the person.
    """

    back_end: BackEnd
    request: Request
    rungs: Sequence[Rung]
    require: Guarantee = Guarantee.TEXT
    conditions: Mapping[str, Any] = field(default_factory=dict)
    guarantee: Guarantee = Guarantee.EXACT
    saved: Mapping[str, Any] | None = None
    tell: Callable[[str], None] = lambda _sentence: None

    async def ready(self) -> None:
        """Wait until a request can be sent."""
        await self.back_end.ready()

    def keep(self, state: Mapping[str, Any]) -> None:
        """Remember the engine state that was saved at a cut; it takes the last one's place."""
        last, self.saved = self.saved, state
        if last is not None:
            self.back_end.discard(last)

    def forget(self) -> None:
        """Let go of everything that was kept for a resume."""
        self.back_end.discard(self.conditions)
        if self.saved is not None:
            self.back_end.discard(self.saved)

    def spent(self, prefix: Prefix) -> bool:
        """Say whether a reply that stands at ``prefix`` has reached its token limit."""
        bound = self.request.options.max_tokens
        return bound is not None and prefix.tokens is not None and prefix.tokens >= bound

    def may_go_on(self, prefix: Prefix) -> bool:
        """Say whether any way to go on behind ``prefix`` may be exact enough."""
        return any(True for _ in self._promising(self._standing(prefix, lambda: None)))

    @asynccontextmanager
    async def start(self) -> AsyncIterator[Opened]:
        """Ask for the reply."""
        async with self.back_end.open(self.request) as stream:
            self.conditions = stream.conditions
            yield Opened(stream=stream, chunks=aiter(stream))

    @asynccontextmanager
    async def go_on(self, prefix: Prefix, alive: Callable[[], None]) -> AsyncIterator[Opened]:
        """Go on behind ``prefix`` by the strongest way that holds.

        Raises:
            BelowRequire: none is exact enough.
        """
        standing = self._standing(prefix, alive)
        async with AsyncExitStack() as stack:
            opened = await self._climb(standing, stack)
            self.guarantee = opened.guarantee or self.guarantee
            yield opened

    async def _climb(self, standing: Standing, stack: AsyncExitStack) -> Opened:
        reasons = []
        refusal: Refused | None = None
        for rung in self._promising(standing):
            async with AsyncExitStack() as attempt:
                try:
                    opened = await attempt.enter_async_context(rung.open(standing, self.back_end))
                except (StrategyUnavailable, PrefixRefused) as error:
                    reasons.append(f"{rung.strategy}: {error.message}")
                    continue
                except Refused as error:  # this way of asking, or all asking: the next will tell
                    refusal = refusal or error
                    continue
                if opened.guarantee is not None and opened.guarantee.at_least(self.require):
                    stack.push_async_callback(attempt.pop_all().aclose)
                    return opened
                reasons.append(f"{rung.strategy}: reached only {opened.guarantee}.")
        raise refusal or self._none_left(reasons)

    def _standing(self, prefix: Prefix, alive: Callable[[], None]) -> Standing:
        return Standing(
            self.request,
            prefix,
            conditions=self.conditions,
            guarantee=self.guarantee,
            saved=self.saved,
            alive=alive,
            require=self.require,
            tell=self.tell,
        )

    def _promising(self, standing: Standing) -> Iterator[Rung]:
        """Yield the ways that may be exact enough, strongest first.

        Where a schema, a grammar or tools shape the reply, only the same run goes on with it:
        behind a prefix they would begin anew.
        """
        for rung in self.rungs:
            if self.request.options.shaped and rung.strategy not in _SAME_RUN:
                continue
            promise = rung.promise(standing, self.back_end)
            if promise is not None and promise.at_least(self.require):
                yield rung

    def _none_left(self, reasons: list[str]) -> BelowRequire:
        tried = " " + " ".join(reasons) if reasons else ""
        return BelowRequire(
            f"Nothing here goes on with this reply and is at least '{self.require}' exact.{tried}",
            f"{self._advice()}; everything is kept.",
        )

    def _advice(self) -> str:
        if self.request.options.shaped:
            return "A reply with a schema, a grammar or tools can only be asked for again"
        advice = "Allow less with --require best-effort"
        if self.back_end.api == "responses":
            return f"{advice}, or next time ask in the background: --option background=true"
        if Guarantee.TEXT.at_least(self.require) and Strategy.PREFIX not in self.back_end.supports:
            advice += ", or see what the server can do with 'llmctl models probe'"
        return advice
