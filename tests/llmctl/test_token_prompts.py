"""Going on behind token ids: exact where it says `token`, and never said without proof."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from llmctl.backends.chat import ChatBackEnd
from llmctl.conversation import Message, Options, Prefix, Request
from llmctl.errors import BelowRequire
from llmctl.events import Chunk, Guarantee, Strategy
from llmctl.images import Images
from llmctl.profiles import PRESETS, Profile
from llmctl.received import Received
from llmctl.resume.ladder import Ladder, rungs
from tests.support.oracle_server import Fault, OracleServer, Script, Settings
from tests.support.oracle_wire import Feature, Prefill
from tests.support.processes import Cli

pytestmark = pytest.mark.anyio

PNG = b"\x89PNG\r\n\x1a\n" + bytes(16)

VLLM = Settings(
    prefill=Prefill.CONTINUE_FINAL_MESSAGE,
    features=(Feature.USAGE, Feature.TOKEN_IDS, Feature.TOKEN_PROMPTS),
    canonical=False,  # a resume from text would drift
)
ASK = Request("oracle", (Message("user", "hello length=64"),), Options(temperature=0.0))


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def vllm(server: OracleServer) -> Profile:
    return replace(PRESETS["vllm"], base_url=server.base_url)


@asynccontextmanager
async def ladder(
    server: OracleServer,
    request: Request = ASK,
    require: Guarantee = Guarantee.TEXT,
    images: Images | None = None,
) -> AsyncIterator[Ladder]:
    made = ChatBackEnd(vllm(server), images=images)
    try:
        yield Ladder(made, request, rungs("Go on."), require)
    finally:
        await made.aclose()


async def whole(of: Ladder) -> list[Chunk]:
    async with of.start() as opened:
        return [chunk async for chunk in opened.chunks]


def prefix_of(chunks: list[Chunk]) -> Prefix:
    received = Received()
    for chunk in chunks:
        received.add(chunk)
    return received.as_prefix()


async def gone_on(of: Ladder, prefix: Prefix) -> tuple[Prefix, Guarantee | None]:
    of.guarantee = Guarantee.EXACT
    async with of.go_on(prefix, lambda: None) as opened:
        return prefix_of([chunk async for chunk in opened.chunks]), opened.guarantee


@pytest.mark.parametrize("size", [1, 2, (1, 5)])
@pytest.mark.parametrize("seed", range(2))
async def test_every_cut(size: int | tuple[int, int], seed: int) -> None:
    labels: list[Guarantee | None] = []
    with OracleServer(replace(VLLM, tokens_per_chunk=size, seed=seed)) as server:
        async with ladder(server) as of:
            chunks = await whole(of)
            full = prefix_of(chunks)
            for count in range(1, len(chunks) - 1):
                prefix = prefix_of(chunks[:count])
                rest, label = await gone_on(of, prefix)
                labels.append(label)
                if label is Guarantee.TOKEN:
                    assert prefix.text + rest.text == full.text
                    assert (prefix.ids or ()) + (rest.ids or ()) == full.ids
    assert labels.count(Guarantee.TOKEN) > len(labels) * 0.7
    if size == 1:
        assert set(labels) == {Guarantee.TOKEN}


async def test_a_chunk_that_ends_inside_a_character_is_not_built_upon() -> None:
    """The ids run ahead of the text there, and nobody says by how many."""
    with OracleServer(replace(VLLM, tokens_per_chunk=2)) as server:
        server.enqueue(Script(text="a猫b"))
        async with ladder(server) as of:
            chunks = await whole(of)
            assert [chunk.text for chunk in chunks[:2]] == ["a", "猫b"]
            assert (await gone_on(of, prefix_of(chunks[:1])))[1] is Guarantee.TEXT


async def test_the_rest_is_bounded_by_what_was_asked_and_by_nothing_else() -> None:
    with OracleServer(VLLM) as server:
        async with ladder(server) as of:
            prefix = prefix_of((await whole(of))[:3])
            assert len((await gone_on(of, prefix))[0].ids or ()) == 61
        async with ladder(server, ASK.with_options(max_tokens=10)) as of:
            prefix = prefix_of((await whole(of))[:3])
            assert len((await gone_on(of, prefix))[0].ids or ()) == 7


async def test_one_wrong_id_of_the_prompt_is_another_reply() -> None:
    """Shows that the tests above would notice."""
    with OracleServer(VLLM) as server:
        async with ladder(server) as of:
            chunks = await whole(of)
            first, *others = of.conditions["prompt_ids"]
            of.conditions = {"prompt_ids": [first + 1, *others]}
            rest, _ = await gone_on(of, prefix_of(chunks[:9]))
            assert prefix_of(chunks[:9]).text + rest.text != prefix_of(chunks).text


def wrong_id(prefix: Prefix) -> Prefix:
    assert prefix.ids is not None
    return replace(prefix, ids=(*prefix.ids[:-1], prefix.ids[-1] + 1))


def lost_id(prefix: Prefix) -> Prefix:
    assert prefix.ids is not None
    return replace(prefix, ids=prefix.ids[1:])


@pytest.mark.parametrize(
    "spoil", [wrong_id, lost_id, lambda p: replace(p, ids=None), lambda p: replace(p, ids=())]
)
async def test_ids_that_are_not_the_reply_s_are_not_used(spoil: Any) -> None:
    with OracleServer(VLLM) as server:
        async with ladder(server) as of:
            prefix = prefix_of((await whole(of))[:9])
            assert (await gone_on(of, prefix))[1] is Guarantee.TOKEN
            assert (await gone_on(of, spoil(prefix)))[1] is Guarantee.TEXT


async def test_a_prompt_with_an_image_is_more_than_its_tokens() -> None:
    images = Images()
    asked = Message("user", f"hello length=64 {images.keep('cat.png', PNG)}")
    request = replace(ASK, messages=(asked,))
    with OracleServer(VLLM) as server:
        async with ladder(server, request, images=images) as of:
            prefix = prefix_of((await whole(of))[:9])
            assert prefix.ids
            assert (await gone_on(of, prefix))[1] is Guarantee.TEXT
        paths = [record.path for record in server.requests]
    assert set(paths) == {"/v1/chat/completions"}


async def test_a_server_that_shortens_the_prompt_is_not_believed() -> None:
    with OracleServer(replace(VLLM, truncates=1)) as server:
        async with ladder(server, require=Guarantee.TOKEN) as of:
            prefix = prefix_of((await whole(of))[:9])
            with pytest.raises(BelowRequire, match="does not say"):
                await gone_on(of, prefix)


async def test_a_server_without_these_addresses_is_gone_on_with_by_text() -> None:
    features = (Feature.USAGE, Feature.TOKEN_IDS)
    with OracleServer(replace(VLLM, features=features)) as server:
        async with ladder(server) as of:
            prefix = prefix_of((await whole(of))[:9])
            assert (await gone_on(of, prefix))[1] is Guarantee.TEXT


async def test_an_older_server_that_tells_no_ids() -> None:
    with OracleServer(replace(VLLM, features=(Feature.USAGE,), strict=False)) as server:
        async with ladder(server) as of:
            chunks = await whole(of)
            assert of.conditions == {}
            assert (await gone_on(of, prefix_of(chunks[:9])))[1] is Guarantee.TEXT


@pytest.mark.parametrize("options", [{"extra": {"tools": []}}, {"extra": {"user": "me"}}])
async def test_options_that_a_completion_does_not_have(options: dict[str, Any]) -> None:
    with OracleServer(VLLM) as server:
        async with ladder(server, ASK.with_options(**options)) as of:
            prefix = prefix_of((await whole(of))[:9])
            assert (await gone_on(of, prefix))[1] is Guarantee.TEXT


async def test_only_where_the_ids_are_asked_for() -> None:
    known = PRESETS["vllm"]
    assert ChatBackEnd(known).supports[Strategy.TOKENS] is Guarantee.TOKEN
    assert Strategy.TOKENS not in ChatBackEnd(replace(known, token_counts=None)).supports
    assert Strategy.TOKENS not in ChatBackEnd(PRESETS["sglang"]).supports


def test_from_the_command_line(tmp_path: Path) -> None:
    with OracleServer(replace(VLLM, delay_s=0.005)) as server:
        cli = Cli(tmp_path)
        home = tmp_path / "config"
        home.mkdir()
        (home / "c.toml").write_text(f'[profiles.vllm]\nbase_url = "{server.base_url}"\n')
        config = ("--config", str(home / "c.toml"))
        ask = ("run", "-m", "vllm/oracle", "--temperature", "0", "hello length=64")
        first = cli.run(*config, *ask, "--pause-after", "20")
        rest = cli.run(*config, "resume")
        assert (first.returncode, rest.returncode) == (5, 0)
        assert "resumed at 20 tok (tokens, token)" in rest.errors
        assert first.text + rest.text == server.expected("hello length=64")
        server.enqueue(Script(fault=Fault("cut", after_tokens=30)))
        lost = cli.run(*config, *ask)
        assert "(tokens, token)" in lost.errors
        assert lost.text == server.expected("hello length=64")
