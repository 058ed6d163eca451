"""What the body and the headers of a refusal say. Pure.

Servers put it in many ways; the shapes and sentences are those of OpenAI, vLLM,
llama-server, SGLang, Ollama, Anthropic, Gemini, Mistral and FastAPI.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime

_MAX_SENTENCE_CHARS = 300
_NUMBER = re.compile(r"\d[\d,]*")
_CONTEXT = re.compile(
    r"context[ _](?:length|size|window)|prompt is too long|input token count"
    r"|too large for model",
    re.IGNORECASE,
)
_CONTEXT_TOKENS = re.compile(
    r"(?:context (?:length|size|window)\b|tokens allowed)\D{0,20}?(\d[\d,]*)|(\d[\d,]*) maximum",
    re.IGNORECASE,
)


_PREFIX = re.compile(
    r"assistant (?:message|response) prefill|prefilling assistant messages"  # Anthropic, llama.cpp
    r"|ending with a model turn|must end with a user (?:message|turn)"  # Gemini, Anthropic
    r"|expected last role|assistant messages at the end of the list"  # Mistral, llama.cpp
    r"|expected .?thinking.? or .?redacted_thinking"  # Anthropic, with thinking
    r"|continue_final_message|final message is not an assistant|substring not found",  # vLLM
    re.IGNORECASE,
)
_FIELD = re.compile(
    r"""(?:un(?:supported|recognized|known)|invalid)\ (?:parameter|request\ argument|field|value)
        s?\b[^'`"\w]*(?:supplied|for|:)*[\s:]*['`"]?(?P<first>[a-z_]+)
    |   ['`"](?P<then>[a-z_]+)['`"]\ (?:is\ (?:not\ supported|unsupported)|does\ not\ support)
    |   (?P<where>[a-z_]+):\ extra\ inputs\ are\ not\ permitted""",
    re.IGNORECASE | re.VERBOSE,
)


def refuses_prefix(body: object) -> bool:
    """Say whether an error is about the beginning of a message that was to be gone on with."""
    return _PREFIX.search(message(body)) is not None


def refused_field(body: object) -> str | None:
    """Return the field of the request that an error is about; None if it names none."""
    param = body.get("param") if isinstance(body, Mapping) else None
    if isinstance(param, str) and param:
        return param.partition(".")[0].partition("[")[0]
    found = _FIELD.search(message(body))
    return next(filter(None, found.groups()), None) if found else None


def sentence(body: object, secret: str | None) -> str:
    """Return the server's own sentence: one line, fit for a terminal, without the key.

    A web page is no sentence: "".
    """
    text = message(body)
    if text.lstrip().startswith("<"):
        return ""
    if secret:
        text = text.replace(secret, "[key]")
    text = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return text if len(text) <= _MAX_SENTENCE_CHARS else text[:_MAX_SENTENCE_CHARS] + "…"


def message(body: object) -> str:
    """Return the text of an error, as the server wrote it; "" if there is none."""
    match body:
        case str():
            return body
        case {"msg": str(text), "loc": [*where]}:
            return f"{'.'.join(map(str, where))}: {text}"
        case {"error": inner} | {"message": inner} | {"detail": inner} | [inner, *_]:
            return message(inner)
    return ""


def codes(body: object) -> set[str]:
    """Return the words for machines in an error."""
    if not isinstance(body, Mapping):
        return set()
    return {str(body[key]) for key in ("code", "type") if body.get(key)}


def is_context_full(body: object) -> bool:
    """Say whether an error is about a prompt that does not fit the context."""
    words = " ".join(codes(body))
    if "context_length" in words or "exceed_context" in words:
        return True
    return _CONTEXT.search(message(body)) is not None


def context_tokens(body: object) -> tuple[int, int] | None:
    """Return how many tokens were asked for and how many fit; None if that is not told.

    In every known sentence the tokens asked for are the largest number.
    """
    match body:
        case {"n_prompt_tokens": int(asked), "n_ctx": int(context)}:  # llama-server
            return asked, context
    text = message(body)
    found = _CONTEXT_TOKENS.search(text)
    if found is None:
        return None
    context = _number(found[1] or found[2])
    asked = max(map(_number, _NUMBER.findall(text)))
    return (asked, context) if asked > context else None


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Return how many seconds a server asked to wait; None if it did not say.

    ``Retry-After`` is a number of seconds or a date (RFC 9110, section 10.2.3); a date is
    read against the answer's own ``Date``, so that a wrong clock here does not matter.
    """
    value = headers.get("retry-after", "").strip()
    try:
        seconds = float(value)
    except ValueError:
        return _seconds_until(value, headers.get("date", ""))
    return seconds if 0 <= seconds < float("inf") else None


def _seconds_until(date: str, now: str) -> float | None:
    then = _timestamp_s(date)
    if then is None:
        return None
    present = _timestamp_s(now)
    return max(0.0, then - (time.time() if present is None else present))


def _timestamp_s(date: str) -> float | None:
    try:
        return parsedate_to_datetime(date).timestamp()
    except (ValueError, OverflowError):  # no date, or one of no year that there is
        return None


def _number(digits: str) -> int:
    return int(digits.replace(",", ""))
