"""What a server's refusals and a network's failures mean. The one place that says so.

Whatever goes wrong between us and an OpenAI-compatible server comes through an
`Explainer`: status codes, error events inside a stream, broken connections, and ends of a
reply that are none. It needs the address (to name the server) and the key (so that no
sentence ever repeats it). Where a table is a guess, the server's own sentence is kept.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterator, Mapping
from http import HTTPStatus
from socket import gaierror
from urllib.parse import urlsplit

import anyio
import httpx2
import openai

from llmctl.backends.error_bodies import (
    codes,
    context_tokens,
    is_context_full,
    refused_field,
    refuses_prefix,
    retry_after_s,
    sentence,
)
from llmctl.errors import (
    ConnectTimedOut,
    ContextFull,
    Denied,
    Disconnected,
    LlmctlError,
    Overloaded,
    PrefixRefused,
    Refused,
    Unreachable,
)

BROKEN_STREAM = (httpx2.RequestError, ssl.SSLError, anyio.EndOfStream)
"""What reading a body may raise when the connection fails (as `openai` itself has it)."""

_NO_CONNECTION = (httpx2.ConnectError, httpx2.ProxyError, httpx2.UnsupportedProtocol)
_QUOTA = {"insufficient_quota", "billing_hard_limit_reached", "billing_not_active"}
_PASSING = {
    HTTPStatus.REQUEST_TIMEOUT,
    HTTPStatus.CONFLICT,
    HTTPStatus.TOO_EARLY,
    HTTPStatus.TOO_MANY_REQUESTS,
}
_BUSY = {HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE, 529}
_STOP = "Leave out --stop; --marker TEXT=stop ends a reply at a text."
_HINTS: Mapping[str, str] = {
    "stop": _STOP,
    "seed": "Leave out --seed.",
    "temperature": "Leave out --temperature.",
    "top_p": "Leave out --top-p.",
    "max_tokens": "Choose another --max-tokens, or none.",
    "max_completion_tokens": "Choose another --max-tokens, or none.",
    "max_output_tokens": "Choose another --max-tokens, or none.",
    "response_format": "This model takes no --schema, or not this one.",
    "text": "This model takes no --schema, or not this one.",
    "background": "Leave out background: this server generates nothing unheard.",
    "store": "A response in the background has to be stored: leave out store=false.",
}
"""What to do about a field that a server does not take."""
_CHECK_REQUEST = "Check the model and the options; 'llmctl models probe' finds out what is taken."
_CHECK_URL = "Check the URL; most servers want one that ends in /v1."


class Explainer:
    """Turns foreign errors into ours.

    Attributes:
        server: host and port, as sentences name it.

    Args:
        base_url: the server's address.
        secret: the key, which no sentence may contain.
    """

    def __init__(self, base_url: str, secret: str | None) -> None:
        parts = urlsplit(base_url)
        self.server = (parts.hostname or base_url) + (f":{parts.port}" if parts.port else "")
        self._secret = secret

    def error(self, error: Exception) -> LlmctlError:
        """Return what an exception of `openai` or of its transport means."""
        if isinstance(error, openai.APIStatusError):
            return self.status(error.status_code, error.body, error.response.headers)
        cause = error.__cause__ if isinstance(error, openai.APIConnectionError) else error
        if isinstance(cause, httpx2.ConnectTimeout):
            return ConnectTimedOut(f"No connection to {self.server} within the time limit.")
        if isinstance(cause, _NO_CONNECTION):
            return self._no_connection(cause)
        return self.lost()

    def cause(self, error: Exception) -> Exception | None:
        """Return what may stand as the cause of ours: not an error that repeats the key."""
        seen = f"{error!r} {error}"
        return None if self._secret and self._secret in seen else error

    def status(self, status: int, body: object, headers: Mapping[str, str]) -> LlmctlError:
        """Return what an answer other than 200 means.

        Args:
            status: the HTTP status.
            body: the error in the answer's JSON, or the text that came instead.
            headers: of the answer; names in lower case.
        """
        if codes(body) & _QUOTA or status == HTTPStatus.PAYMENT_REQUIRED:
            account = "Look at the account's billing."
            return Denied(f"The quota at {self.server} is used up.", account, always=True)
        if status in _PASSING or status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            return self._overloaded(status, body, headers)
        if status in range(300, 400):
            return self._moved(headers.get("location", ""))
        return self._refused(status, body)

    def event(self, body: object) -> LlmctlError:
        """Return what an error event inside a stream means."""
        code = body.get("code") if isinstance(body, Mapping) else None
        if isinstance(code, int) and code >= HTTPStatus.BAD_REQUEST:
            return self.status(code, body, {})
        if codes(body) & _QUOTA or is_context_full(body):
            return self.status(HTTPStatus.BAD_REQUEST, body, {})
        said = sentence(body, self._secret) or f"{self.server} stopped with an error."
        if any("overload" in word or "rate_limit" in word for word in codes(body)):
            return Overloaded(said, busy=True)
        return Disconnected(said)

    def finish(self, reason: str) -> LlmctlError | None:
        """Return the error that a reply's end really is; None if it is an end."""
        match reason:
            case "content_filter":
                withheld = f"{self.server} withheld the rest of the reply (content filter)."
                return Refused(withheld, "What came is kept; ask in other words.")
            case "insufficient_system_resource":
                return Overloaded(f"{self.server} has no room to finish the reply.")
            case "error" | "abort":
                return Disconnected(f"{self.server} gave the reply up ({reason}).")
        return None

    def lost(self) -> Disconnected:
        """Return the error for a connection that ended before the reply did."""
        return Disconnected(f"The connection to {self.server} was lost before the reply's end.")

    def garbage(self) -> Disconnected:
        """Return the error for bytes that are not of the protocol."""
        return Disconnected(f"{self.server} sent something that is not part of a reply.")

    def web_page(self) -> Refused:
        """Return the error for a web page in place of a reply."""
        return Denied(f"{self.server} answered with a web page, not with a reply.", _CHECK_URL)

    def _refused(self, status: int, body: object) -> Refused:
        said = sentence(body, self._secret)
        match status:
            case HTTPStatus.UNAUTHORIZED | HTTPStatus.FORBIDDEN:
                return self._key_refused(status, said)
            case _ if is_context_full(body):
                return _context_full(body, said)
            case HTTPStatus.NOT_FOUND if said:
                return Denied(said, "Check the model's name and the URL.")
            case HTTPStatus.NOT_FOUND | HTTPStatus.METHOD_NOT_ALLOWED:
                return Denied(f"{self.server} knows no such address (HTTP {status}).", _CHECK_URL)
        if refuses_prefix(body):
            return PrefixRefused(
                f"{self.server} does not go on behind the beginning of a message: {said}",
                "Choose a model that does, or allow --require best-effort.",
            )
        hint = _HINTS.get(refused_field(body) or "", _CHECK_REQUEST)
        return Refused(said or f"{self.server} refused the request (HTTP {status}).", hint)

    def _key_refused(self, status: int, said: str) -> Refused:
        """Say that the key is wrong; the server's sentence for 401 repeats part of it."""
        if not self._secret:
            hint = "Store one with: llmctl keys set."
            return Denied(f"{self.server} wants an API key.", hint, always=True)
        hint = "Check the key: llmctl keys list."
        if status == HTTPStatus.UNAUTHORIZED or not said:
            unauthorized = status == HTTPStatus.UNAUTHORIZED
            return Denied(f"{self.server} does not accept the API key.", hint, always=unauthorized)
        return Denied(f"{self.server} does not allow this: {said}", hint)

    def _overloaded(self, status: int, body: object, headers: Mapping[str, str]) -> Overloaded:
        said = sentence(body, self._secret)
        return Overloaded(
            f"{self.server} can't serve this now (HTTP {status}){': ' if said else '.'}{said}",
            retry_after=retry_after_s(headers),
            busy=status in _BUSY,
        )

    def _moved(self, location: str) -> Refused:
        parts = urlsplit(location)
        place = f"{parts.scheme}://{parts.hostname}" if parts.hostname else "another address"
        return Denied(
            f"{self.server} redirects to {place}; nothing was sent there.",
            "Give the address it redirects to as --base-url.",
            always=True,
        )

    def _no_connection(self, error: Exception) -> Unreachable:
        if isinstance(error, httpx2.ProxyError):
            return Unreachable("The proxy did not connect.", "Check HTTPS_PROXY and NO_PROXY.")
        if isinstance(error, httpx2.UnsupportedProtocol):
            hint = "Give the server's whole address in base_url."
            return Unreachable("The URL has to begin with http:// or https://.", hint)
        for cause in _causes(error):
            match cause:
                case ssl.SSLCertVerificationError(verify_message=why):
                    authority = "SSL_CERT_FILE can name the authority to trust."
                    return Unreachable(f"{self.server} is not trusted: {why}.", authority)
                case ssl.SSLError():
                    return Unreachable(f"{self.server} does not speak TLS.", "Is it https there?")
                case gaierror():
                    return Unreachable(f"There is no host {self.server}.", "Check the URL.")
        return Unreachable(f"Nothing answers at {self.server}.", "Is the server running?")


def _context_full(body: object, said: str) -> ContextFull:
    hint = "Shorten the conversation, or ask for fewer tokens."
    numbers = context_tokens(body)
    if numbers is None:
        return ContextFull(said or "The prompt does not fit the model's context.", hint)
    asked, context = numbers
    return ContextFull(f"The request needs {asked} tokens; the context holds {context}.", hint)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
