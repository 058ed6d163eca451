"""Probing: what is found out about servers of every dialect is the truth, and it is used."""

from __future__ import annotations

import os
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from llmctl.backends.choose import back_end_for
from llmctl.backends.learning import LearningBackEnd
from llmctl.backends.probe import MOST_REPLIES, probe
from llmctl.backends.probe_answers import cut, is_echo, outcome
from llmctl.capabilities import Capabilities, Keeping, Memory, Outcome, Server
from llmctl.conversation import Message, Options, Prefix, Request
from llmctl.errors import (
    BelowRequire,
    Denied,
    Refused,
    StrategyUnavailable,
    Unreachable,
)
from llmctl.events import Chunk, Guarantee, Strategy
from llmctl.profiles import Api, PrefixDialect, Profile, Selection, TokenCounts
from llmctl.resume.ladder import Ladder, rungs
from tests.support import oracle
from tests.support.fake_environment import fake_environment
from tests.support.oracle_server import Fault, OracleServer, Script, Settings
from tests.support.oracle_wire import Feature, Prefill
from tests.support.processes import Cli

pytestmark = pytest.mark.anyio

TRAILING, FLAGS, PREFIX, PARTIAL = (
    PrefixDialect.TRAILING_ASSISTANT,
    PrefixDialect.CONTINUE_FINAL_MESSAGE,
    PrefixDialect.PREFIX_FLAG,
    PrefixDialect.PARTIAL_FLAG,
)
SERVERS: dict[str, tuple[Settings, PrefixDialect | None]] = {
    "continue": (Settings(prefill=Prefill.CONTINUE), TRAILING),
    "flags": (Settings(prefill=Prefill.CONTINUE_FINAL_MESSAGE), FLAGS),
    "prefix": (Settings(prefill=Prefill.PREFIX), PREFIX),
    "partial": (Settings(prefill=Prefill.PREFIX, prefix_field="partial"), PARTIAL),
    "ignored": (Settings(prefill=Prefill.IGNORED), None),
    "rejected": (Settings(prefill=Prefill.REJECTED), None),
}


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(autouse=True)
def _no_ambient_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.lower().endswith("_proxy") or name.startswith("OPENAI_"):
            monkeypatch.delenv(name)


def at(server: OracleServer, **known: Any) -> Profile:
    return Profile(name="test", base_url=server.base_url, **known)


VARIANTS = [
    *product(SERVERS, (1,), (False, True), (False, True), (False, True)),
    *product(SERVERS, (2, 3, (1, 4)), (True,), (False, True), (False,)),
]


@pytest.mark.parametrize(("name", "size", "strict", "echo", "trim"), VARIANTS)
async def test_what_is_found_is_what_the_server_does(
    name: str, size: int | tuple[int, int], *, strict: bool, echo: bool, trim: bool
) -> None:
    settings, dialect = SERVERS[name]
    settings = replace(settings, strict=strict, echo=echo, trim=trim, tokens_per_chunk=size)
    with OracleServer(settings) as server:
        found = await probe(at(server), "oracle")
        asked = [record for record in server.requests if record.status == 200]
    assert found.prefix is dialect
    assert found.prefix_echoed is (echo and dialect is not None)
    assert found.prefix_keeps_blanks is (not trim and dialect is not None)
    assert found.replies == len(asked) <= MOST_REPLIES
    assert all(r.body["max_tokens"] <= 8 and r.body["temperature"] == 0 for r in asked)


@pytest.mark.parametrize(
    ("features", "counts"),
    [
        ((), None),
        ((Feature.USAGE,), None),
        ((Feature.USAGE, Feature.LOGPROBS), TokenCounts.LOGPROBS),
        ((Feature.USAGE, Feature.TIMINGS), TokenCounts.TIMINGS),
        ((Feature.USAGE, Feature.CONTINUOUS_USAGE), TokenCounts.USAGE),
        ((Feature.LOGPROBS, Feature.TOKEN_IDS), TokenCounts.IDS),
        (tuple(Feature), TokenCounts.IDS),
    ],
)
@pytest.mark.parametrize("strict", [False, True])
async def test_how_tokens_are_told(
    features: tuple[Feature, ...], counts: TokenCounts | None, *, strict: bool
) -> None:
    with OracleServer(Settings(features=features, strict=strict)) as server:
        found = await probe(at(server), "oracle")
    assert found.token_counts is counts
    assert found.accepts_seed
    assert found.usage_in_stream is (Feature.USAGE in features)
    assert found.prefix is TRAILING


