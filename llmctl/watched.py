"""Events of a reply for others than its view: traces and diagnostics. Text is none of theirs."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from llmctl.events import Delta, Event, Finished, Paused, Started
from llmctl.ports import View
from llmctl.talk import at
from llmctl.turn import Mark

Watcher = Callable[[Event], None]
"""Takes each event of one reply, in order, in the loop: it must not wait."""


def watched(view: View, watchers: Sequence[Watcher]) -> View:
    """Return a view that shows the same, and tells the watchers; the view itself without any."""
    return Watched(view, watchers) if watchers else view


class Watched:
    """A view whose events others are told too."""

    def __init__(self, view: View, watchers: Sequence[Watcher]) -> None:
        self._view = view
        self._watchers = watchers

    def show(self, event: Event, mark: Mark) -> None:
        """Show an event, and tell it."""
        self._view.show(event, mark)
        for watcher in self._watchers:
            watcher(event)

    @property
    def delivered(self) -> Mark:
        """How far the reply has really gone out."""
        return self._view.delivered

    @property
    def full(self) -> bool:
        """Whether so much is queued that the session should wait."""
        return self._view.full

    @property
    def blocked_for(self) -> float:
        """For how many seconds the reader has now taken nothing."""
        return self._view.blocked_for

    def drain(self, timeout: float | None) -> bool:
        """Block until all is out; say whether it is."""
        return self._view.drain(timeout)


class Diagnosis:
    """What ``--verbose`` says while a reply comes: a line for each change, with the time.

    Args:
        say: writes one line.
        clock: seconds that only grow.
    """

    def __init__(self, say: Callable[[str], None], clock: Callable[[], float]) -> None:
        self._say = say
        self._clock = clock
        self._began = clock()
        self._came = False

    def __call__(self, event: Event) -> None:
        """Take an event."""
        told = self._told(event)
        if told:
            self._say(f"[{self._clock() - self._began:.3f} s] {told}")

    def _told(self, event: Event) -> str:
        match event:
            case Started():
                asked = f"asking {event.backend} for {event.model} ({event.api})"
                return f"reply {event.generation} of {event.conversation}: {asked}"
            case Delta():
                first, self._came = not self._came, True
                return "the first text is here" if first else ""
            case Paused(reason, mode, position):
                return f"paused by {reason} at {at(position)} ({mode})"
            case Finished():
                return _ended(event)
            case _:  # what every run says
                return ""


def _ended(event: Finished) -> str:
    timing, end = event.timing, event.end
    rate = "" if timing.tokens_per_s is None else f", {timing.tokens_per_s:.1f} tok/s"
    kept = ", resumable" if event.resumable else ""
    return (
        f"{end.status} ({end.cause}) at {at(event.position)} in {timing.duration_s:.3f} s{rate},"
        f" exit {end.exit_code}{kept}"
    )
