"""OpenAI's Responses API, streamed.

A response in the background is generated whoever listens, and the server stores it. It is
read on from the event after the last one that came (``starting_after``): the same run, so
`exact`. A response that is too old to be streamed (five minutes, at OpenAI) is waited for
and taken whole: the same run still, if what is known is its beginning.

A run that nobody will read on is cancelled: one whose reply has ended for good, or that was left
for another request. One that was left before its first text is taken up again where the same is
asked once more.

What is not in the background ends with its connection, and is not kept for anybody; this
protocol has no way of going on behind the beginning of a message.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import anyio

from llmctl.backends.chat_stream import CLOSE_S, ChatStream
from llmctl.backends.responses_body import responses_body
from llmctl.backends.responses_reader import ResponsesReader, finish_of, text_of, usage_of
from llmctl.backends.server import ServerBackEnd, ServerStream
from llmctl.conversation import Prefix, Request
from llmctl.errors import Denied, Disconnected, LlmctlError, Refused, StrategyUnavailable
from llmctl.events import Chunk, Cursor, Guarantee, Strategy
from llmctl.profiles import Profile

if TYPE_CHECKING:
    import httpx2

    from llmctl.backends.openai_client import OpenAiClient
    from llmctl.backends.openai_errors import Explainer

POLL_S = 1.0
"""Seconds between two looks at a response that can only be waited for."""


class Client(Protocol):
    """What reading a stored response on needs of a client."""

    @property
    def explain(self) -> Explainer:
        """Says what failures mean."""

    async def read(self, path: str) -> httpx2.Response:
        """Return an answer whose body is still to be read."""

    async def get(self, path: str) -> object:
        """Return the JSON at an address."""


class ResponsesBackEnd(ServerBackEnd):
    """A server that speaks the Responses API; see `ServerBackEnd`.

    Args:
        profile: what is known about the server.
        ends_runs: a response that is left before its end is cancelled at the server, so that
            nothing more is generated (nor can it be read on).
        poll_s: seconds between two looks at a response that can only be waited for.
        **known: as of the base.
    """

    api = "responses"

    def __init__(
        self,
        profile: Profile,
        *,
        ends_runs: bool = False,
        poll_s: float = POLL_S,
        **known: Any,  # noqa: ANN401  (as the base)
    ) -> None:
        super().__init__(profile, **known)
        self.accepts_seed = False
        self._ends_runs = ends_runs
        self._poll_s = poll_s
        self._left: _Left | None = None
        self._over: list[str] = []  # runs that nobody will read on

    def _supported(self) -> Mapping[Strategy, Guarantee]:
        cursor = {Strategy.CURSOR: Guarantee.EXACT} if self._profile.keeps_runs else {}
        return {**cursor, Strategy.INSTRUCT: Guarantee.BEST_EFFORT}

    async def _answer(
        self,
        client: OpenAiClient,
        request: Request,
        again: Mapping[str, Any],  # noqa: ARG002  (a cursor says it all)
        after: Prefix | None,
        by: Strategy | None,
    ) -> ServerStream:
        match by:
            case None | Strategy.REPLAY:
                return await self._begin(client, request)
            case Strategy.CURSOR if after is not None and after.cursor is not None:
                return await self._read_on(client, request, after, after.cursor)
        raise StrategyUnavailable(f"{self.name} is not known to go on by {by}.")

    def discard(self, conditions: Mapping[str, Any]) -> None:  # noqa: ARG002  (it is the last)
        """The reply has ended for good: its run is cancelled when the back end is closed."""
        if self._left is not None:
            self._over.append(self._left.cursor.run)
            self._left = None

    async def aclose(self) -> None:
        """Cancel what nobody will read on; close what connections are still open."""
        if self._over and self._client.made is not None:
            for run in self._over:
                await _cancel(self._client.made, run)
        await super().aclose()

    async def _begin(self, client: OpenAiClient, request: Request) -> ServerStream:
        """Ask for a reply, or take it up again if nothing had come of it when it was left."""
        left = self._left
        if left is not None and left.request == request and not left.said:
            with suppress(StrategyUnavailable):
                nothing = Prefix("", cursor=left.cursor)
                stream = await self._read_on(client, request, nothing, left.cursor)
                self._left = None
                return stream
        if left is not None:
            await _cancel(client, left.cursor.run)
            self._left = None
        response = await client.post(
            "responses", responses_body(self._profile, request, self._images)
        )
        reader = ResponsesReader(bound=request.options.max_tokens)
        return self._stream(response, client, request, reader)

    async def _read_on(
        self, client: OpenAiClient, request: Request, after: Prefix, cursor: Cursor
    ) -> ServerStream:
        """Read the run on, from where it was left; if it is too old for that, wait for it."""
        reader = ResponsesReader(cursor=cursor, said=bool(after.text or after.reasoning))
        return await read_on(
            client,
            after,
            lambda response: self._stream(response, client, request, reader),
            poll_s=self._poll_s,
        )

    def _stream(
        self,
        response: httpx2.Response,
        client: OpenAiClient,
        request: Request,
        reader: ResponsesReader,
    ) -> ResponsesStream:
        def leave(cursor: Cursor) -> None:
            self._left = _Left(request, cursor, reader.said)

        return ResponsesStream(response, client, reader, ends_run=self._ends_runs, leave=leave)


@dataclass(frozen=True, slots=True)
class _Left:
    """A run that goes on at the server although nobody listens.

    Attributes:
        request: what was asked.
        cursor: from where to read it on.
        said: some of its text has come.
    """

    request: Request
    cursor: Cursor
    said: bool


async def _cancel(client: OpenAiClient, run: str) -> None:
    """Have a run ended, if that can be said within a moment."""
    with anyio.move_on_after(CLOSE_S, shield=True):
        try:
            await client.ask(f"responses/{run}/cancel", {})
        except LlmctlError:
            return  # it has ended by itself, or can't be reached: nothing more can be done


async def read_on(
    client: Client,
    after: Prefix,
    made: Callable[[httpx2.Response], ChatStream],
    *,
    poll_s: float = POLL_S,
) -> ChatStream | WholeRest:
    """Return a stored run from where it was left; if it is too old for that, wait for it.

    Args:
        client: where it is kept.
        after: what of it is known, with the cursor.
        made: makes the stream of an answer.
        poll_s: seconds between two looks.

    Raises:
        StrategyUnavailable: it can't be read on.
        LlmctlError: it can't be asked for.
    """
    if after.cursor is None:
        raise StrategyUnavailable("Nothing says where the response is to be read on.")
    path = f"responses/{after.cursor.run}"
    wait = partial(whole_rest, client, path, after, poll_s=poll_s)
    try:
        response = await client.read(f"{path}?stream=true&starting_after={after.cursor.at}")
    except Refused as refusal:
        _check_key(refusal)
        return await wait()
    if "json" in response.headers.get("content-type", ""):  # it knows no such streams
        await response.aclose()
        return await wait()
    stream = made(response)
    try:
        await stream.begin()
    except BaseException as error:
        await stream.aclose()
        if isinstance(error, Disconnected):  # or there is nothing to stream: cancelled
            return await wait()
        raise
    return stream


async def whole_rest(client: Client, path: str, after: Prefix, *, poll_s: float) -> WholeRest:
    """Return the rest of a stored response as soon as it is whole.

    Args:
        client: where it is kept.
        path: its address.
        after: what of it is known.
        poll_s: seconds between two looks.

    Raises:
        StrategyUnavailable: it is not kept, did not come to an end, or begins otherwise.
    """
    while True:
        try:
            response = await client.get(path)
        except Refused as refusal:
            _check_key(refusal)
            raise StrategyUnavailable("The server keeps this response no longer.") from refusal
        told = response if isinstance(response, Mapping) else {}
        match told.get("status"):
            case "queued" | "in_progress":
                await anyio.sleep(poll_s)
            case "completed" | "incomplete":
                return WholeRest(told, after, client.explain)
            case status:
                raise StrategyUnavailable(f"The response is {status or 'not told of'}.")


def _check_key(refusal: Refused) -> None:
    """Raise a refusal that has nothing to do with the response."""
    if isinstance(refusal, Denied) and refusal.always:
        raise refusal


class ResponsesStream(ChatStream):
    """One response as it arrives, from its beginning or from an event on.

    Args:
        response: the answer, its body still to be read.
        client: what it came through.
        reader: makes chunks of its events.
        ends_run: cancel what is left before its end.
        leave: is told where a run was left that goes on.
    """

    def __init__(
        self,
        response: httpx2.Response,
        client: OpenAiClient,
        reader: ResponsesReader,
        *,
        ends_run: bool,
        leave: Callable[[Cursor], None] = lambda _: None,
    ) -> None:
        super().__init__(response, client, reader, [])
        self._events = reader
        self._ends_run = ends_run
        self._leave = leave

    async def aclose(self) -> None:
        """Close the connection; cancel the response if it is to end with it."""
        await super().aclose()
        run = self._events.cursor
        if run is None or self._events.ended:
            return
        if self._ends_run and self._error is None:
            await _cancel(self._client, run.run)
        else:
            self._leave(run)


class WholeRest:
    """What a whole response has behind the part that is known; one chunk, and the end.

    Attributes:
        response: as the server stored it.
        text: what of its text follows.

    Args:
        response: as the server stored it.
        after: what is known.
        explain: says what an end means that is none.

    Raises:
        StrategyUnavailable: the known part is not its beginning.
    """

    conditions: Mapping[str, Any] = {}

    def __init__(self, response: Mapping[str, Any], after: Prefix, explain: Explainer) -> None:
        text = text_of(response)
        if not text.startswith(after.text):
            raise StrategyUnavailable("The response is not what came of it before.")
        self.response = response
        self.text = text[len(after.text) :]
        why = finish_of(response, after.cursor.bound if after.cursor is not None else None)
        self._end = Chunk(finish_reason=why, usage=usage_of(response))
        self._error = explain.finish(why)

    async def __aiter__(self) -> AsyncIterator[Chunk]:
        """Yield both.

        Raises:
            LlmctlError: the end is none.
        """
        if self.text:
            yield Chunk(self.text)
        if self._error is not None:
            raise self._error
        yield self._end

    async def begin(self) -> None:
        """Do nothing: it is all here."""

    def hold(self) -> bool:
        """Return False: nothing is generated any more."""
        return False

    def release(self) -> None:
        """Do nothing; the port has it."""

    async def save(self) -> None:
        """Return None: nothing needs to be kept."""

    async def aclose(self) -> None:
        """Do nothing: nothing is open."""
