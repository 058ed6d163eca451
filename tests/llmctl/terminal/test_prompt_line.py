"""The prompt line: prompt_toolkit with keys from a pipe."""

from __future__ import annotations

import asyncio
import os
import signal
import stat
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from prompt_toolkit.application import create_app_session
from prompt_toolkit.input import PipeInput, create_pipe_input
from prompt_toolkit.output import DummyOutput

from llmctl.terminal.prompt_line import Answer, Kind, PromptLine, Suggestion
from llmctl.terminal.prompt_terminal import without_reports

UP, ALT_ENTER, PASTE = "\x1b[A", "\x1b\r", "\x1b[200~{}\x1b[201~"


class Bench:
    """A prompt and the keys for it."""

    def __init__(self, pipe: PipeInput) -> None:
        self.pipe = pipe
        self.now = 0.0

    def line(self, **options: Any) -> PromptLine:
        return PromptLine(
            session_input=self.pipe,
            session_output=DummyOutput(),
            now=lambda: self.now,
            **options,
        )

    def answers(self, line: PromptLine, *keys: str) -> list[Answer]:
        """Ask once for every text of keys."""
        return asyncio.run(self._answers(line, keys))

    async def _answers(self, line: PromptLine, keys: tuple[str, ...]) -> list[Answer]:
        answers = []
        for text in keys:
            self.pipe.send_text(text)
            answers.append(await asyncio.wait_for(line.ask(), 20))
        return answers

    def while_asking(
        self, line: PromptLine, do: Callable[[], Awaitable[object]], default: str = ""
    ) -> Answer:
        """Ask, and meanwhile do something."""

        async def both() -> Answer:
            asked = asyncio.create_task(line.ask(default))
            await until(lambda: line._is_asking)
            await do()
            return await asked

        return asyncio.run(asyncio.wait_for(both(), 20))


@pytest.fixture
def bench() -> Iterator[Bench]:
    with create_pipe_input() as pipe, create_app_session(input=pipe, output=DummyOutput()):
        yield Bench(pipe)


def beginning(*words: str) -> Callable[[str], list[Suggestion]]:
    """Complete a whole line to words that begin so."""
    return lambda text: [Suggestion(w, len(text)) for w in words if text and w.startswith(text)]


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110  (prompt_toolkit has nothing to wait for)
        await asyncio.sleep(0.001)


def texts(answers: list[Answer]) -> list[str]:
    assert {answer.kind for answer in answers} == {Kind.TEXT}
    return [answer.text for answer in answers]


def test_enter_sends(bench: Bench) -> None:
    assert bench.answers(bench.line(), "hello\r") == [Answer(Kind.TEXT, "hello")]


@pytest.mark.parametrize("newline", [ALT_ENTER, "\n"])
def test_a_newline_is_typed_with_alt_enter_or_ctrl_j(bench: Bench, newline: str) -> None:
    assert texts(bench.answers(bench.line(), f"one{newline}two\r")) == ["one\ntwo"]


def test_a_paste_sends_nothing(bench: Bench) -> None:
    assert texts(bench.answers(bench.line(), PASTE.format("one\r\ntwo\r") + "x\r")) == [
        "one\ntwo\nx"
    ]


def test_a_default_is_there_to_be_edited(bench: Bench) -> None:
    async def send() -> None:
        bench.pipe.send_text("!\r")

    assert bench.while_asking(bench.line(), send, "draft") == Answer(Kind.TEXT, "draft!")


def test_ctrl_d_leaves_on_an_empty_line_only(bench: Bench) -> None:
    line = bench.line()
    assert bench.answers(line, "\x04") == [Answer(Kind.EXIT)]
    assert texts(bench.answers(line, "ab\x02\x04\r")) == ["a"]


def test_ctrl_c_clears_the_line_and_up_brings_it_back(bench: Bench) -> None:
    assert texts(bench.answers(bench.line(), f"lost\x03x\r{''}", f"{UP}{UP}\r")) == ["x", "lost"]


def test_ctrl_c_twice_leaves(bench: Bench) -> None:
    assert bench.answers(bench.line(), "\x03\x03") == [Answer(Kind.INTERRUPT_EXIT)]


