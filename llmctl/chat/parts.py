"""What a chat is made of."""

from __future__ import annotations

from dataclasses import dataclass

from llmctl.chat.desk import Desk
from llmctl.chat.history import History
from llmctl.chat.keyboard import Draft
from llmctl.chat.models import Models
from llmctl.chat.replies import Replies
from llmctl.chat.setup import Setup
from llmctl.config import Config
from llmctl.environment import Environment


@dataclass(frozen=True, slots=True)
class Parts:
    """The loop and the slash commands act on these.

    Attributes:
        env: the process.
        config: the settings in force.
        setup: what the next reply is asked with.
        history: the conversation.
        draft: what the person types.
        desk: the terminal.
        models: the model in use.
        replies: the replies.
    """

    env: Environment
    config: Config
    setup: Setup
    history: History
    draft: Draft
    desk: Desk
    models: Models
    replies: Replies


class OnChat:
    """Commands of one chat.

    Args:
        chat: what they act on.
    """

    def __init__(self, chat: Parts) -> None:
        self._chat = chat
