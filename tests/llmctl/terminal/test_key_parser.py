"""The key parser: every split of the same bytes gives the same presses."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmctl.terminal.keys import Key, KeyParser, Press

PASTE = b"\x1b[200~", b"\x1b[201~"

KEYS: dict[bytes, Key] = {
    b"\r": Key.ENTER,
    b"\n": Key.NEWLINE,
    b"\x1b\r": Key.NEWLINE,
    b"\x1b\n": Key.NEWLINE,
    b"\t": Key.TAB,
    b"\x7f": Key.BACKSPACE,
    b"\x08": Key.BACKSPACE,
    b"\x1b\x7f": Key.CTRL_W,
    b"\x03": Key.CTRL_C,
    b"\x04": Key.CTRL_D,
    b"\x0c": Key.CTRL_L,
    b"\x12": Key.CTRL_R,
    b"\x15": Key.CTRL_U,
    b"\x17": Key.CTRL_W,
    b"\x1a": Key.CTRL_Z,
    b"\x1b[A": Key.UP,
    b"\x1bOA": Key.UP,
    b"\x1b[B": Key.DOWN,
    b"\x1b[C": Key.RIGHT,
    b"\x1b[D": Key.LEFT,
    b"\x1b[H": Key.HOME,
    b"\x1b[1~": Key.HOME,
    b"\x01": Key.HOME,
    b"\x1b[4~": Key.END,
    b"\x1bOF": Key.END,
    b"\x1b[3~": Key.DELETE,
    b"\x1bOM": Key.ENTER,
}

JUNK = {
    "kitty: a key": b"\x1b[57441u",
    "kitty: a key with modifiers and text": b"\x1b[97;5;97u",
    "kitty: the answer to a query": b"\x1b[?1u",
    "modifyOtherKeys": b"\x1b[27;5;13~",
    "focus gained": b"\x1b[I",
    "focus lost": b"\x1b[O",
    "mouse, SGR": b"\x1b[<0;10;20M",
    "mouse, X10": b"\x1b[M !!",
    "mouse, urxvt": b"\x1b[32;10;20M",
    "where the cursor is": b"\x1b[12;40R",
    "what the terminal is": b"\x1b[?62;22c",
    "its version": b"\x1bP>|XTerm(388)\x1b\\",
    "a mode": b"\x1b[?2026;2$y",
    "a colour, ended by BEL": b"\x1b]11;rgb:0000/0000/0000\x07",
    "a colour, ended by ST": b"\x1b]10;rgb:ffff/ffff/ffff\x1b\\",
    "a setting": b"\x1bP1$r0m\x1b\\",
    "graphics": b"\x1b_Gi=1;OK\x1b\\",
    "Linux console F1": b"\x1b[[A",
    "F5": b"\x1b[15~",
    "Ctrl-Up": b"\x1b[1;5A",
    "keypad": b"\x1bOj",
    "a control that is no key": b"\x00",
    "not UTF-8": b"\xff",
    "half a character": b"\xe4\xb8x"[:2] + b"\x0f",
    "a surrogate in UTF-8": b"\xed\xa0\x80",
    "a C1 control": "\x9b".encode(),
}

characters = st.characters(exclude_categories=("Cs", "Cc"), exclude_characters=" ").map(
    lambda c: (c.encode(), [Press(None, c)])
)
keys = st.sampled_from(sorted(KEYS)).map(lambda data: (data, [Press(KEYS[data])]))
junk = st.sampled_from(sorted(JUNK.values())).map(lambda data: (data, list[Press]()))
spaces = st.just((b" ", [Press(Key.SPACE, " ")]))
pastes = (
    st.binary(max_size=40)
    .filter(lambda data: PASTE[1] not in data + PASTE[1][:-1])
    .map(lambda data: (PASTE[0] + data + PASTE[1], [Press(Key.PASTE, pasted(data))]))
)
typed = st.lists(st.one_of(characters, spaces, keys, junk, pastes), max_size=12)


def pasted(data: bytes) -> str:
    return data.decode("utf-8", "replace").replace("\r\n", "\n").replace("\r", "\n")


def parse(*parts: bytes) -> list[Press]:
    parser = KeyParser()
    return [press for part in parts for press in parser.feed(part)]


@given(typed, st.data())
def test_any_split_gives_the_same_presses(
    typed: list[tuple[bytes, list[Press]]], data: st.DataObject
) -> None:
    everything = b"".join(part for part, _ in typed)
    expected = [press for _, presses in typed for press in presses]
    places = data.draw(st.lists(st.integers(0, len(everything)), max_size=8).map(sorted))
    parts = [everything[a:b] for a, b in itertools.pairwise([0, *places, len(everything)])]
    assert parse(*parts) == expected
    assert parse(*(bytes([byte]) for byte in everything)) == expected


@given(st.binary(max_size=60))
def test_any_bytes_split_anywhere_give_the_same_presses(data: bytes) -> None:
    parser, slow = KeyParser(), KeyParser()
    whole = parser.feed(data) + parser.flush()
    assert [p for b in data for p in slow.feed(bytes([b]))] + slow.flush() == whole


@pytest.mark.parametrize("data", KEYS)
def test_keys(data: bytes) -> None:
    assert parse(data) == [Press(KEYS[data])]


@pytest.mark.parametrize("name", JUNK)
def test_reports_are_swallowed_whole(name: str) -> None:
    parser = KeyParser()
    assert parser.feed(JUNK[name] + b"a") == [Press(None, "a")]
    assert not parser.pending


def test_a_lone_escape_is_one_only_when_nothing_follows() -> None:
    parser = KeyParser()
    assert parser.feed(b"\x1b") == []
    assert parser.pending
    assert parser.flush() == [Press(Key.ESCAPE)]
    assert not parser.pending
    assert parser.flush() == []


def test_an_escape_that_was_waited_for_may_still_begin_a_sequence() -> None:
    assert parse(b"\x1b", b"[A") == [Press(Key.UP)]
    assert parse(b"\x1b", b"\r") == [Press(Key.NEWLINE)]


def test_escape_then_letters_are_escape_and_letters() -> None:
    assert parse(b"\x1bno") == [Press(Key.ESCAPE), Press(None, "n"), Press(None, "o")]
    assert parse(b"\x1b ") == [Press(Key.ESCAPE), Press(Key.SPACE, " ")]
    assert parse(b"\x1b\x03") == [Press(Key.ESCAPE), Press(Key.CTRL_C)]
    assert parse("\x1bé".encode()) == [Press(Key.ESCAPE), Press(None, "é")]


def test_two_escapes_are_two() -> None:
    parser = KeyParser()
    assert parser.feed(b"\x1b\x1b") + parser.flush() == [Press(Key.ESCAPE)] * 2
    assert parse(b"\x1b\x1b[A") == [Press(Key.ESCAPE), Press(Key.UP)]


@pytest.mark.parametrize("word", ["Please stop", "Xylophone", "[", "O", "^", "]"])
def test_what_looks_like_a_string_but_is_typed_is_not_lost(word: str) -> None:
    parser = KeyParser()
    assert parser.feed(b"\x1b" + word.encode()) == []
    presses = parser.flush()
    assert presses[0] == Press(Key.ESCAPE)
    assert "".join(press.text for press in presses) == word


def test_typed_text_that_began_like_a_string_ends_with_enter() -> None:
    presses = parse(b"\x1bPlease\r")
    assert [presses[0].key, presses[-1].key] == [Key.ESCAPE, Key.ENTER]
    assert "".join(press.text for press in presses) == "Please"


@pytest.mark.parametrize("begun", [b"\x1b[57441", b"\x1b[?1;2", b"\x1b]11;rgb", b"\x1bP1$r"])
def test_half_a_report_is_no_letters(begun: bytes) -> None:
    parser = KeyParser()
    assert parser.feed(begun) == []
    assert parser.pending
    assert parser.flush() == []


def test_a_control_key_within_a_broken_report_is_heard() -> None:
    assert parse(b"\x1b[12\x03") == [Press(Key.CTRL_C)]
    assert parse(b"\x1b]11;rgb\x03") == [Press(Key.CTRL_C)]


def test_a_paste_keeps_every_byte_and_waits_without_a_clock() -> None:
    parser = KeyParser()
    assert parser.feed(PASTE[0] + b"a \x03\x1b[A\r\nb\rc \x1b[20") == []
    assert parser.pasting
    assert not parser.pending
    assert parser.flush() == []
    assert parser.feed(b"1~x") == [
        Press(Key.PASTE, "a \x03\x1b[A\nb\nc "),
        Press(None, "x"),
    ]
    assert not parser.pasting


def test_a_large_paste_takes_time_in_proportion() -> None:
    parser = KeyParser()
    parser.feed(PASTE[0])
    for _ in range(20_000):
        parser.feed(b"x" * 100)
    (press,) = parser.feed(PASTE[1])
    assert len(press.text) == 2_000_000
