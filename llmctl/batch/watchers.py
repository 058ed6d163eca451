"""What a run says about itself while it goes on: to a terminal, a log, or a program."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

import anyio

from llmctl.batch.attempt import Item
from llmctl.batch.endpoint import Fleet
from llmctl.batch.results import Failures
from llmctl.batch.tally import Tally
from llmctl.counts import counted
from llmctl.environment import Environment
from llmctl.errors import LlmctlError

if TYPE_CHECKING:
    from rich.progress import Progress as Bars

REPAINT_S = 0.25
"""Seconds between two looks on a terminal."""
LOG_S = 15.0
"""Seconds between two lines where the output is no terminal."""
EVENT_S = 1.0
"""Seconds between two progress events."""


class Ended(Protocol):
    """What the end of a run has to say; `llmctl.batch.program.Report`."""

    @property
    def status(self) -> int:
        """The exit status."""

    @property
    def tally(self) -> Tally:
        """What the run did."""

    @property
    def cause(self) -> str | None:
        """Why it stopped early."""

    @property
    def error(self) -> LlmctlError | None:
        """The fault that stopped it."""

    @property
    def left(self) -> int:
        """Items that still have work to be done."""

    @property
    def failures(self) -> Failures | None:
        """What is to be said of the items that failed."""


class Progress(Protocol):
    """Is told what happens."""

    def begin(self, tally: Tally) -> None:
        """The work begins."""

    def ended(self, item: Item, standing: str, cause: str | None) -> None:
        """An item's attempts are over in this run."""

    def note(self, text: str) -> None:
        """Something worth a line."""

    async def watch(self, tally: Tally, fleet: Fleet) -> None:
        """Look now and then, until cancelled."""

    def end(self, report: Ended) -> None:
        """The run is over."""


class Quiet:
    """Says nothing."""

    def begin(self, tally: Tally) -> None:
        """Say nothing."""

    def ended(self, item: Item, standing: str, cause: str | None) -> None:
        """Say nothing."""

    def note(self, text: str) -> None:
        """Say nothing."""

    async def watch(self, tally: Tally, fleet: Fleet) -> None:
        """Say nothing."""

    def end(self, report: Ended) -> None:
        """Say nothing."""


class WhileRead:
    """Passes on what happens until nobody reads it any more.

    Args:
        to: is told.
        gone: called once, when what ``to`` writes into is closed.
    """

    def __init__(self, to: Progress, gone: Callable[[], None]) -> None:
        self._to = to
        self._gone = gone
        self._is_read = True

    def begin(self, tally: Tally) -> None:
        """Pass it on."""
        self._pass(lambda: self._to.begin(tally))

    def ended(self, item: Item, standing: str, cause: str | None) -> None:
        """Pass it on."""
        self._pass(lambda: self._to.ended(item, standing, cause))

    def note(self, text: str) -> None:
        """Pass it on."""
        self._pass(lambda: self._to.note(text))

    async def watch(self, tally: Tally, fleet: Fleet) -> None:
        """Let it look."""
        try:
            await self._to.watch(tally, fleet)
        except BrokenPipeError:
            self._left()

    def end(self, report: Ended) -> None:
        """Pass it on."""
        self._pass(lambda: self._to.end(report))

    def _pass(self, tell: Callable[[], None]) -> None:
        if not self._is_read:
            return
        try:
            tell()
        except BrokenPipeError:
            self._left()

    def _left(self) -> None:
        if self._is_read:
            self._is_read = False
            self._gone()


