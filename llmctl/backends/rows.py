"""Rows of a batch on a server: any body, sent as it is and read as a stream.

`RowServer` is one endpoint with its connections; `RowServer.back_end` gives the back end of
one row, which a session can use like any other. What a read of the socket brings becomes
one chunk, so that a thousand streams cost what their bytes cost and not what their tokens do.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Container, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from llmctl.backends.chat_body import (
    COUNTING_FIELDS,
    NOTHING,
    Beginning,
    beginning,
    chat_body,
)
from llmctl.backends.completion_body import completion_body
from llmctl.backends.fold import Fold
from llmctl.backends.late import Late
from llmctl.backends.meter import Meter
from llmctl.backends.responses import WholeRest, read_on
from llmctl.backends.responses_body import in_background
from llmctl.backends.responses_reader import usage_of
from llmctl.backends.row_reader import ResponsesRowReader, RowReader
from llmctl.backends.row_stream import RowStream
from llmctl.backends.seam import Seam
from llmctl.backends.server import ServerStream, names_usage
from llmctl.backends.token_counts import TokenCounter
from llmctl.backends.token_prompt import check_options, spelling
from llmctl.conversation import Prefix, Request
from llmctl.errors import Overloaded, Refused, StrategyUnavailable
from llmctl.events import Guarantee, Strategy
from llmctl.profiles import Profile, TokenCounts

if TYPE_CHECKING:
    from llmctl.backends.wire_client import WireClient

Gate = Callable[[], Awaitable[None]]

CHAT, COMPLETIONS, RESPONSES = "chat/completions", "completions", "responses"
"""Where rows go, below the server's address."""


class Listener(Protocol):
    """Hears what a server says about how much may be asked of it."""

    async def gate(self) -> None:
        """Wait until a request may be written."""

    def headers(self, headers: Mapping[str, str]) -> None:
        """A reply begins."""

    def refused(self, error: Overloaded) -> None:
        """The server is too busy."""

    def units(self, units: int) -> None:
        """So many tokens came (pieces, where tokens are not told)."""

    def corrected(self, units: int) -> None:
        """By the server's own count there were so many more (or less)."""


@dataclass(frozen=True, slots=True)
class RowTarget:
    """What the back end of one row has to know about it.

    Attributes:
        path: where it goes.
        body: what is sent, without what makes it a stream.
        exact_only: its reply can't be continued as text.
        bound_field: the body's name for the bound on the reply; None if it has none.
    """

    path: str
    body: Mapping[str, Any]
    exact_only: bool
    bound_field: str | None


class RowServer:
    """One server of a batch.

    Args:
        profile: what is known about it.
        key: the API key; None sends none.
        connect_timeout_s: how long a connection may take to come about, in seconds.
        hears: is told what the server's answers say, as soon as they do.
    """

    def __init__(
        self,
        profile: Profile,
        *,
        key: str | None,
        connect_timeout_s: float | None,
        hears: Listener,
    ) -> None:
        self.profile = _without_spelling(profile)
        self.hears = hears
        self.usage = profile.usage_in_stream
        self._left: dict[str, int] = {}
        self._client = Late(partial(_client, profile, key, connect_timeout_s, hears.gate))

    def back_end(self, target: RowTarget) -> RowBackEnd:
        """Return the back end of one row."""
        return RowBackEnd(self, target)

    async def client(self) -> WireClient:
        """Return the connections, made when they are first wanted.

        Raises:
            LlmctlError: the address, the key or the proxy settings can't be used.
        """
        return await self._client.get()

    def meter(self, before: int = 0) -> Meter:
        """Return what counts a request's tokens; ``before`` of its run were counted before."""
        return Meter(self.hears.units, self.hears.corrected, before)

    def leave(self, reader: RowReader | ResponsesRowReader, meter: Meter) -> None:
        """Remember how much was counted of a run that goes on without being read."""
        if isinstance(reader, ResponsesRowReader) and reader.cursor and not reader.ended:
            self._left[reader.cursor.run] = meter.units

    def counted(self, known: Prefix) -> int:
        """Return how much was counted of a run; another process counted what it received."""
        run = "" if known.cursor is None else known.cursor.run
        return self._left.pop(run, known.spent)

    def leave_out(self, refusal: str, chosen: Container[str]) -> None:
        """Stop asking for a way of counting that a refusal names, unless the row chose it."""
        counts = self.profile.token_counts
        field = None if counts is None else COUNTING_FIELDS[counts]
        if field is not None and field in refusal and field not in chosen:
            self.profile = replace(self.profile, token_counts=None)
        elif names_usage(refusal) and "stream_options" not in chosen:
            self.usage = False

    async def aclose(self) -> None:
        """Close what connections are still open."""
        await self._client.aclose()


