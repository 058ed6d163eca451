"""A chat server of which it may still have to be found out how it goes on with a reply.

What was remembered of the server is believed as long as it says that it is the same one.
On this machine, where nobody pays for a few tokens, a probe is made by itself as soon as a
reply has to be gone on with and nothing is known; elsewhere only a person orders one.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any

from llmctl.backends.chat import ChatBackEnd
from llmctl.backends.probe import connected, identify, probe
from llmctl.backends.server import ServerStream
from llmctl.capabilities import Capabilities, Memory
from llmctl.conversation import Prefix, Request
from llmctl.errors import StrategyUnavailable
from llmctl.events import Guarantee, Strategy
from llmctl.images import Images
from llmctl.profiles import Profile, is_on_this_machine


class LearningBackEnd:
    """A chat back end that learns what its server can do; satisfies `llmctl.ports.BackEnd`.

    Attributes:
        name: the profile's name.
        api: "chat".

    Args:
        profile: what is known about the server beforehand.
        model: its name there.
        memory: what was found out about servers.
        key: the API key; None sends none.
        connect_timeout_s: how long a connection may take to come about, in seconds.
        images: those that messages may name.
    """

    api = "chat"
    pays_twice = True

    def __init__(  # noqa: PLR0913  (what a chat back end takes, and what it learns with)
        self,
        profile: Profile,
        model: str,
        memory: Memory,
        *,
        key: str | None,
        connect_timeout_s: float | None,
        images: Images | None = None,
    ) -> None:
        self.name = profile.name
        self._profile = profile
        self._model = model
        self._memory = memory
        self._key = key
        self._connect_timeout_s = connect_timeout_s
        self._images = images
        self._known = memory.recall(profile.base_url, model)
        self._sure = self._known is None and profile.prefix is not None
        self._back_end = self._made()

    @property
    def supports(self) -> Mapping[Strategy, Guarantee]:
        """The strategies known to work there; on this machine also what a probe may find."""
        supports = self._back_end.supports
        if self._known is None and not self._sure and is_on_this_machine(self._profile.base_url):
            return {Strategy.PREFIX: Guarantee.TEXT, **supports}
        return supports

    @property
    def accepts_seed(self) -> bool:
        """Whether a seed is known not to be refused."""
        return self._back_end.accepts_seed

    async def ready(self) -> None:
        """Load and set up the client.

        Raises:
            LlmctlError: the address, the key or the proxy settings can't be used.
        """
        await self._back_end.ready()

    @asynccontextmanager
    async def open(
        self,
        request: Request,
        *,
        again: Mapping[str, Any] | None = None,
        after: Prefix | None = None,
        by: Strategy | None = None,
        saved: Mapping[str, Any] | None = None,
    ) -> AsyncIterator[ServerStream]:
        """Send a request, as `ChatBackEnd.open`; find out first whether a prefix will do.

        Raises:
            StrategyUnavailable: it will not, or nobody can say.
            LlmctlError: the request was not accepted, or the server can't be asked.
        """
        if by is Strategy.PREFIX and not self._sure:
            await self._learn()
        asked = self._back_end.open(request, again=again, after=after, by=by, saved=saved)
        async with asked as stream:
            yield stream

    def discard(self, conditions: Mapping[str, Any]) -> None:
        """Do nothing: a server keeps nothing for us."""

    async def aclose(self) -> None:
        """Close what connections are still open."""
        await self._back_end.aclose()

    async def _learn(self) -> None:
        """See that what is known still holds, or find out."""
        if self._known is None or not await self._is_the_same(self._known):
            self._known = await self._ask()
            await self._back_end.aclose()
            self._back_end = self._made()
        self._sure = True

    async def _is_the_same(self, known: Capabilities) -> bool:
        async with connected(self._profile, self._key, self._connect_timeout_s) as client:
            return await identify(client) == known.server

    async def _ask(self) -> Capabilities:
        if not is_on_this_machine(self._profile.base_url):
            raise StrategyUnavailable(
                f"{self.name} is not the server that was probed any more.",
                "Ask it again with 'llmctl models probe'.",
            )
        found = await probe(
            self._profile, self._model, key=self._key, connect_timeout_s=self._connect_timeout_s
        )
        with suppress(OSError):  # it can be found out again
            self._memory.remember(self._profile.base_url, self._model, found)
        return found

    def _made(self) -> ChatBackEnd:
        known = self._profile if self._known is None else self._known.applied_to(self._profile)
        return ChatBackEnd(
            known,
            key=self._key,
            connect_timeout_s=self._connect_timeout_s,
            images=self._images,
        )
