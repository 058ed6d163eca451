"""Markdown as it streams: the same lines however it is split, and what they should be."""

from __future__ import annotations

import json
import os
import random
import time
from pathlib import Path

import pytest

from llmctl.terminal.markdown.stream import Markdown
from llmctl.terminal.sanitizer import sanitize
from llmctl.terminal.spans import (
    CODE,
    COMMENT,
    EMPHASIS,
    KEYWORD,
    NAME,
    NUMBER,
    QUIET,
    REMOVED,
    STRING,
    STRONG,
    Span,
    encode,
    plain,
)
from llmctl.terminal.width import cells
from tests.support.markdown_corpus import CORPUS, made_up, real_texts
from tests.support.markdown_oracle import rows, squeezed

WIDTHS = (40, 80, 200)


def joined(spans: list[Span]) -> list[Span]:
    """Return the spans with those of one style put together."""
    found: list[Span] = []
    for text, style in spans:
        if found and found[-1][1] == style and "\n" not in (text, found[-1][0]):
            found[-1] = (found[-1][0] + text, style)
        else:
            found.append((text, style))
    return found


def at_once(text: str, columns: int = 80) -> list[Span]:
    markdown = Markdown(columns)
    return joined(markdown.feed(text) + markdown.finish())


def in_pieces(text: str, columns: int, drawn: random.Random) -> list[Span]:
    """Render text that comes in pieces, the tail being looked at in between."""
    markdown, spans = Markdown(columns), []
    while text:
        length = drawn.choice((1, 2, 3, 8, 40, 400))
        spans += markdown.feed(text[:length])
        text = text[length:]
        if drawn.random() < 0.2:
            markdown.tail()
    return joined(spans + markdown.finish())


def shown(text: str, columns: int = 80) -> list[str]:
    return plain(at_once(text, columns)).split("\n")[:-1]


def tail(text: str, columns: int = 80) -> list[str]:
    markdown = Markdown(columns)
    markdown.feed(text)
    return [plain(row) for row in markdown.tail()]


# -- however it is split


@pytest.mark.parametrize("name", CORPUS)
def test_pieces_give_the_lines_of_the_whole(name: str) -> None:
    drawn = random.Random(name)  # noqa: S311
    for columns in (*WIDTHS, 7):
        for _ in range(2):
            assert in_pieces(CORPUS[name], columns, drawn) == at_once(CORPUS[name], columns)


def test_real_texts_give_the_lines_of_the_whole() -> None:
    drawn = random.Random(1)  # noqa: S311
    for text in real_texts(12).values():
        columns = drawn.choice(WIDTHS)
        assert in_pieces(text, columns, drawn) == at_once(text, columns)


@pytest.mark.parametrize("name", [name for name, text in CORPUS.items() if len(text) < 120])
def test_every_split_in_two_gives_the_lines_of_the_whole(name: str) -> None:
    text, whole = CORPUS[name], at_once(CORPUS[name], 20)
    for place in range(len(text)):
        markdown = Markdown(20)
        spans = markdown.feed(text[:place])
        markdown.tail()
        assert joined(spans + markdown.feed(text[place:]) + markdown.finish()) == whole


def test_wild_documents_give_the_lines_of_the_whole() -> None:
    drawn = random.Random(2)  # noqa: S311
    for _ in range(150):
        text = made_up(drawn, 80, wild=True)
        columns = drawn.choice((1, 2, 5, 12, 40, 200))
        assert in_pieces(text, columns, drawn) == at_once(text, columns), repr(text)


@pytest.mark.exhaustive
def test_many_wild_documents() -> None:
    drawn = random.Random(time.time())  # noqa: S311
    end = time.monotonic() + 120
    while time.monotonic() < end:
        text = made_up(drawn, drawn.choice((30, 100, 1500)), wild=True)
        columns = drawn.choice((1, 2, 5, 12, 40, 200))
        assert in_pieces(text, columns, drawn) == at_once(text, columns), repr((text, columns))


