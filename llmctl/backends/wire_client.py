"""Posts to one server over the fast wire; what it can't do, the general client does.

The `openai` package stays the owner of headers, authentication and addresses, and our
`Explainer` of what failures mean; only the bytes take another way.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin, urlsplit
from urllib.request import getproxies, proxy_bypass

import httpx2

from llmctl.backends.openai_client import OpenAiClient
from llmctl.backends.openai_errors import BROKEN_STREAM
from llmctl.backends.wire import Gate, Wire, WireBroken, WireResponse
from llmctl.profiles import Profile, is_on_this_machine

if TYPE_CHECKING:
    Response = httpx2.Response | WireResponse

_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


class WireClient:
    """Fits where `OpenAiClient` does for streamed replies.

    Attributes:
        explain: turns what fails here into our errors.
        broken_stream: what reading a body may raise.

    Args:
        profile: where the server is.
        key: the API key; None sends none.
        connect_timeout_s: how long a connection may take to come about, in seconds.
        gate: awaited just before a request is written.

    Raises:
        Refused: the key can't be a key.
        UsageError: the address or the proxy settings of the environment can't be used.
    """

    broken_stream = (*BROKEN_STREAM, WireBroken)

    def __init__(
        self, profile: Profile, key: str | None, *, connect_timeout_s: float | None, gate: Gate
    ) -> None:
        self._gate = gate
        self._general = OpenAiClient(profile, key, connect_timeout_s=connect_timeout_s)
        self.explain = self._general.explain
        self._base_url = profile.base_url
        self._headers = {**self._general.headers, "Accept-Encoding": "identity"}
        self._wire = Wire(profile.base_url, connect_timeout_s=connect_timeout_s, gate=gate)
        self._direct = not _goes_through_proxy(profile.base_url)

    async def post(
        self, path: str, body: Mapping[str, Any], *, base_url: str | None = None
    ) -> Response:
        """Send a body and return the answer; see `OpenAiClient.post`."""
        url = urljoin((base_url or self._base_url).rstrip("/") + "/", path)
        if not self._direct or not self._wire.serves(url):
            await self._gate()
            return await self._general.post(path, body, base_url=base_url)
        data = _encode(body).encode("utf-8", "replace")
        try:
            response = await self._wire.post(url, self._headers, data)
        except TimeoutError as error:
            raise self.explain.error(httpx2.ConnectTimeout("")) from error
        except OSError as error:
            raise self.explain.error(_no_connection(error)) from error
        except WireBroken as error:
            raise self.explain.lost() from error
        if response.status_code // 100 != 2:  # noqa: PLR2004  (success)
            await self._refuse(response)
        return response

    async def read(self, path: str) -> httpx2.Response:
        """Return an answer whose body is still to be read; see `OpenAiClient.read`."""
        await self._gate()
        return await self._general.read(path)

    async def get(self, path: str) -> object:
        """Return the JSON at an address; see `OpenAiClient.get`."""
        await self._gate()
        return await self._general.get(path)

    async def ask(self, path: str, body: Mapping[str, Any]) -> object:
        """Return the JSON that answers a body; see `OpenAiClient.ask`."""
        await self._gate()
        return await self._general.ask(path, body)

    async def aclose(self) -> None:
        """Close all connections."""
        await self._wire.aclose()
        await self._general.aclose()

    async def _refuse(self, response: WireResponse) -> None:
        """Raise what an answer other than a success means."""
        try:
            text = (await response.aread()).decode("utf-8", "replace")
        except WireBroken as error:
            raise self.explain.lost() from error
        finally:
            await response.aclose()
        raise self.explain.status(response.status_code, _error_in(text), response.headers)


def _error_in(text: str) -> object:
    """Return the error that an answer's JSON holds, or its text."""
    try:
        body = json.loads(text)
    except ValueError:
        return text
    return body.get("error", body) if isinstance(body, dict) else body


def _no_connection(error: OSError) -> httpx2.ConnectError:
    found = httpx2.ConnectError(str(error))
    found.__cause__ = error
    return found


def _goes_through_proxy(base_url: str) -> bool:
    """Say whether the environment wants a proxy between us and an address."""
    parts = urlsplit(base_url)
    if is_on_this_machine(base_url) or proxy_bypass(parts.hostname or ""):
        return False
    return not {parts.scheme, "all"}.isdisjoint(getproxies())
