"""The same in `llmctl chat`: a reply is interrupted at the keyboard or from outside.

A chat is one process of three turns, in which a later turn begins from the state that the
earlier one left in the engine. So what a reply would have been is read from a chat of its
own, in which nobody interrupted any turn.
"""

from __future__ import annotations

import json
import re
import signal
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from llmctl.journal import JournalDamaged, Recorded, read
from llmctl.replies import content_of
from tests.exactness.corpus import Kind
from tests.exactness.laboratory import PATIENCE_S, Laboratory
from tests.exactness.plan import ChatCombination, ChatWay
from tests.exactness.trial import TRIES, Outcome
from tests.support.processes import HAS_PROC, Cli
from tests.support.pty_driver import PtyProgram

Message = dict[str, Any]

POLL_S = 0.002
READY = re.compile(r"^> ?$", re.MULTILINE)
PAUSED = "PAUSED"
ENDED = re.compile(r"(?:\n|\x1b\[\d*[A-Z])· [\d,]+ tok · [^\r]*\r")


class Missed(Exception):
    """The reply had ended before it could be interrupted."""


class Chats:
    """Chats that nobody interrupted, each had only once, and the homes for others.

    Args:
        laboratory: makes homes.
    """

    def __init__(self, laboratory: Laboratory) -> None:
        self.laboratory = laboratory
        self._known: dict[tuple[str, float], list[Message]] = {}
        self._locks: defaultdict[tuple[str, float], threading.Lock] = defaultdict(threading.Lock)

    def whole(self, kind: Kind, temperature: float) -> list[Message]:
        """Return the messages of the chat that nobody interrupted."""
        key = (kind.name, temperature)
        with self._locks[key]:
            if key not in self._known:
                cli = self.laboratory.home()
                with sitting(cli, *options(kind, temperature)) as chat:
                    for prompt in kind.prompts:
                        ask(chat, prompt)
                    leave(chat, 0)
                self._known[key] = messages(cli)
                self.laboratory.remove(cli)
            return self._known[key]


def attempt_chat(combination: ChatCombination, chats: Chats) -> Outcome:
    """Try one combination; whatever goes wrong is in the outcome."""
    kind, turn = combination.kind, combination.turn
    temperature, way = combination.temperature, combination.way
    outcome = Outcome(str(combination), kind.name, turn, temperature, way)
    began = time.monotonic()
    try:
        wanted = chats.whole(kind, temperature)[: 2 * turn]
        cli, place = _interrupted(combination, chats, wanted, outcome)
        outcome.cut, outcome.length = place, len(wanted[-1]["content"])
        _compare(messages(cli), wanted, outcome)
        _check_labels(cli, outcome)
        if not outcome.problems:
            chats.laboratory.remove(cli)
    except Exception as error:  # noqa: BLE001  (one combination must not end the run)
        outcome.problems.append(f"{type(error).__name__}: {error}")
    outcome.seconds = round(time.monotonic() - began, 2)
    return outcome


def _compare(found: list[Message], wanted: list[Message], outcome: Outcome) -> None:
    """The conversation is the one that nobody interrupted."""
    for number, (message, other) in enumerate(zip(found, wanted, strict=True)):
        for part in ("role", "content", "status", "cause", "tokens"):
            same = message.get(part) == other.get(part)
            text = f"{part} of {number} is {message.get(part)!r}, not {other.get(part)!r}"
            outcome.must(same, text)


def _check_labels(cli: Cli, outcome: Outcome) -> None:
    """What is on record of the resumes says that they were exact."""
    recorded = newest(cli)
    if recorded is not None:  # ended at its bound: it could still be gone on with
        resumes, worst = recorded.resumes, str(recorded.guarantee)
    else:
        reply = messages(cli)[-1]
        resumes, worst = reply["resumes"], reply["guarantee"]
    outcome.resumes += [(each["strategy"], each["guarantee"]) for each in resumes]
    outcome.must(bool(resumes), "no resume is on record")
    labels = {guarantee for _, guarantee in outcome.resumes} | {worst}
    outcome.must(labels == {"exact"}, f"the labels are {labels}")


def _interrupted(
    combination: ChatCombination, chats: Chats, wanted: list[Message], outcome: Outcome
) -> tuple[Cli, int]:
    """Have the reply interrupted and gone on with; return where, and in which home."""
    at = combination.at
    for _ in range(TRIES):
        cli = chats.laboratory.home()
        try:
            return cli, _Trial(combination, cli, outcome).run(int(at * len(wanted[-1]["content"])))
        except Missed:
            chats.laboratory.remove(cli)
            at /= 2
    raise AssertionError("the reply always ended before it could be interrupted")


