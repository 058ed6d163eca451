"""The screen, seen through an emulated terminal and in virtual time."""

from __future__ import annotations

import asyncio
import os
import random
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import pyte
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from llmctl.output import Output
from llmctl.terminal.markdown.stream import Markdown
from llmctl.terminal.screen import FRAME_CHARS, FRAME_S, Look, PlainScreen, Row, Screen
from llmctl.terminal.spans import Span, encode
from tests.support.emulator import Emulator
from tests.support.markdown_corpus import CORPUS, real_texts

STATUS = "streaming · Space pause"


@dataclass
class Clock:
    """Time that moves when it is told to."""

    now: float = 0.0
    due: list[tuple[float, Callable[[], None]]] = field(default_factory=list)

    def later(self, seconds: float, call: Callable[[], None]) -> Entry:
        entry = (self.now + seconds, call)
        self.due.append(entry)
        return Entry(self, entry)

    def pass_by(self, seconds: float) -> None:
        end = self.now + seconds
        while ready := sorted((e for e in self.due if e[0] <= end), key=lambda e: e[0]):
            self.due.remove(ready[0])
            self.now = ready[0][0]
            ready[0][1]()
        self.now = end


@dataclass
class Entry:
    clock: Clock
    entry: tuple[float, Callable[[], None]]

    def cancel(self) -> None:
        self.clock.due.remove(self.entry)


class Writer(Output):
    """Keeps frames; they are out at once unless it is ``stuck``."""

    def __init__(self) -> None:
        self.frames: list[str] = []
        self.stuck = False
        self.waiting: list[Callable[[int], None] | None] = []

    def write(
        self, text: str, on_written: Callable[[int], None] | None = None, *, whole: bool = False
    ) -> None:
        if not text:
            return
        assert whole or on_written is None
        self.frames.append(text)
        self.waiting.append(on_written)
        if not self.stuck:
            self.go_out()

    def go_out(self) -> None:
        for told in self.waiting:
            if told is not None:
                told(0)
        self.waiting.clear()

    def drain(self, timeout: float | None = None) -> bool:  # noqa: ARG002  (the port has it)
        return not self.waiting

    full = broken = False
    blocked_for = 0.0

    @property
    def text(self) -> str:
        return "".join(self.frames)


@dataclass
class Tty:
    columns: int = 40
    rows: int = 10
    in_foreground: bool = True

    def size(self) -> tuple[int, int]:
        return self.columns, self.rows


class Bench:
    """A screen with everything around it."""

    def __init__(self, columns: int = 40, rows: int = 10) -> None:
        self.clock, self.writer, self.tty = Clock(), Writer(), Tty(columns, rows)
        self.screen = Screen(
            self.writer, self.tty, now=lambda: self.clock.now, call_later=self.clock.later
        )

    def seen(self) -> list[str]:
        return rows_of(self.writer.text, self.tty)

    def frame(self) -> None:
        self.clock.pass_by(2 * FRAME_S)


def rows_of(written: str, tty: Tty) -> list[str]:
    """Return all rows there have been, without blank ones at the end."""
    emulated = Emulator(tty.columns, tty.rows)
    pyte.Stream(emulated).feed(written)
    above = [
        "".join(row[x].data for x in range(tty.columns)).rstrip() for row in emulated.history.top
    ]
    rows = above + [row.rstrip() for row in emulated.display]
    while rows and not rows[-1]:
        rows.pop()
    return rows


def printed(text: str, tty: Tty) -> list[str]:
    """Return the rows that plain printing would have given."""
    return rows_of(text.expandtabs(8).replace("\n", "\r\n"), tty)


@pytest.fixture
def bench() -> Bench:
    return Bench()


# -- what is on the screen


def test_text_with_the_footer_below_it(bench: Bench) -> None:
    bench.screen.footer(["> draft", STATUS])
    bench.screen.append("one\ntwo")
    bench.frame()
    assert bench.seen() == ["one", "two", "> draft", STATUS]


