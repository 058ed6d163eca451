"""What is sent to a model, and what of its reply already exists. Pure values.

A `Request` is all that determines a reply apart from the engine itself. It is written
into the journal when a reply starts, so that a resume needs nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Self

from llmctl.events import Cursor

_SHAPING = ("tools", "functions", "response_format", "logprobs", "grammar", "json_schema",
            "guided_json", "guided_regex", "guided_choice", "guided_grammar",
            "structured_outputs", "text", "echo", "return_token_ids")  # fmt: skip

_COUNTING = {
    "frequency_penalty": 0, "presence_penalty": 0, "dry_multiplier": 0, "min_tokens": 0,
    "repetition_penalty": 1, "repeat_penalty": 1,
}  # fmt: skip
"""Options that count generated tokens, and the values at which they do nothing."""


def is_shaped(body: Mapping[str, Any]) -> bool:
    """Say whether a body asks for a reply that is more than text: schema, tools, choices.

    Such a reply can't be continued as text: what shapes it would begin anew.
    """
    several = any(isinstance(body.get(key), int) and body[key] > 1 for key in ("n", "best_of"))
    return several or any(body.get(key) for key in _SHAPING)


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

    @property
    def counts_written(self) -> bool:
        """Whether the sampler looks at how often the reply has had a token, or how many."""
        return any(self.extra.get(name, idle) != idle for name, idle in _COUNTING.items())

    @property
    def shaped(self) -> bool:
        """Whether the reply can only be gone on with as the same run; see `is_shaped`."""
        return self.schema is not None or is_shaped(self.extra)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Read what `Request.as_json` wrote of them."""
        return cls(**{**data, "stop": tuple(data.get("stop", ()))})


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
        return cls(
            model=data["model"],
            messages=tuple(Message(**m) for m in data["messages"]),
            options=Options.from_json(data["options"]),
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