class _Trial:
    """One chat up to the turn that is interrupted, and what goes on with it."""

    def __init__(self, combination: ChatCombination, cli: Cli, outcome: Outcome) -> None:
        self._combination = combination
        self._cli = cli
        self._outcome = outcome
        self._plain = ("--plain",) if combination.plain else ()
        self._paused = "[paused at" if combination.plain else PAUSED

    def run(self, place: int) -> int:
        """Interrupt behind so many characters; return how many had been shown."""
        kind, turn = self._combination.kind, self._combination.turn
        given = options(kind, self._combination.temperature)
        with sitting(self._cli, *given, *self._plain) as chat:
            for prompt in kind.prompts[: turn - 1]:
                ask(chat, prompt)
            since = len(chat.output)
            chat.send(f"{kind.prompts[turn - 1]}\r")
            self._wait_for(place, kind.prompts[turn - 1])
            shown = self._interrupt(chat, since)
        if self._combination.way in {ChatWay.QUIT, ChatWay.SIGTERM, ChatWay.KILL}:
            self._nothing_runs()
            shown = self._shown()
            self._come_back()
        self._nothing_runs()
        return shown

    def _interrupt(self, chat: PtyProgram, since: int) -> int:
        """Interrupt; where the chat goes on itself, to the reply's end."""
        match self._combination.way:
            case ChatWay.PAUSE:
                self._pause(chat, since)
                shown = self._shown()
                self._go_on_and_leave(chat, " ")
                return shown
            case ChatWay.STOP:
                chat.send_keys("ctrl-c")
                chat.wait_for(ENDED, since=since, timeout_s=PATIENCE_S)
                self._must_not_have_ended()
                shown = self._shown()
                self._go_on_and_leave(chat, "/resume\r")
                return shown
            case ChatWay.QUIT:
                self._pause(chat, since)
                chat.send_keys("ctrl-d")
                self._left(chat, 5)
            case ChatWay.SIGTERM:
                chat.send_signal(signal.SIGTERM)
                self._left(chat, 128 + signal.SIGTERM)
            case ChatWay.KILL:
                chat.send_signal(signal.SIGKILL)
                self._left(chat, -signal.SIGKILL)
        return 0

    def _pause(self, chat: PtyProgram, since: int) -> None:
        chat.send_keys("space")
        either = re.compile(rf"{re.escape(self._paused)}|{ENDED.pattern}")
        if not chat.wait_for(either, since=since, timeout_s=PATIENCE_S).text == self._paused:
            raise Missed

    def _left(self, chat: PtyProgram, status: int) -> None:
        left = chat.wait(PATIENCE_S)
        self._must_not_have_ended()
        self._outcome.must(left == status, f"it left with {left}, not {status}")

    def _must_not_have_ended(self) -> None:
        """Raise `Missed` if the reply's own end is on record."""
        recorded = newest(self._cli)
        if recorded is None or recorded.finished:
            raise Missed

    def _come_back(self) -> None:
        with sitting(self._cli, "-c", *self._plain, ready=self._paused) as chat:
            self._go_on_and_leave(chat, " ")

    def _go_on_and_leave(self, chat: PtyProgram, keys: str) -> None:
        since = len(chat.output)
        chat.send(keys)
        chat.wait_for(ENDED, since=since, timeout_s=PATIENCE_S)
        leave(chat, 0)

    # -- what is on record

    def _wait_for(self, place: int, prompt: str) -> None:
        """Wait until the reply to a prompt has been delivered so far, or has ended."""
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            recorded = newest(self._cli)
            if recorded is not None and recorded.header.request.messages[-1].content == prompt:
                if recorded.finished:
                    raise Missed
                if len(content_of(recorded)[0]) >= place:
                    return
            time.sleep(POLL_S)
        raise TimeoutError(f"{place} characters did not come")

    def _shown(self) -> int:
        recorded = newest(self._cli)
        return len(content_of(recorded)[0]) if recorded is not None else 0

    def _nothing_runs(self) -> None:
        if HAS_PROC:
            self._cli.assert_no_leftovers(5.0)


def options(kind: Kind, temperature: float) -> tuple[str, ...]:
    """Return what a chat is begun with."""
    return (
        *("--model", "local", "--temperature", str(temperature)),
        *("--seed", str(kind.seed), "--max-tokens", str(kind.max_tokens)),
    )


@contextmanager
def sitting(
    cli: Cli, *arguments: str, ready: str | re.Pattern[str] = READY
) -> Iterator[PtyProgram]:
    """Sit down at a chat and wait until it is ready."""
    command = cli.command("chat", *arguments)
    with PtyProgram(command, env=cli.env, cwd=cli.cwd, columns=100, rows=30) as chat:
        chat.wait_for_screen(ready, timeout_s=PATIENCE_S)
        yield chat


def ask(chat: PtyProgram, prompt: str) -> None:
    """Ask, and wait for the whole reply."""
    since = len(chat.output)
    chat.send(f"{prompt}\r")
    chat.wait_for(ENDED, since=since, timeout_s=PATIENCE_S)


def leave(chat: PtyProgram, status: int) -> None:
    """Leave from the prompt."""
    chat.send_keys("ctrl-d")
    left = chat.wait(PATIENCE_S)
    assert left == status, f"it left with {left}, not {status}"


def newest(cli: Cli) -> Recorded | None:
    """Return the newest journal; None if there is none, or none that is whole yet."""
    files = list(cli.data.glob("journals/*.jsonl"))
    try:
        return read(max(files, key=lambda file: file.stat().st_mtime_ns))[1] if files else None
    except (FileNotFoundError, JournalDamaged):
        return None


def messages(cli: Cli) -> list[Message]:
    """Return the conversation that is on record."""
    (row,) = json.loads(cli.run("conversations", "list", "--json", timeout_s=PATIENCE_S).text)
    shown = cli.run("conversations", "export", row["id"], "--format", "json", timeout_s=PATIENCE_S)
    found: list[Message] = json.loads(shown.text)["messages"]
    return found
