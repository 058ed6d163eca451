"""The recorded session of the README, played again: its pictures and words are what happened."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from tests.record import CAST, COLUMNS, FIRST, FOLDER, PAUSED, PICTURES, ROWS, SECOND
from tests.support.cast import Cast, Terminal, picture
from tests.support.processes import REPOSITORY

# What llmctl.terminal writes, and prompt_toolkit for the line one types in: frames, the cursor
# and its keys, wrapping, marks of pastes; erasing; the cursor's moves; how letters look; where
# the reply's end is kept, and a row more.
OURS = re.compile(
    r"\x1b\[\?(?:2026|25|12|7|2004)[hl]|\x1b\[\?1l|\x1b\[[JK]|\x1b\[\d*[ABCDG]|\x1b\[[\d;]*m"
    r"|\x1b[78D]|[\b\r\n]"
)
CELL = 12.2
"""Units of a picture that a cell is wide."""
README = (REPOSITORY / "README.md").read_text()
PICTURE = re.compile(r"!\[([^\]]+)\]\(docs/pictures/([^)]+)\)")


@pytest.fixture(scope="module")
def cast() -> Cast:
    return Cast.load(CAST)


@pytest.fixture(scope="module")
def end(cast: Cast) -> Terminal:
    return cast.play()


def test_it_is_of_the_size_it_says_and_small(cast: Cast) -> None:
    assert (cast.columns, cast.rows) == (COLUMNS, ROWS)
    assert CAST.stat().st_size < 60_000
    times = [at for at, _ in cast.writes]
    assert times == sorted(times)


def test_a_recording_is_read_as_it_was_written(cast: Cast, tmp_path: Path) -> None:
    cast.save(tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == CAST.read_bytes()


def test_nothing_controls_the_terminal_but_what_we_write(cast: Cast) -> None:
    rest = OURS.sub("", cast.text)
    assert re.findall(r"[\x00-\x1f\x7f-\x9f]", rest) == []


def test_nothing_of_the_machine_is_in_it(cast: Cast) -> None:
    assert re.findall(r"(?:/[\w.]+){2,}|\w+@\w+", cast.text) == []


def test_every_line_is_in_the_scrollback_once(end: Terminal) -> None:
    lines = [line for line in end.scrollback if line]
    assert [line for line, times in Counter(lines).items() if times > 1] == []
    assert [line for line in lines if line.startswith("> ")] == [f"> {FIRST}", f"> {SECOND}"]


def test_what_was_there_at_the_pause_is_the_beginning_of_the_reply(
    cast: Cast, end: Terminal
) -> None:
    rows = [row for row in cast.play(PAUSED).shown if row]
    assert rows[-1].endswith(" tok · engine held · Space resume · Ctrl-C stop")
    shown, whole = rows[2:-1], end.scrollback[2:]
    assert len(shown) > 1
    assert whole[: len(shown) - 1] == shown[:-1]
    assert whole[len(shown) - 1].startswith(shown[-1])
    ended = next(line for line in end.scrollback if line.startswith("· "))
    assert ended.endswith(" · stop · resumed: held, exact")


def test_nothing_of_the_reply_came_while_it_was_paused(cast: Cast) -> None:
    paused = cast.play(PAUSED).shown
    terminal = Terminal(cast.columns, cast.rows)
    held = set()
    for _, text in cast.writes:
        terminal.feed(text)
        rows = terminal.shown
        if any(row.startswith(PAUSED) for row in rows):
            held.add(tuple(rows))
    assert held == {tuple(paused)}


def rows_of(svg: str) -> list[str]:
    """Return the rows of text in a picture, without the window's title and empty rows."""
    rows: dict[float, str] = {}
    for text in ET.fromstring(svg).iter("{http://www.w3.org/2000/svg}text"):  # noqa: S314  (our own)
        if "clip-path" not in text.attrib:
            continue
        place = float(text.attrib["y"])
        column = round(float(text.attrib["x"]) / CELL)
        before = rows.get(place, "").ljust(column)
        rows[place] = before + (text.text or "").replace("\xa0", " ")
    return [row for place in sorted(rows) if (row := rows[place].rstrip())]


@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_is_a_moment_of_it(cast: Cast, name: str) -> None:
    svg = (FOLDER / name).read_text()
    shown = [row for row in cast.play(PICTURES[name]).shown if row]
    assert rows_of(svg) == shown
    assert len(svg.encode()) < 40_000


@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_is_made_anew_alike_and_asks_nobody_for_anything(cast: Cast, name: str) -> None:
    svg = picture(cast.play(PICTURES[name]), "llmctl chat")
    assert rows_of(svg) == rows_of((FOLDER / name).read_text())
    for found in (svg, (FOLDER / name).read_text()):
        assert set(re.findall(r"\w+://[^\s\"]+", found)) == {"http://www.w3.org/2000/svg"}
        assert "@import" not in found
        assert "<script" not in found


@pytest.mark.parametrize("name", PICTURES)
def test_what_the_readme_quotes_of_a_picture_is_on_it(cast: Cast, name: str) -> None:
    texts = {name: text for text, name in PICTURE.findall(README)}
    assert texts.keys() == PICTURES.keys()
    screen = "\n".join(cast.play(PICTURES[name]).shown)
    quoted = re.findall("“([^”]+)”", texts[name].replace("\n", " "))
    assert quoted
    assert [words for words in quoted if words not in screen] == []
