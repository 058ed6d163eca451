"""Every back end, every strategy, every place to cut: no label is better than the truth.

The bounded form cuts replies of 64 tokens at every token, and at some in each other way of
chunking and sampling; the long one (``-m exhaustive``) at every place in all of them.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

import pytest

from llmctl.backends.chat import ChatBackEnd
from llmctl.backends.completions import CompletionsBackEnd
from llmctl.backends.responses import ResponsesBackEnd
from llmctl.conversation import Message, Options, Prefix, Request
from llmctl.events import Guarantee, Strategy
from llmctl.ports import BackEnd
from llmctl.profiles import PRESETS, PrefixDialect, Profile
from llmctl.resume.ladder import Ladder
from tests.support import oracle
from tests.support.cuts import Trial, Witness, climb, gone_on, ladder_of, received, whole
from tests.support.oracle_responses import Keeping
from tests.support.oracle_schema import satisfies
from tests.support.oracle_server import OracleServer, Settings
from tests.support.oracle_settings import Record
from tests.support.oracle_wire import Feature, Prefill, bare

pytestmark = pytest.mark.anyio

TOKENS, PREFIX, CURSOR = Strategy.TOKENS, Strategy.PREFIX, Strategy.CURSOR
FLAGS = Prefill.CONTINUE_FINAL_MESSAGE
IDS = (Feature.USAGE, Feature.TOKEN_IDS, Feature.TOKEN_PROMPTS)
USAGE = (Feature.USAGE,)
Make = Callable[[Profile], BackEnd]


@dataclass(frozen=True, slots=True)
class Case:
    """A back end and the server it speaks to.

    Attributes:
        preset: what is known of it beforehand.
        server: what it does.
        by: how a reply is gone on with at every cut, where nothing is in the way.
        make: the protocol.
        known: what else is known.
    """

    preset: str
    server: Settings
    by: Strategy | None
    make: Make = ChatBackEnd
    known: tuple[tuple[str, Any], ...] = ()


def _background(profile: Profile) -> BackEnd:
    return ResponsesBackEnd(replace(profile, background=True), poll_s=0.002)


def _stored(keeping: Keeping, by: Strategy | None) -> Case:
    server = Settings(features=(Feature.RESPONSES,), keeping=keeping)
    return Case("openai", server, by, _background)


TRAILING = (("prefix", PrefixDialect.TRAILING_ASSISTANT),)
CASES: dict[str, Case] = {
    "openai": Case("openai", Settings(prefill=Prefill.IGNORED), None),
    "anthropic": Case("anthropic", Settings(prefill=Prefill.REJECTED), None),
    "anthropic, believed to go on": Case(
        "anthropic", Settings(prefill=Prefill.REJECTED), None, known=TRAILING
    ),
    "deepseek": Case("deepseek", Settings(prefill=Prefill.PREFIX, features=USAGE), PREFIX),
    "mistral": Case(
        "mistral", Settings(prefill=Prefill.PREFIX, echo=True, seed_field="random_seed"), PREFIX
    ),
    "groq": Case("groq", Settings(), PREFIX),
    "a template that trims": Case("groq", Settings(trim=True), PREFIX),
    "llamacpp": Case("llamacpp", Settings(features=(*USAGE, Feature.TIMINGS)), PREFIX),
    "vllm": Case("vllm", Settings(prefill=FLAGS, features=IDS), TOKENS),
    "vllm that tells no ids": Case(
        "vllm", Settings(prefill=FLAGS, features=USAGE, strict=False), PREFIX
    ),
    "vllm that shortens": Case(
        "vllm", Settings(prefill=FLAGS, features=IDS, truncates=1), PREFIX
    ),
    "sglang": Case("sglang", Settings(prefill=FLAGS, features=USAGE), PREFIX),
    "completions": Case(
        "llamacpp", Settings(features=(*USAGE, Feature.TIMINGS, Feature.COMPLETIONS)), PREFIX,
        CompletionsBackEnd,
    ),
    "vllm, completions": Case("vllm", Settings(features=IDS), TOKENS, CompletionsBackEnd),
    "sglang, completions": Case(
        "sglang", Settings(features=IDS, spelled_as="text"), TOKENS, CompletionsBackEnd
    ),
    "responses": _stored(Keeping.KEPT, CURSOR),
    "responses, too old": _stored(Keeping.TOO_OLD, CURSOR),
    "responses, in one piece": _stored(Keeping.WHOLE, CURSOR),
    "responses, from the start": _stored(Keeping.FROM_START, CURSOR),
    "responses, lost": _stored(Keeping.LOST, None),
    "responses, ignored": _stored(Keeping.IGNORED, None),
    "responses, with a gap": _stored(Keeping.WITH_GAP, None),
    "responses, altered": _stored(Keeping.ALTERED, None),
}  # fmt: skip

SIZES: tuple[int | tuple[int, int], ...] = (1, 2, 3, 5, (1, 4), (2, 7), 64)
SAMPLINGS = (("pure", 0.0), ("positional", 0.8), ("stateful", 0.8))


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def ask(case: Case, length: int, temperature: float) -> Request:
    """Return a request; positions of a completion count from the prompt's beginning."""
    question = f"Once (length={length}) upon"
    if case.make is CompletionsBackEnd:
        question = f"Once (length={length + len(bare(question)) - 1}) upon"
    seed = None if case.make is _background or not temperature else 7
    bound = 4096 if case.make is CompletionsBackEnd else None
    options = Options(temperature=temperature, seed=seed, max_tokens=bound)
    return Request("oracle", (Message("user", question),), options)