def test_the_footer_moves_down_and_never_stays_behind(bench: Bench) -> None:
    bench.screen.footer([STATUS])
    for number in range(30):
        bench.screen.append(f"line {number}\n")
        bench.frame()
    assert bench.seen() == [*(f"line {number}" for number in range(30)), "", STATUS]


def test_a_row_that_becomes_full_keeps_its_last_cell(bench: Bench) -> None:
    bench.screen.append("a" * 39)
    bench.screen.footer([STATUS])
    for _ in range(3):
        bench.screen.append("b")
        bench.frame()
        bench.screen.footer([f"{STATUS} {len(bench.writer.frames)}"])
        bench.frame()
    assert bench.seen()[:2] == ["a" * 39 + "b", "bb"]


def test_a_full_row_and_a_newline_are_no_blank_row(bench: Bench) -> None:
    bench.screen.footer([STATUS])
    bench.screen.append("a" * 40)
    bench.frame()
    bench.screen.append("\nb")
    bench.frame()
    assert bench.seen() == ["a" * 40, "b", STATUS]


def test_a_row_of_the_footer_is_cut_to_one_row(bench: Bench) -> None:
    bench.screen.append("text")
    bench.screen.footer(["日" * 40, "x" * 100])
    bench.frame()
    seen = [row.replace(" ", "") for row in bench.seen()]
    assert seen == ["text", "日" * 19 + "…", "x" * 38 + "…"]


def test_a_footer_taller_than_the_room_shows_its_end(bench: Bench) -> None:
    bench.screen.append("text")
    bench.screen.footer([f"row {number}" for number in range(20)])
    bench.frame()
    assert bench.seen() == ["text", *(f"row {number}" for number in range(11, 20))]


def test_a_screen_of_one_row_has_no_footer() -> None:
    bench = Bench(rows=1)
    bench.screen.footer([STATUS])
    bench.screen.append("text")
    bench.frame()
    assert bench.seen() == ["text"]


def test_a_draft_with_line_ends_and_controls_stays_one_row(bench: Bench) -> None:
    bench.screen.footer(["a\nb\tc\x1b[2Jd"])
    bench.frame()
    assert bench.seen() == ["", "a b c[2Jd"]


def test_a_line_of_its_own(bench: Bench) -> None:
    bench.screen.line("hint")
    bench.screen.append("half")
    bench.screen.line("hint")
    bench.screen.append("rest")
    bench.frame()
    assert bench.seen() == ["hint", "half", "hint", "rest"]


def test_what_a_model_says_moves_nothing(bench: Bench) -> None:
    bench.screen.append("a\x1b[2J\x1b]52;c;eA==\x07b\x9b1mc\rd")
    bench.frame()
    assert bench.seen() == ["a[2J]52;c;eA==b1mcd"]


def test_looks_are_closed_on_their_row(bench: Bench) -> None:
    bench.screen.footer([Row("PAUSED", Look.LOUD)])
    bench.frame()
    assert "\x1b[7mPAUSED\x1b[0m" in bench.writer.text


@example([("aaaa", [""], 0.0)], 4, 1)
@example([("aaaa", [], 0.0), ("\t", [], 0.0), ("a", [], 0.05)], 4, 1)
@given(
    st.lists(
        st.tuples(
            st.text("ab \n\t", max_size=25),
            st.lists(st.text("xyz", max_size=12), max_size=3),
            st.sampled_from([0.0, 0.01, 0.05]),
        ),
        max_size=12,
    ),
    st.integers(4, 12),
    st.integers(1, 6),
)
def test_text_is_as_if_it_had_been_printed(
    steps: list[tuple[str, list[str], float]], columns: int, rows: int
) -> None:
    bench = Bench(columns, rows)
    text = ""
    for part, footer, seconds in steps:
        bench.screen.append(part)
        bench.screen.footer(footer)
        bench.clock.pass_by(seconds)
        text += part
        shown = printed(text, bench.tty)
        assert bench.seen()[: max(0, len(shown) - 1)] == shown[:-1] or seconds < FRAME_S
    bench.screen.finish()
    assert bench.seen() == printed(text, bench.tty)


