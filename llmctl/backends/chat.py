"""OpenAI-compatible chat completions, streamed.

The `openai` package keeps what it is good at: addresses, authentication, connections,
typed errors. What it is slow at, one validated object a token, is left out: the body is
read as bytes and decoded by us (`llmctl.backends.chat_stream`).

Retries and time limits are the session's business; only the time to connect is ours.
Nothing is imported before the client is wanted (``import openai`` takes half a second),
and then in a thread, so that keys keep working meanwhile.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import anyio
from anyio import to_thread

from llmctl.backends.chat_body import COUNTING_FIELDS, chat_body
from llmctl.backends.chat_reply import ReplyReader
from llmctl.backends.chat_stream import CLOSE_S, ChatStream
from llmctl.backends.seam import Seam
from llmctl.backends.token_counts import TokenCounter
from llmctl.backends.token_prompt import check_options, completion_body, spelling
from llmctl.conversation import Prefix, Request
from llmctl.errors import Refused, StrategyUnavailable
from llmctl.events import Guarantee, Strategy
from llmctl.profiles import Profile, TokenCounts

if TYPE_CHECKING:
    import httpx2

    from llmctl.backends.openai_client import OpenAiClient

CONNECT_TIMEOUT_S = 10.0
"""How long a connection may take to come about, unless told otherwise."""


class ChatBackEnd:
    """A server that speaks chat completions.

    Attributes:
        name: the profile's name.
        api: "chat".
        supports: the strategies known to work there, with the best each can earn. A
            replay is possible but not among them: it pays for the known part again, and
            a server tells nothing about itself that could make it `exact`.
        accepts_seed: a seed is known not to be refused.

    Args:
        profile: what is known about the server.
        key: the API key; None sends none.
        connect_timeout_s: how long a connection may take to come about, in seconds; None
            for ever.
    """

    api = "chat"

    def __init__(
        self,
        profile: Profile,
        *,
        key: str | None = None,
        connect_timeout_s: float | None = CONNECT_TIMEOUT_S,
    ) -> None:
        self.name = profile.name
        self.accepts_seed = profile.accepts_seed
        self.supports = _supported(profile)
        self._profile = profile
        self._key = key
        self._connect_timeout_s = connect_timeout_s
        self._usage = profile.usage_in_stream
        self._made: OpenAiClient | None = None
        self._making = anyio.Lock()

    async def ready(self) -> None:
        """Load and set up the client, so that the first request need not wait for it.

        Raises:
            LlmctlError: the address, the key or the proxy settings can't be used.
        """
        await self._client()

    @asynccontextmanager
    async def open(
        self,
        request: Request,
        *,
        again: Mapping[str, Any] | None = None,
        after: Prefix | None = None,
        by: Strategy | None = None,
        saved: Mapping[str, Any] | None = None,  # noqa: ARG002  (nor does it keep anything)
    ) -> AsyncGenerator[ChatStream]:
        """Send a request; leaving closes the connection, which ends the generation.

        Args:
            request: what to ask.
            again: what the reply's stream told, for `Strategy.TOKENS`.
            after: what the reply has already.
            by: None for a fresh reply, `Strategy.REPLAY` for the same request once more,
                `Strategy.PREFIX` or `Strategy.TOKENS` for what follows ``after``.
            saved: not used; the port has it.

        Raises:
            StrategyUnavailable: the server is not known to go on this way, or did not.
            LlmctlError: the request was not accepted; see `llmctl.errors`.
        """
        client = await self._client()
        if by is Strategy.TOKENS:
            stream = await self._behind_ids(client, request, again or {}, after)
        else:
            stream = await self._behind_text(client, request, *self._split(after, by))
        try:
            await stream.begin()
            yield stream
        finally:
            await stream.aclose()

    def discard(self, conditions: Mapping[str, Any]) -> None:
        """Do nothing: a server keeps nothing for us."""

    async def aclose(self) -> None:
        """Close what connections are still open."""
        if self._made is not None:
            with anyio.move_on_after(CLOSE_S, shield=True):
                await self._made.aclose()

    async def _client(self) -> OpenAiClient:
        async with self._making:
            if self._made is None:
                self._made = await to_thread.run_sync(
                    new_client, self._profile, self._key, self._connect_timeout_s
                )
        return self._made

    async def _behind_text(
        self, client: OpenAiClient, request: Request, sent: str, blanks: str
    ) -> ChatStream:
        response = await self._ask(client, request, sent)
        expects_ids = self._profile.token_prompts and not sent
        seams = self._seams(sent, blanks)
        return ChatStream(response, client, self._reader(request), seams, expects_ids=expects_ids)

    async def _behind_ids(
        self,
        client: OpenAiClient,
        request: Request,
        told: Mapping[str, Any],
        after: Prefix | None,
    ) -> ChatStream:
        if Strategy.TOKENS not in self.supports or not told.get("prompt_ids"):
            raise StrategyUnavailable(f"{self.name} has not told the tokens of the prompt.")
        check_options(request.options)
        known = await spelling(client, request.model, after or Prefix(""))
        prompt = (*told["prompt_ids"], *known)
        body = completion_body(self._profile, request, prompt)
        response = await client.post("completions", body)
        reader = self._reader(request)
        return ChatStream(response, client, reader, [], expects_ids=True, prompt=prompt)

    def _split(self, after: Prefix | None, by: Strategy | None) -> tuple[str, str]:
        """Return the beginning of the reply to send, and the blanks that were cut off it."""
        if by is None or by is Strategy.REPLAY:
            return "", ""
        if by is not Strategy.PREFIX or self._profile.prefix is None:
            raise StrategyUnavailable(f"{self.name} is not known to go on by {by}.")
        if after is None or not after.text:
            raise StrategyUnavailable("There is no text yet to go on behind.")
        sent = after.text if self._profile.prefix_keeps_blanks else after.text.rstrip()
        return sent, after.text[len(sent) :]

    async def _ask(self, client: OpenAiClient, request: Request, sent: str) -> httpx2.Response:
        """Post the request; what was refused and nobody chose is left out from then on."""
        while True:
            try:
                return await self._post(client, request, sent)
            except Refused as refusal:
                if not self._leave_out(refusal.message):
                    raise

    def _leave_out(self, refusal: str) -> bool:
        """Stop asking for a way of counting that a refusal names; say whether it names one."""
        counts = self._profile.token_counts
        if counts is not None and COUNTING_FIELDS[counts] in refusal:
            self._profile = replace(self._profile, token_counts=None)
            self.supports = _supported(self._profile)
        elif self._usage and _names_usage(refusal):
            self._usage = False
        else:
            return False
        return True

    async def _post(self, client: OpenAiClient, request: Request, sent: str) -> httpx2.Response:
        body = chat_body(self._profile, request, usage=self._usage, after=sent)
        base_url = self._profile.prefix_base_url if sent else None
        return await client.post("chat/completions", body, base_url=base_url)

    def _reader(self, request: Request) -> ReplyReader:
        return ReplyReader(
            TokenCounter(
                trusts_usage=self._profile.token_counts is TokenCounts.USAGE,
                in_step=not request.options.stop,
            )
        )

    def _seams(self, sent: str, blanks: str) -> list[Seam]:
        echo = Seam(sent if self._profile.prefix_echoed else "", required=False)
        return [seam for seam in (echo, Seam(blanks, required=True)) if seam.open]


def new_client(profile: Profile, key: str | None, connect_timeout_s: float | None) -> OpenAiClient:
    """Make a client; slow, as long as `openai` has not been imported.

    Raises:
        LlmctlError: the address, the key or the proxy settings can't be used.
    """
    from llmctl.backends.openai_client import OpenAiClient  # noqa: PLC0415  (takes 0.5 s)

    return OpenAiClient(profile, key, connect_timeout_s=connect_timeout_s)


def _supported(profile: Profile) -> Mapping[Strategy, Guarantee]:
    tells_ids = profile.token_prompts and profile.token_counts is TokenCounts.IDS
    tokens = {Strategy.TOKENS: Guarantee.TOKEN} if tells_ids else {}
    prefix = {} if profile.prefix is None else {Strategy.PREFIX: Guarantee.TEXT}
    return {**tokens, **prefix, Strategy.INSTRUCT: Guarantee.BEST_EFFORT}


def _names_usage(refusal: str) -> bool:
    return "stream_options" in refusal or "include_usage" in refusal