async def test_without_usage_nobody_knows_whether_blanks_are_kept() -> None:
    with OracleServer(Settings(features=())) as server:
        assert not (await probe(at(server), "oracle")).prefix_keeps_blanks


@pytest.mark.parametrize("size", [1, 3])
async def test_completions_behind_ids(size: int, tmp_path: Path) -> None:
    features = (Feature.USAGE, Feature.TOKEN_IDS, Feature.TOKEN_PROMPTS)
    settings = Settings(features=features, prefill=Prefill.IGNORED, tokens_per_chunk=size)
    with OracleServer(settings) as server:
        found = await probe(at(server), "oracle")
        assert found.token_prompts
        assert found.replies <= MOST_REPLIES
        memory = Memory(tmp_path)
        memory.remember(server.base_url, "oracle", found)
        async with learning(at(server), memory) as made:
            assert made.supports[Strategy.TOKENS] is Guarantee.TOKEN
    for spoilt in (replace(settings, truncates=1), replace(settings, features=features[:2])):
        with OracleServer(spoilt) as server:
            assert not (await probe(at(server), "oracle")).token_prompts


COMPLETIONS = Settings(features=(Feature.USAGE, Feature.COMPLETIONS))
ALL_IDS = (Feature.USAGE, Feature.TOKEN_IDS, Feature.TOKEN_PROMPTS, Feature.COMPLETIONS)


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("size", [1, 3])
@pytest.mark.parametrize(
    ("features", "ids"),
    [(COMPLETIONS.features, False), ((*COMPLETIONS.features, Feature.TIMINGS), False),
     (ALL_IDS, True)],
)  # fmt: skip
async def test_completions_are_probed_by_completions(
    features: tuple[Feature, ...], size: int, tmp_path: Path, *, ids: bool, strict: bool
) -> None:
    settings = Settings(features=features, tokens_per_chunk=size, strict=strict, length=120)
    with OracleServer(settings) as server:
        profile = at(server, api=Api.COMPLETIONS)
        found = await probe(profile, "oracle")
        paths = {record.path for record in server.requests if record.status == 200}
    assert paths == {"/v1/completions"}
    assert found.goes_on_by_text
    assert (found.token_prompts, found.accepts_seed, found.usage_in_stream) == (ids, True, True)
    assert found.replies <= 3
    memory = Memory(tmp_path)
    memory.remember(server.base_url, "oracle", found)
    assert memory.recall(server.base_url, "oracle") is None
    assert memory.recall(server.base_url, "oracle", Api.COMPLETIONS) == found
    assert found.applied_to(profile).token_prompts is ids


@pytest.mark.parametrize("spoilt", [{"truncates": 1}, {"spelled_as": "words"}])
async def test_completions_whose_ids_do_not_hold(spoilt: dict[str, Any]) -> None:
    with OracleServer(Settings(features=ALL_IDS, length=120, **spoilt)) as server:
        found = await probe(at(server, api=Api.COMPLETIONS), "oracle")
    assert not found.token_prompts
    assert found.goes_on_by_text


KEPT: dict[str, Keeping] = {
    "kept": Keeping.READ_ON,
    "from_start": Keeping.READ_ON,
    "too_old": Keeping.WAITED_FOR,
    "whole": Keeping.WAITED_FOR,
    "ignored": Keeping.IGNORES,
    "refused": Keeping.REFUSES,
    "lost": Keeping.LOSES,
    "with_gap": Keeping.WAITED_FOR,
    "altered": Keeping.LOSES,
}


