"""What commands need of the chat."""

from __future__ import annotations

from typing import Protocol

from llmctl.chat.history import History
from llmctl.chat.keyboard import Draft
from llmctl.chat.setup import Setup
from llmctl.config import Config
from llmctl.environment import Environment
from llmctl.errors import LlmctlError
from llmctl.events import Finished, Guarantee
from llmctl.prices import Cost
from llmctl.profiles import Selection


class ChatPort(Protocol):
    """What commands need of the chat."""

    setup: Setup
    history: History
    draft: Draft
    env: Environment
    config: Config
    leaving: int | None
    last: Finished | None
    stopped_at: float | None
    spent: Cost | None
    plain: bool

    def say(self, text: str) -> None:
        """Show lines of talk."""

    def complain(self, error: LlmctlError) -> None:
        """Show an error."""

    def clear(self) -> None:
        """Clear the screen."""

    def go_plain(self) -> bool:
        """Switch plain output on or off; say whether it is on."""

    async def send(self, prompt: str) -> None:
        """Ask for a reply."""

    async def resume(self, require: Guarantee | None = None) -> None:
        """Go on with the unfinished reply."""

    async def edit(self) -> None:
        """Let the person edit the unfinished reply, and go on from that."""

    def write(self, sequence: str) -> None:
        """Send the terminal a sequence of our own."""

    async def use(self, selection: Selection) -> None:
        """Talk to another model from now on."""


class OnChat:
    """Commands of one chat.

    Args:
        chat: what they act on.
    """

    def __init__(self, chat: ChatPort) -> None:
        self._chat = chat