class Lines(Quiet):
    """A line now and then, for a log or a pipe.

    Args:
        say: writes one line.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._noted: set[str] = set()

    def begin(self, tally: Tally) -> None:
        """Say how much there is to do."""
        before = f", {tally.before:,} complete already" if tally.before else ""
        self._say(f"batch: {counted(tally.total, 'item')}{before}")

    def note(self, text: str) -> None:
        """Say it, once."""
        if text not in self._noted:
            self._noted.add(text)
            self._say(f"llmctl: {text}")

    async def watch(self, tally: Tally, fleet: Fleet) -> None:
        """Say how things stand now and then."""
        while True:
            await anyio.sleep(LOG_S)
            self._say(f"batch: {row(tally, fleet)}")

    def end(self, report: Ended) -> None:
        """Say what came of it."""
        self._say(f"batch: {summary(report)}")
        if report.error is not None:
            self._say(f"llmctl: {report.error.message}")
            if report.error.hint:
                self._say(f"hint: {report.error.hint}")
        elif report.failures is not None:
            self._say(f"llmctl: {_failed(report.failures)}")
            self._say(f"hint: {report.failures.file} has every reason.")


class Bar(Lines):
    """One row that is kept up to date on a terminal."""

    def __init__(self, env: Environment) -> None:
        super().__init__(self._above)
        self._env = env
        self._bars: Bars | None = None

    async def watch(self, tally: Tally, fleet: Fleet) -> None:
        """Repaint the row a few times a second."""
        self._bars = self._made()
        with self._bars as bars:
            task = bars.add_task("", total=tally.total)
            try:
                while True:
                    bars.update(task, completed=tally.done, description=row(tally, fleet))
                    await anyio.sleep(REPAINT_S)
            finally:
                bars.update(task, completed=tally.done, description=row(tally, fleet))
                self._bars = None

    def _made(self) -> Bars:
        from rich.console import Console  # noqa: PLC0415  (only where it is seen)
        from rich.progress import BarColumn, Progress, TextColumn  # noqa: PLC0415

        stderr = os.fdopen(self._env.stderr, "w", closefd=False)
        plain = not self._env.allows_color(self._env.stderr)
        console = Console(file=stderr, force_terminal=True, no_color=plain)
        words = TextColumn("{task.description}", markup=False)
        return Progress(
            BarColumn(20), words, console=console, auto_refresh=True, refresh_per_second=4
        )

    def _above(self, text: str) -> None:
        if self._bars is not None:
            self._bars.console.print(text, markup=False, highlight=False)
        else:
            self._env.note(text)


class Events(Quiet):
    """JSON events on stdout, one a line.

    Args:
        say: writes one line.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say

    def begin(self, tally: Tally) -> None:
        """Tell how much there is to do."""
        self._tell("started", schema=1, **tally.as_json())

    def ended(self, item: Item, standing: str, cause: str | None) -> None:
        """Tell what came of an item."""
        kept = item.kept
        self._tell(
            "item", custom_id=item.row.id, standing=standing, cause=cause, attempts=kept.attempts,
            resumes=len(kept.resumes), tokens=kept.tokens, finish_reason=kept.finish_reason,
        )  # fmt: skip

    def note(self, text: str) -> None:
        """Tell it."""
        self._tell("note", text=text)

    async def watch(self, tally: Tally, fleet: Fleet) -> None:
        """Tell how things stand every second."""
        while True:
            await anyio.sleep(EVENT_S)
            self._tell(
                "progress",
                **tally.as_json(),
                tokens_per_s=round(tally.rate(), 1),
                concurrency=fleet.limit,
                blocked_s=round(fleet.blocked_s(time.monotonic()), 3),
            )

    def end(self, report: Ended) -> None:
        """Tell what came of it."""
        error = None if report.error is None else report.error.as_problem().as_json()
        failures = report.failures
        self._tell(
            "finished", exit_code=int(report.status), cause=report.cause, left=report.left,
            error=error, reason=failures and failures.reason,
            errors_file=failures and str(failures.file), **report.tally.as_json(),
        )  # fmt: skip

    def _tell(self, kind: str, **fields: Any) -> None:  # noqa: ANN401  (JSON)
        self._say(json.dumps({"type": kind, **fields}, ensure_ascii=False))


def row(tally: Tally, fleet: Fleet) -> str:
    """Return how things stand, in one row."""
    rate = tally.rate()
    failed = tally.failed + tally.refused + tally.standing_failures
    parts = [f"{tally.done:,}/{tally.total:,} done", f"{tally.running} running"]
    parts += [f"{tally.waiting} waiting"] if tally.waiting else []
    parts += [f"{failed} failed"] if failed else []
    parts += [f"{rate:,.0f} tok/s"]
    parts += [f"ETA {duration(eta)}"] if (eta := _eta_s(tally)) is not None else []
    parts += [f"${tally.cost:,.2f}"] if tally.cost is not None else []
    parts.append(limit_in_force(fleet))
    return " · ".join(parts)


def limit_in_force(fleet: Fleet) -> str:
    """Say what holds requests back now."""
    blocked_s = fleet.blocked_s(time.monotonic())
    if blocked_s > 0.5:  # noqa: PLR2004  (shorter waits only flicker)
        return f"server asks to wait {blocked_s:.0f} s"
    return f"at most {fleet.limit} at a time"


def summary(report: Ended) -> str:
    """Return what came of a run, in one line."""
    tally = report.tally
    failed = tally.failed + tally.refused + tally.standing_failures
    parts = [f"{tally.done:,} of {tally.total:,} complete"]
    parts += [f"{failed:,} failed"] if failed else []
    parts += [f"{report.left:,} left"] if report.left else []
    parts += [f"stopped by {report.cause}"] if report.cause else []
    parts += [f"${tally.cost:,.4f}"] if tally.cost is not None else []
    return ", ".join(parts)


def _failed(failures: Failures) -> str:
    """Return why most items failed."""
    alike, items = failures.alike, counted(failures.items, "item")
    which = f"{items} failed" if alike == failures.items else f"{alike:,} of {items} that failed"
    return f"{which}: {failures.reason}"


def duration(seconds: float) -> str:
    """Return seconds as people say them.

    >>> duration(3725)
    '1h02m'
    """
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}h{minutes:02}m"
    return f"{minutes}m{rest:02}s" if minutes else f"{rest}s"


def _eta_s(tally: Tally) -> float | None:
    """Return the seconds that the rest will take if it goes on like this."""
    passed = time.monotonic() - tally.began
    if not tally.ended or not tally.began:
        return None
    left = tally.total - tally.before - tally.standing_failures - tally.ended
    return left * passed / tally.ended