@pytest.mark.parametrize("does", KEPT)
async def test_what_becomes_of_a_response_in_the_background(does: str, tmp_path: Path) -> None:
    settings = Settings(features=(Feature.RESPONSES,), keeping=does, length=12)
    with OracleServer(settings) as server:
        found = await probe(at(server, api=Api.RESPONSES), "oracle")
        asked = [record for record in server.requests if record.method == "POST"]
        assert found.replies == sum(record.status == 200 for record in asked) <= 2
        assert all(record.body["max_output_tokens"] == 16 for record in asked)
        memory = Memory(tmp_path / "data" / "probes")
        memory.remember(server.base_url, "oracle", found)
    assert found.background is KEPT[does]
    known = memory.recall(server.base_url, "oracle", Api.RESPONSES)
    assert known == found
    keeps = found.background in {Keeping.READ_ON, Keeping.WAITED_FOR}
    assert found.applied_to(at(server)).keeps_runs is keeps


async def test_a_model_that_takes_no_temperature() -> None:
    message = "Unsupported parameter: 'temperature' is not supported with this model."
    refusal = Script(fault=Fault("http", status=400, message=message), match='"temperature"')
    with OracleServer(Settings(features=(Feature.RESPONSES,), length=12)) as server:
        server.enqueue(refusal)
        found = await probe(at(server, api=Api.RESPONSES), "oracle")
        assert "temperature" not in server.requests[1].body
    assert found.background is Keeping.READ_ON


def test_the_table_says_what_becomes_of_it(tmp_path: Path) -> None:
    settings = Settings(features=(Feature.RESPONSES,), keeping="ignored", length=12)
    with OracleServer(settings) as server:
        where = ("--base-url", server.base_url, "-m", "oracle", "--api", "responses")
        cli = Cli(tmp_path)
        told = cli.run("models", "probe", *where)
        assert "background      takes the field and ignores it" in told.text
        assert "asked           1 replies of at most 16 tokens" in told.text
        assert "goes on by      held (exact), instruct (best-effort)" in told.text


async def test_a_dialect_that_is_known_is_tried_first() -> None:
    with OracleServer(Settings(prefill=Prefill.PREFIX)) as server:
        found = await probe(at(server, prefix=PREFIX), "oracle")
    assert found.outcomes == {PREFIX: Outcome.CONTINUES}
    assert found.replies == 4


async def test_a_refusal_that_names_nothing_leaves_out_everything() -> None:
    refused = Script(fault=Fault("http", status=422, message="Extra inputs."))
    with OracleServer() as server:
        server.enqueue(refused, refused)
        found = await probe(at(server), "oracle")
        assert "seed" not in server.requests[-1].body
    assert (found.prefix, found.accepts_seed, found.token_counts) == (TRAILING, False, None)


async def test_a_newer_field_for_the_bound() -> None:
    message = "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead."
    with OracleServer() as server:
        server.enqueue(Script(fault=Fault("http", status=400, message=message)))
        found = await probe(at(server), "oracle")
        assert server.requests[-1].body["max_completion_tokens"] == 1
    assert found.max_tokens_field == "max_completion_tokens"


async def test_a_wrong_key_is_told_at_once() -> None:
    with OracleServer(Settings(api_key="right")) as server:
        with pytest.raises(Denied, match="API key"):
            await probe(at(server), "oracle", key="wrong")
        assert server.counters.requests == 1


async def test_a_refusal_of_everything_is_told_after_few_tries() -> None:
    no = Script(fault=Fault("http", status=400, message="No."))
    with OracleServer(otherwise=no) as server:
        with pytest.raises(Refused, match="No"):
            await probe(at(server), "oracle")
        assert server.counters.requests == 3


async def test_nobody_there() -> None:
    with pytest.raises(Unreachable):
        await probe(Profile(name="test", base_url="http://127.0.0.1:9/v1"), "oracle")


# The judgement.


@pytest.mark.parametrize(
    ("answer", "seen"),
    [
        ("nip zutrem", Outcome.CONTINUES),
        ("nip zutrembolant quiff", Outcome.CONTINUES),
        ("Xylokvarnip zut", Outcome.ECHOES),
        ("Xylokvar", Outcome.ANEW),
        (" nip", Outcome.ANEW),
        ("n", Outcome.ANEW),
        ("", Outcome.ANEW),
        ("Sure! Xylok", Outcome.ANEW),
    ],
)
def test_outcomes(answer: str, seen: Outcome) -> None:
    assert outcome("Xylokvar", "nip zutrembolant", answer) is seen


