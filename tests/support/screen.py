"""A view for tests: takes everything at once and remembers it."""

from __future__ import annotations

from typing import TypeVar

from llmctl.events import Channel, Delta, Event
from llmctl.turn import Mark

T = TypeVar("T")


class Screen:
    """A view that takes everything at once.

    Attributes:
        events: what was shown.
        delivered: how far the reply went out.
    """

    full = False
    blocked_for = 0.0

    def __init__(self) -> None:
        """Nothing was shown yet."""
        self.events: list[Event] = []
        self.delivered = Mark()

    def show(self, event: Event, mark: Mark) -> None:
        """Take an event."""
        self.events.append(event)
        self.delivered = mark

    def drain(self, timeout: float | None) -> bool:  # noqa: ARG002  (nothing is under way)
        """Say that all is out."""
        return True

    def of(self, kind: type[T]) -> list[T]:
        """Return the events of one kind."""
        return [event for event in self.events if isinstance(event, kind)]

    @property
    def text(self) -> str:
        """The content that was shown."""
        return "".join(e.text for e in self.of(Delta) if e.channel is Channel.CONTENT)
