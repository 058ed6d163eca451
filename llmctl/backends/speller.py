"""What llama.cpp's server knows of a model's words: its template and its tokenizer."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from llmctl.backends.engine_request import Prompt, messages
from llmctl.conversation import Request

Ask = Callable[[str, Mapping[str, Any]], Awaitable[Any]]


class Speller:
    """Asks a server how it renders, cuts and spells.

    Args:
        ask: posts a body to one of the server's addresses and returns the JSON answer.
    """

    def __init__(self, ask: Ask) -> None:
        self._ask = ask

    async def prompt(self, request: Request) -> Prompt:
        """Return a conversation as the model's template renders it, and its tokens."""
        body = {**request.options.extra, "messages": messages(request)}
        text = (await self._ask("/apply-template", body))["prompt"]
        return Prompt(text, await self.ids(text, special=True))

    async def ids(self, text: str, *, special: bool = False) -> tuple[int, ...]:
        """Return the tokens of a text; ``special`` reads it as a prompt."""
        body = {"content": text, "add_special": special, "parse_special": special}
        return tuple((await self._ask("/tokenize", body))["tokens"])

    async def text(self, ids: tuple[int, ...]) -> str:
        """Return what tokens spell."""
        return str((await self._ask("/detokenize", {"tokens": ids}))["content"])
