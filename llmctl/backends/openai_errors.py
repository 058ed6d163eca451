"""What a server's refusals and a network's failures mean. The one place that says so.

Whatever goes wrong between us and an OpenAI-compatible server comes through `Explainer`:
status codes, error events inside a stream, broken connections, and ends of a reply that
are none. It needs the address (to name the server) and the key (so that no sentence ever
repeats it). The sentences servers use are collected from their sources and issue
trackers; where a table is a guess, the server's own sentence is kept.
"""

from __future__ import annotations

import re
import ssl
import time
from collections.abc import Iterator, Mapping
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from socket import gaierror
from typing import Any
from urllib.parse import urlsplit

import anyio
import httpx2
import openai

from llmctl.errors import (
    ContextFull,
    Disconnected,
    LlmctlError,
    Overloaded,
    Refused,
    Unreachable,
)

BROKEN_STREAM = (httpx2.RequestError, ssl.SSLError, anyio.EndOfStream)
"""What reading a body may raise when the connection fails (as `openai` itself has it)."""

_MAX_SENTENCE_CHARS = 300
_NO_CONNECTION = (
    httpx2.ConnectError,
    httpx2.ConnectTimeout,
    httpx2.ProxyError,
    httpx2.UnsupportedProtocol,
)
_QUOTA = {"insufficient_quota", "billing_hard_limit_reached", "billing_not_active"}
_CONTEXT = re.compile(
    r"context[ _](?:length|size|window)|prompt is too long|input token count"
    r"|maximum context|too large for model",
    re.IGNORECASE,
)
_CONTEXT_TOKENS = re.compile(
    r"(?:context (?:length|size|window)\b|tokens allowed|length is only)\D{0,20}?(\d[\d,]*)"
    r"|(\d[\d,]*) maximum",
    re.IGNORECASE,
)
_RETRIABLE = {
    HTTPStatus.REQUEST_TIMEOUT,
    HTTPStatus.CONFLICT,
    HTTPStatus.TOO_EARLY,
    HTTPStatus.TOO_MANY_REQUESTS,
}


class Explainer:
    """Turns foreign errors into ours.

    Args:
        base_url: the server's address.
        secret: the key, which no sentence may contain.
    """

    def __init__(self, base_url: str, secret: str | None) -> None:
        parts = urlsplit(base_url)
        self.server = (parts.hostname or base_url) + (f":{parts.port}" if parts.port else "")
        self._secret = secret

    def error(self, error: Exception) -> LlmctlError:
        """Return what an exception of `openai` or its transport means."""
        if isinstance(error, openai.APIStatusError):
            response = error.response
            return self.status(error.status_code, error.body, response.headers)
        cause = error.__cause__ if isinstance(error, openai.APIConnectionError) else error
        if isinstance(cause, _NO_CONNECTION):
            return self._no_connection(cause)
        return self.lost()

    def cause(self, error: Exception) -> Exception | None:
        """Return what may stand as the cause of ours: an error that repeats no key."""
        seen = f"{error!r} {error}"
        return None if self._secret and self._secret in seen else error

    def status(self, status: int, body: Any, headers: Mapping[str, str]) -> LlmctlError:
        """Return what an answer other than 200 means.

        Args:
            status: the HTTP status.
            body: the parsed JSON, or what came instead.
            headers: of the answer; names in lower case.
        """
        sentence = self.sentence(body)
        if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
            return self._key_refused(status, sentence)
        if _codes(body) & _QUOTA or status == HTTPStatus.PAYMENT_REQUIRED:
            return Refused(
                f"The quota at {self.server} is used up.", "Look at the account's billing."
            )
        if status in _RETRIABLE or status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            return self._overloaded(status, sentence, headers)
        if is_context_full(body):
            return context_full(body, sentence)
        if status == HTTPStatus.NOT_FOUND:
            return self._not_found(sentence)
        if status in range(300, 400):
            return self._moved(headers.get("location", ""))
        return Refused(sentence or f"{self.server} refused the request (HTTP {status}).")

    def event(self, body: Any) -> LlmctlError:
        """Return what an error event inside a stream means."""
        code = body.get("code") if isinstance(body, Mapping) else None
        if isinstance(code, int) and code >= HTTPStatus.BAD_REQUEST:
            return self.status(code, body, {})
        if _codes(body) & _QUOTA or is_context_full(body):
            return self.status(HTTPStatus.BAD_REQUEST, body, {})
        sentence = self.sentence(body) or f"{self.server} stopped with an error."
        if any("overload" in known or "rate_limit" in known for known in _codes(body)):
            return Overloaded(sentence)
        return Disconnected(sentence)

    def finish(self, reason: str) -> LlmctlError | None:
        """Return the error that a reply's end really is; None if it is an end."""
        match reason:
            case "content_filter":
                return Refused(f"{self.server} withheld the rest of the reply (content filter).")
            case "insufficient_system_resource":
                return Overloaded(f"{self.server} has no room to finish the reply.")
            case "error" | "abort":
                return Disconnected(f"{self.server} gave the reply up ({reason}).")
        return None

    def lost(self) -> Disconnected:
        """Return the error for a connection that ended before the reply did."""
        return Disconnected(f"The connection to {self.server} was lost before the reply's end.")

    def garbage(self, content_type: str) -> LlmctlError:
        """Return the error for an answer that is not of the protocol."""
        if "html" in content_type:
            return Refused(
                f"{self.server} answered with a web page, not with a reply.",
                "Check the URL; most servers want one that ends in /v1.",
            )
        return Disconnected(f"{self.server} sent something that is not part of a reply.")

    def sentence(self, body: Any) -> str:
        """Return the server's own sentence, fit for a terminal and without the key."""
        text = _message(body)
        if text.lstrip().startswith("<"):
            return ""
        if self._secret:
            text = text.replace(self._secret, "[key]")
        text = " ".join("".join(c if c.isprintable() else " " for c in text).split())
        return text if len(text) <= _MAX_SENTENCE_CHARS else text[:_MAX_SENTENCE_CHARS] + "…"

    def _key_refused(self, status: int, sentence: str) -> Refused:
        hint = "Check the key: llmctl keys list."
        if not self._secret:
            return Refused(f"{self.server} wants an API key.", "Store one with: llmctl keys set.")
        if status == HTTPStatus.UNAUTHORIZED or not sentence:
            return Refused(f"{self.server} does not accept the API key.", hint)
        return Refused(f"{self.server} does not allow this: {sentence}", hint)

    def _overloaded(self, status: int, sentence: str, headers: Mapping[str, str]) -> Overloaded:
        said = f": {sentence}" if sentence else "."
        return Overloaded(
            f"{self.server} can't serve this now (HTTP {status}){said}",
            retry_after=retry_after_s(headers),
        )

    def _not_found(self, sentence: str) -> Refused:
        if sentence:
            return Refused(sentence, "Check the model's name and the URL.")
        return Refused(
            f"{self.server} knows no such address (HTTP 404).",
            "Check the URL; most servers want one that ends in /v1.",
        )

    def _moved(self, location: str) -> Refused:
        parts = urlsplit(location)
        place = f"{parts.scheme}://{parts.hostname}" if parts.hostname else "another address"
        return Refused(
            f"{self.server} redirects to {place}; the key is not sent there.",
            "Give the address it redirects to as --base-url.",
        )

    def _no_connection(self, error: Exception) -> Unreachable:
        for cause in _causes(error):
            match cause:
                case ssl.SSLCertVerificationError():
                    return Unreachable(
                        f"The certificate of {self.server} is not trusted "
                        f"({cause.verify_message}).",
                        "SSL_CERT_FILE can name the authority to trust.",
                    )
                case ssl.SSLError():
                    return Unreachable(
                        f"No secure connection to {self.server}.", "Is it https there?"
                    )
                case gaierror():
                    return Unreachable(
                        f"The name {self.server} can't be resolved.", "Check the URL."
                    )
        if isinstance(error, httpx2.ProxyError):
            return Unreachable("The proxy did not connect.", "Check HTTPS_PROXY and NO_PROXY.")
        if isinstance(error, httpx2.UnsupportedProtocol):
            return Unreachable("The URL has to begin with http:// or https://.")
        return Unreachable(f"Nothing answers at {self.server}.", "Is the server running?")


