"""Why and how a batch ends before its work is done.

Stopping has three stages, each further than the one before: *drain* (nothing new begins,
what runs may end), *cut* (what runs is ended and kept), *leave* (at once). Signals,
deadlines, budgets and failures all move it. What the exit status says is decided by the
weightiest cause, and among equals by the first. Every cause is a `cancelable_core` cause, so
its reason can be read.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from enum import IntEnum

from cancelable_core import CancelationToken
from llmctl.environment import ExitStatus
from llmctl.errors import LlmctlError


class Stage(IntEnum):
    """How far stopping has gone."""

    WORK = 0
    DRAIN = 1
    CUT = 2
    LEAVE = 3


SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP)
_BY_SIGNAL = {
    signal.SIGINT: ExitStatus.SIGINT,
    signal.SIGUSR1: ExitStatus.SIGINT,
    signal.SIGTERM: ExitStatus.SIGTERM,
    signal.SIGHUP: ExitStatus.SIGHUP,
}
_WEIGHT = (
    {ExitStatus.SIGINT, ExitStatus.SIGTERM, ExitStatus.SIGHUP, ExitStatus.CLOSED_PIPE},
    {ExitStatus.INTERNAL_ERROR},
    {ExitStatus.REFUSED},
    {ExitStatus.UNREACHABLE},
    {ExitStatus.GIVEN_UP},
)


def _rank(status: ExitStatus) -> int:
    return next(rank for rank, statuses in enumerate(_WEIGHT) if status in statuses)


class Stops:
    """The stage and its cause.

    Attributes:
        stage: how far it has gone.
        cause: the reason, in one word; None while nothing stops.
        status: the exit status for a batch that this stop left unfinished.
        error: what to tell, if the reason is a fault.
        token: fires when what runs is to be cut.
        terminated: SIGTERM came: the grace runs.

    Args:
        on_change: called after each move, maybe inside a signal handler.
    """

    def __init__(self, on_change: Callable[[], None] = lambda: None) -> None:
        self.stage = Stage.WORK
        self.cause: str | None = None
        self.status: ExitStatus | None = None
        self.error: LlmctlError | None = None
        self.token = CancelationToken(name="batch")
        self.terminated = False
        self.on_change = on_change

    def signal(self, number: int) -> None:
        """Hear a signal: each SIGINT goes one stage further; SIGTERM and SIGHUP drain."""
        name = signal.Signals(number).name
        if number in (signal.SIGTERM, signal.SIGHUP):
            self.terminated = True
            self.move(Stage.DRAIN, name, _BY_SIGNAL[signal.Signals(number)])
            return
        self.move(Stage(min(self.stage + 1, Stage.LEAVE)), name, ExitStatus.SIGINT)
        if self.stage is Stage.LEAVE:
            os._exit(ExitStatus.SIGINT)

    def move(
        self, stage: Stage, cause: str, status: ExitStatus, error: LlmctlError | None = None
    ) -> None:
        """Go to a stage, unless it has gone further already; the weightiest cause decides."""
        if self.status is None or _rank(status) < _rank(self.status):
            self.cause, self.status, self.error = cause, status, error
        self.stage = max(self.stage, stage)
        if self.stage >= Stage.CUT:
            self.token.cancel(message=self.cause)
        self.on_change()
