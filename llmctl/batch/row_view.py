"""What shows an item's reply to nobody, and keeps it for its row."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from llmctl.events import Channel, Delta, Event, MarkerFound, Paused
from llmctl.turn import Mark


@dataclass(slots=True)
class RowView:
    """Collects what is delivered; fits the session's port.

    Attributes:
        content: the content's pieces, markers removed.
        reasoning: the reasoning's pieces.
        markers: what the model wrote to act.
    """

    content: list[str] = field(default_factory=list)
    reasoning: list[str] = field(default_factory=list)
    markers: list[dict[str, Any]] = field(default_factory=list)
    delivered: Mark = Mark()  # noqa: RUF009  (immutable)
    full = False
    blocked_for = 0.0
    go_on: Callable[[], None] = lambda: None

    def show(self, event: Event, mark: Mark) -> None:
        """Take an event."""
        self.delivered = mark
        match event:
            case Delta(Channel.CONTENT, text):
                self.content.append(text)
            case Delta(_, text):
                self.reasoning.append(text)
            case MarkerFound(marker, action, position):
                found = {"marker": marker, "action": str(action), "position": position.as_json()}
                self.markers.append(found)
            case Paused():  # nobody is there to wait for: only noted
                asyncio.get_running_loop().call_soon(self.go_on)

    def drain(self, timeout: float | None) -> bool:  # noqa: ARG002  (the port's)
        """Nothing waits."""
        return True
