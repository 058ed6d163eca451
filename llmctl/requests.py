"""What a new reply is asked with."""

from __future__ import annotations

import secrets
from collections.abc import Sequence

from llmctl.conversation import Message, Options, Request
from llmctl.ports import BackEnd
from llmctl.store import StoredMessage

SEEDS = 2**31
"""Seeds that are drawn lie below this."""


def request_of(
    prompt: str, before: Sequence[StoredMessage], system: str | None, model: str, options: Options
) -> Request:
    """Return the request that asks ``prompt`` behind what was said before it.

    Args:
        prompt: the question.
        before: what was said.
        system: the system message, if a conversation begins here.
        model: the model's name.
        options: what it is asked with.
    """
    messages = [stored.as_message() for stored in before]
    if system is not None and not messages:
        messages.append(Message("system", system))
    return Request(model, (*messages, Message("user", prompt)), options)


def seeded(request: Request, back_end: BackEnd) -> Request:
    """Return the request with a seed, drawn where it has none and the back end takes one."""
    if request.options.seed is not None or not back_end.accepts_seed:
        return request
    return request.with_options(seed=secrets.randbelow(SEEDS))
