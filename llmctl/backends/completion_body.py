"""The body of a completion request: a prompt, and nothing else that makes a conversation. Pure.

A completion knows no roles. What was said becomes one text: a reply stands directly behind
what it answered, as it did when it was written, and a blank line stands before everything
else.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from llmctl.backends.chat_body import chosen_fields, counting_fields
from llmctl.conversation import Message, Request
from llmctl.images import text_alone
from llmctl.profiles import Profile, TokenCounts


def prompt_of(messages: Iterable[Message]) -> str:
    r"""Return the text that a completion goes on behind.

    Example:
        >>> prompt_of([Message("system", "Rhyme."), Message("user", "Roses are")])
        'Rhyme.\n\nRoses are'

    Raises:
        Refused: an image is among them.
    """
    text = ""
    for message in messages:
        gap = "" if message.role == "assistant" or not text else "\n\n"
        text += gap + text_alone(message, "The completions API")
    return text


def completion_body(
    profile: Profile,
    request: Request,
    prompt: str | tuple[int, ...],
    *,
    usage: bool,
    unbounded: bool = True,
) -> dict[str, Any]:
    """Return the body that asks for what follows ``prompt``.

    Args:
        profile: whose dialect to speak.
        request: what to ask; its messages are in the prompt.
        prompt: a text, or token ids.
        usage: ask for the accounting at the end of the stream.
        unbounded: where nobody set a bound, say that there is none. Left out, it means 16.
    """
    if profile.token_counts is TokenCounts.LOGPROBS:  # another field here, with other entries
        profile = replace(profile, token_counts=None)
    bound = {"max_tokens": None} if unbounded else {}
    return {
        "model": request.model,
        "prompt": prompt,
        "stream": True,
        **bound,
        **counting_fields(profile, usage=usage),
        **chosen_fields(request.options, replace(profile, max_tokens_field="max_tokens")),
        **request.options.extra,
    }
