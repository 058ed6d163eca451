"""Find out whether a server keeps a response in the background, with one or two tiny replies.

A server may take the field and ignore it, or say that it keeps the response and let go of it.
So one is begun, left as soon as it is known by name, and read on; what was read in both parts
has to be what the server then gives out as the whole.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import anyio

from llmctl.backends.probe_answers import QUESTION
from llmctl.backends.responses import ResponsesStream, whole_rest
from llmctl.backends.responses_reader import ResponsesReader, text_of
from llmctl.capabilities import Capabilities, Keeping, Server
from llmctl.conversation import Prefix
from llmctl.errors import Denied, Disconnected, Refused, StrategyUnavailable
from llmctl.profiles import Api

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llmctl.backends.openai_client import OpenAiClient
    from llmctl.events import Cursor

_TOKENS = 16
"""The shortest bound that OpenAI takes."""
_PATIENCE_S = 30.0
"""How long a tiny response may take to be done."""
_ENOUGH = 8
"""Characters that are read before a response is left."""
_BACKGROUND = {"background": True, "store": True}


@dataclass(slots=True)
class ResponsesProbe:
    """The replies asked of one server."""

    client: OpenAiClient
    model: str
    replies: int = 0
    asked: dict[str, Any] = field(default_factory=lambda: {"temperature": 0.0})

    async def run(self) -> Capabilities:
        """Ask, and say what the replies show.

        Raises:
            LlmctlError: the server refuses even the plainest request.
        """
        try:
            keeping = await self._in_background()
        except Denied:
            raise
        except Refused:
            await self._read(await self._ask(), to_its_end=True)
            keeping = Keeping.REFUSES
        return Capabilities(
            server=Server(),
            api=Api.RESPONSES,
            background=keeping,
            usage_in_stream=True,
            max_tokens_field="max_output_tokens",
            replies=self.replies,
        )

    async def _in_background(self) -> Keeping:
        before, cursor = await self._read(await self._ask(**_BACKGROUND))
        if cursor is None:
            return Keeping.IGNORES
        with anyio.move_on_after(_PATIENCE_S):
            try:
                return await self._read_on(before, cursor)
            except (Refused, StrategyUnavailable, Disconnected):
                return await self._wait_for(before, cursor)
        return Keeping.LOSES

    async def _read_on(self, before: str, cursor: Cursor) -> Keeping:
        """See that the rest streams, and that both parts are the whole."""
        path = f"responses/{cursor.run}"
        response = await self.client.read(f"{path}?stream=true&starting_after={cursor.at}")
        if "json" in response.headers.get("content-type", ""):
            await response.aclose()
            raise StrategyUnavailable("It is not streamed again.")
        reader = ResponsesReader(cursor=cursor)
        stream = ResponsesStream(response, self.client, reader, ends_run=False)
        rest, _ = await self._read(stream, to_its_end=True)
        whole = await self.client.get(path)
        same = isinstance(whole, dict) and text_of(whole) == before + rest
        return Keeping.READ_ON if same else Keeping.LOSES

    async def _wait_for(self, before: str, cursor: Cursor) -> Keeping:
        try:
            await whole_rest(self.client, f"responses/{cursor.run}", Prefix(before), poll_s=0.25)
        except (Refused, StrategyUnavailable):
            return Keeping.LOSES
        return Keeping.WAITED_FOR

    async def _ask(self, **fields: Any) -> ResponsesStream:  # noqa: ANN401  (of a body)
        while True:
            try:
                response = await self.client.post("responses", {**self._body(), **fields})
            except Refused as refusal:
                if isinstance(refusal, Denied) or "temperature" not in refusal.message:
                    raise
                if not self.asked:
                    raise
                self.asked = {}  # reasoning models take none
                continue
            self.replies += 1
            return ResponsesStream(response, self.client, ResponsesReader(), ends_run=False)

    def _body(self) -> Mapping[str, Any]:
        heard = [{"role": "user", "content": QUESTION}]
        common = {"model": self.model, "input": heard, "stream": True}
        return {**common, "max_output_tokens": _TOKENS, **self.asked}

    async def _read(
        self, stream: ResponsesStream, *, to_its_end: bool = False
    ) -> tuple[str, Cursor | None]:
        """Read a response to its first words or its end; return its text and the place."""
        text, cursor = "", None
        try:
            await stream.begin()
            async for chunk in stream:
                text, cursor = text + chunk.text, chunk.cursor or cursor
                if len(text) >= _ENOUGH and not to_its_end:
                    break
        finally:
            await stream.aclose()
        return text, cursor