def is_context_full(body: Any) -> bool:
    """Say whether an error's body is about a prompt that does not fit."""
    codes = " ".join(_codes(body))
    return (
        "context_length" in codes
        or "exceed_context" in codes
        or bool(_CONTEXT.search(_message(body)))
    )


def context_full(body: Any, sentence: str) -> ContextFull:
    """Return the error for a prompt that does not fit, with both numbers if they are told."""
    prompt, context = _context_numbers(body, sentence)
    hint = "Shorten the conversation, or ask for fewer tokens."
    if prompt is None or context is None:
        return ContextFull(sentence or "The prompt does not fit the model's context.", hint)
    return ContextFull(
        f"The request needs {prompt} tokens; the model's context holds {context}.", hint
    )


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
    try:
        then = parsedate_to_datetime(date).timestamp()
    except ValueError:
        return None
    try:
        return max(0.0, then - parsedate_to_datetime(now).timestamp())
    except ValueError:
        return max(0.0, then - time.time())


def _context_numbers(body: Any, sentence: str) -> tuple[int | None, int | None]:
    """Return the tokens of the prompt and of the context (the prompt's is the largest number)."""
    if isinstance(body, Mapping) and "n_ctx" in body:  # llama-server
        return body.get("n_prompt_tokens"), body["n_ctx"]
    found = _CONTEXT_TOKENS.search(sentence)
    if found is None:
        return None, None
    context = _number(found[1] or found[2])
    others = [n for n in map(_number, re.findall(r"\d[\d,]*", sentence)) if n > context]
    return max(others, default=None), context


def _number(digits: str) -> int:
    return int(digits.replace(",", ""))


def _codes(body: Any) -> set[str]:
    """Return the machine-readable words of an error's body."""
    if not isinstance(body, Mapping):
        return set()
    return {str(body[key]) for key in ("code", "type") if body.get(key)}


def _message(body: Any) -> str:
    """Return the sentence of an error's body, whatever the server's way to put it."""
    match body:
        case str():
            return body
        case {"message": str(text)} | {"detail": str(text)} | {"msg": str(text)}:
            return text
        case {"error": inner} | {"detail": inner} | [inner, *_]:
            return _message(inner)
    return ""


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
