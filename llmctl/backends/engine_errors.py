"""What the embedded engine's refusals mean. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from http import HTTPStatus

from llmctl.errors import ContextFull, Refused

_ASK_OTHERWISE = "Check the options that were given; --verbose shows where it was refused."


def check(status: int, content: bytes) -> None:
    """Let an answer pass, or raise what it means.

    Raises:
        Refused: the engine said no.
    """
    if status == HTTPStatus.OK:
        return
    try:
        error = json.loads(content)["error"]
    except (ValueError, KeyError, TypeError):
        error = {"message": content.decode("utf-8", "replace")[:200]}
    raise refusal(error)


def refusal(error: object) -> Refused:
    """Return what an error object of the engine means."""
    if not isinstance(error, Mapping):
        return Refused("The embedded engine refused.", _ASK_OTHERWISE)
    if error.get("type") == "exceed_context_size_error":
        prompt, context = error.get("n_prompt_tokens"), error.get("n_ctx")
        return ContextFull(
            f"The prompt has {prompt} tokens, and the model's context holds {context}.",
            "Shorten the prompt, or start a new conversation.",
        )
    return Refused(f"The embedded engine refused: {error.get('message')}", _ASK_OTHERWISE)
