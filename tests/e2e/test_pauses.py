"""Pauses in ``run``: hold and cut, markers and limits, and what a resume then delivers."""

from __future__ import annotations

import json
import signal
import time
from typing import Any

import pytest

from tests.e2e.conftest import Program, told

pytestmark = pytest.mark.slow

WORDS = "one two three four five six"


def journal(program: Program) -> list[dict[str, Any]]:
    (path,) = (program.cli.data / "journals").glob("*.jsonl")
    return [json.loads(line) for line in path.read_text().splitlines()]


def received(program: Program) -> str:
    return "".join(r["text"] for r in journal(program) if r["type"] == "received")


def test_cut_in_the_middle_of_a_chunk_loses_nothing_of_it(program: Program) -> None:
    tail = {"text": " four five six", "delay_s": 30}
    model = program.script(chunks=["one two three", tail])
    first = program.told("run", "-m", model, "--pause-after", "2", "hi")
    assert (first.text, first.end["position"]) == ("one two", {"chars": 7, "tokens": 2})
    assert received(program) == "one two three"
    with program.start("resume", "--json", "--pause-after", "1") as process:
        second = told(process.wait())
    assert second.text == " three"
    (resumed,) = second.of("resumed")
    assert (resumed["strategy"], resumed["position"]) == ("replay", {"chars": 7, "tokens": 2})
    assert second.end["position"] == {"chars": 13, "tokens": 3}
    assert "resumed at 2 tok (replay, exact)\n" in second.done.errors


def test_hold_reads_on_and_the_resume_is_instant_and_exact(program: Program) -> None:
    model = program.script(WORDS, delay_s=0.02)
    first = program.told("run", "-m", model, "--on-pause", "hold", "--pause-after", "2", "hi")
    first.ended("paused", "limit", 5, resumable=True)
    assert first.of("paused")[0]["mode"] == "hold"
    assert first.text == "one two"
    assert received(program) == WORDS
    (program.cli.cwd / model.removeprefix("scripted:")).unlink()  # nothing is asked again
    rest = program.told("resume")
    rest.ended("complete", "end", 0, resumable=False)
    (resumed,) = rest.of("resumed")
    assert (resumed["strategy"], resumed["guarantee"]) == ("held", "exact")
    assert first.text + rest.text == WORDS


@pytest.mark.parametrize(
    ("option", "number", "code"),
    [(("--idle-timeout", "500ms"), None, 124), ((), signal.SIGTERM, 143)],
)
def test_limits_and_signals_act_while_hold_reads_on(
    program: Program, option: tuple[str, ...], number: signal.Signals | None, code: int
) -> None:
    faults = [{"kind": "stall", "after": 4}]
    model = program.script(WORDS, faults=faults)
    pause = ("--on-pause", "hold", "--pause-after", "2")
    with program.start("run", "-m", model, *pause, *option, "--json", "hi") as process:
        assert process.stdout is not None
        assert process.stdout.wait_for(b'"paused"', 20)
        if number is not None:
            wait_for_text(program, "four")
            process.send_signal(number)
        first = told(process.wait())
    assert first.end["exit_code"] == first.done.returncode == code
    assert first.text == "one two"
    rest = program.told("resume")
    assert [e["strategy"] for e in rest.of("resumed")] == ["held", "replay"]
    assert [e["position"]["tokens"] for e in rest.of("resumed")] == [2, 4]
    assert first.text + rest.text == WORDS


def wait_for_text(program: Program, text: str) -> None:
    deadline = time.monotonic() + 20
    while text not in received(program):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_markers_and_limits_in_held_text_act_when_it_is_delivered(program: Program) -> None:
    model = program.script("one two three !!M four five")
    words = ("run", "-m", model, "--on-pause", "hold", "--marker", "!!M")
    first = program.told(*words, "--pause-after", "1", "hi")
    second = program.told("resume", "--on-pause", "hold", "--pause-after", "1")
    second.ended("paused", "limit", 5, resumable=True)
    third = program.told("resume", "--on-pause", "hold")
    third.ended("paused", "marker", 5, resumable=True)
    last = program.told("resume")
    last.ended("complete", "end", 0, resumable=False)
    texts = [each.text for each in (first, second, third, last)]
    assert texts == ["one", " two", " three ", " four five"]