@given(st.text("ab \n\té日👩‍💻", max_size=200))
def test_nothing_is_written_but_the_text_and_known_sequences(text: str) -> None:
    bench = Bench()
    bench.screen.footer([STATUS])
    bench.screen.append(text)
    bench.screen.finish()
    rest = re.sub(
        r"\x1b(?:\[\?(?:2026|25|7)[hl]|\[[JK]|\[\d*A|\[[BCD]|D|7|8)", "", bench.writer.text
    )
    assert not re.search(r"[\x00-\x09\x0b\x0c\x0e-\x1f\x7f-\x9f]", rest)


# -- when it is painted


def test_the_first_frame_comes_at_once_and_the_others_at_most_30_a_second(bench: Bench) -> None:
    for _ in range(1000):
        bench.screen.append("word ")
        bench.clock.pass_by(0.001)
    assert 29 <= len(bench.writer.frames) <= 31
    assert bench.writer.frames[0].count("word") == 1


def test_the_answer_to_a_key_is_not_held_up_by_text(bench: Bench) -> None:
    bench.screen.footer([STATUS])
    for number in range(1000):
        bench.screen.append("word ")
        if number % 100 == 50:
            bench.screen.footer([f"key {number}"])
            assert f"key {number}" in bench.writer.frames[-1]
        bench.clock.pass_by(0.001)
    assert len(bench.writer.frames) <= 31 + 10


def test_footers_come_at_most_30_a_second(bench: Bench) -> None:
    for number in range(1000):
        bench.screen.footer([f"row {number}"])
        bench.clock.pass_by(0.001)
    bench.frame()
    assert 29 <= len(bench.writer.frames) <= 32
    assert bench.seen() == ["", "row 999"]


def test_flush_paints_at_once(bench: Bench) -> None:
    bench.screen.append("one ")
    bench.screen.append("two")
    assert bench.seen() == ["one"]
    bench.screen.flush()
    assert bench.seen() == ["one two"]
    assert not bench.clock.due


def test_an_unchanged_footer_is_not_painted_again(bench: Bench) -> None:
    bench.screen.footer([STATUS])
    before = len(bench.writer.frames)
    for _ in range(10):
        bench.screen.footer([STATUS])
        bench.frame()
    assert len(bench.writer.frames) == before


def test_text_on_one_row_does_not_touch_the_footer(bench: Bench) -> None:
    bench.screen.footer([STATUS])
    bench.screen.append("a")
    bench.frame()
    bench.screen.append("b")
    bench.frame()
    assert bench.writer.frames[-1] == "b"


def test_no_frame_while_the_last_one_is_not_out(bench: Bench) -> None:
    bench.writer.stuck = True
    for _ in range(100):
        bench.screen.append("word ")
        bench.clock.pass_by(0.05)
    assert len(bench.writer.frames) == 1
    bench.writer.stuck = False
    bench.writer.go_out()
    bench.frame()
    assert bench.writer.text.count("word") == 100


def test_a_frame_is_bounded_and_a_flood_says_that_it_is_one(bench: Bench) -> None:
    bench.screen.append("first")
    bench.screen.append("x" * FRAME_CHARS)
    assert not bench.screen.full
    bench.screen.append("x" * (FRAME_CHARS * 19))
    assert bench.screen.full
    bench.frame()
    assert max(map(len, bench.writer.frames)) < FRAME_CHARS + 200
    bench.screen.flush()
    assert bench.writer.text.count("x") == FRAME_CHARS * 20
    assert not bench.screen.full


