"""Find out what a completions server does, with at most three tiny replies.

The first is cut in two; behind its first half, as text and as ids, the second must come again.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from llmctl.backends.chat_body import COUNTING_FIELDS
from llmctl.backends.probe_answers import QUESTION, Answer, best_count, cut, outcome
from llmctl.backends.probe_reading import read_answer
from llmctl.backends.token_prompt import spelling
from llmctl.capabilities import Capabilities, Outcome, Server
from llmctl.errors import Denied, Refused, StrategyUnavailable
from llmctl.profiles import Api, TokenCounts

if TYPE_CHECKING:
    from llmctl.backends.openai_client import OpenAiClient

_TOKENS = 8
_HALF = 4
_SEED = 7
_FIELDS: dict[str, Any] = {
    COUNTING_FIELDS[TokenCounts.IDS]: True,
    COUNTING_FIELDS[TokenCounts.TIMINGS]: True,
    "stream_options": {"include_usage": True},
    "seed": _SEED,
}


@dataclass(slots=True)
class CompletionsProbe:
    """The replies asked of one server."""

    client: OpenAiClient
    model: str
    replies: int = 0
    asked: dict[str, Any] = field(default_factory=lambda: dict(_FIELDS))

    async def run(self) -> Capabilities:
        """Ask, and say what the replies show.

        Raises:
            LlmctlError: the server refuses even the plainest request.
        """
        first = await self._first()
        found = Capabilities(
            server=Server(),
            api=Api.COMPLETIONS,
            token_counts=best_count(first.told),
            accepts_seed="seed" in self.asked,
            usage_in_stream=first.prompt_tokens is not None,
        )
        parts = cut(first.deltas)
        if parts is not None:
            by_text = await self._goes_on(QUESTION + parts[0], *parts)
            by_ids = await self._goes_on_by_ids(first, *parts)
            found = replace(found, goes_on_by_text=by_text, token_prompts=by_ids)
        return replace(found, replies=self.replies)

    async def _first(self) -> Answer:
        """Return a first reply; what the server refuses by name is not asked for again."""
        while True:
            try:
                return await self._ask(QUESTION, _TOKENS)
            except Denied:
                raise
            except Refused as refusal:
                named = next((name for name in self.asked if name in refusal.message), None)
                if not self.asked:
                    raise
                self.asked = {k: v for k, v in self.asked.items() if named and k != named}

    async def _goes_on_by_ids(self, first: Answer, prefix: str, rest: str) -> bool:
        if first.prompt_ids is None:
            return False
        try:
            half = await spelling(self.client, self.model, first.beginning(prefix))
        except StrategyUnavailable:
            return False
        return await self._goes_on((*first.prompt_ids, *half), prefix, rest)

    async def _goes_on(self, prompt: str | tuple[int, ...], prefix: str, rest: str) -> bool:
        try:
            answer = await self._ask(prompt, _HALF)
        except (Refused, StrategyUnavailable):
            return False
        return outcome(prefix, rest, answer.text) is Outcome.CONTINUES

    async def _ask(self, prompt: str | tuple[int, ...], tokens: int) -> Answer:
        body = {
            "model": self.model,
            "prompt": prompt,
            "stream": True,
            "temperature": 0.0,
            "max_tokens": tokens,
            **self.asked,
        }
        response = await self.client.post("completions", body)
        ids = None if isinstance(prompt, str) else prompt
        answer = await read_answer(self.client, response, ids)
        self.replies += 1
        return answer