def test_a_marker_acts_once_in_any_chunking(program: Program) -> None:
    model = program.script(chunks=[*"a!!PAUSE!!PAU!!PAUSEb", {"text": "!", "tokens": None}])
    marker = ("--marker", "!!PAUSE")
    parts = [program.told("run", "-m", model, *marker, "hi")]
    while parts[-1].end["status"] == "paused":
        parts.append(program.told("resume"))
    assert [part.text for part in parts] == ["a", "!!PAU", "b!"]
    assert [len(part.of("marker")) for part in parts] == [1, 1, 0]
    assert [part.end["position"]["chars"] for part in parts] == [1, 6, 8]
    assert parts[-1].end["position"]["tokens"] is None
    shown = program.run("conversations", "list").text.split()[0]
    assert "a!!PAUb!" in program.run("conversations", "show", shown).text


def test_a_marker_in_code_is_text_and_no_markers_switches_them_off(program: Program) -> None:
    text = "```\n!!STOP\n```\nso !!STOP end"
    model = program.script(text)
    stop = ("--marker", "!!STOP=stop")
    assert program.run("run", "-m", model, *stop, "hi").text == "```\n!!STOP\n```\nso "
    assert program.run("run", "-m", model, "--no-markers", "hi").text == text


def test_an_end_at_the_limit_wins(program: Program) -> None:
    done = program.told("run", "-m", program.script(WORDS), "--pause-after", "6", "hi")
    done.ended("complete", "end", 0, resumable=False)


def test_a_marker_at_the_limit_wins(program: Program) -> None:
    model = program.script(chunks=["one", "!!M", " two"])
    done = program.told("run", "-m", model, "--marker", "!!M", "--pause-after", "1", "hi")
    done.ended("paused", "marker", 5, resumable=True)
    assert program.run("resume").text == " two"


def test_every_cut_of_a_reply(program: Program) -> None:
    """In one process each: what was delivered and what follows make the reply, at every token."""
    text = "a世 b\U0001f642\n\n  c"
    model = program.script(chunks=["a世 ", {"text": "b\U0001f642\n", "tokens": 3}, "\n  c"])
    for after in (1, 2, 3):
        first = program.told("run", "-m", model, "--pause-after", str(after), "hi")
        parts = first.text
        if first.end["status"] == "paused":
            parts += program.told("resume").text
        assert parts == text


def test_bounds(program: Program) -> None:
    """A resume before the bound has what is left; one at the bound has it once more."""
    model = program.script("1 2 3 4 5 6 7 8 9 10 11 12")
    first = program.told("run", "-m", model, "--max-tokens", "4", "--pause-after", "3", "hi")
    assert (first.end["cause"], first.text) == ("limit", "1 2 3")
    second = program.told("resume")
    assert (second.end["cause"], second.text) == ("token-limit", " 4")
    third = program.told("resume", "--pause-after", "1")
    assert (third.end["cause"], third.text) == ("limit", " 5")
    fourth = program.told("resume")
    assert (fourth.end["cause"], fourth.text) == ("token-limit", " 6 7 8")
    fifth = program.told("resume", "--max-tokens", "2")
    assert (fifth.end["cause"], fifth.text) == ("token-limit", " 9 10")
    whole = program.told("resume", "--full")
    assert (whole.end["cause"], whole.text) == ("end", "1 2 3 4 5 6 7 8 9 10 11 12")
    assert [e["type"] for e in whole.events[:3]] == ["started", "delta", "resumed"]
