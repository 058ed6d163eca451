"""What the end of an attempt means: complete, another try, failed, refused, or stop it all."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from llmctl.batch.attempt import Item
from llmctl.batch.check import estimated_tokens
from llmctl.batch.endpoint import Endpoint, Fleet
from llmctl.batch.engines import Trial
from llmctl.batch.index import Standing
from llmctl.batch.rules import Rules, Sinks
from llmctl.batch.stops import Stage, Stops
from llmctl.batch.tally import Tally
from llmctl.environment import ExitStatus
from llmctl.errors import Advised, Denied, Overloaded, Unreachable
from llmctl.events import End, Finished, Problem, Status, Usage

TOO_MANY = "max-failures"
"""The cause that counts also where nothing is left to be done."""

PUSHED_BACK_PER_TRY = 10
"""Refusals of a busy server that count as one failed try."""

LONGEST_WAIT_S = 30.0
"""Seconds between two tries of an item, at the most."""

_FIRST_WAIT_S = 0.25
_ANOTHER_TRY = {
    End.UNREACHABLE,
    End.CONNECT_TIMEOUT,
    End.FIRST_TOKEN_TIMEOUT,
    End.IDLE_TIMEOUT,
    End.DISCONNECT,
}
_SILENT = {End.CONNECT_TIMEOUT, End.UNREACHABLE}
_TURNED_AWAY = {*_SILENT, End.REFUSED}


@dataclass(slots=True)
class Outcomes:
    """Decides, writes down, and moves the stops.

    Attributes:
        rules: what the run may do.
        stops: moved when nothing more makes sense.
        tally: counts what happens.
        sinks: where ends are written.
        bugs: faults of the program, for ``--verbose``.
    """

    rules: Rules
    stops: Stops
    tally: Tally
    sinks: Sinks
    bugs: list[Exception] = field(default_factory=list)

    def settle(
        self, attempt: Trial, endpoint: Endpoint, finished: Finished, now: float
    ) -> float | None:
        """Do what an attempt's end asks for.

        Returns:
            The seconds until the item's next try; None if there is none.
        """
        self._tell_endpoint(attempt, endpoint, finished, now)
        item, end = attempt.item, finished.end
        if end.status in {Status.COMPLETE, Status.TRUNCATED}:
            self._complete(attempt, finished)
            return None
        if isinstance(attempt.error, Denied) and self._is_hopeless(attempt.error):
            self.stops.move(Stage.CUT, "denied", ExitStatus.REFUSED, attempt.error)
            self.stopped(item, finished.problem)
            return None
        if end is End.SIGTERM:
            self.stopped(item)
            return None
        if self.rules.restart and self._cannot_go_on(item, end):
            item.kept.start_over()
            return 0.0
        if end in _ANOTHER_TRY:
            return self._another_try(attempt, endpoint, finished)
        if attempt.bug is not None:
            self.bugs.append(attempt.bug)
        standing = Standing.REFUSED if end is End.REFUSED else Standing.FAILED
        self._fail(item, standing, end.cause, finished.problem)
        return None

    def stopped(self, item: Item, problem: Problem | None = None) -> None:
        """The run stops; the item is kept for the next."""
        self.sinks.incomplete(item, Standing.STOPPED, self.stops.cause or "stopped", problem)

    def used(self, attempt: Trial, finished: Finished) -> float:
        """Return about how many tokens an attempt has taken; count its prompt, if it was read."""
        usage = finished.usage or Usage()
        prompt = usage.prompt_tokens or estimated_tokens(attempt.item.row)
        if finished.end not in _TURNED_AWAY or finished.timing.first_token_s is not None:
            self.tally.prompt_tokens += prompt
        reply = usage.completion_tokens or finished.position.tokens or 0
        return float(prompt) + float(reply)

    def announce(self) -> None:
        """Say that the run is being stopped, while something still runs."""
        stage, cause, running = self.stops.stage, self.stops.cause, self.tally.running
        if running and stage is Stage.DRAIN:
            then = f"cut in {self.rules.grace_s:g} s" if self.stops.terminated else "Ctrl-C cuts"
            self.sinks.note(f"stopping ({cause}), {running} still running; {then}")
        elif running and stage is Stage.CUT:
            self.sinks.note(f"stopping ({cause}), what runs is cut and kept")

    def look(self, fleet: Fleet, now: float) -> None:
        """Stop when no endpoint has answered for too long."""
        gone_s = fleet.gone_s(now)
        reached = any(endpoint.reached for endpoint in fleet.endpoints)
        if gone_s is not None and gone_s >= self.rules.patience_s(reached=reached):
            self._unreachable(fleet.endpoints[0].name)

    # -- the cases

    def _cannot_go_on(self, item: Item, end: End) -> bool:
        """Say whether it was the going on that failed, so that a new beginning may help."""
        return end is End.BELOW_REQUIRE or (end is End.REFUSED and item.kept.begun)

    def _complete(self, attempt: Trial, finished: Finished) -> None:
        item = attempt.item
        try:
            self.sinks.complete(item, attempt.body(finished), attempt.facts())
        except OSError as error:
            self._no_room(item, error)
            return
        attempt.forget()
        self.tally.complete += 1
        self.tally.took(item.kept.duration_s)

    def _no_room(self, item: Item, error: OSError) -> None:
        hint = "Make room and give the same command again: it goes on."
        problem = Problem("output", f"OUTPUT can't be written: {error.strerror}.", hint)
        error_told = Advised(problem.message, hint)
        self.stops.move(Stage.CUT, "output", ExitStatus.INTERNAL_ERROR, error_told)
        self.stopped(item, problem)

    def _another_try(self, attempt: Trial, endpoint: Endpoint, finished: Finished) -> float | None:
        item, error = attempt.item, attempt.error
        if self.stops.stage is not Stage.WORK:
            self.stopped(item)
            return None
        if endpoint.down_since is not None:
            return 0.0  # nobody's fault but the endpoint's; `look` gives it up in the end
        if isinstance(error, Overloaded) and error.busy:
            item.pushed_back += 1
            tries = item.faults + item.pushed_back // PUSHED_BACK_PER_TRY
            wait_s = 0.0 if error.retry_after is not None else self._wait_s(item.pushed_back)
        else:
            reached = len(item.kept.text) + len(item.kept.reasoning)
            item.faults = 1 if reached > item.furthest else item.faults + 1
            item.furthest = max(reached, item.furthest)
            tries, wait_s = item.faults, self._wait_s(item.faults)
        if tries > self.rules.retries:
            self._fail(item, Standing.FAILED, finished.end.cause, finished.problem)
            return None
        return wait_s

    def _fail(self, item: Item, standing: Standing, cause: str, problem: Problem | None) -> None:
        self.sinks.incomplete(item, standing, cause, problem)
        if standing is Standing.REFUSED:
            self.tally.refused += 1
        else:
            self.tally.failed += 1
        failed = self.tally.failed + self.tally.refused
        if self.rules.too_many(failed, self.tally.ended):
            self.stops.move(Stage.CUT, TOO_MANY, ExitStatus.GIVEN_UP)

    def _wait_s(self, tries: int) -> float:
        jitter = 0.5 + random.random()  # noqa: S311  (not a secret)
        return min(LONGEST_WAIT_S, _FIRST_WAIT_S * 2.0 ** min(tries, 10)) * jitter

    # -- what it says about the endpoint

    def _tell_endpoint(
        self, attempt: Trial, endpoint: Endpoint, finished: Finished, now: float
    ) -> None:
        error, end = attempt.error, finished.end
        if isinstance(error, Overloaded) and error.busy:
            endpoint.answered()
            if endpoint.counts_chunks:  # a server's limiter has heard it already
                endpoint.limiter.refused(error.retry_after, now)
        elif end in _SILENT and not isinstance(error, Overloaded):
            endpoint.vanished(now)
        elif end is End.FIRST_TOKEN_TIMEOUT:
            endpoint.limiter.slow(now)
        elif end is not End.SIGTERM:
            endpoint.answered()

    def _is_hopeless(self, denied: Denied) -> bool:
        """Say whether nothing else will be accepted either."""
        return denied.always or not self.tally.complete

    def _unreachable(self, name: str) -> None:
        error = Unreachable(
            f"Nothing answers at {name}.", "Run the same command again: what is done stays done."
        )
        self.stops.move(Stage.CUT, "unreachable", ExitStatus.UNREACHABLE, error)