class RowBackEnd:
    """One row on its server; fits the session's port.

    Attributes:
        name: the server's.
        api: the protocol spoken for this row.
        accepts_seed: a seed is known not to be refused.
        pays_twice: a replay is billed, or at least waited for.
        fold: what the last stream added up to.
    """

    pays_twice = True

    def __init__(self, server: RowServer, target: RowTarget) -> None:
        self.name = server.profile.name
        self.api = target.path.partition("/")[0]
        self.accepts_seed = server.profile.accepts_seed
        self.fold = Fold()
        self._server = server
        self._target = target

    @property
    def supports(self) -> Mapping[Strategy, Guarantee]:
        """How its reply can be gone on with, by what is known of the server now."""
        return _supported(self._server.profile, self._target)

    async def ready(self) -> None:
        """Load and set up the client."""
        await self._server.client()

    @asynccontextmanager
    async def open(
        self,
        request: Request,
        *,
        again: Mapping[str, Any] | None = None,
        after: Prefix | None = None,
        by: Strategy | None = None,
        saved: Mapping[str, Any] | None = None,  # noqa: ARG002  (nor does it keep anything)
    ) -> AsyncGenerator[ServerStream]:
        """Send the row, or what asks for the rest of its reply; see `ChatBackEnd.open`."""
        client = await self._server.client()
        stream: ServerStream
        try:
            if by is Strategy.CURSOR:
                stream = await self._read_on(client, after or Prefix(""))
            elif by is Strategy.TOKENS:
                stream = await self._behind_ids(client, request, again or {}, after)
            else:
                stream = await self._behind_text(client, request, self._beginning(after, by))
        except Overloaded as error:
            if error.busy:
                self._server.hears.refused(error)
            raise
        try:
            await stream.begin()
            yield stream
        finally:
            await stream.aclose()

    def discard(self, conditions: Mapping[str, Any]) -> None:
        """Do nothing: a server keeps nothing for us."""

    async def aclose(self) -> None:
        """Do nothing: the connections are the server's."""

    async def _read_on(self, client: WireClient, after: Prefix) -> ServerStream:
        """Read a response that the server has kept on; see `llmctl.backends.responses`."""
        if Strategy.CURSOR not in self.supports:
            raise StrategyUnavailable(f"{self.name} is not known to keep responses.")
        reader = ResponsesRowReader(cursor=after.cursor)
        meter, self.fold = self._server.meter(self._server.counted(after)), reader.fold

        def made(answer: Any) -> RowStream:  # noqa: ANN401  (of either client)
            return RowStream(answer, client, reader, [], meter, on_close=self._server.leave)

        stream = await read_on(client, after, made)
        if isinstance(stream, WholeRest):
            self.fold.add_whole(stream.response)
            meter.count(int(bool(stream.text)))
            meter.settle(usage_of(stream.response), ended=True)
        return stream

    async def _behind_text(
        self, client: WireClient, request: Request, known: Beginning
    ) -> RowStream:
        response = await self._ask(client, request, known)
        expects_ids = Strategy.TOKENS in self.supports and not known
        return self._stream(
            response, client, request, self._seams(known), known, expects_ids=expects_ids
        )

    async def _behind_ids(
        self,
        client: WireClient,
        request: Request,
        told: Mapping[str, Any],
        after: Prefix | None,
    ) -> RowStream:
        if Strategy.TOKENS not in self.supports or not told.get("prompt_ids"):
            raise StrategyUnavailable(f"{self.name} has not told the tokens of the prompt.")
        check_options(request.options)
        known = await spelling(client, request.model, after or Prefix(""))
        prompt = (*told["prompt_ids"], *known)
        server = self._server
        body = completion_body(server.profile, request, prompt, usage=server.usage)
        response = await client.post(COMPLETIONS, body)
        return self._stream(response, client, request, [], expects_ids=True, prompt=prompt)

    def _stream(
        self,
        response: Any,  # noqa: ANN401  (of either client)
        client: WireClient,
        request: Request,
        seams: list[Seam],
        known: Beginning = NOTHING,
        **ids: Any,  # noqa: ANN401  (as `ChatStream` takes them)
    ) -> RowStream:
        server, reader = self._server, self._reader(request, known)
        server.hears.headers(response.headers)
        self.fold = reader.fold
        meter, on_close = server.meter(), server.leave
        return RowStream(response, client, reader, seams, meter, on_close=on_close, **ids)

    def _beginning(self, after: Prefix | None, by: Strategy | None) -> Beginning:
        """Return the beginning of the reply to send."""
        if by is None:
            return NOTHING
        if by is not Strategy.PREFIX or by not in self.supports:
            raise StrategyUnavailable(f"{self.name} is not known to go on by {by}.")
        profile = self._server.profile
        if self._target.path == COMPLETIONS:  # no template stands between
            profile = replace(profile, prefix_keeps_blanks=True)
        return beginning(profile, after or Prefix(""))

    def _seams(self, sent: Beginning) -> list[Seam]:
        """Return what takes known text off the beginning of the rest."""
        echoed = self._target.path == CHAT and self._server.profile.prefix_echoed
        echo = Seam(sent.text if echoed else "", required=False)
        blanks = Seam(sent.blanks, required=True, channel=sent.channel)
        return [seam for seam in (echo, blanks) if seam.open]

    async def _ask(self, client: WireClient, request: Request, known: Beginning) -> Any:  # noqa: ANN401
        """Send the row; what was refused and nobody chose is left out from then on."""
        server = self._server
        base_url = server.profile.prefix_base_url if known else None
        while True:
            asked = server.profile.token_counts, server.usage
            body = self._body(request, known)
            try:
                return await client.post(self._target.path, body, base_url=base_url)
            except Refused as refusal:
                server.leave_out(refusal.message, self._target.body)
                if asked == (server.profile.token_counts, server.usage):
                    raise

    def _body(self, request: Request, known: Beginning) -> dict[str, Any]:
        """Return the body of a request for the reply, or for what follows ``known``."""
        target = self._target
        body = {**target.body, "stream": True}
        if target.bound_field is not None and request.options.max_tokens is not None:
            body[target.bound_field] = request.options.max_tokens
        if target.path == RESPONSES and in_background(self._server.profile, request):
            body = {"background": True, "store": True, **body}
        if target.path == COMPLETIONS:
            body["prompt"] = f"{body['prompt']}{known.text}" if known else body["prompt"]
        if target.path == CHAT:
            body |= self._chat_fields(request, known)
        elif self._server.usage and target.path == COMPLETIONS:
            body.setdefault("stream_options", {"include_usage": True})
        return body

    def _chat_fields(self, request: Request, known: Beginning) -> dict[str, Any]:
        """Return what asks for counts, and the messages where they are not the row's own."""
        server = self._server
        bare = replace(request, options=replace(request.options, extra={}, schema=None))
        spoken = chat_body(server.profile, bare, usage=server.usage, after=known)
        own = {"model", "temperature", "top_p", "seed", "stop", *_BOUNDS, *self._target.body}
        fields = {name: value for name, value in spoken.items() if name not in own}
        if known or len(request.messages) > len(self._target.body["messages"]):
            fields["messages"] = spoken["messages"]
        return fields

    def _reader(self, request: Request, known: Beginning) -> RowReader | ResponsesRowReader:
        if self._target.path == RESPONSES:
            return ResponsesRowReader(bound=request.options.max_tokens)
        counter = TokenCounter(
            trusts_usage=self._server.profile.token_counts is TokenCounts.USAGE,
            in_step=not request.options.stop and not known.within_reasoning,
        )
        body = self._target.body
        return RowReader(
            counter, choices=int(body.get("n") or 1), ids=bool(body.get("return_token_ids"))
        )


