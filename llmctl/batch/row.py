"""A row of the input: one request, and what identifies it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from llmctl.conversation import Message, Options, Request, is_shaped

MAX_TOKENS_FIELDS = ("max_tokens", "max_completion_tokens", "max_output_tokens")
"""The names under which APIs know the bound on a reply."""


class Path(StrEnum):
    """Where requests go, below the server's address."""

    CHAT = "chat/completions"
    COMPLETIONS = "completions"
    RESPONSES = "responses"


@dataclass(frozen=True, slots=True)
class Row:
    """One request of a batch.

    Attributes:
        line: where it stands in the input, from 1.
        id: its ``custom_id``.
        path: where it goes.
        body: what is sent, without the fields that make it a stream.
        metadata: returned as it came.
        digest: of the effective request; equal digests ask the same.
    """

    line: int
    id: str
    path: Path
    body: Mapping[str, Any]
    metadata: Any
    digest: bytes

    @property
    def is_exact_only(self) -> bool:
        """Whether its reply can't be continued as text: tools, schemas, several choices."""
        return is_shaped(self.body)

    @property
    def is_plain(self) -> bool:
        """Whether its messages are nothing but roles and contents."""
        messages = self.body.get("messages") or ()
        return all(set(m) == {"role", "content"} for m in messages)

    @property
    def max_tokens(self) -> int | None:
        """The bound on its reply, in tokens."""
        return next((self.body[f] for f in MAX_TOKENS_FIELDS if self.body.get(f)), None)

    @property
    def bound_field(self) -> str | None:
        """The body's own name for that bound."""
        return next((f for f in MAX_TOKENS_FIELDS if self.body.get(f)), None)

    def with_seed(self, base: int) -> Row:
        """Return the row with a seed of its own, unless it has one; what it is stays the same."""
        if self.body.get("seed") is not None or self.path is Path.RESPONSES:
            return self
        mixed = hashlib.sha256(f"{base}/{self.id}".encode("utf-8", "surrogatepass")).digest()
        return replace(self, body={**self.body, "seed": int.from_bytes(mixed[:4]) >> 1})

    def as_request(self) -> Request:
        """Return it as the session's nouns; what they don't name is in ``extra``."""
        rest = {k: v for k, v in self.body.items() if k not in {"model", *MAX_TOKENS_FIELDS}}
        messages: tuple[Message, ...] = ()
        if self.is_plain:
            messages = tuple(Message(**m) for m in rest.pop("messages", ()))
        stop = rest.pop("stop", None) or ()
        return Request(
            str(self.body.get("model", "")),
            messages,
            Options(
                temperature=rest.pop("temperature", None),
                top_p=rest.pop("top_p", None),
                seed=rest.pop("seed", None),
                max_tokens=self.max_tokens,
                stop=(stop,) if isinstance(stop, str) else tuple(stop),
                schema=_schema_of(rest),
                extra=rest,
            ),
        )


def _schema_of(body: dict[str, Any]) -> Mapping[str, Any] | None:
    """Take a schema of our own making out of a body."""
    match body.get("response_format"):
        case {"type": "json_schema", "json_schema": {"schema": dict(schema), "name": "reply"}}:
            del body["response_format"]
            return schema
    return None


def digest_of(path: Path, body: Mapping[str, Any], markers: tuple[str, ...]) -> bytes:
    """Return what identifies a request; a bound counts whatever a server calls it."""
    same = {("max_tokens" if k in MAX_TOKENS_FIELDS else k): v for k, v in body.items()}
    parts = [path, same, *markers]
    canonical = json.dumps(parts, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(canonical.encode("utf-8", "surrogatepass")).digest()[:16]
