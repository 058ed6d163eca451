"""What happens to a reply, as nouns.

Two families live here, and nothing else: the *chunks* a back end yields, and the
*events* the session makes of them and everybody downstream (journal, screen, ``--json``)
reads. Every event knows its own line of the published event stream (`Event.as_json`).

What there is one of for every token (`Chunk`, `Delta`, `Position`) is a named tuple: it is as
immutable as the frozen dataclasses beside it, and is made in a quarter of the time.

This module is a leaf: it imports nothing of ours.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, StrEnum
from typing import Any, NamedTuple

SCHEMA = 1


class Channel(StrEnum):
    """Which of the model's voices a text belongs to."""

    CONTENT = "content"
    REASONING = "reasoning"


class Mode(StrEnum):
    """What a pause does to the generation: hold keeps it, cut ends it."""

    HOLD = "hold"
    CUT = "cut"


class PauseReason(StrEnum):
    """Who asked for the pause; at the end of a page, the generation goes on."""

    KEY = "key"
    MARKER = "marker"
    LIMIT = "limit"
    PAGE = "page"


class Action(StrEnum):
    """What a marker makes the session do."""

    PAUSE = "pause"
    STOP = "stop"
    ASK = "ask"


class Strategy(StrEnum):
    """A way to go on with a reply, strongest first."""

    HELD = "held"
    CURSOR = "cursor"
    KV = "kv"
    REPLAY = "replay"
    TOKENS = "tokens"
    PREFIX = "prefix"
    INSTRUCT = "instruct"


BEHIND_TEXT = frozenset({Strategy.PREFIX, Strategy.INSTRUCT})
"""Ways to go on that know the reply's text, and nothing of tokens that are in no text yet."""

BEHIND = frozenset({Strategy.TOKENS, *BEHIND_TEXT})
"""Ways to go on in a new generation, for which all that was written is part of the prompt."""

PAID_AGAIN = frozenset({Strategy.REPLAY, *BEHIND})
"""Ways to go on for which what exists is sent, or written, once more."""


class Guarantee(StrEnum):
    """How exact a resume is, best first; compare with `at_least`."""

    EXACT = "exact"
    TOKEN = "token"  # noqa: S105  (a guarantee, not a secret)
    TEXT = "text"
    BEST_EFFORT = "best-effort"

    def at_least(self, floor: Guarantee) -> bool:
        """Say whether this guarantee is as good as ``floor`` or better."""
        order = list(Guarantee)
        return order.index(self) <= order.index(floor)

    def or_worse(self, other: Guarantee) -> Guarantee:
        """Return the worse of the two."""
        return other if self.at_least(other) else self


class Status(StrEnum):
    """How a reply (or this process's share of it) ended."""

    COMPLETE = "complete"
    PAUSED = "paused"
    TRUNCATED = "truncated"
    TIMEOUT = "timeout"
    INTERRUPTED = "interrupted"
    FAILED = "failed"


class End(Enum):
    """Every way in which a reply, or this process's share of it, ends.

    The value is (status, cause, exit code, resumable); one row of the contract's table each.
    """

    COMPLETE = (Status.COMPLETE, "end", 0, False)
    STOPPED_BY_MARKER = (Status.COMPLETE, "marker", 0, False)
    STEERED = (Status.COMPLETE, "steered", 0, False)
    PAUSED_BY_KEY = (Status.PAUSED, "key", 5, True)
    PAUSED_BY_MARKER = (Status.PAUSED, "marker", 5, True)
    PAUSED_BY_LIMIT = (Status.PAUSED, "limit", 5, True)
    TOKEN_LIMIT = (Status.TRUNCATED, "token-limit", 6, True)
    CONTEXT_FULL = (Status.TRUNCATED, "context-full", 6, False)
    CONNECT_TIMEOUT = (Status.TIMEOUT, "connect", 124, True)
    FIRST_TOKEN_TIMEOUT = (Status.TIMEOUT, "first-token", 124, True)
    IDLE_TIMEOUT = (Status.TIMEOUT, "idle", 124, True)
    TOTAL_TIMEOUT = (Status.TIMEOUT, "total", 124, True)
    DISCONNECT = (Status.INTERRUPTED, "disconnect", 4, True)
    SIGHUP = (Status.INTERRUPTED, "SIGHUP", 129, True)
    SIGINT = (Status.INTERRUPTED, "SIGINT", 130, True)
    CLOSED_PIPE = (Status.INTERRUPTED, "closed-pipe", 141, True)
    SIGTERM = (Status.INTERRUPTED, "SIGTERM", 143, True)
    REFUSED = (Status.FAILED, "refused", 3, False)
    UNREACHABLE = (Status.FAILED, "unreachable", 4, True)
    BELOW_REQUIRE = (Status.FAILED, "below-require", 7, True)
    INTERNAL = (Status.FAILED, "internal-error", 1, True)

    def __init__(self, status: Status, cause: str, exit_code: int, resumable: bool) -> None:
        self.status = status
        self.cause = cause
        self.exit_code = exit_code
        self.resumable = resumable