@asynccontextmanager
async def ladder(case: Case, server: OracleServer, request: Request) -> AsyncIterator[Ladder]:
    url = server.base_url
    profile = replace(PRESETS[case.preset], base_url=url, **dict(case.known))
    if profile.prefix_base_url is not None:
        profile = replace(profile, prefix_base_url=url)
    async with ladder_of(case.make(profile), request) as of:
        yield of


def witness(server: OracleServer, request: Request, record: Record) -> Witness | None:
    """Work out from a recorded request what the model had, and what it wrote behind that."""
    body, settings = record.body, server.settings
    if record.method != "POST" or record.status != 200 or "input" in body:
        return None
    fresh, had = _prompts(body, settings, request)
    model = oracle.Oracle(settings.rng, canonical=settings.canonical)
    options = request.options
    sampling = oracle.Sampling(options.temperature or 0.0, 1.0, options.seed or 0)
    plan = oracle.Plan(length=int(request.messages[0].content.split("=")[1].split(")")[0]))
    wrote = had + tuple(model.reply(had, sampling=sampling, plan=plan))
    reply = tuple(model.reply(fresh, sampling=sampling, plan=plan))
    had_text = oracle.text_of(had[len(fresh) :])
    return Witness(
        had[len(fresh) :],
        had_text,
        oracle.text_of(wrote[len(fresh) :])[len(had_text) :],
        reply,
    )


def _prompts(body: Any, settings: Settings, request: Request) -> tuple[tuple[int, ...], ...]:
    """Return the prompt of the first request, and that of one that went on."""
    question = request.messages[0].content
    chat = tuple(oracle.render([oracle.Message("user", question)]))
    if "messages" in body:
        heard = [oracle.Message(m["role"], m["content"]) for m in body["messages"]]
        goes_on = heard[-1].role == "assistant"
        return chat, tuple(oracle.render(heard, continue_final=goes_on, trim=settings.trim))
    prompt = body["prompt"]
    if isinstance(prompt, str):
        return bare(question), bare(prompt)
    fresh = chat if oracle.Special.USER in prompt else bare(question)
    return fresh, tuple(prompt[settings.truncates :])


async def trials(
    case: Case, settings: Settings, request: Request, step: int = 1
) -> list[tuple[Trial, str]]:
    """Cut, go on and judge; return what came of it, and in what each label lies."""
    judged = []
    with OracleServer(settings) as server:
        async with ladder(case, server, request) as of:
            async for trial in climb(of, step):
                record = server.requests[-1]
                judged.append((trial, trial.lie(witness(server, request, record))))
    return judged


