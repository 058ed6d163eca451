"""Watch a registry: counts, rates and durations, without polling it.

A :class:`Monitor` hears every event of a registry and keeps bounded figures.
:func:`render` turns them into plain text; a terminal program repaints that text.
"""

from __future__ import annotations

import math
import time
from collections import Counter, deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ._closing import Closing
from ._registry import EventKind
from ._types import OperationStatus

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from ._context import OperationSnapshot
    from ._registry import Observation, OperationEvent, OperationRegistry
    from ._types import CancelationReason

__all__ = ("Figures", "Monitor", "percentile", "render")


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What a monitor knows, at one moment.

    Attributes:
        running: Operations that run, oldest first.
        by_status: How many ended in each status.
        by_reason: How many were stopped for each reason.
        per_second: Operations that ended, a second, over the window.
        p50: Median seconds of the operations that ended in the window; NaN without any.
        p95: 95 of 100 took at most so many seconds.
        p99: 99 of 100 took at most so many seconds.
    """

    running: tuple[OperationSnapshot, ...]
    by_status: Mapping[OperationStatus, int]
    by_reason: Mapping[CancelationReason, int]
    per_second: float
    p50: float
    p95: float
    p99: float


class Monitor(Closing):
    """Keeps figures about a registry. Use as a context manager, or close it.

    Args:
        registry: What to watch.
        window: Seconds that rates and durations look back.
        on_change: Called after each event, in the thread that caused it.
        clock: Seconds on a clock of one's own, for tests.
    """

    def __init__(
        self,
        registry: OperationRegistry,
        *,
        window: float = 60.0,
        on_change: Callable[[], object] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Start to watch."""
        self._running: dict[str, OperationSnapshot] = {each.id: each for each in registry.list()}
        self._ended: deque[tuple[float, float]] = deque(maxlen=10_000)
        self._by_status: Counter[OperationStatus] = Counter()
        self._by_reason: Counter[CancelationReason] = Counter()
        self._window = window
        self._on_change = on_change
        self._clock = clock
        self._born = clock()
        self._observation: Observation = registry.observe(self._hear)

    def figures(self) -> Figures:
        """The figures now."""
        now = self._clock()
        recent = [took for ended, took in self._ended.copy() if now - ended <= self._window]
        span = min(self._window, now - self._born)
        return Figures(
            running=tuple(self._running.copy().values()),
            by_status=dict(self._by_status),
            by_reason=dict(self._by_reason),
            per_second=len(recent) / span if span else 0.0,
            p50=percentile(recent, 50),
            p95=percentile(recent, 95),
            p99=percentile(recent, 99),
        )

    def close(self) -> None:
        """Stop watching; the figures stay."""
        self._observation.close()

    def _hear(self, event: OperationEvent) -> None:
        operation = event.operation
        if event.kind is EventKind.ENDED:
            self._running.pop(operation.id, None)
            self._count(operation)
        else:
            self._running[operation.id] = operation
        if self._on_change is not None:
            self._on_change()

    def _count(self, operation: OperationSnapshot) -> None:
        self._ended.append((self._clock(), operation.duration))
        self._by_status[operation.status] += 1
        if operation.cause is not None and operation.status is not OperationStatus.COMPLETED:
            self._by_reason[operation.cause.reason] += 1


def percentile(values: Iterable[float], percent: float) -> float:
    """The smallest of ``values`` that ``percent`` of them do not exceed (nearest rank).

    Example:
        >>> percentile([3, 1, 2], 50)
        2
    """
    ordered = sorted(values)
    if not ordered:
        return math.nan
    rank = math.ceil(percent / 100 * len(ordered))
    return ordered[max(0, rank - 1)]


def render(figures: Figures, *, width: int = 80, now: float | None = None) -> str:
    """The figures as plain text, no line wider than ``width``.

    Args:
        figures: What to show.
        width: Characters in a line.
        now: Seconds since the epoch, for the age of what runs.
    """
    lines = [_summary(figures), _durations(figures), *_ends(figures), ""]
    lines += _table(figures.running, time.time() if now is None else now)
    return "\n".join(line[:width].rstrip() for line in lines)


def _summary(figures: Figures) -> str:
    ended = sum(figures.by_status.values())
    return f"{len(figures.running)} running · {ended} ended · {figures.per_second:.1f}/s"


def _durations(figures: Figures) -> str:
    if math.isnan(figures.p50):
        return "durations: none yet"
    return f"durations: p50 {figures.p50:.2f} s · p95 {figures.p95:.2f} s · p99 {figures.p99:.2f} s"


def _ends(figures: Figures) -> list[str]:
    lines = []
    if figures.by_status:
        lines.append("ended: " + _counts(figures.by_status))
    if figures.by_reason:
        lines.append("stopped by: " + _counts(figures.by_reason))
    return lines


def _counts(counts: Mapping[OperationStatus, int] | Mapping[CancelationReason, int]) -> str:
    return " · ".join(f"{what} {count}" for what, count in sorted(counts.items()))


def _table(running: Sequence[OperationSnapshot], now: float) -> list[str]:
    rows = [f"{'OPERATION':<24} {'STATUS':<10} {'FOR':>8}  PROGRESS"]
    for each in running:
        asked = "stopping" if each.cause is not None else str(each.status)
        age = f"{now - (each.started_at or now):.1f} s"
        rows.append(f"{each.label[:24]:<24} {asked:<10} {age:>8}  {each.progress or ''}")
    return rows
