"""The `openai` package's client, as far as we use it: streamed POSTs, GETs of facts.

Importing this module imports `openai`; do it late. What the client would do of itself
and nobody asked for is turned off: retries, time limits, redirects (they would carry
prompt and key elsewhere), headers about this machine, and another service's organisation.
"""

from __future__ import annotations

import ssl
from collections.abc import Awaitable, Callable, Iterable, Mapping
from functools import partial
from typing import Any
from urllib.parse import urljoin

import httpx2
import openai

from llmctl.backends.openai_errors import BROKEN_STREAM, Explainer
from llmctl.errors import Refused, UsageError
from llmctl.keys import can_be_key
from llmctl.profiles import Profile, is_on_this_machine

_WANTED = {"accept", "content-type"}
_ADDED_LATE = ("X-Stainless-Read-Timeout", "X-Stainless-Retry-Count")
"""Headers the package adds to a request behind its default ones."""
_NO_KEY = "none"
"""The package wants some key; without one its header is left out."""


class OpenAiClient:
    """Posts to one server.

    Attributes:
        explain: turns what fails here into our errors.
        broken_stream: what reading a body may raise.

    Args:
        profile: where the server is.
        key: the API key; None sends none.
        connect_timeout_s: how long a connection may take to come about, in seconds.
        keeps_connections: use a connection for more than one request; llama-server now and
            then hangs up on the one behind a stream.

    Raises:
        Refused: the key can't be a key.
        UsageError: the address or the proxy settings of the environment can't be used.
    """

    broken_stream = BROKEN_STREAM

    def __init__(
        self,
        profile: Profile,
        key: str | None,
        *,
        connect_timeout_s: float | None = None,
        keeps_connections: bool = True,
    ) -> None:
        _check_key(key)
        self._base_url = profile.base_url
        try:
            self.explain = Explainer(profile.base_url, key)
            self._client = openai.AsyncOpenAI(
                api_key=key or _NO_KEY,
                base_url=profile.base_url,
                max_retries=0,
                timeout=httpx2.Timeout(None, connect=connect_timeout_s),
                http_client=_http_client(profile.base_url, None if keeps_connections else 0),
            )
        except (ImportError, ValueError, httpx2.InvalidURL) as error:
            message = f"The address or the proxy settings can't be used: {error}"
            raise UsageError(message, "Check base_url, HTTPS_PROXY and NO_PROXY.") from error
        self._headers = _headers(profile, key, self._client.default_headers)

    @property
    def headers(self) -> dict[str, str]:
        """What every request carries, the key included."""
        both = {**self._client.default_headers, **self._headers}
        told = {name.title(): value for name, value in both.items() if isinstance(value, str)}
        return {name: value for name, value in told.items() if name not in _omitted(both)}

    async def post(
        self,
        path: str,
        body: Mapping[str, Any],
        *,
        base_url: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> httpx2.Response:
        """Send a body and return the answer, its own body still to be read.

        Args:
            path: behind the address.
            body: a JSON object.
            base_url: another address of the same server.
            headers: besides those that every request has.

        Raises:
            LlmctlError: it was not accepted.
        """
        url = urljoin((base_url or self._base_url).rstrip("/") + "/", path)
        return await self._streamed(partial(self._client.post, body=body), url, headers or {})

    async def read(self, path: str) -> httpx2.Response:
        """Return the answer of an address, its body still to be read; otherwise as `get`.

        Raises:
            LlmctlError: it was not given out.
        """
        url = urljoin(self._base_url.rstrip("/") + "/", path)
        return await self._streamed(self._client.get, url, {})

    async def _streamed(
        self,
        send: Callable[..., Awaitable[openai.AsyncStream[object]]],
        url: str,
        headers: Mapping[str, str],
    ) -> httpx2.Response:
        try:
            stream = await send(
                url,
                cast_to=object,
                options={"headers": {**self._headers, **headers}},
                stream=True,
                stream_cls=openai.AsyncStream[object],
            )
        except (openai.APIError, *BROKEN_STREAM) as error:  # a refusal may break off, too
            raise self.explain.error(error) from self.explain.cause(error)
        return stream.response

    async def get(self, path: str) -> object:
        """Return the JSON at an address of the server; None if it is none.

        Args:
            path: behind the address, or below its host if it begins with a slash.

        Raises:
            LlmctlError: it was not given out.
        """
        return await self._json(self._client.get, path)

    async def ask(self, path: str, body: Mapping[str, Any]) -> object:
        """Return the JSON that answers a body; otherwise as `get`.

        Raises:
            LlmctlError: it was not accepted.
        """
        return await self._json(partial(self._client.post, body=body), path)

    async def delete(self, path: str) -> None:
        """Delete what is at an address; otherwise as `get`.

        Raises:
            LlmctlError: it was not accepted.
        """
        await self._json(self._client.delete, path)

    async def _json(self, send: Callable[..., Awaitable[httpx2.Response]], path: str) -> object:
        try:
            answer = await send(
                urljoin(self._base_url.rstrip("/") + "/", path),
                cast_to=httpx2.Response,
                options={"headers": self._headers},
            )
            return answer.json()
        except (openai.APIError, *BROKEN_STREAM) as error:
            raise self.explain.error(error) from self.explain.cause(error)
        except ValueError:
            return None

    async def aclose(self) -> None:
        """Close all connections."""
        await self._client.close()


def _http_client(base_url: str, kept: int | None) -> httpx2.AsyncClient:
    """Return a client without time limits, without redirects, and of any width.

    So many connections are kept for the next request; None for no bound.

    The environment's authorities count, and its proxies except on this machine. A plain
    address gets a TLS context that trusts nobody: loading the real one takes 30 ms.
    """
    here = is_on_this_machine(base_url)
    bare = base_url.startswith("http://") and here
    return openai.DefaultAsyncHttpxClient(
        timeout=None,
        follow_redirects=False,
        limits=httpx2.Limits(max_connections=None, max_keepalive_connections=kept),
        trust_env=not here,
        verify=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT) if bare else httpx2.create_ssl_context(),
    )


def _headers(
    profile: Profile, key: str | None, defaults: Iterable[str]
) -> dict[str, str | openai.Omit]:
    """Return our headers, and leave out what the package and its environment would add.

    ``OPENAI_ORG_ID``, ``OPENAI_PROJECT_ID`` and ``OPENAI_CUSTOM_HEADERS`` are for OpenAI only.
    """
    ours = {name for name in defaults if not name.lower().startswith("x-stainless-")}
    kept = ours if profile.name == "openai" else set()
    dropped = [n for n in (*defaults, *_ADDED_LATE) if n.lower() not in _WANTED and n not in kept]
    return {
        **{name: openai.Omit() for name in dropped},
        "User-Agent": "llmctl",
        "Authorization": openai.Omit() if key is None else f"Bearer {key}",
    }


def _omitted(headers: Mapping[str, object]) -> set[str]:
    return {name.title() for name, value in headers.items() if isinstance(value, openai.Omit)}


def _check_key(key: str | None) -> None:
    """Refuse a key that no header can carry, before some library quotes it in an error."""
    if key is not None and not can_be_key(key):
        raise Refused(
            "The API key is empty or has characters that a key can't have.",
            "Store it again with: llmctl keys set.",
        )
