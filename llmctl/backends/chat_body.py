"""The body of a chat completion request. Pure.

Nothing is in it that the person did not choose, apart from what makes it a stream that
can be counted. The ways of asking a server to go on behind the beginning of its own
message are its dialects; each is one case of `_continuing`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, assert_never

from llmctl.conversation import Options, Request
from llmctl.profiles import PrefixDialect, Profile, TokenCounts

COUNTING_FIELDS: Mapping[TokenCounts, str] = {
    TokenCounts.USAGE: "continuous_usage_stats",
    TokenCounts.TIMINGS: "timings_per_token",
    TokenCounts.IDS: "return_token_ids",
    TokenCounts.LOGPROBS: "logprobs",
}
"""The field by which each way of counting is asked for."""


def chat_body(
    profile: Profile, request: Request, *, usage: bool, after: str = ""
) -> dict[str, Any]:
    """Return the body that asks for a reply, or for the rest of one.

    Args:
        profile: whose dialect to speak.
        request: what to ask.
        usage: ask for the accounting at the end of the stream.
        after: the beginning of the reply; "" asks for all of it.
    """
    messages = [{"role": m.role, "content": m.content} for m in request.messages]
    return {
        "model": request.model,
        "messages": messages,
        "stream": True,
        **counting_fields(profile, usage=usage),
        **chosen_fields(request.options, profile),
        **(_continuing(profile.prefix, messages, after) if after else {}),
        **request.options.extra,
    }


def counting_fields(profile: Profile, *, usage: bool) -> dict[str, Any]:
    """Ask for token counts the way this server is known to understand."""
    options = {"include_usage": True} if usage else {}
    fields: dict[str, Any] = {}
    match profile.token_counts:
        case TokenCounts.USAGE if usage:
            options[COUNTING_FIELDS[TokenCounts.USAGE]] = True
        case TokenCounts.TIMINGS | TokenCounts.IDS | TokenCounts.LOGPROBS as counts:
            fields[COUNTING_FIELDS[counts]] = True
        case TokenCounts.USAGE | None:
            pass
        case other:
            assert_never(other)
    return {**({"stream_options": options} if options else {}), **fields}


def chosen_fields(options: Options, profile: Profile) -> dict[str, Any]:
    """Return the options a person set, under the names this server knows."""
    fields = {
        "temperature": options.temperature,
        "top_p": options.top_p,
        profile.seed_field: options.seed,
        profile.max_tokens_field: options.max_tokens,
        "stop": list(options.stop) or None,
        "response_format": _schema(options.schema) if options.schema is not None else None,
    }
    return {name: value for name, value in fields.items() if value is not None}


def _schema(schema: Mapping[str, Any]) -> dict[str, Any]:
    named = {"name": "reply", "schema": dict(schema), "strict": True}
    return {"type": "json_schema", "json_schema": named}


def _continuing(
    dialect: PrefixDialect | None, messages: list[dict[str, Any]], text: str
) -> dict[str, Any]:
    """Append the reply's beginning to ``messages`` and return the fields that go with it."""
    message: dict[str, Any] = {"role": "assistant", "content": text}
    messages.append(message)
    match dialect:
        case PrefixDialect.CONTINUE_FINAL_MESSAGE:
            return {"continue_final_message": True, "add_generation_prompt": False}
        case PrefixDialect.PREFIX_FLAG:
            message["prefix"] = True
        case PrefixDialect.PARTIAL_FLAG:
            message["partial"] = True
        case PrefixDialect.TRAILING_ASSISTANT | None:
            pass
        case other:
            assert_never(other)
    return {}
