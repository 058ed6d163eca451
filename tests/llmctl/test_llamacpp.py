"""llama-server by its own endpoints: every cut, every way to go on, and no label too good."""

from __future__ import annotations

import signal
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from llmctl.backends.choose import back_end_for
from llmctl.backends.llamacpp import LlamaServer
from llmctl.capabilities import LLAMA_SERVER, Capabilities, Memory, Server
from llmctl.conversation import Message, Options, Prefix, Request
from llmctl.environment import Environment
from llmctl.errors import ContextFull, Denied, Disconnected
from llmctl.events import Chunk, Guarantee, Strategy, Usage
from llmctl.profiles import PRESETS, Api, Profile, Selection
from llmctl.resume.ladder import Ladder, rungs
from tests.support.cuts import Trial, Witness, gone_on, received, whole
from tests.support.llama_server import LlamaDouble, LlamaSettings, Sabotage
from tests.support.oracle import text_of
from tests.support.oracle_server import OracleServer
from tests.support.processes import Cli

pytestmark = pytest.mark.anyio

PROMPT = "hello length=24 é"
COLD = Options(temperature=0.0, seed=7)
WARM = Options(temperature=0.8, seed=7)
WAYS = (Strategy.CURSOR, Strategy.KV, Strategy.REPLAY, Strategy.TOKENS, Strategy.PREFIX)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def at(server: LlamaDouble) -> Profile:
    return replace(PRESETS["llamacpp"], base_url=server.base_url)


def ask(options: Options, text: str = PROMPT) -> Request:
    return Request("oracle", (Message("user", text),), options)


