"""The ladder and its rungs: what is claimed is what was earned."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import anyio
import pytest

from llmctl.backends.script import Script, script_from_json, script_from_text
from llmctl.backends.scripted import ScriptedBackEnd
from llmctl.conversation import Message, Prefix, Request
from llmctl.errors import BelowRequire
from llmctl.events import Channel, Chunk, Guarantee, Strategy
from llmctl.resume.instruct import Overlap
from llmctl.resume.ladder import Ladder, rungs

TEXT = "one two three four five"
REQUEST = Request("m", (Message("user", "hi"),))


def go_on(
    script: Script, prefix: Prefix, *, request: Request = REQUEST, **standing: Any
) -> tuple[Strategy | None, Guarantee | None, str]:
    """Go on behind a prefix; return by which way, how exactly, and with what text."""
    ladder = Ladder(ScriptedBackEnd(script), request, rungs("Go on."), **standing)

    async def run() -> tuple[Strategy | None, Guarantee | None, str]:
        async with ladder.go_on(prefix, lambda: None) as opened:
            text = "".join([chunk.text async for chunk in opened.chunks])
            return opened.strategy, opened.guarantee, text

    return anyio.run(run)


def script(*supports: str, text: str = TEXT) -> Script:
    return script_from_json("s", {"text": text, "supports": list(supports)})


def conditions(text: str = TEXT) -> Mapping[str, Any]:
    return {"script": script_from_text("s", text).digest}


@pytest.mark.parametrize("cut", range(1, len(TEXT)))
def test_a_replay_goes_on_behind_any_character(cut: int) -> None:
    found = go_on(script("replay"), Prefix(TEXT[:cut]), conditions=conditions())
    assert found == (Strategy.REPLAY, Guarantee.EXACT, TEXT[cut:])


@pytest.mark.parametrize(
    "recorded",
    [conditions(TEXT + " six"), {**conditions(), "threads": 4}, {}],
    ids=["another tail", "one more condition", "none recorded"],
)
def test_exact_is_a_statement_about_conditions(recorded: Mapping[str, Any]) -> None:
    """The prefix agrees in each of these; that proves nothing about the rest."""
    prefix = Prefix("one two", tokens=2)
    found = go_on(script("replay"), prefix, conditions=recorded)
    assert found == (Strategy.REPLAY, Guarantee.TOKEN, TEXT[7:])
    with pytest.raises(BelowRequire, match="reached only token"):
        go_on(script("replay"), prefix, conditions=recorded, require=Guarantee.EXACT)


def test_a_prefix_that_is_not_repeated_is_given_up_before_anything_is_shown() -> None:
    other = Prefix("one too", tokens=2)
    with pytest.raises(BelowRequire, match="did not repeat"):
        go_on(script("replay"), other, conditions=conditions())
    longer = Prefix(TEXT + " six")
    with pytest.raises(BelowRequire, match="ended before"):
        go_on(script("replay"), longer, conditions=conditions())


def test_the_next_rung_takes_over() -> None:
    other = script("replay", "prefix", text="one two and more")
    found = go_on(other, Prefix("one two", tokens=2), conditions=conditions())
    assert found[:2] == (Strategy.REPLAY, Guarantee.TOKEN)
    mended = go_on(script("replay", "prefix"), Prefix("one two"), guarantee=Guarantee.TEXT)
    assert mended == (Strategy.PREFIX, Guarantee.TEXT, TEXT[7:])


def test_no_resume_is_better_than_the_worst_before_it() -> None:
    ladder = Ladder(ScriptedBackEnd(script("prefix")), REQUEST, rungs("Go on."))

    async def run() -> None:
        async with ladder.go_on(Prefix("one"), lambda: None):
            pass

    anyio.run(run)
    assert ladder.guarantee is Guarantee.TEXT


def test_below_the_floor_nothing_is_asked() -> None:
    ladder = Ladder(ScriptedBackEnd(script("held")), REQUEST, rungs("Go on."))
    assert not ladder.may_go_on(Prefix("one"))
    ladder.require = Guarantee.BEST_EFFORT
    assert ladder.may_go_on(Prefix("one"))


def test_what_is_left_of_the_bound() -> None:
    bounded = REQUEST.with_options(max_tokens=3)
    ladder = Ladder(ScriptedBackEnd(script()), bounded, rungs("Go on."))
    assert not ladder.spent(Prefix("one two", tokens=2, spent=2))
    assert ladder.spent(Prefix("one two three", tokens=3, spent=3))
    assert not ladder.spent(Prefix("one two three", tokens=None, spent=3))
    found = go_on(script("prefix"), Prefix("one two", tokens=2, spent=2), request=bounded)
    assert found[2] == " three"
    assert Ladder(ScriptedBackEnd(script()), REQUEST, ()).spent(Prefix("x", tokens=9)) is False


# The overlap of a model that was asked to go on.


def new_part(known: str, pieces: list[str]) -> str:
    overlap = Overlap(known)
    chunks = [*map(Chunk, pieces), Chunk(finish_reason="stop")]
    return "".join(new.text for chunk in chunks for new in overlap.feed(chunk))


KNOWN = "The quick brown fox jumps over"


@pytest.mark.parametrize(
    ("answer", "new"),
    [
        ("fox jumps over the dog", " the dog"),
        (" the dog", " the dog"),
        ("over the dog", "over the dog"),  # too short to be a repetition
        (KNOWN + " the dog", " the dog"),
        ("brown fox jumps over", ""),
        ("brown fox jumps, then", "brown fox jumps, then"),
        ("", ""),
    ],
)
def test_what_is_repeated_is_taken_off_in_any_chunking(answer: str, new: str) -> None:
    assert new_part(KNOWN, [answer]) == new
    assert new_part(KNOWN, list(answer)) == new
    assert new_part(KNOWN, [answer[:7], answer[7:]]) == new


def test_reasoning_is_not_part_of_an_overlap() -> None:
    overlap = Overlap(KNOWN)
    thought = Chunk("hm", Channel.REASONING)
    assert overlap.feed(thought) == [thought]