def test_a_late_second_ctrl_c_only_hints_again(bench: Bench) -> None:
    line = bench.line()

    async def press_late() -> None:
        line.interrupt()
        bench.now = 2.5
        line.interrupt()
        assert line._is_asking
        bench.now = 4.0
        line.interrupt()

    assert bench.while_asking(line, press_late) == Answer(Kind.INTERRUPT_EXIT)


def test_interrupt_outside_of_a_prompt_does_nothing(bench: Bench) -> None:
    line = bench.line()
    line.interrupt()
    line.cancel()
    assert not line.say("nobody asks")
    assert texts(bench.answers(line, "x\r")) == ["x"]


def test_cancel_returns_what_was_typed_so_far(bench: Bench) -> None:
    line = bench.line()

    async def cancel() -> None:
        bench.pipe.send_text("so far")
        await until(lambda: line._session.default_buffer.text == "so far")
        line.cancel()
        line.cancel()

    assert bench.while_asking(line, cancel) == Answer(Kind.CANCELLED, "so far")


def test_the_end_of_input_is_no_ctrl_d(bench: Bench) -> None:
    line = bench.line()

    async def close() -> None:
        bench.pipe.close()

    assert bench.while_asking(line, close).kind is Kind.GONE


def test_esc_esc_edits_the_last_message(bench: Bench) -> None:
    line = bench.line(last_message=lambda: "last")
    # The pipe lacks the mended parser, so the key behind it makes the second Esc one.
    assert texts(bench.answers(line, "\x1b\x1b!\r")) == ["last!"]


def test_esc_esc_keeps_what_was_typed(bench: Bench) -> None:
    line = bench.line(last_message=lambda: "last")
    assert texts(bench.answers(line, "typed\x1b\x1b!\r", f"{UP}{UP}\r")) == ["last!", "typed"]


@pytest.mark.parametrize(
    ("suggestion", "typed", "completed"),
    [
        (Suggestion("/help", 3), "/he", "/help"),
        (Suggestion("-all", 0, "all of it"), "/model x", "/model x-all"),
        (Suggestion("@notes.md", 3), "see @no", "see @notes.md"),
    ],
)
def test_tab_completes(bench: Bench, suggestion: Suggestion, typed: str, completed: str) -> None:
    line = bench.line(complete=lambda _text: [suggestion])

    async def complete() -> None:
        bench.pipe.send_text(f"{typed}\t")
        await until(lambda: line._session.default_buffer.text == completed)
        bench.pipe.send_text("\r")

    assert bench.while_asking(line, complete) == Answer(Kind.TEXT, completed)


def test_esc_closes_the_list_of_completions_and_enter_takes_from_it(bench: Bench) -> None:
    line = bench.line(complete=beginning("/resume", "/retry"))
    buffer = line._session.default_buffer

    async def press(keys: str, text: str, *, listed: bool) -> None:
        bench.pipe.send_text(keys)
        await until(lambda: buffer.text == text and bool(buffer.complete_state) is listed)

    async def choose() -> None:
        await press("/re\t", "/re", listed=True)
        await press("\t", "/resume", listed=True)
        await press("\x1b", "/re", listed=False)
        await press("\t", "/re", listed=True)
        await press("\t\t", "/retry", listed=True)
        await press("\r", "/retry", listed=False)
        bench.pipe.send_text("\r")

    assert bench.while_asking(line, choose) == Answer(Kind.TEXT, "/retry")


def test_tab_where_nothing_fits_changes_nothing(bench: Bench) -> None:
    line = bench.line(complete=beginning("/help"))
    assert texts(bench.answers(line, "he\t\r")) == ["he"]


def test_ctrl_r_searches_what_was_sent(bench: Bench) -> None:
    line = bench.line()
    sent = texts(bench.answers(line, "the needle\r", "some hay\r", "\x12need\r\r"))
    assert sent == ["the needle", "some hay", "the needle"]


def test_what_esc_esc_brought_back_says_so_until_it_is_cleared(bench: Bench) -> None:
    line = bench.line(last_message=lambda: "last")
    answers = bench.answers(line, "\x1b\x1b!\r", "\x1b\x1b\x03new\r", "new\r")
    assert answers == [
        Answer(Kind.TEXT, "last!", instead=True),
        Answer(Kind.TEXT, "new"),
        Answer(Kind.TEXT, "new"),
    ]


