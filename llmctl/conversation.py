"""What is sent to a model, and what of its reply already exists. Pure values.

A `Request` is all that determines a reply apart from the engine itself. It is written
into the journal when a reply starts, so that a resume needs nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Self

from llmctl.events import Cursor


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a conversation; ``role`` is system, user or assistant."""

    role: str
    content: str


@dataclass(frozen=True, slots=True)
class Options:
    """The generation options a person chose; None means the back end's default.

    Attributes:
        temperature: sampling temperature.
        top_p: nucleus sampling mass.
        seed: the sampler's seed.
        max_tokens: bound on the whole reply, in tokens.
        stop: texts at which the *back end* ends the reply.
        schema: JSON schema the reply must satisfy.
        extra: further fields of the request body, as written.
    """

    temperature: float | None = None
    top_p: float | None = None
    seed: int | None = None
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()
    schema: Mapping[str, Any] | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Request:
    """A reply asked for."""

    model: str
    messages: tuple[Message, ...]
    options: Options = field(default_factory=Options)

    def as_json(self) -> dict[str, Any]:
        """Return a form that `from_json` reads back."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Read what `as_json` wrote."""
        options = dict(data["options"])
        options["stop"] = tuple(options.get("stop", ()))
        return cls(
            model=data["model"],
            messages=tuple(Message(**m) for m in data["messages"]),
            options=Options(**options),
        )

    def with_options(self, **changes: Any) -> Self:  # noqa: ANN401  (each has its own type)
        """Return a copy with some options replaced."""
        return replace(self, options=replace(self.options, **changes))


@dataclass(frozen=True, slots=True)
class Prefix:
    """What of a reply exists already, in the model's own words.

    Attributes:
        text: content as the model wrote it, markers included.
        reasoning: the reasoning before it.
        ids: the token ids of ``text``; None unless every one of them is known.
        tokens: how many tokens ``text`` is; None where not known.
        spent: how many it is at least: a delta counts as one where tokens are not told.
        cursor: where the server that keeps the run stands behind it.
    """

    text: str
    reasoning: str = ""
    ids: tuple[int, ...] | None = None
    tokens: int | None = None
    spent: int = 0
    cursor: Cursor | None = None