class Position(NamedTuple):
    """A place in a reply.

    Attributes:
        chars: Unicode code points of content before it (markers and reasoning excluded).
        tokens: content tokens wholly before it; None where that is not known exactly.
    """

    chars: int = 0
    tokens: int | None = 0

    def as_json(self) -> dict[str, int | None]:
        """Return the published form."""
        return {"chars": self.chars, "tokens": self.tokens}


@dataclass(frozen=True, slots=True)
class Cursor:
    """A place in a run that a server keeps, from which the same run can be read on.

    Attributes:
        run: the server's name for the run.
        at: the place, in the server's own unit (bytes, events).
        bound: how long the *whole reply* is when the run ends by itself, in tokens; None for
            no bound.
    """

    run: str
    at: int
    bound: int | None = None


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens as the back end counted them for billing."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    total_tokens: int | None = None

    def as_json(self) -> dict[str, int | None]:
        """Return the published form."""
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "total_tokens": self.total_tokens,
        }


class Chunk(NamedTuple):
    """One wire unit of a reply, decoded; the only thing a back end yields.

    Attributes:
        text: what the model wrote, well-formed Unicode.
        channel: content or reasoning.
        tokens: how many tokens this text completes; None when the back end does not tell.
        ends: for each of those tokens the offset in ``text`` behind its last character;
            None when only their number is known.
        ids: those tokens' ids; None when not told or not all of them are.
        finish_reason: the back end's own word for the end; only on the last chunk.
        context_full: the end came because the context has no room left.
        usage: the back end's accounting, usually on the last chunk.
        cursor: from where to read the same run on behind this chunk; None where that can't
            be done, and on the last chunk.
        pieces: how many units of the wire it is made of, where several were joined.
    """

    text: str = ""
    channel: Channel = Channel.CONTENT
    tokens: int | None = None
    ends: tuple[int, ...] | None = None
    ids: tuple[int, ...] | None = None
    finish_reason: str | None = None
    context_full: bool = False
    usage: Usage | None = None
    cursor: Cursor | None = None
    pieces: int = 1

    @property
    def loose(self) -> bool:
        """Whether the last of its tokens may be half a character that is not in its text."""
        return self.ends is None and (self.tokens or 0) > 1

    def without_head(self, chars: int) -> Chunk:
        """Return this chunk without its first ``chars`` characters and their tokens."""
        if not chars:
            return self
        text = self.text[chars:]
        if self.ends is None:
            tokens = 0 if self.tokens is not None and not text else None
            return self._replace(text=text, tokens=tokens, ids=None)
        ends = tuple(end - chars for end in self.ends if end > chars)
        ids = self.ids[len(self.ends) - len(ends) :] if self.ids is not None else None
        return self._replace(text=text, tokens=len(ends), ends=ends, ids=ids)


@dataclass(frozen=True, slots=True)
class Problem:
    """What went wrong, for a person: one sentence and one hint."""

    kind: str
    message: str
    hint: str | None = None

    def as_json(self) -> dict[str, str | None]:
        """Return the published form."""
        return {"kind": self.kind, "message": self.message, "hint": self.hint}


