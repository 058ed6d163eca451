"""What probing found out about a server and a model, and where that is remembered.

A server's answer of 200 proves nothing: many accept a field and ignore it. What stands
here was seen in replies (`llmctl.backends.probe` asks for them). It belongs to one address
and one model, and holds as long as the server says that it is the same one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Any, Self

from llmctl.environment import Environment, write_private
from llmctl.profiles import Api, PrefixDialect, Profile, TokenCounts

_FORMAT = 2

LLAMA_SERVER = "llama-server"
"""What a probe calls llama.cpp's server."""


class Outcome(StrEnum):
    """What a server did when it was asked to go on behind the beginning of its reply."""

    CONTINUES = "continues"
    ECHOES = "continues, repeating the prefix"
    ANEW = "starts a new message"
    REFUSES = "refuses"


class Keeping(StrEnum):
    """What a server did with a response that it was asked to generate in the background."""

    READ_ON = "kept, and read on from where it was left"
    WAITED_FOR = "kept, and given out whole when it is done"
    IGNORES = "takes the field and ignores it"
    LOSES = "says that it keeps it, and does not"
    REFUSES = "refuses"


@dataclass(frozen=True, slots=True)
class Server:
    """What a server says that it is.

    Attributes:
        kind: the program; None where it does not tell.
        version: of the program; None where it does not tell.
    """

    kind: str | None = None
    version: str | None = None

    def __str__(self) -> str:
        """Return kind and version, as far as they are known."""
        return " ".join(filter(None, (self.kind, self.version))) or "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """What a server was seen to do with one model.

    Attributes:
        server: what answered.
        api: the protocol it was asked by.
        outcomes: what became of each way that was tried of going on behind a prefix.
        prefix: the one that works; None if none does.
        prefix_echoed: its answer repeats the prefix.
        prefix_keeps_blanks: blanks at the prefix's end were counted as part of the prompt.
        token_counts: how it tells its tokens; None if it doesn't.
        token_prompts: it went on behind the ids of a prompt and half a reply.
        background: what became of a response in the background; None where there are none.
        goes_on_by_text: a completion went on behind a prompt and half a reply; None where
            that was not to be seen.
        accepts_seed: a seed was not refused.
        usage_in_stream: the accounting came when it was asked for.
        max_tokens_field: the field for the bound on the reply that was not refused.
        replies: how many were generated to find this out.
        probed: when, in seconds since the epoch.
    """

    server: Server
    api: Api = Api.CHAT
    outcomes: Mapping[PrefixDialect, Outcome] = field(default_factory=dict)
    prefix: PrefixDialect | None = None
    prefix_echoed: bool = False
    prefix_keeps_blanks: bool = False
    token_counts: TokenCounts | None = None
    token_prompts: bool = False
    background: Keeping | None = None
    goes_on_by_text: bool | None = None
    accepts_seed: bool = False
    usage_in_stream: bool = False
    max_tokens_field: str = "max_tokens"
    replies: int = 0
    probed: float = 0.0

    def applied_to(self, profile: Profile) -> Profile:
        """Return the profile with what was seen in place of what was assumed."""
        if self.api is Api.RESPONSES:
            keeps = self.background in {Keeping.READ_ON, Keeping.WAITED_FOR}
            return replace(profile, keeps_runs=keeps)
        if self.api is Api.COMPLETIONS:
            return replace(
                profile,
                token_prompts=self.token_prompts,
                token_counts=self.token_counts,
                accepts_seed=self.accepts_seed,
                usage_in_stream=self.usage_in_stream,
            )
        return replace(
            profile,
            prefix=self.prefix,
            prefix_echoed=self.prefix_echoed,
            prefix_keeps_blanks=self.prefix_keeps_blanks,
            token_counts=self.token_counts,
            token_prompts=self.token_prompts,
            accepts_seed=self.accepts_seed,
            usage_in_stream=self.usage_in_stream,
            max_tokens_field=self.max_tokens_field,
        )

    def as_json(self) -> dict[str, Any]:
        """Return a form that `from_json` reads back."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Read what `as_json` wrote.

        Raises:
            KeyError: a field is missing.
            TypeError: there is one that nobody knows.
            ValueError: a value is not one of those known.
        """
        known = dict(data)
        known["server"] = Server(**data["server"])
        known["outcomes"] = {
            PrefixDialect(way): Outcome(seen) for way, seen in data["outcomes"].items()
        }
        known["api"] = Api(data["api"])
        known["background"] = data["background"] and Keeping(data["background"])
        known["prefix"] = data["prefix"] and PrefixDialect(data["prefix"])
        known["token_counts"] = data["token_counts"] and TokenCounts(data["token_counts"])
        return cls(**known)


@dataclass(frozen=True, slots=True)
class Memory:
    """Where capabilities are kept: a file for each address and model, for its owner only.

    Attributes:
        folder: made when something is first remembered.
        writes: something may be written there.
    """

    folder: Path
    writes: bool = True

    @classmethod
    def of(cls, env: Environment, *, writes: bool = True) -> Self:
        """Return the memory of this machine's user."""
        return cls(env.data / "probes", writes)

    def recall(self, base_url: str, model: str, api: Api = Api.CHAT) -> Capabilities | None:
        """Return what is known about a model at an address; None if that is nothing."""
        try:
            data = json.loads(self._file(base_url, model, api).read_text())
            return Capabilities.from_json(data) if data.pop("format") == _FORMAT else None
        except (OSError, ValueError, LookupError, TypeError, AttributeError):
            return None  # never probed, or written by another version: it can be found out again

    def remember(self, base_url: str, model: str, found: Capabilities) -> None:
        """Keep what was found out, if anything may be kept.

        Raises:
            OSError: it can't be written.
        """
        if self.writes:
            data = {"format": _FORMAT, **found.as_json()}
            write_private(self._file(base_url, model, found.api), json.dumps(data, indent=2) + "\n")

    def _file(self, base_url: str, model: str, api: Api) -> Path:
        name = hashlib.sha256(json.dumps([base_url, model, api]).encode()).hexdigest()
        return self.folder / f"{name[:32]}.json"