def test_a_new_message_with_the_same_words_is_no_echo() -> None:
    assert not is_echo("Xylokvar", "Xyl")
    assert not is_echo("Xylokvar", "Xylokvar")
    assert is_echo("Xylokvar", "Xylokvar n")


@pytest.mark.parametrize(
    ("deltas", "parts"),
    [
        (["X", "ylo", "k", " zu", "trem"], ("Xylo", "k zutrem")),
        (["one", ",", " two", ","], ("one,", " two,")),
        (["one", " ", "two"], ("one", " two")),
        (["one ", "two"], None),
        (["one", "\n"], None),
        (["one"], None),
        ([], None),
    ],
)
def test_where_a_reply_is_cut(deltas: list[str], parts: tuple[str, str] | None) -> None:
    assert cut(deltas) == parts


# Memory.


def test_what_is_remembered(tmp_path: Path) -> None:
    found = Capabilities(
        server=Server("vLLM", "1"),
        outcomes={TRAILING: Outcome.ANEW, FLAGS: Outcome.CONTINUES},
        prefix=FLAGS,
        token_counts=TokenCounts.IDS,
    )
    memory = Memory(tmp_path / "probes")
    assert memory.recall("http://x/v1", "m") is None
    memory.remember("http://x/v1", "m", found)
    assert memory.recall("http://x/v1", "m") == found
    assert memory.recall("http://x/v1", "other") is None
    (file,) = memory.folder.iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    for spoilt in ("", "[]", "{}", file.read_text().replace("vLLM", 'vLLM"')):
        file.write_text(spoilt)
        assert memory.recall("http://x/v1", "m") is None


@pytest.mark.parametrize("api", [Api.CHAT, Api.RESPONSES, Api.COMPLETIONS])
def test_the_protocol_that_was_asked_for_is_spoken(tmp_path: Path, api: Api) -> None:
    selection = Selection("m", Profile(name="x", base_url="http://x/v1", api=api))
    with fake_environment(tmp_path) as fake:
        made = back_end_for(
            selection, env=fake.env, connect_timeout=1, key_for=lambda _: None, stored=True
        )
    assert made.api == api


def test_a_memory_that_may_not_write_does_not(tmp_path: Path) -> None:
    memory = Memory(tmp_path / "probes", writes=False)
    memory.remember("http://x/v1", "m", Capabilities(server=Server()))
    assert not memory.folder.exists()


# Use.


def ask(length: int = 64) -> Request:
    question = Message("user", f"hello length={length}")
    return Request("oracle", (question,), Options(temperature=0.0))


@asynccontextmanager
async def learning(profile: Profile, memory: Memory) -> AsyncIterator[LearningBackEnd]:
    made = LearningBackEnd(profile, "oracle", memory, key=None, connect_timeout_s=5)
    try:
        yield made
    finally:
        await made.aclose()


async def reply(made: LearningBackEnd, **how: Any) -> list[Chunk]:
    async with made.open(ask(), **how) as stream:
        return [chunk async for chunk in stream]


def text_of(chunks: list[Chunk]) -> str:
    return "".join(chunk.text for chunk in chunks)


@pytest.mark.parametrize("size", [1, (1, 5)])
@pytest.mark.parametrize("echo", [False, True])
@pytest.mark.parametrize("name", SERVERS)
async def test_an_unknown_server_goes_on_at_every_cut(
    name: str, size: int | tuple[int, int], tmp_path: Path, *, echo: bool
) -> None:
    settings, dialect = SERVERS[name]
    with OracleServer(replace(settings, tokens_per_chunk=size, echo=echo)) as server:
        async with learning(at(server), Memory(tmp_path)) as made:
            whole = await reply(made)
            for prefix in (text_of(whole[:count]) for count in range(1, len(whole) - 1)):
                if dialect is None:
                    with pytest.raises(BelowRequire):
                        await gone_on(made, prefix)
                    continue
                assert await gone_on(made, prefix) == (text_of(whole)[len(prefix) :], "text")
                assert server.requests[-1].body["messages"][-1]["content"] == prefix