def test_what_is_out_is_told_and_nothing_else(bench: Bench) -> None:
    told: list[int] = []
    for number in range(5):
        bench.screen.append("word ", partial(told.append, number))
    assert told == [0]
    bench.frame()
    assert told == [0, 4]
    bench.screen.append("x" * FRAME_CHARS * 2, lambda: told.append(5))
    assert told == [0, 4]
    bench.frame()
    assert told == [0, 4, 5]


def test_all_is_out_only_when_nothing_waits(bench: Bench) -> None:
    bench.screen.append("one ")
    assert bench.screen.all_out
    bench.screen.append("two ")
    assert not bench.screen.all_out
    bench.writer.stuck = True
    bench.screen.flush()
    assert not bench.screen.all_out
    bench.writer.go_out()
    assert bench.screen.all_out


def test_text_of_which_nothing_may_be_shown_is_told_too(bench: Bench) -> None:
    told: list[int] = []
    bench.screen.append("\x07", lambda: told.append(1))
    bench.frame()
    assert told == [1]


# -- others


def test_finish_leaves_a_fresh_line(bench: Bench) -> None:
    bench.screen.footer([STATUS])
    bench.screen.append("half")
    assert bench.screen.finish() == "half"
    assert rows_of(bench.writer.text + "next", bench.tty) == ["half", "next"]
    assert bench.screen.finish() == ""
    bench.screen.append("whole\n")
    bench.screen.finish()
    assert rows_of(bench.writer.text + "next", bench.tty) == ["half", "whole", "next"]


def test_stepping_aside_brings_the_begun_line_and_the_footer_back(bench: Bench) -> None:
    bench.screen.footer([STATUS])
    bench.screen.append("whole\nhal")
    bench.screen.aside(lambda: bench.writer.write("somebody else\r\n"))
    bench.screen.append("f")
    bench.frame()
    assert bench.seen() == ["whole", "hal", "somebody else", "half", STATUS]


def test_in_the_background_nothing_is_painted(bench: Bench) -> None:
    bench.screen.footer([STATUS])
    bench.screen.append("hal")
    bench.frame()
    bench.tty.in_foreground = False
    bench.writer.write("\x1b[J\r\n$ ")
    bench.screen.append("f")
    bench.screen.flush()
    bench.clock.pass_by(1.0)
    assert bench.seen() == ["hal", "$"]
    bench.writer.write("fg\r\n")
    bench.tty.in_foreground = True
    bench.frame()
    assert bench.seen() == ["hal", "$ fg", "half", STATUS]


def test_redraw_shows_the_end_of_the_text(bench: Bench) -> None:
    bench.screen.footer([STATUS])
    bench.screen.append("\n".join(f"line {number}" for number in range(100)))
    bench.frame()
    bench.writer.frames = ["garbage\r\n" * 5]
    bench.screen.redraw()
    assert bench.seen()[-10:] == [*(f"line {number}" for number in range(91, 100)), STATUS]


def test_another_size_paints_the_footer_anew(bench: Bench) -> None:
    bench.screen.footer(["x" * 100])
    bench.screen.append("text")
    bench.frame()
    bench.tty.columns = 20
    bench.writer.frames.clear()
    bench.screen.resized()
    bench.frame()
    assert bench.writer.text.count("x") == 18


def test_before_a_loop_runs_lines_are_painted_at_once() -> None:
    writer = Writer()
    screen = Screen(writer, Tty())
    screen.line("one")
    screen.line("two")
    assert rows_of(writer.text, Tty()) == ["one", "two"]


# -- a reply's Markdown


def in_one_go(text: str, tty: Tty) -> list[str]:
    """Return the rows of a reply that is printed once, when it is whole."""
    markdown = Markdown(tty.columns)
    return printed_spans(markdown.feed(text) + markdown.finish(), tty)


def printed_spans(spans: list[Span], tty: Tty) -> list[str]:
    return rows_of(encode(spans, color=True).replace("\n", "\r\n"), tty)