def check(case: Case, judged: list[tuple[Trial, str]], *, drifts: bool) -> None:
    """See that nothing lies, and that everything went on that could."""
    assert [lie for _, lie in judged if lie] == []
    for trial, _ in judged:
        if case.by is None:  # behind nothing but blanks the same request is sent again
            assert trial.rest is None or not trial.before.text.strip()
        elif trial.rest is None:  # only blanks that nobody wrote again are given up for
            assert case.by is PREFIX
            assert trial.before.text != trial.before.text.rstrip()
        elif not drifts:
            assert trial.strategy in {case.by, PREFIX}


@pytest.mark.parametrize("name", CASES)
async def test_a_reply_cut_at_every_token(name: str) -> None:
    case = CASES[name]
    request = ask(case, 64, 0.0)
    judged = await trials(case, case.server, request)
    check(case, judged, drifts=False)
    assert len(judged) > 40
    if case.by is not None:
        ways = [trial.strategy for trial, _ in judged]
        assert ways.count(case.by) > 0.8 * len(ways)
        for trial, _ in judged:  # cut behind a token, a canonical reply does not drift
            whole_again = trial.rest is None or case.server.truncates
            assert whole_again or trial.before.text + trial.rest.text == trial.full.text  # type: ignore[union-attr]


def others() -> Iterator[tuple[str, int | tuple[int, int], str, float, bool]]:
    """Yield, for every case, some of the other ways to chunk and to sample."""
    for number, name in enumerate(CASES):
        rng, temperature = SAMPLINGS[number % 3]
        yield name, SIZES[1 + number % 6], rng, temperature, number % 2 == 0
        rng, temperature = SAMPLINGS[(number + 1) % 3]
        yield name, (1, 4), rng, temperature, number % 2 == 1


@pytest.mark.parametrize(("name", "size", "rng", "temperature", "canonical"), list(others()))
async def test_in_other_chunks_and_with_other_dice(
    name: str, size: int | tuple[int, int], rng: str, temperature: float, *, canonical: bool
) -> None:
    case = CASES[name]
    settings = replace(case.server, tokens_per_chunk=size, rng=rng, canonical=canonical)
    judged = await trials(case, settings, ask(case, 48, temperature), step=5)
    check(case, judged, drifts=True)


@pytest.mark.exhaustive
@pytest.mark.parametrize("canonical", [False, True])
@pytest.mark.parametrize(("rng", "temperature"), SAMPLINGS)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", CASES)
async def test_at_every_place_in_every_way(
    name: str, size: int | tuple[int, int], rng: str, temperature: float, *, canonical: bool
) -> None:
    case = CASES[name]
    for length in (1, 2, 7, 33, 64):
        settings = replace(
            case.server, tokens_per_chunk=size, rng=rng, canonical=canonical, seed=length
        )
        check(case, await trials(case, settings, ask(case, length, temperature)), drifts=True)


# A judge that finds nothing must be able to find something.


def wrong_id(before: Prefix) -> Prefix:
    assert before.ids is not None
    return replace(before, ids=(*before.ids[:-1], before.ids[-1] + 1))


async def spoilt(
    name: str, spoil: Callable[[Ladder], None], cut: int = 9, **settings: Any
) -> tuple[Trial, str]:
    """Go on with a reply after something was spoilt."""
    case = CASES[name]
    request = ask(case, 64, settings.pop("temperature", 0.0))
    with OracleServer(replace(case.server, **settings)) as server:
        async with ladder(case, server, request) as of:
            chunks = await whole(of)
            spoil(of)
            trial = await gone_on(of, received(chunks[:cut]), received(chunks))
            return trial, trial.lie(witness(server, request, server.requests[-1]))


async def test_one_id_of_the_prompt_changed_is_seen() -> None:
    def spoil(of: Ladder) -> None:
        first, *others = of.conditions["prompt_ids"]
        of.conditions = {"prompt_ids": [first, others[0] + 1, *others[1:]]}

    trial, _ = await spoilt("vllm, completions", spoil)
    assert trial.rest is not None
    assert trial.before.text + trial.rest.text != trial.full.text


