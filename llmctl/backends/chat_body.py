"""The body of a chat completion request. Pure.

Nothing is in it that the person did not choose, apart from what makes it a stream that
can be counted. The ways of asking a server to go on behind the beginning of its own
message are its dialects; each is one case of `_continuing`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, assert_never

from llmctl.conversation import Options, Prefix, Request
from llmctl.errors import StrategyUnavailable
from llmctl.events import Channel
from llmctl.images import Image, Images, in_parts
from llmctl.profiles import PrefixDialect, Profile, ReasoningDialect, TokenCounts

COUNTING_FIELDS: Mapping[TokenCounts, str] = {
    TokenCounts.USAGE: "continuous_usage_stats",
    TokenCounts.TIMINGS: "timings_per_token",
    TokenCounts.IDS: "return_token_ids",
    TokenCounts.LOGPROBS: "logprobs",
}
"""The field by which each way of counting is asked for."""


@dataclass(frozen=True, slots=True)
class Beginning:
    """The beginning of a reply, as far as it is sent.

    Attributes:
        text: its content.
        reasoning: what was thought before.
        blanks: those at its end, which are not sent since a template might trim them.
    """

    text: str = ""
    reasoning: str = ""
    blanks: str = ""

    def __bool__(self) -> bool:
        """Say whether there is any."""
        return bool(self.text or self.reasoning)

    @property
    def within_reasoning(self) -> bool:
        """Say whether it ends before the content has begun."""
        return bool(self.reasoning) and not self.text

    @property
    def channel(self) -> Channel:
        """Where the reply goes on."""
        return Channel.REASONING if self.within_reasoning else Channel.CONTENT


NOTHING = Beginning()


def beginning(profile: Profile, prefix: Prefix) -> Beginning:
    """Return what of a reply a server is given to go on behind.

    Raises:
        StrategyUnavailable: there is nothing, or the server does not take it.
    """
    _check_reasoning(profile, prefix)
    last = prefix.text or prefix.reasoning
    sent = last if profile.prefix_keeps_blanks else last.rstrip()
    blanks = last[len(sent) :]
    return Beginning(sent, prefix.reasoning, blanks) if prefix.text else Beginning("", sent, blanks)


def _check_reasoning(profile: Profile, prefix: Prefix) -> None:
    if not prefix.text and not prefix.reasoning:
        raise StrategyUnavailable("There is no text yet to go on behind.")
    if prefix.reasoning and profile.reasoning is None:
        raise StrategyUnavailable(f"{profile.name} is not known to take its reasoning back.")
    if not prefix.text and profile.reasoning is ReasoningDialect.BEHIND:
        raise StrategyUnavailable(f"{profile.name} does not go on within its reasoning.")


def chat_body(
    profile: Profile,
    request: Request,
    *,
    usage: bool,
    after: Beginning = NOTHING,
    images: Images | None = None,
) -> dict[str, Any]:
    """Return the body that asks for a reply, or for the rest of one.

    Args:
        profile: whose dialect to speak.
        request: what to ask.
        usage: ask for the accounting at the end of the stream.
        after: the beginning of the reply; `NOTHING` asks for all of it.
        images: those that the messages name; None leaves their text as it is.

    Raises:
        Refused: an image is not here any more.
    """
    messages = [
        {"role": m.role, "content": in_parts(m, images, _text_part, _image_part)}
        for m in request.messages
    ]
    return {
        "model": request.model,
        "messages": messages,
        "stream": True,
        **counting_fields(profile, usage=usage),
        **chosen_fields(request.options, profile),
        **(_continuing(profile, messages, after) if after else {}),
        **request.options.extra,
    }


def _text_part(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}


def _image_part(image: Image) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": image.url}}


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
    profile: Profile, messages: list[dict[str, Any]], after: Beginning
) -> dict[str, Any]:
    """Append the reply's beginning to ``messages`` and return the fields that go with it."""
    message: dict[str, Any] = {"role": "assistant", "content": after.text}
    messages.append(message)
    if after.reasoning:
        message["reasoning_content"] = after.reasoning
        if profile.reasoning is ReasoningDialect.NAMED:
            field = "content" if after.text else "reasoning_content"
            return {"continue_final_message": field, "add_generation_prompt": False}
    match profile.prefix:
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