def test_history_is_private_and_outlives_the_prompt(bench: Bench, tmp_path: Path) -> None:
    path = tmp_path / "new" / "history"
    old = os.umask(0)
    try:
        bench.answers(bench.line(history=path), "first\r", "two\nlines\r")
    finally:
        os.umask(old)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert texts(bench.answers(bench.line(history=path), f"{UP}\r", f"{UP}{UP}{UP}\r")) == [
        "two\nlines",
        "first",
    ]


def test_without_a_file_nothing_is_written(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert texts(bench.answers(bench.line(), "first\r", f"{UP}\r")) == ["first", "first"]
    assert list(tmp_path.iterdir()) == []


def test_a_history_that_cannot_be_written_is_no_reason_to_fail(
    bench: Bench, tmp_path: Path
) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    line = bench.line(history=blocked / "history")
    assert texts(bench.answers(line, "first\r", f"{UP}\r")) == ["first", "first"]


def test_what_was_typed_behind_enter_is_handed_on(bench: Bench) -> None:
    line = bench.line()
    assert texts(bench.answers(line, "one\r x\x1b[A" + PASTE.format("p"))) == ["one"]
    assert line.ahead() == b" x\x1b[A" + PASTE.format("p").encode()
    assert line.ahead() == b""


def test_what_was_typed_early_is_typed(bench: Bench) -> None:
    line = bench.line()
    line.type_ahead(b"one\rtw\x1b[57441uo\rthree")
    assert texts(bench.answers(line, "", "")) == ["one", "two"]
    assert line.ahead() == b"three"


def test_bytes_that_are_no_unicode_do_not_get_out(bench: Bench) -> None:
    line = bench.line()

    async def send() -> None:
        bench.pipe.send_bytes(b"a\xffb\r")

    assert bench.while_asking(line, send) == Answer(Kind.TEXT, "a�b")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGWINCH, signal.SIGTERM])
def test_signal_handlers_are_as_before(bench: Bench, number: int) -> None:
    def handler(*_: object) -> None:
        pass

    before = signal.signal(number, handler)
    try:
        bench.answers(bench.line(), "x\r", "\x04")
        assert signal.getsignal(number) is handler
    finally:
        signal.signal(number, before)


def test_a_cancelled_task_leaves_the_prompt_usable(bench: Bench) -> None:
    line = bench.line()

    async def both() -> Answer:
        asked = asyncio.create_task(line.ask())
        await until(lambda: line._is_asking)
        asked.cancel()
        await asyncio.wait([asked])
        assert asked.cancelled()
        bench.pipe.send_text("x\r")
        return await asyncio.wait_for(line.ask(), 20)

    assert asyncio.run(both()) == Answer(Kind.TEXT, "x")


@pytest.mark.parametrize(
    "report",
    [
        "\x1b[57441u",
        "\x1b[I",
        "\x1b[O",
        "\x1b[12;40R",
        "\x1b[<0;1;1M",
        "\x1b[M !!",
        "\x1b]11;rgb:0/0/0\x1b\\",
        "\x1b[?1;2c",
        "\x1bP1$r0m\x1b\\",
    ],
)
def test_reports_are_no_keys(report: str) -> None:
    for place in range(len(report) + 1):
        first, rest, _ = without_reports("a" + report[:place])
        second, rest, _ = without_reports(rest + report[place:] + "b")
        # Split right behind its introducer, a report can't be told from keys.
        assert (first + second, rest) == ("ab", "") or place in (1, 2)


@pytest.mark.parametrize(
    "keys", ["a", "\x1b", "\x1b\x1b", "\x1b[A", "\x1b[1;5D", "\x1bb", "\x1b[[A", PASTE.format("x")]
)
def test_keys_are_no_reports(keys: str) -> None:
    assert without_reports(keys) == (keys, "", False)


PASTED = "a\x1b[2Jb\x1b[201c\x1b[31m\x1b"


@pytest.mark.parametrize("place", range(4, len(PASTE.format(PASTED)) + 1))
def test_what_is_pasted_stays_as_it_is_however_it_is_split(place: int) -> None:
    """Split right behind the introducer of its beginning, a paste can't be told from keys."""
    typed = f"x{PASTE.format(PASTED)}\x1b[2Jy"
    first, rest, pasting = without_reports(typed[:place])
    second, rest, pasting = without_reports(rest + typed[place:], pasting=pasting)
    assert (first + second, rest, pasting) == (f"x{PASTE.format(PASTED)}y", "", False)