async def test_one_id_of_the_reply_changed_is_not_called_token() -> None:
    case = CASES["vllm, completions"]
    request = ask(case, 64, 0.0)
    with OracleServer(case.server) as server:
        async with ladder(case, server, request) as of:
            chunks = await whole(of)
            before = received(chunks[:9])
            trial = await gone_on(of, wrong_id(before), received(chunks))
            assert trial.label is Guarantee.TEXT
            believed = replace(trial, label=Guarantee.TOKEN, before=wrong_id(before))
            record = server.requests[-1]
            spoilt_body = {**record.body, "prompt": [*bare(request.messages[0].content)]}
            record.body = {**spoilt_body, "prompt": [*spoilt_body["prompt"], 300]}
            assert "is not what the model wrote" in believed.lie(witness(server, request, record))


async def test_a_text_that_drifts_is_seen_if_it_is_called_token() -> None:
    case = CASES["groq"]
    settings = replace(case.server, canonical=False)
    lies = 0
    for length in (64, 63, 62):
        request = ask(case, length, 0.0)
        with OracleServer(settings) as server:
            async with ladder(case, server, request) as of:
                async for trial in climb(of):
                    seen = witness(server, request, server.requests[-1])
                    assert trial.lie(seen) == ""
                    lies += bool(replace(trial, label=Guarantee.TOKEN).lie(seen))
    assert lies > 0


@pytest.mark.parametrize("name", ["responses", "vllm", "groq"])
async def test_a_lost_chunk_is_seen(name: str) -> None:
    case = CASES[name]
    request = ask(case, 64, 0.0)
    with OracleServer(case.server) as server:
        async with ladder(case, server, request) as of:
            chunks = await whole(of)
            torn = [*chunks[:5], *chunks[6:12]]  # a journal without its sixth chunk
            trial = await gone_on(of, received(torn), received(chunks))
            assert trial.rest is not None
            believed = replace(trial, label=Guarantee.EXACT)
            assert "exact, but" in believed.lie(witness(server, request, server.requests[-1]))
            if name == "vllm":  # its ids spell the text, but are not the reply's
                assert trial.label is not Guarantee.EXACT


async def test_another_seed_is_seen_if_it_is_called_exact() -> None:
    def spoil(of: Ladder) -> None:
        of.request = of.request.with_options(seed=8)

    trial, _ = await spoilt("vllm", spoil, rng="positional", temperature=0.8)
    assert trial.label is Guarantee.TOKEN
    assert replace(trial, label=Guarantee.EXACT).lie() != ""


async def test_dice_that_begin_anew_are_seen_if_they_are_called_exact() -> None:
    trial, lie = await spoilt("vllm", lambda _: None, rng="stateful", temperature=0.8)
    assert (trial.label, lie) == (Guarantee.TOKEN, "")
    assert replace(trial, label=Guarantee.EXACT).lie() != ""


# A schema that the server enforces.

SCHEMA = {
    "type": "object",
    "properties": {
        "title": {"type": "string"},
        "mood": {"enum": ["calm", "wild 🚀"]},
        "tags": {"type": "array", "items": {"type": "string"}},
        "size": {"type": "integer"},
        "done": {"type": "boolean"},
    },
}
SHAPED = {name: case for name, case in CASES.items() if case.by is not None}


async def shaped_trials(case: Case) -> list[Trial]:
    request = ask(case, 64, 0.0).with_options(schema=SCHEMA)
    with OracleServer(case.server) as server:
        async with ladder(case, server, request) as of:
            return [trial async for trial in climb(of)]


@pytest.mark.parametrize("name", SHAPED)
async def test_no_reply_that_was_gone_on_with_violates_its_schema(name: str) -> None:
    case = CASES[name]
    tried = await shaped_trials(case)
    assert len(tried) > 20
    for trial in tried:
        assert satisfies(trial.full.text, SCHEMA)
        assert (trial.rest is not None) is (case.by is CURSOR)
        if trial.rest is not None:
            assert satisfies(trial.before.text + trial.rest.text, SCHEMA)


@pytest.mark.parametrize("name", ["groq", "vllm, completions"])
async def test_without_the_rule_they_would(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Options, "shaped", property(lambda _: False))
    tried = await shaped_trials(CASES[name])
    whole_again = [
        satisfies(t.before.text + t.rest.text, SCHEMA) for t in tried if t.rest is not None
    ]
    assert len(whole_again) > 20
    assert not all(whole_again)