@pytest.mark.parametrize("name", [name for name in CORPUS if "table" not in name])
def test_at_any_moment_every_word_that_has_come_is_shown(name: str) -> None:
    """What stays and the tail have the words that the end would leave if it came now."""
    text = CORPUS[name]
    for place in range(0, len(text), max(1, len(text) // 25)):
        markdown = Markdown(80)
        stays = markdown.feed(text[:place])
        now = plain([*stays, *(span for row in markdown.tail() for span in row)])
        assert _letters(now) == _letters(plain(at_once(text[:place])))


def _letters(text: str) -> str:
    return "".join(filter(str.isalpha, text))


# -- what is read


@pytest.mark.parametrize(
    "name",
    sorted(
        set(CORPUS)
        # It parses these in one piece, or has a rule of its own for them (see `document`).
        - {"long paragraph with styles", "span over a long paragraph", "deep nesting", "entities"}
        - {"deep quotes"}
        - {"pathological brackets", "dangerous links", "mail", "table of wide characters"}
    ),
)
def test_structure_is_as_markdown_it_reads_it(name: str) -> None:
    assert list(squeezed(shown(CORPUS[name], 100_000))) == rows(CORPUS[name])


SPECIFICATION = os.environ.get("LLMCTL_COMMONMARK_SPEC")
"""A file of the specification's examples, as its own ``--dump-tests`` writes them."""

READ_OTHERWISE = {39, 502}
"""A line end by its number is a space here, and addresses are shown as they were written."""


@pytest.mark.skipif(not SPECIFICATION, reason="LLMCTL_COMMONMARK_SPEC names no file of examples")
def test_the_specifications_examples() -> None:
    examples = json.loads(Path(str(SPECIFICATION)).read_text("utf-8"))
    for number, text in ((each["example"], each["markdown"]) for each in examples):
        drawn = random.Random(number)  # noqa: S311
        for columns in (40, 80, 200):
            assert in_pieces(text, columns, drawn) == at_once(text, columns), number
        same = list(squeezed(shown(text, 100_000))) == rows(text)
        assert same or number in READ_OTHERWISE, number


def test_an_address_goes_on_behind_a_no_break_space() -> None:
    assert shown('[a](/url\xa0"b")') == ['a (/url\xa0"b")']
    assert shown("[a](\xa0javascript:b)") == ["[a](\xa0javascript:b)"]


def test_structure_of_made_up_documents_is_as_markdown_it_reads_it() -> None:
    drawn = random.Random(3)  # noqa: S311
    for _ in range(400):
        text = made_up(drawn, 12, wild=False)
        if "|" in text or "~~" in text or "    " in text:
            continue  # there it has rules of its own
        assert list(squeezed(shown(text, 100_000))) == rows(text), repr(text)


def test_no_row_of_prose_is_wider_than_the_screen() -> None:
    for name, text in CORPUS.items():
        if any(sign in text for sign in ("```", "~~~", "    ", "<", "|")):
            continue  # code, HTML and tables without room are not wrapped
        for columns in (20, 40, 80):
            assert all(cells(row) < columns for row in shown(text, columns)), name


def test_looks() -> None:
    assert at_once("**a** *b* `c`")[:-1] == [
        ("a", STRONG), (" ", 0), ("b", EMPHASIS), (" ", 0), ("c", CODE),
    ]  # fmt: skip
    assert encode(at_once("**a**b"), color=True) == "\x1b[1ma\x1b[mb\n"


def test_code_keeps_its_backticks_where_no_colour_tells_it() -> None:
    markdown = Markdown(80, color=False)
    spans = markdown.feed("`a` ``b`c``\n") + markdown.finish()
    assert plain(spans) == "`a` ``b`c``\n"
    assert "\x1b[36m" not in encode(spans, color=False)


def test_what_is_open_looks_as_it_will_while_it_is_written() -> None:
    markdown = Markdown(80)
    markdown.feed("some **bold wor")
    assert joined(markdown.tail()[0]) == [("some ", 0), ("bold wor", STRONG)]
    markdown.feed("ds*")
    assert joined(markdown.tail()[0]) == [("some ", 0), ("bold words", STRONG)]
    markdown.feed("* and `co")
    assert joined(markdown.tail()[0])[-1] == ("co", CODE)


@pytest.mark.parametrize("mark", ["-", "--", "1.", "#", "``", ">", "| ", "=", "* ", "**"])
def test_what_may_become_anything_is_not_shown_yet(mark: str) -> None:
    assert tail(f"a\n{mark}") == ["a"]


def test_a_table_is_shown_as_written_until_it_ends() -> None:
    text = "| a | b |\n|---|---|\n| 1 | two"
    assert tail(text) == ["| a | b |", "|---|---|", "| 1 | two"]
    assert shown(f"{text} |\n\n") == ["a │ b", "──┼────", "1 │ two"]


def test_a_large_table_goes_on_in_the_columns_it_has() -> None:
    rows_ = [row for row in shown(CORPUS["large table"], 40) if "│" in row]
    assert {row.index("│") for row in rows_} == {rows_[0].index("│")}


def test_items_stay_when_the_next_begins() -> None:
    markdown = Markdown(80)
    assert plain(markdown.feed("- one\n- tw")) == "• one\n" or tail("- one\n- tw")
    assert plain(markdown.feed("o\n- three\n")).count("•") >= 1
    assert [plain(row) for row in markdown.tail()] == ["• three"]


def test_lines_of_code_stay_at_once_also_where_they_are_nested() -> None:
    markdown = Markdown(80)
    assert "x = 1" in plain(markdown.feed("- a\n  ```py\n  x = 1\n"))
    assert "y = 2" in plain(markdown.feed("  y = 2\n"))


def test_code_is_not_wrapped_or_padded() -> None:
    code = "x = '" + "y" * 300 + "'"
    assert code in shown(f"```py\n{code}\n\n```", 40)
    assert all(row == row.rstrip() for row in shown(CORPUS["long code"], 40))


def test_a_very_long_line_is_shown_before_it_ends() -> None:
    for begin in ("", "```\n", "> ", "- a\n  ", "# ", "| a | b |\n|-|-|\n"):
        markdown = Markdown(80)
        committed = plain(markdown.feed(begin + "word " * 2_000))
        assert len(committed) > 7_000, begin
        assert sum(len(plain(row)) for row in markdown.tail()) < 3_000


def test_code_goes_on_in_the_state_of_the_line_before() -> None:
    spans = at_once('```py\n"""a\nif b\n"""\nif c\n```')
    assert ("if b", STRING) in spans
    assert ("if", KEYWORD) in spans


@pytest.mark.parametrize(
    ("language", "line", "styled"),
    [
        ("python", "def f(x):  # c", [("def", KEYWORD), ("f", NAME), ("# c", COMMENT)]),
        ("js", "let a = `x", [("let", KEYWORD), ("`x", STRING)]),
        ("c", "/* a */ int x = 0x1F;", [("/* a */", COMMENT), ("int", KEYWORD), ("0x1F", NUMBER)]),
        ("sh", "echo $HOME a#b # c", [("echo", KEYWORD), ("$HOME", NAME), ("# c", COMMENT)]),
        ("sql", "SELECT 'x' -- y", [("SELECT", KEYWORD), ("'x'", STRING), ("-- y", COMMENT)]),
        ("json", '{"a": "b", "c": null}', [('"a"', NAME), ('"b"', STRING), ("null", NUMBER)]),
        ("diff", "-old", [("-old", REMOVED)]),
        ("diff", "+new", [("+new", STRING)]),
        ("unknown", "if x: 'y'", [("if x: 'y'", 0)]),
        ("PYTHON", "import a", [("import", KEYWORD)]),
    ],
)
def test_code_is_coloured(language: str, line: str, styled: list[Span]) -> None:
    spans = at_once(f"```{language}\n{line}\n```")
    assert set(styled) <= set(spans)


def test_numbers_go_on_and_quotes_are_marked() -> None:
    assert shown("3. a\n3. b\n> c") == ["3. a", "4. b", "│ c"]
    assert ("│ ", QUIET) in at_once("> c")


def test_after_a_resize_rows_have_the_new_width() -> None:
    markdown = Markdown(80)
    spans = markdown.feed("word " * 30)
    markdown.resize(20)
    assert all(cells(plain(row)) < 20 for row in markdown.tail())
    spans += markdown.feed("\n\n" + "word " * 10) + markdown.finish()
    assert plain(spans).split() == ["word"] * 40


# -- what is never written


NASTY = (
    "\x1b]52;c;ZXZpbA==\x07", "\x1b]8;;javascript:alert(1)\x1b\\x\x1b]8;;\x1b\\", "\x1bPq#0\x1b\\",
    "\x1b[6n", "\x1b[2J", "\x9b31m", "\x9d52;c;eA==\x9c", "\u202eevil\u202c", "\u2066x\u2069",
    "\x1b]0;title", "\x1b", "\x07\x08\x7f\x0e\x0f", "\r", "&#27;[2J", "&#x9b;31m", "&#x202e;x",
    "&NewLine;x", "&Tab;y", "&#13;", "&bsol;&lbrack;",
)  # fmt: skip
PLACES = (
    "{}", "# {}", "- {}", "> {}", "`{}`", "**{}**", "[{}](http://a.example/{})", "![{}](<{}>)",
    "<http://a.example/{}>", "```{}\n{}\n```", "    {}", "<div>{}", "| {} | b |\n|---|---|\n| {} |",
    "```py\n'{}'\n\"\"\"{}\n```", "[x]({} '{}')", "{}\n===",
)  # fmt: skip


@pytest.mark.parametrize("place", PLACES)
def test_no_control_comes_through(place: str) -> None:
    for nasty in NASTY:
        text = place.replace("{}", nasty)
        for split in range(len(text)):
            markdown = Markdown(40)
            spans = markdown.feed(text[:split])
            rows_ = markdown.tail()
            spans += markdown.feed(text[split:]) + markdown.finish()
            for written in [plain(spans), *map(plain, rows_)]:
                assert written == sanitize(written)
                assert "\t" not in written
            assert all("\n" not in plain(row) for row in rows_)
            assert all(text == "\n" or "\n" not in text for text, _ in spans)


# -- what it costs


def test_a_nasty_tail_is_no_long_frame() -> None:
    for text in ("[" * 900, "*a **b " * 140, "a*_" * 300, "`" * 900, "<" * 900, "[a](b" * 200):
        markdown = Markdown(80)
        markdown.feed(text)
        best = min(_processor_seconds(markdown) for _ in range(5))
        assert best < 0.05


def _processor_seconds(markdown: Markdown) -> float:
    begin = time.thread_time()
    markdown.tail()
    return time.thread_time() - begin


def test_a_line_that_was_begun_is_no_head_of_a_table_whatever_has_come_of_it() -> None:
    text = "a word or " * 32 + "P ||c\n-|-|-\n"
    whole = plain(at_once(text, 81))
    for split in range(310, len(text)):
        markdown = Markdown(81)
        spans = [*markdown.feed(text[:split]), *markdown.feed(text[split:]), *markdown.finish()]
        assert plain(spans) == whole