def play(bench: Bench, text: str, drawn: random.Random) -> None:
    """Show a reply in pieces, with frames, keys and pauses in between."""
    bench.screen.footer([STATUS])
    while text:
        length = drawn.choice((1, 3, 4, 15, 60, 500))
        bench.screen.reply(text[:length])
        text = text[length:]
        bench.clock.pass_by(drawn.choice((0.0, 0.01, 0.05)))
        if drawn.random() < 0.1:
            bench.screen.footer([STATUS] * drawn.randrange(3))
    bench.screen.end_reply()
    bench.screen.finish()


@pytest.mark.parametrize(
    ("name", "columns"),
    [
        # The emulated terminal is slow: the longest texts wait for the long form.
        pytest.param(name, columns, marks=[pytest.mark.exhaustive] if len(text) > 1500 else [])
        for name, text in CORPUS.items()
        for columns in (40, 80, 200)
    ],
)
def test_a_reply_is_in_the_end_as_if_it_had_been_printed_once(name: str, columns: int) -> None:
    bench = Bench(columns, 24)
    play(bench, CORPUS[name], random.Random(name))  # noqa: S311
    assert bench.seen() == in_one_go(CORPUS[name], bench.tty)


def test_real_texts_are_as_if_they_had_been_printed_once() -> None:
    for name, text in real_texts(2).items():
        bench = Bench(80, 24)
        play(bench, text, random.Random(name))  # noqa: S311
        assert bench.seen() == in_one_go(text, bench.tty)


@pytest.mark.parametrize("name", ["a reply", "emoji", "table", "nested lists", "code spans"])
def test_every_frame_is_what_a_fresh_screen_would_show(name: str) -> None:
    text, drawn = CORPUS[name][:250], random.Random(name)  # noqa: S311
    bench, shown = Bench(40, 12), 0
    while shown < len(text):
        length = drawn.choice((1, 2, 5, 30))
        bench.screen.reply(text[shown : shown + length])
        bench.screen.footer([f"{STATUS} {shown % 7}"])
        bench.frame()
        shown += length
        fresh = Bench(40, 12)
        fresh.screen.reply(text[:shown])
        fresh.screen.footer([f"{STATUS} {(shown - length) % 7}"])
        fresh.frame()
        assert bench.seen() == fresh.seen()


def test_a_word_more_is_written_without_what_was_there(bench: Bench) -> None:
    bench.screen.footer([STATUS])
    bench.screen.reply("some words")
    bench.frame()
    bench.screen.reply(" more")
    bench.frame()
    assert "more" in bench.writer.frames[-1]
    assert "words" not in bench.writer.frames[-1]
    assert bench.seen() == ["some words more", STATUS]


def test_a_pause_leaves_the_tail_as_it_is(bench: Bench) -> None:
    bench.screen.reply("one **two")
    bench.screen.footer([STATUS])
    bench.frame()
    bench.screen.footer([Row("PAUSED", Look.LOUD)])
    bench.screen.flush()
    assert bench.seen() == ["one two", "PAUSED"]
    assert "two" not in bench.writer.frames[-1]


def test_a_line_of_talk_stands_above_the_tail(bench: Bench) -> None:
    bench.screen.reply("one\n\ntwo")
    bench.screen.line("talk")
    bench.screen.reply(" three\n")
    bench.screen.end_reply()
    bench.frame()
    assert bench.seen() == ["one", "talk", "", "two three"]


def test_reasoning_is_folded_when_it_is_done(bench: Bench) -> None:
    bench.screen.footer([STATUS])
    bench.screen.thought("".join(f"thought {number}. " for number in range(40)))
    bench.frame()
    assert len(bench.seen()) == 5
    assert "thought 39." in bench.seen()[3]
    assert "\x1b[2mthought" in bench.writer.text
    bench.screen.reply("Answer")
    bench.frame()
    assert bench.seen() == ["· thought for 470 characters", "", "Answer", STATUS]


