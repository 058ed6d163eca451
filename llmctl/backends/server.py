"""What back ends of OpenAI's protocols share: the client, and one way to open a reply.

Retries and time limits are the session's business; only the time to connect is ours.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from llmctl.backends.chat_body import COUNTING_FIELDS
from llmctl.backends.late import openai_client
from llmctl.backends.token_counts import TokenCounter
from llmctl.conversation import Prefix, Request
from llmctl.errors import Refused
from llmctl.events import Guarantee, Strategy
from llmctl.images import Images
from llmctl.ports import Stream
from llmctl.profiles import Profile, TokenCounts

if TYPE_CHECKING:
    import httpx2

    from llmctl.backends.openai_client import OpenAiClient

CONNECT_TIMEOUT_S = 10.0
"""How long a connection may take to come about, unless told otherwise."""


class ServerStream(Stream, Protocol):
    """A reply that a server was asked for."""

    async def begin(self) -> None:
        """See that it is one, and begins where it has to.

        Raises:
            StrategyUnavailable: it begins elsewhere.
            LlmctlError: it is none, or failed before that could be seen.
        """

    async def aclose(self) -> None:
        """Let go of it."""


class ServerBackEnd(ABC):
    """A server that speaks one of OpenAI's protocols.

    Attributes:
        name: the profile's name.
        api: the protocol.
        supports: the strategies known to work there, with the best each can earn. A
            replay is possible but not among them: it pays for the known part again, and
            a server tells nothing about itself that could make it `exact`.
        accepts_seed: a seed is known not to be refused.
        pays_twice: a replay is billed, or at least waited for.

    Args:
        profile: what is known about the server.
        key: the API key; None sends none.
        connect_timeout_s: how long a connection may take to come about, in seconds; None
            for ever.
        images: those that messages may name.
    """

    api: ClassVar[str]
    pays_twice = True

    def __init__(
        self,
        profile: Profile,
        *,
        key: str | None = None,
        connect_timeout_s: float | None = CONNECT_TIMEOUT_S,
        images: Images | None = None,
    ) -> None:
        self.name = profile.name
        self.accepts_seed = profile.accepts_seed
        self._profile = profile
        self._images = images or Images()
        self.supports = self._supported()
        self._usage = profile.usage_in_stream
        self._client = openai_client(profile, key, connect_timeout_s)

    async def ready(self) -> None:
        """Load and set up the client, so that the first request need not wait for it.

        Raises:
            LlmctlError: the address, the key or the proxy settings can't be used.
        """
        await self._client.get()

    @asynccontextmanager
    async def open(
        self,
        request: Request,
        *,
        again: Mapping[str, Any] | None = None,
        after: Prefix | None = None,
        by: Strategy | None = None,
        saved: Mapping[str, Any] | None = None,  # noqa: ARG002  (no state is kept for us)
    ) -> AsyncGenerator[ServerStream]:
        """Send a request; leaving closes the connection, which ends the generation.

        Args:
            request: what to ask.
            again: what the reply's stream told when it began.
            after: what the reply has already.
            by: None for a fresh reply, `Strategy.REPLAY` for the same request once more, or
                one of those supported for what follows ``after``.
            saved: not used; the port has it.

        Raises:
            StrategyUnavailable: the server is not known to go on this way, or did not.
            LlmctlError: the request was not accepted; see `llmctl.errors`.
        """
        stream = await self._answer(await self._client.get(), request, again or {}, after, by)
        try:
            await stream.begin()
            yield stream
        finally:
            await stream.aclose()

    def discard(self, conditions: Mapping[str, Any]) -> None:  # noqa: B027  (not to be overridden)
        """Do nothing: a server keeps nothing for us."""

    async def aclose(self) -> None:
        """Close what connections are still open."""
        await self._client.aclose()

    @abstractmethod
    def _supported(self) -> Mapping[Strategy, Guarantee]:
        """Return how replies are gone on with, as far as the profile knows."""

    @abstractmethod
    async def _answer(
        self,
        client: OpenAiClient,
        request: Request,
        again: Mapping[str, Any],
        after: Prefix | None,
        by: Strategy | None,
    ) -> ServerStream:
        """Ask for a reply, or for what follows ``after``; see `open`."""

    async def _insist(self, ask: Callable[[], Awaitable[httpx2.Response]]) -> httpx2.Response:
        """Ask; what was refused and nobody chose is left out from then on."""
        while True:
            try:
                return await ask()
            except Refused as refusal:
                if not self._leave_out(refusal.message):
                    raise

    def _leave_out(self, refusal: str) -> bool:
        """Stop asking for a way of counting that a refusal names; say whether it names one."""
        counts = self._profile.token_counts
        if counts is not None and COUNTING_FIELDS[counts] in refusal:
            self._profile = replace(self._profile, token_counts=None)
            self.supports = self._supported()
        elif self._usage and names_usage(refusal):
            self._usage = False
        else:
            return False
        return True

    def _counter(self, request: Request) -> TokenCounter:
        return TokenCounter(
            trusts_usage=self._profile.token_counts is TokenCounts.USAGE,
            in_step=not request.options.stop,
        )


def names_usage(refusal: str) -> bool:
    """Say whether a request was refused because it asked for the usage."""
    return "stream_options" in refusal or "include_usage" in refusal
