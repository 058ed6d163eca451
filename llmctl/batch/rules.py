"""What a run may do, and where items go when they end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from llmctl.batch.attempt import Item, Manner
from llmctl.batch.index import Standing
from llmctl.events import Problem

SHARE_FROM = 100
"""Items that must have ended before a share of failures means something."""

GONE_S = 60.0
"""Seconds that an endpoint which has answered may be gone, unless told otherwise."""

DEFAULT_SHARE = 0.2
"""The share of failures that ends a run, unless told otherwise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What a run may do. Budgets and the deadline count this run alone.

    Attributes:
        manner: how items are run.
        retries: further tries of an item that failed.
        restart: an item that can't be gone on with begins anew (else it fails).
        canary: items that end before the rest start.
        wait_ready_s: how long an endpoint may be gone, in seconds; None for the default.
        deadline_s: seconds the run may take.
        grace_s: seconds after SIGTERM until what runs is cut.
        max_requests: requests the run may send.
        max_output_tokens: tokens that may arrive.
        max_cost: dollars it may cost.
        max_failures: failed items that end the run.
        max_share: the same as a share of the items that ended.
    """

    manner: Manner
    retries: int = 5
    restart: bool = True
    canary: int = 1
    wait_ready_s: float | None = None
    deadline_s: float | None = None
    grace_s: float = 20.0
    max_requests: int | None = None
    max_output_tokens: int | None = None
    max_cost: float | None = None
    max_failures: int | None = None
    max_share: float | None = DEFAULT_SHARE

    def patience_s(self, *, reached: bool) -> float:
        """Return for how many seconds an endpoint that does not answer is waited for."""
        if self.wait_ready_s is not None:
            return self.wait_ready_s
        return GONE_S if reached else 0.0

    def too_many(self, failed: int, ended: int) -> bool:
        """Say whether so many failures end the run."""
        if self.max_failures is not None:
            return failed > self.max_failures
        return (
            self.max_share is not None and ended >= SHARE_FROM and failed > self.max_share * ended
        )


@dataclass(frozen=True, slots=True)
class Sinks:
    """Where items go when they end, and words; what takes items writes to disk first.

    Attributes:
        complete: takes an item, its body and further facts.
        incomplete: takes an item, how it stands, its cause and its problem.
        note: takes something worth a line.
    """

    complete: Callable[[Item, dict[str, Any], dict[str, Any]], None]
    incomplete: Callable[[Item, Standing, str, Problem | None], None]
    note: Callable[[str], None]