def test_what_was_seen_before_is_only_gone_on_with(bench: Bench) -> None:
    bench.screen.seen("old\n\n```py\nx = 1\ny =")
    bench.screen.reply(" 2\n```\nafter")
    bench.screen.end_reply()
    bench.frame()
    assert bench.seen() == ["y = 2", "────────────", "after"]


def test_a_table_taller_than_the_screen_shows_its_end(bench: Bench) -> None:
    bench.screen.footer([STATUS])
    bench.screen.reply("| n |\n|---|\n" + "".join(f"| {n} |\n" for n in range(15)))
    bench.frame()
    assert bench.seen() == ["⋮ 9 more rows above", *(f"| {n} |" for n in range(7, 15)), STATUS]
    bench.screen.end_reply()
    bench.screen.finish()
    assert bench.seen() == ["n", "──", *map(str, range(15))]


def test_a_paragraph_leaves_little_that_may_change(bench: Bench) -> None:
    bench.screen.footer([STATUS])
    for number in range(80):
        bench.screen.reply(f"word{number} ")
        bench.frame()
        assert not any(row.startswith("⋮") for row in bench.seen())
        assert bench.seen()[0].startswith("word0")


def test_stepping_aside_brings_the_tail_back(bench: Bench) -> None:
    bench.screen.footer([STATUS])
    bench.screen.reply("one\n\ntwo ")
    bench.frame()
    bench.screen.aside(lambda: bench.writer.write("else\r\n"))
    bench.screen.reply("three")
    bench.frame()
    assert bench.seen() == ["one", "", "two", "else", "", "two three", STATUS]
    before: list[str] = []
    bench.screen.aside(lambda: before.extend(bench.writer.frames))
    assert "\x1b[?25h" in before[-1]  # whoever has the terminal sees the cursor


def test_redraw_brings_styles_and_tail_back(bench: Bench) -> None:
    bench.screen.footer([STATUS])
    bench.screen.reply("**bold**\n\n" + "\n\n".join("abcdefghijklmnop") + "\n\ntail")
    bench.frame()
    bench.writer.frames = []
    bench.screen.redraw()
    assert bench.seen()[-5:] == ["o", "", "p", "", "tail", STATUS][-5:]
    assert len(bench.seen()) == 10


def test_in_another_width_the_tail_is_wrapped_anew(bench: Bench) -> None:
    bench.screen.footer([STATUS])
    bench.screen.reply("| a | b |\n|---|---|\n| one | two |")
    bench.frame()
    bench.writer.frames.clear()
    bench.tty.columns = 8
    bench.screen.resized()
    bench.frame()
    assert bench.seen()[:2] == ["| a | b", "|"]
    bench.screen.end_reply()
    bench.frame()
    assert "three" not in bench.writer.text


def test_what_a_reply_says_moves_nothing(bench: Bench) -> None:
    bench.screen.reply("a\x1b[2J\x1b]52;c;eA==\x07b\x9b1mc\rd `&#27;[2J`")
    bench.screen.thought("\x1b[2Jx\x9b")
    bench.frame()
    allowed = r"\x1b(?:\[\?(?:2026|25|7)[hl]|\[J|\[K|\[\d*[AG]|\[[BCD]|\[[\d;]*m|D|7|8)|\r\n"
    rest = re.sub(allowed, "", bench.writer.text)
    assert not set(map(chr, [*range(0x20), *range(0x7F, 0xA0)])) & set(rest)


def test_what_of_a_reply_is_out_is_told_even_if_nothing_of_it_shows(bench: Bench) -> None:
    told: list[int] = []
    for number, piece in enumerate(("a", "\n", "*", "*", "\x07", "-")):
        bench.screen.reply(piece, partial(told.append, number))
        bench.frame()
    assert told == [0, 1, 2, 3, 4, 5]


def test_a_flood_of_markdown_is_bounded(bench: Bench) -> None:
    bench.screen.reply("word " * 10_000)
    assert bench.screen.full
    bench.screen.flush()
    assert not bench.screen.full
    assert max(map(len, bench.writer.frames)) < FRAME_CHARS


