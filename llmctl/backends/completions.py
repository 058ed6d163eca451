"""OpenAI-compatible completions, streamed: a text goes in, and what follows it comes out.

There is no template between the prompt and the model, so every such server goes on behind
the beginning of a reply: the prompt is then longer by it. Where the server tells token ids
(vLLM, SGLang), prompt and reply are sent as ids, and nothing is cut into tokens anew.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from llmctl.backends.chat_reply import ReplyReader
from llmctl.backends.chat_stream import ChatStream
from llmctl.backends.completion_body import completion_body, prompt_of
from llmctl.backends.server import ServerBackEnd
from llmctl.backends.token_prompt import spelling
from llmctl.conversation import Prefix, Request
from llmctl.errors import StrategyUnavailable
from llmctl.events import Guarantee, Strategy
from llmctl.profiles import Profile, TokenCounts

if TYPE_CHECKING:
    import httpx2

    from llmctl.backends.openai_client import OpenAiClient


class CompletionsBackEnd(ServerBackEnd):
    """A server that speaks completions; see `ServerBackEnd`."""

    api = "completions"

    def __init__(self, profile: Profile, **known: Any) -> None:  # noqa: ANN401  (as the base)
        if profile.token_prompts:
            profile = replace(profile, token_counts=TokenCounts.IDS)
        super().__init__(profile, **known)
        self._unbounded = True

    def _supported(self) -> Mapping[Strategy, Guarantee]:
        tells_ids = self._profile.token_counts is TokenCounts.IDS
        tokens = {Strategy.TOKENS: Guarantee.TOKEN} if tells_ids else {}
        return {**tokens, Strategy.PREFIX: Guarantee.TEXT}

    async def _answer(
        self,
        client: OpenAiClient,
        request: Request,
        again: Mapping[str, Any],
        after: Prefix | None,
        by: Strategy | None,
    ) -> ChatStream:
        prompt = await self._prompt(client, request, again, after, by)
        ids = None if isinstance(prompt, str) else prompt
        response = await self._insist(lambda: self._post(client, request, prompt))
        return ChatStream(
            response,
            client,
            ReplyReader(self._counter(request)),
            [],
            expects_ids=self._profile.token_counts is TokenCounts.IDS,
            prompt=ids,
        )

    async def _prompt(
        self,
        client: OpenAiClient,
        request: Request,
        again: Mapping[str, Any],
        after: Prefix | None,
        by: Strategy | None,
    ) -> str | tuple[int, ...]:
        """Return what the model is to go on behind."""
        known = after or Prefix("")
        match by:
            case None | Strategy.REPLAY:
                return prompt_of(request.messages)
            case Strategy.PREFIX if known.text:
                return prompt_of(request.messages) + known.text
            case Strategy.TOKENS if by in self.supports and again.get("prompt_ids"):
                return (*again["prompt_ids"], *await spelling(client, request.model, known))
        raise StrategyUnavailable(f"{self.name} is not known to go on here by {by}.")

    async def _post(
        self, client: OpenAiClient, request: Request, prompt: str | tuple[int, ...]
    ) -> httpx2.Response:
        body = completion_body(
            self._profile, request, prompt, usage=self._usage, unbounded=self._unbounded
        )
        return await client.post("completions", body)

    def _leave_out(self, refusal: str) -> bool:
        """Let the server bound the reply by itself where it knows no "without a bound"."""
        if self._unbounded and "max_tokens" in refusal:
            self._unbounded = False
            return True
        return super()._leave_out(refusal)