@pytest.mark.parametrize("trim", [False, True])
@pytest.mark.parametrize("canonical", [False, True])
async def test_the_label_is_never_better_than_the_truth(
    tmp_path: Path, *, trim: bool, canonical: bool
) -> None:
    """Every character is a place to cut; known text and rest are what the model wrote in one."""
    with OracleServer(Settings(trim=trim, canonical=canonical)) as server:
        whole = server.expected("hello length=32")
        went_on = 0
        async with learning(at(server), Memory(tmp_path)) as made:
            for prefix in (whole[:chars] for chars in range(1, len(whole))):
                try:
                    rest, guarantee = await gone_on(made, prefix, ask(32))
                except BelowRequire:
                    assert prefix != prefix.rstrip()
                    continue
                assert guarantee is Guarantee.TEXT
                messages = server.requests[-1].body["messages"]
                seen = "".join(message["content"] for message in messages[1:])  # "": from anew
                seen = seen.rstrip() if trim else seen
                assert prefix + rest == seen + written_behind(seen, canonical=canonical)
                went_on += 1
    assert went_on > len(whole) / 2


async def gone_on(
    made: LearningBackEnd, prefix: str, request: Request | None = None
) -> tuple[str, Guarantee | None]:
    ladder = Ladder(made, request or ask(), rungs("Go on."))
    async with ladder.go_on(Prefix(prefix), lambda: None) as opened:
        return text_of([chunk async for chunk in opened.chunks]), opened.guarantee


def written_behind(prefix: str, *, canonical: bool) -> str:
    """Return what the model itself writes behind a text, worked out without a server."""
    heard = [oracle.Message("user", "hello length=32"), oracle.Message("assistant", prefix)]
    prompt = oracle.render(heard, continue_final=True)
    model = oracle.Oracle(canonical=canonical)
    return oracle.text_of(model.reply(prompt, plan=oracle.Plan(length=32)))


async def test_elsewhere_nothing_is_asked_that_nobody_ordered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llmctl.backends.learning.is_on_this_machine", lambda _: False)
    with OracleServer() as server:
        async with learning(at(server), Memory(tmp_path)) as made:
            assert Strategy.PREFIX not in made.supports
            with pytest.raises(BelowRequire) as told:
                await gone_on(made, "a")
            with pytest.raises(StrategyUnavailable):
                await reply(made, after=Prefix("a"), by=Strategy.PREFIX)
        assert server.counters.requests == 0
    assert "models probe" in (told.value.hint or "")


async def test_what_was_remembered_is_used_without_asking_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llmctl.backends.learning.is_on_this_machine", lambda _: False)
    with OracleServer(Settings(prefill=Prefill.PREFIX)) as server:
        memory = Memory(tmp_path)
        memory.remember(server.base_url, "oracle", await probe(at(server), "oracle"))
        before = server.counters.requests
        async with learning(at(server), memory) as made:
            assert made.supports[Strategy.PREFIX] is Guarantee.TEXT
            assert made.accepts_seed
            assert (await gone_on(made, "a"))[1] is Guarantee.TEXT
        assert server.counters.requests == before + 1


@pytest.mark.parametrize("here", [False, True])
async def test_another_server_at_the_same_address(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, here: bool
) -> None:
    monkeypatch.setattr("llmctl.backends.learning.is_on_this_machine", lambda _: here)
    stale = Capabilities(server=Server("vLLM", "0"), prefix=FLAGS)
    with OracleServer(Settings(prefill=Prefill.PREFIX)) as server:
        memory = Memory(tmp_path)
        memory.remember(server.base_url, "oracle", stale)
        async with learning(at(server), memory) as made:
            if here:
                assert (await gone_on(made, "a"))[1] is Guarantee.TEXT
                assert memory.recall(server.base_url, "oracle") != stale
            else:
                with pytest.raises(BelowRequire, match="probed"):
                    await gone_on(made, "a")


async def test_what_was_probed_counts_more_than_what_the_table_says(tmp_path: Path) -> None:
    with OracleServer(Settings(prefill=Prefill.IGNORED)) as server:
        memory = Memory(tmp_path)
        known = at(server, prefix=TRAILING)
        memory.remember(server.base_url, "oracle", await probe(known, "oracle"))
        async with learning(known, memory) as made:
            assert Strategy.PREFIX not in made.supports
