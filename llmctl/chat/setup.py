"""What a chat is begun with, and what may change while it runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from llmctl.clocks import Limits
from llmctl.conversation import Options
from llmctl.events import Action
from llmctl.images import Images
from llmctl.profiles import Selection
from llmctl.tracing import Tracing


@dataclass(slots=True)
class Setup:
    """The choices behind the next reply; slash commands change them.

    Attributes:
        selection: the model.
        options: the generation options.
        system: the system message of a new conversation.
        markers: texts of the model that act.
        limits: how long things may take.
        pause_after: pause each reply when this many of its tokens were shown; None for no limit.
        tracing: makes spans of replies.
        images: those that messages may name.
        attached: files that go along with the next message.
    """

    selection: Selection
    options: Options = field(default_factory=Options)
    system: str | None = None
    markers: Mapping[str, Action] = field(default_factory=dict)
    limits: Limits = field(default_factory=Limits)
    pause_after: int | None = None
    tracing: Tracing = field(default_factory=Tracing)
    images: Images = field(default_factory=Images)
    attached: list[Path] = field(default_factory=list)
