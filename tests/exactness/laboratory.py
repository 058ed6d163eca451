"""Replies that nobody interrupted, and homes in which to interrupt them.

Every reply is asked for once, in a home of its own, and what that home was before and after
is kept: a combination of a second turn begins with a copy of the home in which the first turn
has ended, so nothing is generated twice and no combination sees another.
"""

from __future__ import annotations

import itertools
import shutil
import threading
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from llmctl.environment import Environment
from tests.exactness.corpus import Kind
from tests.exactness.shown import Shown, shown
from tests.support.processes import Cli

PATIENCE_S = 180.0
"""Seconds after which a process is taken to hang; the machine may be busy with others."""

ENDS = (0, 6)
"""Exit statuses of a reply that came to its end, by itself or at its bound of tokens."""


@dataclass(frozen=True, slots=True)
class Reply:
    """A reply that nobody interrupted.

    Attributes:
        kind: what was asked.
        turn: which of the conversation's questions, from 1.
        text: all of it.
        status: the exit status.
        tokens: how many content tokens it has; None if the end is not known exactly.
        counts: tokens at the characters where a count was told.
        seconds: how long it took from the request on.
        sizes: bytes of stdout, as events (True) and as text (False).
        conversation: where it stands.
        before: the home before it was asked for; None for an empty one.
        after: the home after it.
        repeated: whether asking again brought the same text; None if that was not tried.
    """

    kind: Kind
    turn: int
    text: str
    status: int
    tokens: int | None
    counts: Mapping[int, int]
    seconds: float
    sizes: Mapping[bool, int]
    conversation: str
    before: Path | None
    after: Path
    arguments: tuple[str, ...]
    repeated: bool | None

    @property
    def in_kind(self) -> bool:
        """Whether the model answered in the kind of text that was wanted."""
        return bool(self.kind.fits.search(self.text))


class Laboratory:
    """Makes replies and homes below one folder.

    Args:
        folder: an empty folder.
        repeat: ask for every reply twice and compare.
    """

    def __init__(self, folder: Path, *, repeat: bool = True) -> None:
        self._folder = folder
        self._repeat = repeat
        self._replies: dict[tuple[str, float, int], Reply] = {}
        self._locks: defaultdict[tuple[str, float], threading.RLock] = defaultdict(threading.RLock)
        self._numbers = itertools.count()

    @cached_property
    def env(self) -> dict[str, str]:
        """What a process needs to find the weights."""
        return {"LLMCTL_MODELS": str(Environment.of_process().models)}

    @property
    def replies(self) -> list[Reply]:
        """The replies made so far."""
        return list(self._replies.values())

    def home(self, like: Path | None = None) -> Cli:
        """Return a new home, empty or a copy of another."""
        cli = Cli(self._folder / f"home-{next(self._numbers)}", env=self.env)
        if like is not None:
            shutil.copytree(like / "llmctl", cli.data)
        return cli

    def remove(self, cli: Cli) -> None:
        """Remove a home that is no longer needed."""
        shutil.rmtree(cli.home)

    def reply(self, kind: Kind, temperature: float, turn: int) -> Reply:
        """Return the reply that nobody interrupted; it is asked for only once."""
        key = (kind.name, temperature, turn)
        with self._locks[kind.name, temperature]:
            if key not in self._replies:
                last = self.reply(kind, temperature, turn - 1) if turn > 1 else None
                self._replies[key] = self._ask(kind, temperature, turn, last)
            return self._replies[key]

    def run(self, cli: Cli, *arguments: str, as_json: bool) -> Shown:
        """Run a command to its end and read what it showed."""
        json_option = ("--json",) if as_json else ()
        done = cli.run(*arguments, *json_option, timeout_s=PATIENCE_S)
        return shown(done, as_json=as_json)

    def _ask(self, kind: Kind, temperature: float, turn: int, last: Reply | None) -> Reply:
        arguments = (
            *("run", "--no-stdin", "--model", "local"),
            *("--temperature", str(temperature), "--seed", str(kind.seed)),
            *("--max-tokens", str(kind.max_tokens)),
            *(() if last is None else ("--conversation", last.conversation, "--keep")),
            kind.prompts[turn - 1],
        )
        before = None if last is None else last.after
        cli = self.home(before)
        done = cli.run(*arguments, "--json", timeout_s=PATIENCE_S)
        first = shown(done, as_json=True)
        assert first.status in ENDS, f"{arguments}: exit {first.status}: {first.errors}"
        assert first.finished is not None
        conversation = done.stdout.split(b'"conversation":"', 1)[1].split(b'"', 1)[0].decode()
        return Reply(
            kind=kind,
            turn=turn,
            text=first.text,
            status=first.status,
            tokens=first.finished["position"]["tokens"],
            counts=first.counts,
            seconds=first.finished["timing"]["duration_s"],
            sizes={True: len(done.stdout), False: len(first.text.encode())},
            conversation=conversation,
            before=before,
            after=cli.home,
            arguments=arguments,
            repeated=self._is_repeated(first, before, arguments) if self._repeat else None,
        )

    def _is_repeated(self, first: Shown, before: Path | None, arguments: tuple[str, ...]) -> bool:
        cli = self.home(before)
        second = self.run(cli, *arguments, as_json=False)
        self.remove(cli)
        return (second.text, second.status) == (first.text, first.status)
