"""Reading one tiny reply of a probe, and giving in to what a server refuses by name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmctl.backends.chat_reply import ReplyReader
from llmctl.backends.chat_stream import ChatStream
from llmctl.backends.probe_answers import Answer, Listener
from llmctl.events import Channel

if TYPE_CHECKING:
    import httpx2

    from llmctl.backends.openai_client import OpenAiClient


async def read_answer(
    client: OpenAiClient, response: httpx2.Response, prompt: tuple[int, ...] | None = None
) -> Answer:
    """Read a streamed completion, of a chat or of tokens, to its end.

    Args:
        client: what it came through.
        response: the answer, its body still to be read.
        prompt: the ids that must be its prompt; None where there are none.

    Raises:
        StrategyUnavailable: they are not.
        LlmctlError: it broke off.
    """
    listener = Listener()
    reader = ReplyReader(listener)
    stream = ChatStream(response, client, reader, [], expects_ids=prompt is not None, prompt=prompt)
    try:
        await stream.begin()
        chunks = [chunk async for chunk in stream]
    finally:
        await stream.aclose()
    said = [chunk for chunk in chunks if chunk.channel is Channel.CONTENT and chunk.text]
    return Answer(
        tuple(chunk.text for chunk in said),
        frozenset(listener.heard),
        None if reader.usage is None else reader.usage.prompt_tokens,
        reader.prompt_ids,
        tuple(chunk.ids for chunk in said),
    )
