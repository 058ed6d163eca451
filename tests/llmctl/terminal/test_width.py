"""Widths of text, and where it leaves the cursor."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmctl.terminal.width import Caret, cells, fit, fit_end, last_rows

text = st.text(st.sampled_from("ab é日本👩‍💻e\u0301🇩🇪"), max_size=30)


@pytest.mark.parametrize(
    ("thing", "width"),
    [("", 0), ("a", 1), ("é", 1), ("e\u0301", 1), ("日", 2), ("👩‍💻", 2), ("🇩🇪", 2), ("❤️", 2)],
)
def test_cells(thing: str, width: int) -> None:
    assert cells(thing) == width


@given(text, st.integers(0, 20))
def test_what_was_cut_fits(text: str, width: int) -> None:
    for cut in (fit(text, width), fit_end(text, width)):
        assert cells(cut) <= width
        assert cut == text or "…" in cut or width == 0


def test_a_cut_never_splits_a_cluster() -> None:
    assert fit("ab👩‍💻cd", 4) == "ab…"
    assert fit_end("ab👩‍💻cd", 4) == "…cd"


@pytest.mark.parametrize(
    ("rows", "kept"), [(0, ""), (1, "ef"), (2, "…d\nef"), (3, "abcd\nef"), (4, "x\nabcd\nef")]
)
def test_last_rows(rows: int, kept: str) -> None:
    assert last_rows("y\nx\nabcd\nef", 2, rows) == kept


def test_last_rows_of_one_long_line() -> None:
    assert last_rows("a" * 100, 10, 3) == "…" + "a" * 29


@given(st.lists(text, max_size=6), st.integers(3, 12))
def test_the_caret_does_not_depend_on_how_text_is_split(parts: list[str], columns: int) -> None:
    whole, split = Caret(columns), Caret(columns)
    whole.put("".join(parts))
    for part in parts:
        split.put(part)
    assert split == whole


@given(st.lists(text, max_size=6), st.integers(3, 12))
def test_the_caret_is_where_the_rows_end(parts: list[str], columns: int) -> None:
    caret = Caret(columns)
    for part in parts:
        before = caret.column
        stayed = caret.put(part)
        assert 0 <= caret.column <= columns
        assert stayed == (before + cells(part) <= columns) or not part.isascii()


def test_a_full_row_waits_for_its_next_character() -> None:
    caret = Caret(4)
    assert caret.put("abcd")
    assert caret.full
    assert caret.park == "\x1b[D\x1b[Cd"
    assert not caret.put("e")
    assert (caret.column, caret.park) == (1, "")


def test_a_wide_character_does_not_fit_into_the_last_cell() -> None:
    caret = Caret(4)
    assert not caret.put("abc日")
    assert caret.column == 2
    assert caret.put("日")
    assert caret.park == "\x1b[D\x1b[C\x1b[D日"


def test_a_newline_begins_a_row() -> None:
    caret = Caret(4)
    assert not caret.put("abcd\n")
    assert (caret.column, caret.line) == (0, 0)


def test_another_width_wraps_the_line_anew() -> None:
    caret = Caret(10)
    caret.put("abcdefgh")
    caret.resize(4)
    assert caret.column == 4
    assert caret.full
    caret.resize(5)
    assert caret.column == 3


@given(st.text("ab \n", max_size=60), st.integers(1, 9), st.lists(st.integers(0, 60), max_size=4))
def test_rows_are_counted_whatever_the_pieces(text: str, columns: int, cuts: list[int]) -> None:
    caret = Caret(columns)
    places = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    for start, end in pairwise(places):
        caret.put(text[start:end])
    rows = sum(max(1, -(-len(line) // columns)) for line in text.split("\n"))
    assert caret.rows == rows - 1
