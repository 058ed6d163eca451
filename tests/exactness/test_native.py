"""A real llama-server, cut and gone on with in every way: the label is right each time."""

from __future__ import annotations

import json
import urllib.request
from dataclasses import replace
from typing import Any

import anyio
import pytest

from llmctl.backends.llamacpp import LlamaServer
from llmctl.conversation import Message, Options, Request
from llmctl.events import Strategy
from llmctl.profiles import PRESETS
from llmctl.resume.ladder import Ladder
from tests.exactness.native import WAYS, Bench, table
from tests.support.llama_process import llama_server

pytestmark = [pytest.mark.anyio, pytest.mark.engine]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def process_word(address: str) -> str:
    with urllib.request.urlopen(f"{address}/props") as answer:  # noqa: S310  (our own child)
        return str(json.load(answer)["media_marker"])


async def test_a_few_cuts_in_every_way() -> None:
    with llama_server() as address:
        bench = Bench(address)
        await bench.run(1, step=6)
        await bench.made.aclose()
        word = process_word(address)
    for way in WAYS:
        tally = bench.tallies[way]
        assert tally.wrong == []
        assert tally.labels[{Strategy.TOKENS: "token"}.get(way, "exact")] == tally.cuts > 0
    with llama_server() as address:  # what tells two processes apart
        assert process_word(address) != word


@pytest.mark.exhaustive
@pytest.mark.parametrize("slots", [1, 4])
async def test_two_hundred_cuts_in_every_way(slots: int) -> None:
    with llama_server(slots=slots) as address:
        bench = Bench(address)
        await bench.run(200)
        await bench.made.aclose()
    print(table(bench.tallies))  # noqa: T201  (the figures of docs/exactness.md)
    assert [wrong for tally in bench.tallies.values() for wrong in tally.wrong] == []
    cursor = bench.tallies[Strategy.CURSOR]
    assert cursor.same == cursor.cuts >= 200


async def test_a_cut_stops_the_generation() -> None:
    """By the server's own word; of itself it would go on for more than a thousand tokens."""
    with llama_server() as address:
        made = LlamaServer(replace(PRESETS["llamacpp"], base_url=f"{address}/v1"))
        options = Options(temperature=0.0, seed=7, extra={"ignore_eos": True})
        of = Ladder(made, Request("m", (Message("user", "Tell a long story."),), options), ())
        async with of.start() as opened:
            for _ in range(3):
                await anext(opened.chunks)
            assert slot(address)["is_processing"]
        with anyio.fail_after(5):
            while slot(address)["is_processing"]:  # noqa: ASYNC110  (another process)
                await anyio.sleep(0.005)
        await made.aclose()


def slot(address: str) -> dict[str, Any]:
    with urllib.request.urlopen(f"{address}/slots") as answer:  # noqa: S310  (our own child)
        found: list[dict[str, Any]] = json.load(answer)
    return found[0]
