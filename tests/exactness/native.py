"""How exact each way to go on is on a real llama-server: ``python -m tests.exactness.native``.

Replies of every kind of text, at temperature 0 and 0.8, are cut behind every piece and gone on
with by each way in turn. What is compared with the uninterrupted reply is all of the text. A
label is right if it says no more than that: `exact` only where the text is the same, `token`
only where the ids before the cut are the uninterrupted reply's.
"""

# ruff: noqa: T201  (a program that prints)

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from itertools import takewhile

import anyio

from llmctl.backends.llamacpp import LlamaServer
from llmctl.conversation import Message, Options, Prefix, Request
from llmctl.errors import Disconnected
from llmctl.events import Chunk, Guarantee, Strategy
from llmctl.profiles import PRESETS
from llmctl.resume.ladder import Ladder, rungs
from tests.exactness.corpus import KINDS, TEMPERATURES
from tests.support.cuts import Trial, gone_on, received, whole
from tests.support.llama_process import llama_server

WAYS = (Strategy.CURSOR, Strategy.KV, Strategy.TOKENS, Strategy.REPLAY)


@dataclass
class Tally:
    """What came of the cuts that were gone on with by one way."""

    cuts: int = 0
    same: int = 0
    labels: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)

    def add(self, trial: Trial) -> None:
        """Count one."""
        same = trial.rest is not None and trial.before.text + trial.rest.text == trial.full.text
        self.cuts += 1
        self.same += same
        self.labels[str(trial.label)] += 1
        if trial.label is Guarantee.EXACT and not same:
            self.wrong.append(f"exact, but another text: {trial}")
        known = trial.before.ids or ()
        if trial.label is Guarantee.TOKEN and known != (trial.full.ids or ())[: len(known)]:
            self.wrong.append(f"token, but other ids: {trial}")


class Bench:
    """One server, and the replies that are cut on it.

    Args:
        address: the server's.
    """

    def __init__(self, address: str) -> None:
        self.made = LlamaServer(replace(PRESETS["llamacpp"], base_url=f"{address}/v1"))
        self.tallies = {way: Tally() for way in WAYS}

    async def run(self, count: int, step: int = 1) -> None:
        """Cut replies until every way has so many cuts, or there are no more replies."""
        for request in _requests():
            if all(self._has(way, request, count) for way in WAYS):
                continue
            async with aclosing(self._trials(request, count, step)) as trials:
                async for way, trial in trials:
                    self.tallies[way].add(trial)

    def _has(self, way: Strategy, request: Request, count: int) -> bool:
        greedy = request.options.temperature == 0
        return self.tallies[way].cuts >= count or (way is Strategy.KV and not greedy)

    async def _trials(
        self, request: Request, count: int, step: int
    ) -> AsyncGenerator[tuple[Strategy, Trial]]:
        of = self._ladder(request)
        chunks = await whole(of)
        known = takewhile(lambda ids: ids is not None, (chunk.ids for chunk in chunks))
        full = replace(received(chunks), ids=tuple(id_ for ids in known for id_ in ids or ()))
        if not self._has(Strategy.CURSOR, request, count):
            for place in range(1, len(chunks), step):  # the server keeps a run that has ended
                yield Strategy.CURSOR, await gone_on(of, received(chunks[:place]), full)
            before, of = await self._lost(request, step)  # or that goes on
            yield Strategy.CURSOR, await gone_on(of, before, full)
        for place in range(1, len(chunks), step):
            ways = [way for way in WAYS[1:] if not self._has(way, request, count)]
            if not ways or of.spent(received(chunks[:place])):
                continue  # a session does not go on where only the word that it ended is missing
            before, of = await self._cut(request, place)
            assert before.text == received(chunks[:place]).text, "a run from nothing differs"
            for way in ways:
                await self._other()
                saved, of.saved = of.saved, of.saved if way is Strategy.KV else None
                of.require = Guarantee.EXACT if way is Strategy.REPLAY else Guarantee.TEXT
                yield way, await gone_on(of, before, full)
                of.saved = saved

    async def _cut(self, request: Request, place: int) -> tuple[Prefix, Ladder]:
        """Ask for the reply and cut it behind so many chunks."""
        of, chunks = self._ladder(request), list[Chunk]()
        async with of.start() as opened:
            while len(chunks) < place:
                chunks.append(await anext(opened.chunks))
            of.saved = await opened.stream.save()
        return replace(received(chunks), cursor=None), of

    async def _lost(self, request: Request, place: int) -> tuple[Prefix, Ladder]:
        """Ask for the reply and lose the connection behind so many chunks."""
        of, chunks = self._ladder(request), list[Chunk]()
        try:
            async with of.start() as opened:
                while len(chunks) < place:
                    chunks.append(await anext(opened.chunks))
                _lose()
        except Disconnected:
            pass
        return received(chunks), of

    async def _other(self) -> None:
        """Let somebody else use the slot."""
        options = Options(temperature=0.0, seed=1, max_tokens=1)
        await whole(Ladder(self.made, Request("m", (Message("user", "Hi"),), options), ()))

    def _ladder(self, request: Request) -> Ladder:
        return Ladder(self.made, request, rungs("Go on."))


def _lose() -> None:
    raise Disconnected("Lost.")


def _requests() -> Iterator[Request]:
    for turn in range(3):
        for kind in KINDS:
            for temperature in TEMPERATURES:
                options = Options(temperature, seed=kind.seed, max_tokens=14)
                options = replace(options, extra={"cache_prompt": False})
                yield Request("m", (Message("user", kind.prompts[turn]),), options)


def table(tallies: dict[Strategy, Tally]) -> str:
    """Return the figures as a table."""
    lines = ["| way | cuts | same text | labels | labels too good |", "|---|---|---|---|---|"]
    for way, tally in tallies.items():
        labels = ", ".join(f"{label} {count}" for label, count in sorted(tally.labels.items()))
        row = (way, tally.cuts, f"{tally.same} of {tally.cuts}", labels, len(tally.wrong))
        lines.append("| " + " | ".join(map(str, row)) + " |")
    return "\n".join(lines)


async def _main(count: int, slots: int, seconds: float) -> int:
    with llama_server(slots=slots) as address:
        bench = Bench(address)
        began = time.monotonic()
        with anyio.move_on_after(seconds):
            await bench.run(count)
        await bench.made.aclose()
    print(table(bench.tallies))
    print(f"{time.monotonic() - began:.0f} s, {slots} slots")
    wrong = [line for tally in bench.tallies.values() for line in tally.wrong]
    print("\n".join(wrong))
    return int(bool(wrong))


def main() -> int:
    """Run, print the table, and return 1 if a label was too good."""
    parser = argparse.ArgumentParser(prog="python -m tests.exactness.native", description=__doc__)
    parser.add_argument("--cuts", type=int, default=200, help="how many for each way")
    parser.add_argument("--slots", type=int, default=1, help="how many the server has")
    parser.add_argument("--seconds", type=float, default=3600.0, help="stop after that")
    asked = parser.parse_args()
    return anyio.run(_main, asked.cuts, asked.slots, asked.seconds)


if __name__ == "__main__":
    sys.exit(main())
