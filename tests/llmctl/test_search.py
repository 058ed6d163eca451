"""What a search finds: the same in the store and in replies that are unfinished."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmctl.cli import main
from llmctl.conversation import Message, Request
from llmctl.events import Chunk, End, Timing
from llmctl.journal import Header
from llmctl.records import Records
from llmctl.search import around, contains
from llmctl.turn import Mark
from tests.support.fake_environment import fake_environment


def remember(records: Records, text: str, *, stored: bool, number: int = 0) -> None:
    """Keep a conversation whose reply is a text."""
    request = Request("m", (Message("user", "?"),))
    header = Header(f"g{number}", f"c{number}", 1.0 + number, request, 0, {}, {}, "run")
    journal = records.begin(header, _not_told)
    journal.received(Chunk(text))
    journal.delivered(Mark(chars=len(text), model=len(text)))
    end = End.COMPLETE if stored else End.SIGINT
    journal.ended(end, Timing(0.1, 1.0, 0.0, 20.0), resumable=not stored)
    records.settle(journal)


def _not_told(error: OSError) -> None:
    raise AssertionError(error)


@pytest.mark.parametrize("stored", [True, False])
@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("three codes", ["code"]),
        ("three codes", ["ree co"]),
        ("one two", ["TWO", "one"]),
        ("世界你好", ["界"]),
        ("Die Straße", ["STRASSE"]),
        ("Die STRASSE", ["aße"]),
        ("snake_case-name", ["_case-"]),
        ('say "hi"', ['"hi"']),
        ("100 %", ["%"]),
        ("2 * 3", ["*"]),
        ("é", ["É"]),
    ],
)
def test_all_words_must_occur_as_parts_in_any_case(
    tmp_path: Path, text: str, words: list[str], stored: bool
) -> None:
    with Records(tmp_path) as records:
        remember(records, "something else", stored=stored, number=1)
        remember(records, text, stored=stored)
        (found,) = records.search(words)
        assert (found.conversation, found.role, found.excerpt) == ("c0", "assistant", text)
        assert (found.title, found.created > 0) == ("?", True)
        assert records.search([*words, "nowhere"]) == []


@pytest.mark.parametrize("stored", [True, False])
def test_an_excerpt_holds_the_word(tmp_path: Path, stored: bool) -> None:
    with Records(tmp_path) as records:
        remember(records, "ß" * 200 + " needle " + "ß" * 200, stored=stored)
        (found,) = records.search(["NEEDLE"])
    assert found.excerpt == "…" + "ß" * 59 + " needle " + "ß" * 53 + "…"


def test_the_unfinished_come_first_and_then_the_newest(tmp_path: Path) -> None:
    with Records(tmp_path) as records:
        for number in range(3):
            remember(records, "word", stored=number != 1, number=number)
        assert [found.conversation for found in records.search(["word"])] == ["c1", "c2", "c0"]


# Some fold to two or three characters; \u0130 is I with a dot, \u017f a long s.
CHARACTERS = "aAßẞKΣςﬃ \u0130\u017f\u0149"


@given(
    st.text(CHARACTERS, max_size=40),
    st.text(CHARACTERS.replace(" ", ""), min_size=1, max_size=3),
    st.text(CHARACTERS, max_size=40),
)
def test_an_excerpt_holds_what_was_found_however_case_changes_lengths(
    before: str, word: str, behind: str
) -> None:
    text = before + word + behind
    for wanted in (word, word.upper(), word.lower(), word.casefold()):
        if contains(text, [wanted]):
            assert contains(around(text, wanted, 3), [wanted])
            assert around(text, wanted, 100) == " ".join(text.split())


def test_an_excerpt_is_one_line_and_says_where_it_is_cut() -> None:
    text = "one\ntwo\n\nthree four"
    assert around(text, "TWO") == "one two three four"
    assert around(text, "two", 2) == "…e two…"
    assert around(text, "three four", 0) == "…three four"


@pytest.mark.parametrize("words", [[""], ["  "], ["one", ""], ["\t\n"]])
def test_an_empty_word_is_a_usage_error(tmp_path: Path, words: list[str]) -> None:
    with fake_environment(tmp_path) as fake:
        assert main(["conversations", "search", *words], fake.env) == 2
        assert fake.out == ""
        assert "A word can't be empty." in fake.err
        assert "llmctl conversations search" in fake.err