def _without_spelling(profile: Profile) -> Profile:
    """Return a profile that does not count by log probabilities.

    They make a reply ten times as long, and no row that did not ask for them has to pay that: its
    usage is told at the end. Ids, timings and totals are a number or so beside each piece.
    """
    counts = profile.token_counts
    return replace(profile, token_counts=None if counts is TokenCounts.LOGPROBS else counts)


_BOUNDS = ("max_tokens", "max_completion_tokens", "max_output_tokens")


def _supported(profile: Profile, target: RowTarget) -> Mapping[Strategy, Guarantee]:
    if target.path == RESPONSES:
        return {Strategy.CURSOR: Guarantee.EXACT} if profile.keeps_runs else {}
    if target.exact_only:
        return {}
    if target.path == COMPLETIONS:
        plain = isinstance(target.body.get("prompt"), str)
        return {Strategy.PREFIX: Guarantee.TEXT} if plain else {}
    prefix = {} if profile.prefix is None else {Strategy.PREFIX: Guarantee.TEXT}
    tells_ids = profile.token_prompts and profile.token_counts is TokenCounts.IDS
    tokens = {Strategy.TOKENS: Guarantee.TOKEN} if tells_ids else {}
    return {**tokens, **prefix, Strategy.INSTRUCT: Guarantee.BEST_EFFORT}


def _client(
    profile: Profile, key: str | None, connect_timeout_s: float | None, gate: Gate
) -> WireClient:
    from llmctl.backends.wire_client import WireClient  # noqa: PLC0415  (takes 0.5 s)

    return WireClient(profile, key, connect_timeout_s=connect_timeout_s, gate=gate)