@dataclass(frozen=True, slots=True)
class Timing:
    """How long this process's share of a reply took.

    Attributes:
        first_token_s: from the request to the first token that was not there before.
        duration_s: from the request to the end, pauses included.
        paused_s: how much of that it stood still.
        tokens_per_s: how fast the back end wrote; no pause, and no way of going on, counts.
    """

    first_token_s: float | None
    duration_s: float
    paused_s: float
    tokens_per_s: float | None

    def as_json(self) -> dict[str, float | None]:
        """Return the published form, rounded to milliseconds."""
        return {
            "first_token_s": _rounded(self.first_token_s),
            "duration_s": _rounded(self.duration_s),
            "paused_s": _rounded(self.paused_s),
            "tokens_per_s": _rounded(self.tokens_per_s),
        }


@dataclass(frozen=True, slots=True)
class Started:
    """A reply was asked for."""

    generation: str
    conversation: str
    model: str
    backend: str
    api: str

    def as_json(self) -> dict[str, Any]:
        """Return the published form."""
        return {
            "type": "started",
            "schema": SCHEMA,
            "generation": self.generation,
            "conversation": self.conversation,
            "model": self.model,
            "backend": self.backend,
            "api": self.api,
        }


class Delta(NamedTuple):
    """A piece of text to deliver; ``position`` is where the reply stands behind it."""

    channel: Channel
    text: str
    position: Position

    def as_json(self) -> dict[str, Any]:
        """Return the published form."""
        return {
            "type": "delta",
            "channel": str(self.channel),
            "text": self.text,
            "position": self.position.as_json(),
        }


@dataclass(frozen=True, slots=True)
class MarkerFound:
    """The model wrote a marker; it was removed from the text at ``position``."""

    marker: str
    action: Action
    position: Position

    def as_json(self) -> dict[str, Any]:
        """Return the published form."""
        return {
            "type": "marker",
            "marker": self.marker,
            "action": str(self.action),
            "position": self.position.as_json(),
        }


@dataclass(frozen=True, slots=True)
class Paused:
    """Delivery stands still at ``position``."""

    reason: PauseReason
    mode: Mode
    position: Position

    def as_json(self) -> dict[str, Any]:
        """Return the published form."""
        return {
            "type": "paused",
            "reason": str(self.reason),
            "mode": str(self.mode),
            "position": self.position.as_json(),
        }


@dataclass(frozen=True, slots=True)
class Resumed:
    """Delivery goes on behind ``position``, with the guarantee that was earned.

    ``paid_again`` is what had been read or generated before and was once more; None where
    that is nothing or the back end does not tell.
    """

    strategy: Strategy
    guarantee: Guarantee
    position: Position
    paid_again: Usage | None = None

    def as_json(self) -> dict[str, Any]:
        """Return the published form."""
        paid = {"paid_again": self.paid_again.as_json()} if self.paid_again else {}
        return {
            "type": "resumed",
            "strategy": str(self.strategy),
            "guarantee": str(self.guarantee),
            "position": self.position.as_json(),
            **paid,
        }


@dataclass(frozen=True, slots=True)
class Retrying:
    """The same request will be sent again after ``delay_s`` seconds."""

    reason: str
    delay_s: float
    position: Position

    def as_json(self) -> dict[str, Any]:
        """Return the published form."""
        return {
            "type": "retrying",
            "reason": self.reason,
            "delay_s": _rounded(self.delay_s),
            "position": self.position.as_json(),
        }


@dataclass(frozen=True, slots=True)
class Finished:
    """The last event of this process's share of the reply.

    ``resumable`` is what the end allows and what was kept makes possible; ``repaid_tokens``
    how many of the reply's tokens, at least, this process had sent or written once more to go
    on behind them.
    """

    generation: str
    end: End
    resumable: bool
    finish_reason: str | None
    position: Position
    usage: Usage | None
    timing: Timing
    problem: Problem | None = None
    repaid_tokens: int = 0

    def as_json(self) -> dict[str, Any]:
        """Return the published form."""
        return {
            "type": "finished",
            "generation": self.generation,
            "status": str(self.end.status),
            "cause": self.end.cause,
            "exit_code": self.end.exit_code,
            "resumable": self.resumable,
            "finish_reason": self.finish_reason,
            "position": self.position.as_json(),
            "usage": self.usage.as_json() if self.usage else None,
            "repaid_tokens": self.repaid_tokens,
            "timing": self.timing.as_json(),
            "error": self.problem.as_json() if self.problem else None,
        }


Event = Started | Delta | MarkerFound | Paused | Resumed | Retrying | Finished


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 3)
