"""One combination: interrupt a reply, go on with it, compare it with the uninterrupted one."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from llmctl.journal import read
from tests.exactness.laboratory import ENDS, PATIENCE_S, Laboratory, Reply
from tests.exactness.plan import Combination, Way
from tests.exactness.shown import Shown, shown
from tests.support.processes import HAS_PROC, Cli, CliProcess

TRIES = 5
"""How often a moment is chosen anew when the reply had ended before it."""

_EXPECTED = {
    Way.HOLD: 5,
    Way.CUT: 5,
    Way.TIMEOUT: 124,
    Way.SIGTERM: 143,
    Way.KILL: -signal.SIGKILL,
}


@dataclass(slots=True)
class Outcome:
    """What came of a combination.

    Attributes:
        combination: its name.
        problems: what was wrong, in words; none is the aim.
        cut: characters of the reply at which it was interrupted.
        length: characters of the whole reply.
        resumes: strategy and guarantee of each resume.
        repeated: characters printed twice after a hard kill.
        seconds: how long it took.
    """

    combination: str
    kind: str
    turn: int
    temperature: float
    way: str
    problems: list[str] = field(default_factory=list)
    cut: int = 0
    length: int = 0
    resumes: list[tuple[str, str]] = field(default_factory=list)
    repeated: int = 0
    seconds: float = 0.0

    def must(self, fact: bool, problem: str) -> None:
        """Note a problem unless a fact holds."""
        if not fact:
            self.problems.append(problem)


def attempt(combination: Combination, laboratory: Laboratory) -> Outcome:
    """Try one combination; whatever goes wrong is in the outcome."""
    cell = combination.cell
    outcome = Outcome(str(combination), cell.kind.name, cell.turn, cell.temperature, cell.way)
    try:
        reply = laboratory.reply(cell.kind, cell.temperature, cell.turn)
        began = time.monotonic()
        Trial(combination, reply, laboratory, outcome).run()
        outcome.seconds = round(time.monotonic() - began, 2)
    except Exception as error:  # noqa: BLE001  (one combination must not end the run)
        outcome.problems.append(f"{type(error).__name__}: {error}")
    return outcome


class Trial:
    """Carries out one combination."""

    def __init__(
        self, combination: Combination, reply: Reply, laboratory: Laboratory, outcome: Outcome
    ) -> None:
        self._combination = combination
        self._reply = reply
        self._laboratory = laboratory
        self._outcome = outcome
        self._json = combination.json

    def run(self) -> None:
        """Interrupt, resume, compare."""
        outcome, reply = self._outcome, self._reply
        outcome.must(reply.repeated is not False, "the uninterrupted reply does not repeat")
        cli, first = self._interrupted()
        self._nothing_runs(cli)
        outcome.cut, outcome.length = len(first.text), len(reply.text)
        outcome.must(
            reply.text.startswith(first.text), f"something else was delivered: {first.text!r}"
        )
        stored = self._stored(cli, first) if self._combination.cell.way is Way.KILL else first.text
        shares = list(self._resumed(cli, len(stored)))
        text = stored + "".join(share.text for share in shares)
        outcome.must(text == reply.text, f"{text!r} is not {reply.text!r}")
        status = shares[-1].status
        outcome.must(status == reply.status, f"the end was {status}, not {reply.status}")
        self._check_store(cli)
        self._nothing_runs(cli)
        if not outcome.problems:
            self._laboratory.remove(cli)

    # -- interrupting

    def _interrupted(self) -> tuple[Cli, Shown]:
        """Return the home and what was shown, once the reply was really interrupted."""
        at = self._combination.at
        for _ in range(TRIES):
            cli = self._laboratory.home(self._reply.before)
            first = self._interrupt(cli, at)
            if first.status not in ENDS and not self._had_ended(cli):
                expected = _EXPECTED[self._combination.cell.way]
                problem = f"it ended with {first.status}, not {expected}: {first.errors}"
                self._outcome.must(first.status == expected, problem)
                return cli, first
            self._outcome.must(first.text == self._reply.text, "the reply does not repeat")
            self._laboratory.remove(cli)
            at /= 2
        raise AssertionError("the reply always ended before it could be interrupted")

    def _had_ended(self, cli: Cli) -> bool:
        """Say whether a hard kill came when the reply's end was on record already."""
        ends = [read(file)[1].end for file in cli.data.glob("journals/*.jsonl")]
        return self._combination.cell.way is Way.KILL and ends != [None]

    def _interrupt(self, cli: Cli, at: float) -> Shown:
        arguments = [*self._reply.arguments, *(["--json"] if self._json else [])]
        size = 1 + int(at * (self._reply.sizes[self._json] - 1))
        kill_at = None
        match self._combination.cell.way:
            case Way.HOLD:
                arguments += ["--on-pause", "hold", "--pause-after", self._tokens(at)]
            case Way.CUT:
                arguments += ["--pause-after", self._tokens(at)]
            case Way.TIMEOUT:
                arguments += ["--timeout", f"{max(1, int(1000 * at * self._reply.seconds))}ms"]
            case Way.KILL:
                kill_at = size
        with cli.start(*arguments, kill_at=kill_at) as process:
            if self._combination.cell.way is Way.SIGTERM:
                process.kill_after_bytes(size, signal.SIGTERM)
            return self._wait(process)

    def _tokens(self, at: float) -> str:
        return str(1 + int(at * (self._reply.kind.max_tokens - 2)))

    def _wait(self, process: CliProcess) -> Shown:
        return shown(process.wait(PATIENCE_S), as_json=self._json)

    def _stored(self, cli: Cli, first: Shown) -> str:
        """Return what the store says was delivered before a hard kill, and check it."""
        outcome = self._outcome
        done = cli.run("conversations", "export", self._conversation(cli), "--format", "json")
        stored = str(json.loads(done.text)["messages"][-1]["content"])
        outcome.must(first.text.startswith(stored), f"stored but not delivered: {stored!r}")
        outcome.repeated = len(first.text) - len(stored)
        pieces = self._pieces(cli, len(stored), len(first.text))
        outcome.must(pieces <= 1, f"{pieces} pieces will be printed again")
        return stored

    def _pieces(self, cli: Cli, start: int, end: int) -> int:
        """Return how many received pieces lie, at least in part, between two characters."""
        (file,) = cli.data.glob("journals/*.jsonl")
        place = pieces = 0
        for chunk in read(file)[1].chunks:
            place += len(chunk.text)
            pieces += bool(chunk.text) and start < place and place - len(chunk.text) < end
        self._outcome.must(place >= end, "text was delivered that is not in the journal")
        return pieces

    # -- going on

    def _resumed(self, cli: Cli, delivered: int) -> Iterator[Shown]:
        """Resume once or twice; yield each process's share."""
        again = self._combination.again
        if again is not None:
            left = max(1, self._reply.kind.max_tokens // 2)
            share = self._resume(cli, delivered, "--pause-after", str(1 + int(again * left)))
            yield share
            if share.status in ENDS:
                return
            self._outcome.must(share.status == 5, f"the second pause ended with {share.status}")
            delivered += len(share.text)
        yield self._resume(cli, delivered)

    def _resume(self, cli: Cli, delivered: int, *options: str) -> Shown:
        outcome = self._outcome
        named = [self._conversation(cli)] if self._combination.number % 2 else []
        share = self._laboratory.run(cli, "resume", *named, *options, as_json=self._json)
        outcome.resumes += share.resumes
        outcome.must(bool(share.resumes), f"no resume was announced: {share.errors}")
        for strategy, guarantee in share.resumes:
            outcome.must(guarantee == "exact", f"{strategy} is labelled {guarantee}")
        outcome.must(
            not share.starts or share.starts[0] == delivered,
            f"it goes on at {share.starts[:1]}, not at {delivered}",
        )
        known = self._reply.counts
        wrong = {c: t for c, t in share.counts.items() if known.get(c, t) != t}
        outcome.must(not wrong, f"tokens were counted wrongly: {wrong}")
        return share

    def _conversation(self, cli: Cli) -> str:
        """Return the reply's conversation; in a new home it has an id of its own."""
        if self._reply.before is not None:
            return self._reply.conversation
        (file,) = cli.data.glob("journals/*.jsonl")
        return read(file)[1].header.conversation

    # -- afterwards

    def _check_store(self, cli: Cli) -> None:
        """Now and then: the store has the whole reply, too."""
        if self._combination.number % 5:
            return
        conversation = self._only_conversation(cli)
        done = cli.run("conversations", "export", conversation, "--format", "json")
        content = json.loads(done.text)["messages"][-1]["content"]
        self._outcome.must(content == self._reply.text, f"the store has {content!r}")

    def _only_conversation(self, cli: Cli) -> str:
        done = cli.run("conversations", "list", "--json")
        return str(json.loads(done.text)[0]["id"])

    def _nothing_runs(self, cli: Cli) -> None:
        if HAS_PROC:
            cli.assert_no_leftovers(5.0)