def test_on_one_row_the_tail_is_not_left_behind() -> None:
    bench = Bench(columns=20, rows=1)
    bench.screen.footer([STATUS])
    for piece in ("one ", "**tw", "o**", "\n\n", "three"):
        bench.screen.reply(piece)
        bench.frame()
    bench.screen.end_reply()
    bench.screen.finish()
    assert bench.seen() == ["one two", "", "three"]


def test_a_pause_is_said_in_the_last_of_several_frames(bench: Bench) -> None:
    bench.screen.footer([STATUS])
    bench.screen.reply("first\n")
    bench.screen.reply("word " * 5_000 + "\n\nlast")
    bench.screen.footer([Row("PAUSED", Look.LOUD)])
    bench.screen.flush()
    said = [number for number, frame in enumerate(bench.writer.frames) if "PAUSED" in frame]
    assert said == [len(bench.writer.frames) - 1]
    assert "last" in bench.writer.frames[-1]


def test_a_footer_does_not_wait_for_ever_for_a_flood_to_end(bench: Bench) -> None:
    for number in range(60):
        bench.screen.append("x" * FRAME_CHARS * 2)
        bench.screen.footer([f"row {number}"])
        bench.clock.pass_by(FRAME_S)
    assert len(set(re.findall(r"row \d+", bench.writer.text))) >= 5


# -- the plain screen


def test_a_reply_is_shown_as_it_is_where_nothing_can_move() -> None:
    writer = Writer()
    screen = PlainScreen(writer, Tty())
    screen.thought("secret ")
    screen.thought("thoughts")
    screen.reply("**a** \x1b[2Jb")
    screen.end_reply()
    screen.seen("x\nbegun")
    assert writer.text == "[thinking]\n**a** [2Jbbegun"


def test_plain_text_only() -> None:
    writer = Writer()
    screen = PlainScreen(writer, Tty())
    told: list[int] = []
    screen.footer([STATUS])
    screen.append("hal\x1b[2Jf", lambda: told.append(1))
    screen.line("[paused at 1 tok]")
    screen.aside(lambda: writer.write("else\n"))
    screen.append("\trest")
    screen.redraw()
    screen.finish()
    assert writer.text == "hal[2Jf\n[paused at 1 tok]\nelse\n\trest\n"
    assert told == [1]


# -- on a real descriptor


def test_released_waits_until_all_is_out() -> None:
    async def show(descriptor: int) -> None:
        output = Output(descriptor)
        try:
            screen = Screen(output, Tty())
            screen.footer([STATUS])
            screen.append("text" * 1000)
            await screen.released()
            assert output.drain(0)
        finally:
            output.close()

    reading, writing = os.pipe()
    try:
        asyncio.run(show(writing))
        assert os.read(reading, 100_000).decode().count("text") == 1000
    finally:
        os.close(reading)
        os.close(writing)


def test_another_thread_may_wait_for_all_to_be_out() -> None:
    async def show(descriptor: int) -> bool:
        output = Output(descriptor)
        try:
            screen = Screen(output, Tty())
            for _ in range(100):
                screen.append("text")
            return await asyncio.to_thread(screen.drain, 5) and screen.all_out
        finally:
            output.close()

    reading, writing = os.pipe()
    try:
        assert asyncio.run(show(writing))
        assert os.read(reading, 100_000).decode().count("text") == 100
    finally:
        os.close(reading)
        os.close(writing)


def test_released_does_not_wait_for_a_reader_that_is_gone() -> None:
    async def show(descriptor: int) -> None:
        output = Output(descriptor)
        try:
            screen = Screen(output, Tty())
            screen.append("text")
            await asyncio.wait_for(screen.released(), 5)
        finally:
            output.close()

    reading, writing = os.pipe()
    os.close(reading)
    try:
        asyncio.run(show(writing))
    finally:
        os.close(writing)
