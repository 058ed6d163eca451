"""What an oracle server can be told, and what it tells: nouns only, all of them fit for JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from tests.support.oracle import Rng
from tests.support.oracle_responses import Keeping
from tests.support.oracle_wire import ANTHROPIC_REJECTION, Feature, Prefill, Rules

__all__ = [
    "Counters",
    "Fault",
    "FaultKind",
    "Record",
    "Script",
    "Settings",
    "script_from_json",
    "settings_from_json",
    "total",
]


class FaultKind(StrEnum):
    """How a reply goes wrong. ``after_tokens`` says when, for those that happen in a stream."""

    HTTP = "http"  # status, with retry_after and html
    NO_HEADERS = "no_headers"  # takes the request and never answers
    CUT = "cut"  # closes the connection: FIN, or RST with reset=True
    STALL = "stall"  # nothing more, for ever; comments every ping_s if set
    NO_FINISH = "no_finish"  # a well-formed end of stream, but no finish_reason and no [DONE]
    NO_DONE = "no_done"  # finish_reason, but no [DONE]
    GARBAGE = "garbage"  # the bytes of `line` as a line of the stream, then goes on
    ERROR_EVENT = "error_event"  # an error object as an event, then the end of the stream


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that goes wrong with one request."""

    kind: FaultKind | str
    after_tokens: int | None = 0  # None: when all tokens are sent
    status: int = 500
    retry_after: str | None = None
    html: bool = False
    message: str = "The server had an error while processing your request."
    code: str | None = None
    reset: bool = False
    ping_s: float | None = None
    line: str = "data: {not json"

    def __post_init__(self) -> None:
        """Refuse an unknown kind."""
        object.__setattr__(self, "kind", FaultKind(self.kind))


@dataclass(frozen=True, slots=True)
class Script:
    """What to do with one request; what is None comes from the settings.

    ``hold_at`` stops the generation, silently, once that many tokens are sent, until
    ``release()``: a test can act at an exact token without any timing. ``match`` reserves the
    script for a request whose body contains the string. ``call_at``: from that token on, a
    request that offers tools gets the arguments of a call.
    """

    fault: Fault | None = None
    length: int | None = None
    text: str | None = None
    inserts: Mapping[int, str] = field(default_factory=dict)
    reasoning: int | None = None
    delay_s: float | None = None
    first_token_delay_s: float | None = None
    tokens_per_chunk: int | tuple[int, int] | None = None
    hold_at: int | None = None
    match: str | None = None
    call_at: int | None = None


@dataclass(frozen=True, slots=True)
class Settings:
    """The model, the dialect and the pace of a server. Times are in seconds."""

    # the model
    models: tuple[str, ...] = ("oracle",)
    rng: Rng | str = Rng.PURE
    canonical: bool = True
    trim: bool = False
    length: int | None = None
    eos_every: int = 200
    reasoning: int = 0
    context: int = 1 << 17
    # the dialect
    api_key: str | None = None
    strict: bool = True
    prefill: Prefill | str = Prefill.CONTINUE
    prefix_field: str = "prefix"
    seed_field: str = "seed"
    rejection: str = ANTHROPIC_REJECTION
    echo: bool = False
    features: tuple[Feature | str, ...] = (Feature.LOGPROBS, Feature.USAGE)
    gzip: bool = False
    http10: bool = False
    truncates: int = 0  # tokens dropped from the beginning of a completion's prompt
    null_bound: bool = True  # a completion's max_tokens may be null (SGLang refuses that)
    spelled_as: str = "prompt"  # the field of /detokenize's answer; SGLang's is "text"
    keeping: Keeping | str = Keeping.KEPT  # what becomes of responses in the background
    # the pace
    tokens_per_chunk: int | tuple[int, int] = 1
    delay_s: float = 0.0
    first_token_delay_s: float = 0.0
    headers_delay_s: float = 0.0
    ping_s: float | None = None
    send_each: bool = False
    seed: int = 0

    def rules(self) -> Rules:
        """Return what a request may contain."""
        return Rules(
            prefill=Prefill(self.prefill),
            prefix_field=self.prefix_field,
            rejection=self.rejection,
            features=frozenset(Feature(name) for name in self.features),
            strict=self.strict,
            models=self.models,
            seed_field=self.seed_field,
            null_bound=self.null_bound,
        )


@dataclass(slots=True)
class Record:
    """One request and what became of it. Times are ``time.monotonic_ns()``."""

    number: int
    method: str
    path: str
    headers: Mapping[str, str]
    body: Any
    arrived_ns: int
    status: int | None = None
    prompt_tokens: int = 0
    tokens: int = 0
    first_token_ns: int | None = None
    last_token_ns: int | None = None
    finish_reason: str | None = None
    ended_ns: int | None = None
    disconnected_ns: int | None = None


@dataclass(frozen=True, slots=True)
class Counters:
    """Totals over all chat requests.

    ``connections`` counts every accepted one; ``held`` the replies that wait for a release.
    """

    connections: int
    requests: int
    prompt_tokens: int
    tokens: int
    disconnects: int
    last_disconnect_ns: int | None
    last_token_ns: int | None
    held: int


def total(records: Sequence[Record], connections: int, held: int) -> Counters:
    """Add up."""
    left = [r.disconnected_ns for r in records if r.disconnected_ns is not None]
    tokens = [r.last_token_ns for r in records if r.last_token_ns is not None]
    return Counters(
        connections=connections,
        requests=len(records),
        prompt_tokens=sum(r.prompt_tokens for r in records),
        tokens=sum(r.tokens for r in records),
        disconnects=len(left),
        last_disconnect_ns=max(left, default=None),
        last_token_ns=max(tokens, default=None),
        held=held,
    )


def settings_from_json(value: Mapping[str, Any]) -> Settings:
    """Return the settings that ``dataclasses.asdict`` and JSON have made lists and strings of."""
    return Settings(**_tuples(value))


def script_from_json(value: Mapping[str, Any]) -> Script:
    """Return the script that ``dataclasses.asdict`` and JSON have flattened."""
    fields = _tuples(value)
    if fields.get("fault") is not None:
        fields["fault"] = Fault(**fields["fault"])
    fields["inserts"] = {int(at): text for at, text in fields.get("inserts", {}).items()}
    return Script(**fields)


def _tuples(value: Mapping[str, Any]) -> dict[str, Any]:
    return {name: tuple(v) if isinstance(v, list) else v for name, v in value.items()}
