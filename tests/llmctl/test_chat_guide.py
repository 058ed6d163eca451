"""docs/chat.md says what the code does: every command, every key."""

from __future__ import annotations

import ast
import inspect
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmctl.chat.commands import commands
from llmctl.chat.keyboard import KEYS, Draft, Keyboard, as_sent, as_typed, is_command
from llmctl.terminal.keys import Key, Press

GUIDE = (Path(__file__).parents[2] / "docs" / "chat.md").read_text("utf-8")
CONTRACT = (
    "help resume retry edit keep drop undo fork copy raw save export search model system template"
    " marker timeout stats clear plain quit"
)


def table(heading: str) -> list[list[str]]:
    """Return the rows of the first table behind a heading, without its head."""
    part = GUIDE.partition(f"## {heading}\n")[2].partition("\n## ")[0]
    rows = [line for line in part.splitlines() if line.startswith("|")][2:]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", row)[1:-1]] for row in rows]


def test_every_command_is_in_the_guide_as_help_has_it() -> None:
    said = [(name, text.replace("\\|", "|")) for name, text in table("Commands")]
    assert said == [
        (f"`/{name}`", (inspect.getdoc(command) or "").partition("\n")[0])
        for name, command in commands().items()
    ]
    assert list(commands()) == CONTRACT.split()


def test_what_the_chat_says_names_commands_that_there_are() -> None:
    code = Path(inspect.getfile(commands)).parent.glob("*.py")
    strings = [
        node.value
        for path in code
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]
    named = set(re.findall(r"(?<![\w/.~<>])/([a-z]{2,})(?![\w/.])", "\n".join(strings)))
    assert {"resume", "fork"} <= named <= commands().keys()


def test_help_fits_a_terminal() -> None:
    width = max(map(len, commands()))
    for command in commands().values():
        first, *more = (inspect.getdoc(command) or "").splitlines()
        assert len(first) + width + 3 < 80
        assert all(len(line) < 89 for line in more), more
    assert all(len(line) < 80 for line in KEYS.splitlines())


def test_every_key_of_the_guide_is_in_the_help() -> None:
    named = {name for row in table("Keys") for name in row[0].split(", ")}
    assert named == {name for name in named if name in KEYS}
    rows = [line for line in KEYS.splitlines()[1:-1] if line[0] != " "]
    assert {row.split()[0].strip(",") for row in rows} <= named


class Recorder:
    """Notes what keys do to a chat."""

    def __init__(self, *, paused: bool) -> None:
        self.paused = paused
        self.done: list[str] = []

    def pause(self) -> None:
        self.done.append("pause")

    def resume(self) -> None:
        self.done.append("resume")

    def stop(self) -> None:
        self.done.append("stop")

    def steer(self) -> None:
        self.done.append("the reply ends here")

    def leave(self) -> None:
        self.done.append("leave")

    def suspend(self) -> None:
        self.done.append("suspend")

    def hint(self, text: str) -> None:
        assert text
        self.done.append("a hint")

    def redraw(self) -> None:
        self.done.append("paint it again")


PRESSES = {
    "Space": Key.SPACE,
    "Enter": Key.ENTER,
    "Esc": Key.ESCAPE,
    "Alt-Enter, Ctrl-J": Key.NEWLINE,
    "Ctrl-C": Key.CTRL_C,
    "Ctrl-D": Key.CTRL_D,
    "Ctrl-Z": Key.CTRL_Z,
    "Ctrl-L": Key.CTRL_L,
    "Up, Down": Key.UP,
}


@pytest.mark.parametrize("row", table("Keys"), ids=lambda row: row[0])
@pytest.mark.parametrize("paused", [False, True], ids=["streams", "paused"])
def test_what_the_guide_says_of_a_key_happens(row: list[str], paused: bool) -> None:
    cell = row[3 if paused else 2]
    key = PRESSES.get(row[0])
    if key is None:
        assert cell == "", "only the prompt knows it"
        return
    controls, draft = Recorder(paused=paused), Draft()
    Keyboard(controls, draft, lambda: 0.0).press(Press(key))
    happened = controls.done or (["a new line"] if draft.text == "\n" else [])
    assert all(what in cell for what in happened), (happened, cell)
    controls, draft = Recorder(paused=paused), Draft("words")
    Keyboard(controls, draft, lambda: 0.0).press(Press(key))
    changes = {
        "queue the draft": draft.queued == ["words"] and not paused,
        "with a draft: the reply ends here": draft.queued == ["words"] and paused,
        "set the draft aside": draft.aside == ["words"],
    }
    assert [change for change, made in changes.items() if made] == [c for c in changes if c in cell]


def test_a_command_at_a_pause_stops_the_reply_and_comes_next() -> None:
    controls, draft = Recorder(paused=True), Draft(" /edit", queued=["a message"])
    Keyboard(controls, draft, lambda: 0.0).press(Press(Key.ENTER))
    assert controls.done == ["stop"]
    assert [draft.take_queued(), draft.take_queued(), draft.take_queued()] == [
        " /edit",
        "a message",
        "",
    ]


def test_commands_and_messages_that_were_queued_stay_apart() -> None:
    draft = Draft(queued=["one", "two", "/raw", "//three", "/copy"])
    assert [draft.take_queued() for _ in range(5)] == [
        "one\n\ntwo",
        "/raw",
        "//three",
        "/copy",
        "",
    ]


@given(st.text("/ \nx", max_size=8))
def test_every_message_can_be_typed(message: str) -> None:
    typed = as_typed(message)
    assert as_sent(typed) == message
    assert not is_command(typed)


def test_what_is_queued_behind_another_message_says_the_same_as_alone() -> None:
    draft = Draft(queued=["a", "//b", "  //c"], text="//d")
    assert as_sent(draft.take_queued()) == "a\n\n/b\n\n  /c"
    draft = Draft(queued=["//a", "//b"], text="//c")
    draft.put_back()
    assert as_sent(draft.text) == "/a\n\n/b\n\n/c"