class Laboratory:
    """One server, one back end, and one reply that is cut in many ways.

    Attributes:
        server: the double.
        full: the uninterrupted reply, all its ids known.
        chunks: it, as it came.
        asked: the tokens of its prompt.
        full_tokens: how many tokens it has.
    """

    def __init__(self, server: LlamaDouble, request: Request, made: LlamaServer) -> None:
        self.server = server
        self.request = request
        self._made = made

    async def begin(self) -> None:
        """Ask for the reply that nobody interrupts."""
        self.chunks = await whole(self.ladder())
        self.full = replace(received(self.chunks), ids=tuple(self.server.runs[-1].ids))
        self.full_tokens = len(self.server.runs[-1].ids)
        self.asked = self.server.prompts[-1]

    def ladder(self, require: Guarantee = Guarantee.TEXT) -> Ladder:
        """Return the way to a reply, as a new process would have it."""
        return Ladder(self._made, self.request, rungs("Go on."), require)

    async def trial(self, way: Strategy, count: int) -> Trial:
        """Cut the reply behind so many chunks and go on by ``way``, or by a weaker one."""
        of = self.ladder(Guarantee.EXACT if way is Strategy.REPLAY else Guarantee.TEXT)
        if way is Strategy.CURSOR:
            before = await self.lost(of, count)
            run = self.server.runs[-1]
            trial = await gone_on(of, before, self.full)
            return replace(trial, full=replace(self.full, text=text_of(run.ids)))
        before = await self.cut(of, count)
        full = replace(self.full, ids=tuple(self.server.runs[-1].ids))
        await self.other()
        if way is not Strategy.KV:
            of.saved = None
        if way is Strategy.PREFIX:
            before = replace(before, ids=None)
        return await gone_on(of, before, full)

    async def cut(self, of: Ladder, count: int) -> Prefix:
        """Read so many chunks, then cut as a session does; the server is no further."""
        self.server.clear()
        self.server.hold(count)
        async with of.start() as opened:
            chunks = [await anext(opened.chunks) for _ in range(count)]
            of.saved = await opened.stream.save()
        return received(chunks)

    async def lost(self, of: Ladder, count: int) -> Prefix:
        """Read so many chunks, then lose the connection."""
        self.server.clear()
        self.server.lose(count)
        chunks: list[Chunk] = []
        with pytest.raises(Disconnected):
            async with of.start() as opened:
                async for chunk in opened.chunks:
                    chunks.append(chunk)  # noqa: PERF401  (what came before the error counts)
        return received(chunks)

    async def other(self) -> None:
        """Let somebody else use the slot."""
        await whole(Ladder(self._made, ask(COLD, "something else length=3"), ()))

    def lies(self, trial: Trial) -> str:
        """Judge a label by what the server had as a prompt when it went on, and wrote then."""
        if trial.strategy in {Strategy.CURSOR, Strategy.REPLAY}:
            return trial.lie()
        had = self.server.prompts[-1]
        assert had[: len(self.asked)] == self.asked
        known = tuple(had[len(self.asked) :])
        wrote = text_of(self.server.runs[-1].ids)
        return trial.lie(Witness(known, text_of(known), wrote, trial.full.ids or ()))

    async def tried(self, way: Strategy, step: int = 1) -> list[tuple[Trial, str]]:
        """Cut everywhere and go on by ``way``; say of each what was claimed and is not so."""
        found = []
        several = self.server.settings.slots > 1  # nothing repeats: a run may have fewer pieces
        last = min(len(self.chunks), len(self.full.ids or ()) // 2 if several else 1 << 30)
        for count in range(1, last, step):
            trial = await self.trial(way, count)
            found.append((trial, self.lies(trial)))
        return found


@asynccontextmanager
async def laboratory(
    settings: LlamaSettings | None = None, options: Options = COLD, text: str = PROMPT
) -> AsyncIterator[Laboratory]:
    with LlamaDouble(settings) as server:
        made = LlamaServer(at(server))
        try:
            found = Laboratory(server, ask(options, text), made)
            await found.begin()
            yield found
        finally:
            await made.aclose()


SHAPES = {
    "one token an event": LlamaSettings(),
    "ids not lost": LlamaSettings(loses_ids=False),
    "three tokens an event": LlamaSettings(tokens_per_event=3),
    "mixed": LlamaSettings(tokens_per_event=(1, 4, 2), loses_ids=False),
    "a byte a write": LlamaSettings(bytes_per_write=1),
    "seven bytes a write": LlamaSettings(bytes_per_write=7, tokens_per_event=2),
    "its own pieces": LlamaSettings(canonical=True, loses_ids=False),
    "four slots": LlamaSettings(slots=4),
}
SHORT = ("one token an event", "mixed", "four slots")


async def labels(lab: Laboratory, way: Strategy, step: int) -> set[tuple[str, str]]:
    """Cut in many places; return by what ways it went on with what labels, all of them true."""
    tried = await lab.tried(way, step)
    assert [lie for _, lie in tried if lie] == []
    return {(str(trial.strategy), str(trial.label)) for trial, _ in tried}


@pytest.mark.parametrize("options", [COLD, WARM], ids=["cold", "warm"])
@pytest.mark.parametrize("shape", SHORT)
async def test_no_label_is_better_than_the_truth(shape: str, options: Options) -> None:
    async with laboratory(SHAPES[shape], options) as lab:
        for way in WAYS:
            await labels(lab, way, step=7)


@pytest.mark.exhaustive
@pytest.mark.parametrize("options", [COLD, WARM], ids=["cold", "warm"])
@pytest.mark.parametrize("length", [1, 2, 23, 64])
@pytest.mark.parametrize("shape", SHAPES)
async def test_no_label_is_better_than_the_truth_at_any_cut(
    shape: str, length: int, options: Options
) -> None:
    text = f"hello length={length} é"
    async with laboratory(SHAPES[shape], options, text) as lab:
        for way in WAYS:
            await labels(lab, way, step=1)


async def test_every_way_earns_what_it_can() -> None:
    async with laboratory(SHAPES["ids not lost"]) as lab:
        found = [await labels(lab, way, step=9) for way in WAYS]
    ways = ("cursor", "kv", "replay", "tokens", "prefix")
    earned = ("exact", "exact", "exact", "token", "text")
    assert found == [{pair} for pair in zip(ways, earned, strict=True)]


async def test_with_more_slots_only_the_run_itself_is_exact() -> None:
    async with laboratory(LlamaSettings(slots=4, loses_ids=False)) as lab:
        assert await labels(lab, Strategy.CURSOR, step=11) == {("cursor", "exact")}
        assert await labels(lab, Strategy.KV, step=11) == {("tokens", "token")}
        assert await labels(lab, Strategy.REPLAY, step=11) == {("None", "None")}


async def test_an_id_lost_inside_a_character_is_noticed() -> None:
    async with laboratory() as lab:
        first = next(n for n, chunk in enumerate(lab.chunks) if chunk.ids is None)
        assert (await lab.trial(Strategy.TOKENS, first)).label is Guarantee.TOKEN
        assert (await lab.trial(Strategy.TOKENS, first + 1)).label is Guarantee.TEXT


@pytest.mark.parametrize(
    ("way", "wrong"),
    [
        (Strategy.TOKENS, Sabotage(id=True)),
        (Strategy.REPLAY, Sabotage(seed=True)),
        (Strategy.KV, Sabotage(state=True)),
        (Strategy.CURSOR, Sabotage(chunk=True)),
    ],
)
async def test_what_a_server_does_wrong_would_be_seen(way: Strategy, wrong: Sabotage) -> None:
    """The controls: nothing tells the client, so the label is false and must be found out."""
    options = WARM if wrong.seed else COLD
    async with laboratory(LlamaSettings(loses_ids=False, sabotage=wrong), options) as lab:
        trial = await lab.trial(way, 7)
        assert (trial.strategy, trial.label) == (way, LABELS[way])
        assert lab.lies(trial)


LABELS = {
    Strategy.CURSOR: Guarantee.EXACT,
    Strategy.KV: Guarantee.EXACT,
    Strategy.REPLAY: Guarantee.EXACT,
    Strategy.TOKENS: Guarantee.TOKEN,
}


# What loses a label.


def other_process(lab: Laboratory) -> None:
    lab.server.restart()


def other_files(lab: Laboratory) -> None:
    lab.server.change_file()


def no_files(lab: Laboratory) -> None:
    lab.server.lose_files()


@pytest.mark.parametrize("happens", [other_process, other_files, no_files])
async def test_a_state_that_is_not_that_of_the_cut(happens: Callable[[Laboratory], None]) -> None:
    async with laboratory(LlamaSettings(loses_ids=False)) as lab:
        of = lab.ladder()
        before = await lab.cut(of, 9)
        happens(lab)
        trial = await gone_on(of, before, lab.full)
        assert (trial.strategy, trial.label) == (Strategy.TOKENS, Guarantee.TOKEN)
        assert not lab.lies(trial)


@pytest.mark.parametrize(
    "settings",
    [
        LlamaSettings(saves_slots=False),
        LlamaSettings(tells_process=False),
        LlamaSettings(sampler={"repeat_penalty": 1.1}),
        LlamaSettings(slots=2),
    ],
    ids=["no place for states", "an older build", "a penalty nobody asked for", "two slots"],
)
async def test_where_no_state_proves_anything(settings: LlamaSettings) -> None:
    async with laboratory(replace(settings, loses_ids=False)) as lab:
        trial = await lab.trial(Strategy.KV, 9)
        assert (trial.strategy, trial.label) == (Strategy.TOKENS, Guarantee.TOKEN)


@pytest.mark.parametrize("extra", [{"presence_penalty": 0.5}, {"repeat_penalty": 1.2}])
async def test_penalties_begin_anew_behind_a_state(extra: Mapping[str, float]) -> None:
    options = replace(COLD, extra=extra)
    async with laboratory(LlamaSettings(loses_ids=False), options) as lab:
        assert (await lab.trial(Strategy.KV, 9)).strategy is Strategy.TOKENS


@pytest.mark.parametrize("changed", [False, True])
async def test_another_process_does_not_replay_exactly(*, changed: bool) -> None:
    async with laboratory() as lab:
        of = lab.ladder(Guarantee.EXACT)
        before = await lab.cut(of, 9)
        of.saved = None
        lab.server.restart(changed=changed)
        assert (await gone_on(of, before, lab.full)).rest is None


async def test_a_reply_that_began_in_a_used_cache_is_not_replayed_exactly() -> None:
    async with laboratory() as lab:
        of = lab.ladder(Guarantee.EXACT)
        before = received((await whole(of))[:9])  # behind a reply that begins with the same tokens
        assert before.cursor is not None
        assert (await gone_on(of, replace(before, cursor=None), lab.full)).rest is None


async def test_a_replay_is_paid_for_only_where_nothing_less_will_do() -> None:
    async with laboratory() as lab:
        of, said = lab.ladder(), list[str]()
        of.tell = said.append
        before = await lab.cut(of, 9)
        of.saved = None
        assert (await gone_on(of, before, lab.full)).strategy is not Strategy.REPLAY
        assert said == []
        of.require = Guarantee.EXACT
        assert (await gone_on(of, before, lab.full)).strategy is Strategy.REPLAY
        assert said == [
            f"to go on exactly, the first {before.tokens} tok are generated and paid for once more"
        ]


@pytest.mark.parametrize(
    ("way", "prompt", "reply"),
    [
        (Strategy.CURSOR, None, None),
        (Strategy.KV, 1, 0),
        (Strategy.TOKENS, None, 0),
        (Strategy.REPLAY, None, 9),
    ],
)
async def test_what_is_paid_for_again_is_told(
    way: Strategy, prompt: int | None, reply: int | None
) -> None:
    """The server's own count of what it evaluated and generated is what is said."""
    async with laboratory(LlamaSettings(loses_ids=False)) as lab:
        of = lab.ladder(Guarantee.EXACT if way is Strategy.REPLAY else Guarantee.TEXT)
        before = await (lab.lost if way is Strategy.CURSOR else lab.cut)(of, 9)
        of.saved = of.saved if way is Strategy.KV else None
        if way is not Strategy.CURSOR:
            await lab.other()
        evaluated = lab.server.evaluated
        async with of.go_on(before, lambda: None) as opened:
            assert opened.strategy is way
            assert [chunk async for chunk in opened.chunks]
        spent = lab.server.evaluated - evaluated
        if reply is None:
            assert opened.paid_again is None
            assert spent == 0
            return
        known = before.tokens if reply else 0
        assert opened.paid_again == Usage(spent, known, spent + (known or 0))
        assert prompt in {None, spent}


@pytest.mark.parametrize("spoil", [lambda ids: (*ids[:-1], ids[-1] ^ 1), lambda ids: ids[1:]])
async def test_ids_that_do_not_spell_the_text_are_not_used(spoil: Any) -> None:
    async with laboratory(LlamaSettings(loses_ids=False)) as lab:
        of = lab.ladder()
        before = await lab.cut(of, 9)
        of.saved = None
        wrong = replace(before, ids=spoil(before.ids))
        assert (await gone_on(of, wrong, lab.full)).label is Guarantee.TEXT


async def test_another_model_or_prompt_has_no_ids_of_this_reply() -> None:
    async with laboratory(LlamaSettings(canonical=True, loses_ids=False)) as lab:
        of = lab.ladder()
        before = await lab.cut(of, 9)
        of.saved = None
        others: list[dict[str, Any]] = [{"prompt": {}}, {"server": {"model": "x", "meta": None}}]
        for changed in others:
            known = of.conditions
            of.conditions = {**known, **changed}
            trial = await gone_on(of, before, lab.full)
            assert (trial.strategy, trial.label) == (Strategy.PREFIX, Guarantee.TEXT)
            of.conditions = known


# A model that reasons.


@pytest.mark.parametrize("tokens", [1, 3])
async def test_reasoning_is_kept_and_gone_on_with_from_any_cut(tokens: int) -> None:
    settings = LlamaSettings(reasoning=9, tokens_per_event=tokens, loses_ids=False)
    async with laboratory(settings) as lab:
        assert lab.full.reasoning
        assert lab.full.text
        assert await seen(lab, Strategy.CURSOR) == {("cursor", "exact")}
        assert await seen(lab, Strategy.REPLAY) == {("replay", "exact")}
        assert await seen(lab, Strategy.PREFIX) == {("prefix", "text")}


async def seen(lab: Laboratory, way: Strategy) -> set[tuple[str, str]]:
    """Go on everywhere, within the reasoning and behind it, and compare both parts."""
    found = set()
    for count in range(1, len(lab.chunks), 2):
        trial = await lab.trial(way, count)
        assert trial.rest is not None
        if trial.label is Guarantee.EXACT:
            assert trial.before.reasoning + trial.rest.reasoning == lab.full.reasoning
            assert trial.before.text + trial.rest.text == lab.full.text
        else:
            said = lab.server.requests[-1][2]["messages"][-1]
            assert said["content"] == trial.before.text
            assert said["reasoning_content"] == trial.before.reasoning
        found.add((str(trial.strategy), str(trial.label)))
    return found


# The run itself.


async def test_a_run_that_is_no_longer_kept() -> None:
    async with laboratory(LlamaSettings(loses_ids=False)) as lab:
        before = await lab.lost(of := lab.ladder(), 9)
        lab.server.forget_runs()
        assert (await gone_on(of, before, lab.full)).strategy is Strategy.TOKENS


async def test_a_run_whose_ring_has_turned() -> None:
    async with laboratory(LlamaSettings(loses_ids=False, ring=1500, delay_s=0.002)) as lab:
        before = await lab.lost(of := lab.ladder(), 9)
        lab.server.wait_until_generated()
        assert (await gone_on(of, before, lab.full)).strategy is Strategy.TOKENS


async def test_an_older_server_keeps_no_runs() -> None:
    async with laboratory(LlamaSettings(loses_ids=False, keeps_runs=False)) as lab:
        before = await lab.lost(of := lab.ladder(), 9)
        assert (await gone_on(of, before, lab.full)).strategy is Strategy.TOKENS


@pytest.mark.parametrize("places", [-40, 1, 40])
async def test_a_place_that_is_not_the_one_of_the_cut(places: int) -> None:
    async with laboratory(LlamaSettings(loses_ids=False)) as lab:
        before = await lab.lost(of := lab.ladder(), 9)
        assert before.cursor is not None
        moved = replace(before.cursor, at=before.cursor.at + places)
        trial = await gone_on(of, replace(before, cursor=moved), lab.full)
        assert trial.strategy is Strategy.TOKENS
        assert not lab.lies(trial)


def lose() -> None:
    raise Disconnected("Lost.")


async def test_a_run_is_lost_again_and_again() -> None:
    async with laboratory() as lab:
        of = lab.ladder()
        before = await lab.lost(of, 3)
        text = before.text
        for count in (2, 1, 5):
            parts: list[Chunk] = []
            with pytest.raises(Disconnected):
                async with of.go_on(before, lambda: None) as opened:
                    assert opened.guarantee is Guarantee.EXACT
                    parts += [await anext(opened.chunks) for _ in range(count)]
                    lose()
            text += received(parts).text
            before = replace(before, text=text, cursor=parts[-1].cursor)
        assert text == "".join(chunk.text for chunk in lab.chunks[:11])


async def test_a_lost_run_goes_on_and_a_cut_one_is_ended() -> None:
    async with laboratory(LlamaSettings(delay_s=0.002)) as lab:
        await lab.lost(lab.ladder(), 3)
        lost = lab.server.runs[-1]
        assert not [request for request in lab.server.requests if request[0] == "DELETE"]
        await lab.other()  # another takes its place: now it is ended
        assert [request[0] for request in lab.server.requests].count("DELETE") == 1
        assert lost.done


async def test_a_cut_stops_the_generation_at_once() -> None:
    """C.5, by the server's own count: nothing is generated 100 ms after the cut."""
    async with laboratory(LlamaSettings(delay_s=0.01)) as lab:
        for count in (1, 5, 9):
            of = lab.ladder()
            async with of.start() as opened:
                for _ in range(count):
                    await anext(opened.chunks)
                at_ns = time.monotonic_ns()
                await opened.stream.save()
            run = lab.server.runs[-1]
            assert run.done
            assert run.tokens < lab.full_tokens
            assert run.last_token_ns - at_ns < 100_000_000


async def test_connections_are_used_again_and_closed_in_the_end() -> None:
    with LlamaDouble() as server:
        made = LlamaServer(at(server))
        for _ in range(4):
            await whole(Ladder(made, ask(COLD), ()))
        assert server.connections == 1
        await made.aclose()
        server.wait_until_all_are_gone()


async def test_a_server_that_hangs_up_behind_a_stream_is_asked_once_more() -> None:
    async with laboratory(LlamaSettings(hangs_up=True)) as lab:
        lab.server.clear()
        assert received(await whole(lab.ladder())).text == lab.full.text


async def test_the_bound_holds_for_the_whole_reply() -> None:
    bounded = replace(COLD, max_tokens=15)
    async with laboratory(LlamaSettings(loses_ids=False), bounded) as lab:
        assert len(lab.full.ids or ()) == 15
        for way in (Strategy.CURSOR, Strategy.KV, Strategy.TOKENS):
            trial = await lab.trial(way, 6)
            assert trial.rest is not None
            assert len(lab.server.runs[-1].ids) in {9, 15}


async def test_a_context_that_ends_is_said_to() -> None:
    settings = LlamaSettings(context=60, length=100)
    async with laboratory(settings, text="hello") as lab:
        assert lab.chunks[-1].context_full
        before = await lab.lost(of := lab.ladder(), 3)
        async with of.go_on(before, lambda: None) as opened:
            assert [chunk async for chunk in opened.chunks][-1].context_full


async def test_what_does_not_fit_is_refused_with_both_numbers() -> None:
    with LlamaDouble(LlamaSettings(context=10)) as server:
        made = LlamaServer(at(server))
        with pytest.raises(ContextFull, match=r"needs \d+ tokens; the context holds 10"):
            await whole(Ladder(made, ask(COLD), ()))
        await made.aclose()


async def test_what_is_no_llama_server_is_not_taken_for_one() -> None:
    with OracleServer() as server:
        made = LlamaServer(replace(PRESETS["llamacpp"], base_url=server.base_url))
        with pytest.raises(Denied, match="is no llama-server"):
            await whole(Ladder(made, ask(COLD), ()))
        await made.aclose()


async def test_a_key_is_sent_to_every_address() -> None:
    with LlamaDouble(LlamaSettings(api_key="k")) as server:
        made = LlamaServer(at(server), key="k")
        assert await whole(Ladder(made, ask(COLD), ()))
        await made.aclose()
        denied = LlamaServer(at(server))
        with pytest.raises(Denied, match="wants an API key"):
            await whole(Ladder(denied, ask(COLD), ()))
        await denied.aclose()


# From the command line.


def test_from_the_command_line(tmp_path: Path) -> None:
    with LlamaDouble(LlamaSettings(delay_s=0.005, loses_ids=False)) as server:
        cli = Cli(tmp_path)
        where = ("--base-url", server.base_url, "--api", "llamacpp", "-m", "oracle")
        ask = ("run", "--no-stdin", *where, "--temperature", "0", "--seed", "7", PROMPT)
        server.lose(9)
        lost = cli.run(*ask)
        full = text_of(server.runs[0].ids)
        assert (lost.returncode, lost.text) == (0, full)
        assert "(cursor, exact)" in lost.errors
        server.clear()
        first = cli.run(*ask, "--pause-after", "5")
        rest = cli.run("resume")
        assert (first.returncode, rest.returncode) == (5, 0)
        if "resumed at 5 tok (kv, exact)" in rest.errors:
            assert first.text + rest.text == full
        else:  # the state could not be saved in time, on a busy machine
            assert "resumed at 5 tok (tokens, token)" in rest.errors
        server.clear()
        first = cli.run(*ask, "--temperature", "0.8", "--pause-after", "5")
        rest = cli.run("resume", "--require", "exact")
        assert (
            "are generated and paid for once more\nresumed at 5 tok (replay, exact)" in rest.errors
        )


def test_a_killed_process_is_followed_by_one_that_reads_its_run_on(tmp_path: Path) -> None:
    with LlamaDouble() as server:
        cli = Cli(tmp_path)
        server.hold(9)
        where = ("--base-url", server.base_url, "--api", "llamacpp", "-m", "oracle")
        with cli.start("run", "--no-stdin", *where, PROMPT) as process:
            process.kill_after_bytes(1)
            assert process.wait().returncode == -signal.SIGKILL
        server.release()
        rest = cli.run("resume", "--full")
        assert rest.returncode == 0, rest.errors
        assert "(cursor, exact)" in rest.errors
        assert rest.text == text_of(server.runs[0].ids)
        assert len(server.runs) == 1


@pytest.mark.parametrize(
    ("api", "kind", "native"),
    [
        (Api.LLAMACPP, None, True),
        (Api.AUTO, LLAMA_SERVER, True),
        (Api.AUTO, "vLLM", False),
        (Api.AUTO, None, False),
        (Api.CHAT, LLAMA_SERVER, False),
    ],
)
def test_who_is_asked_natively(api: Api, kind: str | None, *, native: bool, tmp_path: Path) -> None:
    env = replace(Environment.of_process(), data=tmp_path)
    profile = Profile(name="x", base_url="http://127.0.0.1:9/v1", api=api)
    if kind is not None:
        found = Capabilities(server=Server(kind))
        Memory.of(env).remember(profile.base_url, "m", found)
    made = back_end_for(
        Selection("m", profile),
        env=env,
        connect_timeout=1.0,
        key_for=lambda _profile: None,
        stored=True,
    )
    assert isinstance(made, LlamaServer) is native
