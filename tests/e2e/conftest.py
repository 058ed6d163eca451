"""The program from outside: one home a test, and helpers that read what it says."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.processes import HAS_PROC, Cli, CliProcess, Finished

Json = dict[str, Any]
SIGNS_OF_A_CRASH = ("Traceback", 'File "')


@dataclass(frozen=True, slots=True)
class Told:
    """What one run with ``--json`` said."""

    events: list[Json]
    done: Finished

    @property
    def end(self) -> Json:
        """The last event."""
        return self.events[-1]

    @property
    def text(self) -> str:
        """The content it delivered."""
        return "".join(
            e["text"] for e in self.events if e["type"] == "delta" and e["channel"] == "content"
        )

    def of(self, kind: str) -> list[Json]:
        """The events of one type."""
        return [event for event in self.events if event["type"] == kind]

    def ended(self, status: str, cause: str, exit_code: int, *, resumable: bool) -> None:
        """Check the row of the contract's table, in the event and in the process."""
        said = (self.end["status"], self.end["cause"], self.end["exit_code"])
        assert said == (status, cause, exit_code), self.done.errors
        assert self.end["resumable"] is resumable
        assert self.done.returncode == exit_code


class Program:
    """The command line with a home of its own, and scripts for the scripted back end."""

    def __init__(self, folder: Path) -> None:
        self.cli = Cli(folder)
        self._scripts = 0

    def script(self, text: str | None = None, **fields: Any) -> str:
        """Write a script; return the model's name. ``text`` is one chunk a word."""
        self._scripts += 1
        path = self.cli.cwd / f"script{self._scripts}.json"
        path.write_text(json.dumps(fields if text is None else {"text": text, **fields}))
        return f"scripted:{path.name}"

    def start(self, *arguments: str, **options: Any) -> CliProcess:
        """Start the program."""
        return self.cli.start(*arguments, **options)

    def run(self, *arguments: str, **options: Any) -> Finished:
        """Run the program to its end; it never shows a traceback."""
        return checked(self.cli.run(*arguments, **options))

    def told(self, *arguments: str, **options: Any) -> Told:
        """Run the program with ``--json`` to its end."""
        return told(self.run(*arguments, "--json", **options))


def checked(done: Finished) -> Finished:
    """Return it, if it is no crash."""
    assert not any(sign in done.errors for sign in SIGNS_OF_A_CRASH), done.errors
    return done


def told(done: Finished) -> Told:
    """Read the events of a run that has ended; ``finished`` is always the last."""
    events = [json.loads(line) for line in done.stdout.decode().splitlines()]
    assert [e["type"] for e in events[:1]] == ["started"], done.errors
    assert [n for n, e in enumerate(events) if e["type"] == "finished"] == [len(events) - 1]
    return Told(events, checked(done))


@pytest.fixture
def program(tmp_path: Path) -> Iterator[Program]:
    here = Program(tmp_path)
    yield here
    if HAS_PROC:
        here.cli.assert_no_leftovers()
