"""OpenAI-compatible chat completions, streamed.

The `openai` package keeps what it is good at: addresses, authentication, connections,
typed errors. What it is slow at, one validated object a token, is left out: the body is
read as bytes and decoded by us (`llmctl.backends.chat_stream`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from llmctl.backends.chat_body import NOTHING, Beginning, beginning, chat_body
from llmctl.backends.chat_reply import ReplyReader
from llmctl.backends.chat_stream import ChatStream
from llmctl.backends.completion_body import completion_body
from llmctl.backends.seam import Seam
from llmctl.backends.server import ServerBackEnd
from llmctl.backends.token_prompt import check_options, spelling
from llmctl.conversation import Prefix, Request
from llmctl.errors import StrategyUnavailable
from llmctl.events import Guarantee, Strategy
from llmctl.images import digests_in
from llmctl.profiles import TokenCounts

if TYPE_CHECKING:
    import httpx2

    from llmctl.backends.openai_client import OpenAiClient


_NEWER_BOUND = "max_completion_tokens"


class ChatBackEnd(ServerBackEnd):
    """A server that speaks chat completions; see `ServerBackEnd`."""

    api = "chat"

    def _supported(self) -> Mapping[Strategy, Guarantee]:
        profile = self._profile
        tells_ids = profile.token_prompts and profile.token_counts is TokenCounts.IDS
        tokens = {Strategy.TOKENS: Guarantee.TOKEN} if tells_ids else {}
        prefix = {} if profile.prefix is None else {Strategy.PREFIX: Guarantee.TEXT}
        return {**tokens, **prefix, Strategy.INSTRUCT: Guarantee.BEST_EFFORT}

    async def _answer(
        self,
        client: OpenAiClient,
        request: Request,
        again: Mapping[str, Any],
        after: Prefix | None,
        by: Strategy | None,
    ) -> ChatStream:
        if by is Strategy.TOKENS:
            return await self._behind_ids(client, request, again, after)
        return await self._behind_text(client, request, self._beginning(after, by))

    async def _behind_text(
        self, client: OpenAiClient, request: Request, sent: Beginning
    ) -> ChatStream:
        response = await self._insist(lambda: self._post(client, request, sent))
        expects_ids = Strategy.TOKENS in self.supports and not sent
        seams = self._seams(sent)
        counter = self._counter(request)
        if sent.within_reasoning:
            counter.reasoning()
        reader = ReplyReader(counter)
        return ChatStream(response, client, reader, seams, expects_ids=expects_ids)

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
        if any(digests_in(message.content) for message in request.messages):
            raise StrategyUnavailable("The tokens of a prompt with an image are not all of it.")
        known = await spelling(client, request.model, after or Prefix(""))
        prompt = (*told["prompt_ids"], *known)
        body = completion_body(self._profile, request, prompt, usage=self._usage)
        response = await client.post("completions", body)
        reader = ReplyReader(self._counter(request))
        return ChatStream(response, client, reader, [], expects_ids=True, prompt=prompt)

    def _beginning(self, after: Prefix | None, by: Strategy | None) -> Beginning:
        """Return the beginning of the reply to send."""
        if by is None or by is Strategy.REPLAY:
            return NOTHING
        if by is not Strategy.PREFIX or self._profile.prefix is None:
            raise StrategyUnavailable(f"{self.name} is not known to go on by {by}.")
        return beginning(self._profile, after or Prefix(""))

    def _leave_out(self, refusal: str) -> bool:
        """Bound the reply by the newer field where a server asks for that by name."""
        if _NEWER_BOUND in refusal and self._profile.max_tokens_field != _NEWER_BOUND:
            self._profile = replace(self._profile, max_tokens_field=_NEWER_BOUND)
            return True
        return super()._leave_out(refusal)

    async def _post(
        self, client: OpenAiClient, request: Request, sent: Beginning
    ) -> httpx2.Response:
        body = chat_body(self._profile, request, usage=self._usage, after=sent, images=self._images)
        base_url = self._profile.prefix_base_url if sent else None
        return await client.post("chat/completions", body, base_url=base_url)

    def _seams(self, sent: Beginning) -> list[Seam]:
        echo = Seam(sent.text if self._profile.prefix_echoed else "", required=False)
        blanks = Seam(sent.blanks, required=True, channel=sent.channel)
        return [seam for seam in (echo, blanks) if seam.open]
