"""A client that is made when it is first wanted."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

import anyio
from anyio import to_thread

from llmctl.backends.chat_stream import CLOSE_S
from llmctl.profiles import Profile

if TYPE_CHECKING:
    from llmctl.backends.openai_client import OpenAiClient


class Client(Protocol):
    """What holds connections."""

    async def aclose(self) -> None:
        """Close them."""


ClientT = TypeVar("ClientT", bound=Client)


class Late(Generic[ClientT]):
    """A client, made in a thread, so that keys keep working: `import openai` takes half a second.

    Attributes:
        made: the client, None as long as nobody wanted it.

    Args:
        make: makes it; blocks.
    """

    def __init__(self, make: Callable[[], ClientT]) -> None:
        self.made: ClientT | None = None
        self._make = make
        self._making = anyio.Lock()

    async def get(self) -> ClientT:
        """Return the client.

        Raises:
            LlmctlError: the address, the key or the proxy settings can't be used.
        """
        if self.made is None:
            async with self._making:
                if self.made is None:
                    self.made = await to_thread.run_sync(self._make)
        return self.made

    async def aclose(self) -> None:
        """Close what connections are still open."""
        if self.made is not None:
            with anyio.move_on_after(CLOSE_S, shield=True):
                await self.made.aclose()


def openai_client(
    profile: Profile, key: str | None, connect_timeout_s: float | None
) -> Late[OpenAiClient]:
    """Return the client of a server."""
    return Late(partial(new_client, profile, key, connect_timeout_s))


def new_client(
    profile: Profile,
    key: str | None,
    connect_timeout_s: float | None,
    *,
    keeps_connections: bool = True,
) -> OpenAiClient:
    """Make a client; slow, as long as `openai` has not been imported.

    Raises:
        LlmctlError: the address, the key or the proxy settings can't be used.
    """
    from llmctl.backends.openai_client import OpenAiClient  # noqa: PLC0415  (takes 0.5 s)

    return OpenAiClient(
        profile, key, connect_timeout_s=connect_timeout_s, keeps_connections=keeps_connections
    )
