"""The label `exact` is a statement about conditions: it is lost when they are not the same.

Each test changes one thing in the journal of a paused reply. Nothing else differs, so the text
may well come out the same; the label must not be `exact` all the same.
"""

from __future__ import annotations

import shutil

import pytest

from tests.exactness import edits
from tests.exactness.corpus import KINDS, TEMPERATURES
from tests.exactness.edits import Edit
from tests.exactness.laboratory import Laboratory, Reply
from tests.exactness.shown import Shown
from tests.support.processes import Cli

pytestmark = [pytest.mark.engine, pytest.mark.slow]

PROSE = KINDS[0]
CUT = 12

ELSEWHERE = {"sha256": "ab" * 32, "tokens": 40}

CHANGES: dict[str, Edit] = {
    "another seed was asked for": edits.asked_seed(PROSE.seed + 1),
    "another seed is recorded": edits.condition("sampler", "seed", value=PROSE.seed + 1),
    "other threads are recorded": edits.condition("threads", value=61),
    "other threads are recorded and saved": edits.condition_everywhere("threads", value=61),
    "the turn began from another state": edits.condition("start", value=ELSEWHERE),
}
MORE_CHANGES: dict[str, Edit] = {
    "other weights": edits.condition_everywhere("weights", value="0" * 64),
    "another engine": edits.condition_everywhere("engine", "version", value="0.0"),
    "another build": edits.condition_everywhere("engine", "build", value="other"),
    "another processor": edits.condition_everywhere("processor", value="other"),
    "another context": edits.condition_everywhere("context", value=8192),
    "another batch": edits.condition_everywhere("batch", value=64),
    "another slot": edits.condition_everywhere("slots", value=2),
    "another prompt": edits.condition_everywhere("prompt", "sha256", value="0" * 64),
    "another sampler": edits.condition_everywhere("sampler", "top_k", value=41),
    "something from the cache": edits.condition("cached", value=5),
}


@pytest.fixture(scope="module", params=TEMPERATURES)
def paused(request: pytest.FixtureRequest, laboratory: Laboratory) -> tuple[Reply, Cli, Shown]:
    """Return a reply, the home in which it is paused, and what was shown of it."""
    reply = laboratory.reply(PROSE, request.param, 1)
    cli = laboratory.home()
    first = laboratory.run(cli, *reply.arguments, "--pause-after", str(CUT), as_json=True)
    assert first.status == 5
    return reply, cli, first


def changed(laboratory: Laboratory, paused: Cli, change: Edit | None) -> Cli:
    """Return a copy of a home with its one journal changed."""
    cli = laboratory.home(paused.home)
    if change is not None:
        (journal,) = cli.data.glob("journals/*.jsonl")
        assert edits.edit(journal, change) > 0
    return cli


def test_without_a_change_it_is_exact(
    laboratory: Laboratory, paused: tuple[Reply, Cli, Shown]
) -> None:
    reply, home, first = paused
    cli = changed(laboratory, home, None)
    second = laboratory.run(cli, "resume", as_json=True)
    assert {guarantee for _, guarantee in second.resumes} == {"exact"}
    assert first.text + second.text == reply.text


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_a_change_of_conditions_loses_the_label(
    laboratory: Laboratory, paused: tuple[Reply, Cli, Shown], change: Edit
) -> None:
    cli = changed(laboratory, paused[1], change)
    second = laboratory.run(cli, "resume", as_json=True)
    assert second.status in {0, 6}
    assert second.resumes
    assert "exact" not in {guarantee for _, guarantee in second.resumes}


@pytest.mark.exhaustive
@pytest.mark.parametrize("change", MORE_CHANGES.values(), ids=MORE_CHANGES.keys())
def test_every_recorded_condition_counts(
    laboratory: Laboratory, paused: tuple[Reply, Cli, Shown], change: Edit
) -> None:
    test_a_change_of_conditions_loses_the_label(laboratory, paused, change)


def test_below_exact_nothing_is_shown_and_everything_is_kept(
    laboratory: Laboratory, paused: tuple[Reply, Cli, Shown]
) -> None:
    reply, home, first = paused
    cli = changed(laboratory, home, CHANGES["other threads are recorded and saved"])
    refused = laboratory.run(cli, "resume", "--require", "exact", as_json=True)
    assert (refused.status, refused.text, refused.resumes) == (7, "", ())
    second = laboratory.run(cli, "resume", as_json=True)
    assert second.status in {0, 6}
    assert first.text + second.text[:1] == reply.text[: len(first.text) + 1]


@pytest.mark.parametrize("place", [0, 20])
def test_a_changed_character_is_noticed(
    laboratory: Laboratory, paused: tuple[Reply, Cli, Shown], place: int
) -> None:
    """The text is no longer what the recorded tokens say: neither may be believed."""
    cli = changed(laboratory, paused[1], edits.received_character(place))
    second = laboratory.run(cli, "resume", as_json=True)
    assert {guarantee for _, guarantee in second.resumes} == {"text"}
    refused = changed(laboratory, paused[1], edits.received_character(place))
    third = laboratory.run(refused, "resume", "--require", "token", as_json=True)
    assert (third.status, third.text) == (7, "")


def test_a_label_once_lost_never_comes_back(
    laboratory: Laboratory, paused: tuple[Reply, Cli, Shown]
) -> None:
    cli = changed(laboratory, paused[1], CHANGES["other threads are recorded and saved"])
    second = laboratory.run(cli, "resume", "--pause-after", "5", as_json=True)
    third = laboratory.run(cli, "resume", as_json=True)
    assert second.status == 5
    assert "exact" not in {guarantee for _, guarantee in (*second.resumes, *third.resumes)}


def test_a_state_that_is_gone_costs_time_and_nothing_else(
    laboratory: Laboratory, paused: tuple[Reply, Cli, Shown]
) -> None:
    reply, home, first = paused
    cli = changed(laboratory, home, None)
    shutil.rmtree(cli.data / "engine" / "slots")
    second = laboratory.run(cli, "resume", as_json=True)
    assert second.resumes == (("replay", "exact"),)
    assert first.text + second.text == reply.text
