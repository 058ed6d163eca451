"""A reply of a batch as it arrives: what a read of the socket brings is one chunk.

A thousand streams then cost what their bytes cost, and not what their tokens do.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from llmctl.backends.chat_stream import ChatStream
from llmctl.backends.meter import Meter, units_of
from llmctl.backends.row_reader import ResponsesRowReader, RowReader
from llmctl.backends.seam import Seam
from llmctl.events import Chunk

if TYPE_CHECKING:
    import httpx2

    from llmctl.backends.wire import WireResponse
    from llmctl.backends.wire_client import WireClient


class RowStream(ChatStream):
    """A reply of which every read of the socket is one chunk."""

    def __init__(  # noqa: PLR0913  (as of its base)
        self,
        response: httpx2.Response | WireResponse,
        client: WireClient,
        reader: RowReader | ResponsesRowReader,
        seams: list[Seam],
        meter: Meter,
        *,
        on_close: Callable[[RowReader | ResponsesRowReader, Meter], None],
        expects_ids: bool = False,
        prompt: tuple[int, ...] | None = None,
    ) -> None:
        super().__init__(
            response,  # type: ignore[arg-type]
            client,  # type: ignore[arg-type]
            reader,
            seams,
            expects_ids=expects_ids,
            prompt=prompt,
        )
        self._rows = reader
        self._meter = meter
        self._on_close = on_close

    async def __anext__(self) -> Chunk:
        """Return what the next read brings; see `ChatStream.__anext__`."""
        run = [await super().__anext__()]
        ready, channel = self._ready, run[0].channel
        while ready and ready[0].channel is channel and ready[0].finish_reason is None:
            run.append(ready.popleft())
        self._meter.count(sum(map(units_of, run)))
        return run[0] if len(run) == 1 else merged(run)

    async def aclose(self) -> None:
        """Put the count right by what the server has told, then close; see its base."""
        self._meter.settle(self._rows.usage, ended=self._rows.ended)
        self._on_close(self._rows, self._meter)
        await super().aclose()

    def _take(self, data: bytes) -> None:
        """Take in what a read brought; runs of plain text need no chunk for each piece."""
        texts: list[str] = []
        for event in self._decoder.feed(data):
            text = self._rows.quick(event.data)
            if text is not None:
                texts.append(text)
                continue
            self._flush(texts)
            self._event(event)
            if self._rows.done:
                self._end()
                return
        self._flush(texts)

    def _flush(self, texts: list[str]) -> None:
        if texts:
            self._put(Chunk("".join(texts), pieces=len(texts)))
            texts.clear()


def merged(chunks: list[Chunk]) -> Chunk:
    """Return one chunk that says what several of one channel say; where tokens end is lost."""
    counts = [chunk.tokens for chunk in chunks]
    ids = [chunk.ids for chunk in chunks]
    return Chunk(
        "".join([chunk.text for chunk in chunks]),
        chunks[0].channel,
        None if None in counts else sum(counts),  # type: ignore[arg-type]
        ids=None if None in ids else tuple(i for part in ids for i in part or ()),
        cursor=chunks[-1].cursor,
        pieces=sum(chunk.pieces for chunk in chunks),
    )
