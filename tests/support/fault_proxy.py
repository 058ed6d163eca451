"""A TCP proxy on 127.0.0.1 that breaks connections in exactly chosen ways.

::

    with OracleServer() as server, FaultProxy(server.url) as proxy:
        proxy.enqueue(LinkPlan(Trouble("cut", after_bytes=5000, reset=True)))   # next connection
        ...                                            # talk to proxy.base_url
        proxy.cut_all(); proxy.refuse()                # the network goes away now
        proxy.accept()                                 # and comes back

Where the oracle server's faults count tokens, these count bytes on the wire and know nothing of
what the bytes mean (except ``truncate_chunked``, which looks for HTTP's chunk framing). "down" is
from the server to the client, "up" the other way. ``random_plan(seed)`` draws one from a seed.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import urllib.parse
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from types import TracebackType
from typing import Self, cast

from tests.support._loop_thread import LoopThread
from tests.support._sockets import delivered, reset

__all__ = [
    "ChunkTracker",
    "Direction",
    "Disturber",
    "FaultProxy",
    "Link",
    "LinkPlan",
    "Trouble",
    "TroubleKind",
    "random_plan",
]

_READ = 1 << 16


class Direction(StrEnum):
    """Which way the bytes flow."""

    DOWN = "down"
    UP = "up"


class TroubleKind(StrEnum):
    """What happens once ``after_bytes`` have passed in one direction."""

    CUT = "cut"  # both sides are closed; the receiver sees FIN, or RST with reset=True
    HALF_CLOSE = "half_close"  # this direction ends, the other goes on
    STALL = "stall"  # nothing more passes, for seconds or (None) for ever
    DRIP = "drip"  # from here on, size bytes every seconds
    GARBAGE = "garbage"  # the bytes of data are slipped in
    DUPLICATE = "duplicate"  # the last size bytes come again
    TRUNCATE_CHUNKED = "truncate_chunked"  # like cut with FIN, at the next place inside a chunk
    OUTAGE = "outage"  # like cut, and for seconds nobody listens


@dataclass(frozen=True, slots=True)
class Trouble:
    """One thing that goes wrong on one connection."""

    kind: TroubleKind | str
    after_bytes: int = 0
    direction: Direction | str = Direction.DOWN
    reset: bool = False
    seconds: float | None = None
    size: int = 1
    data: bytes = b"\x00\xffgarbage\r\n"

    def __post_init__(self) -> None:
        """Refuse unknown words."""
        object.__setattr__(self, "kind", TroubleKind(self.kind))
        object.__setattr__(self, "direction", Direction(self.direction))


@dataclass(frozen=True, slots=True, init=False)
class LinkPlan:
    """All that goes wrong on one connection; without troubles it is transparent."""

    troubles: tuple[Trouble, ...]
    connect_delay_s: float

    def __init__(self, *troubles: Trouble, connect_delay_s: float = 0.0) -> None:
        """Order the troubles by their place."""
        ordered = tuple(sorted(troubles, key=lambda trouble: trouble.after_bytes))
        object.__setattr__(self, "troubles", ordered)
        object.__setattr__(self, "connect_delay_s", connect_delay_s)


def random_plan(seed: int, *, reach: int = 20_000) -> LinkPlan:
    """Return a plan with one or two troubles, the same for the same seed; no outage.

    Args:
        seed: Where the choices come from.
        reach: Troubles strike within this many bytes. Stalls are short, so that a client without
            an idle limit gets on.
    """
    draw = random.Random(seed)  # noqa: S311  (no secret)
    troubles = []
    kinds = [kind for kind in TroubleKind if kind is not TroubleKind.OUTAGE]
    for kind in draw.sample(kinds, draw.choice((1, 1, 2))):
        downwards = kind is TroubleKind.TRUNCATE_CHUNKED or draw.random() < 0.8
        troubles.append(
            Trouble(
                kind,
                after_bytes=draw.randrange(reach if downwards else 200),
                direction=Direction.DOWN if downwards else Direction.UP,
                reset=draw.random() < 0.5,
                seconds=0.05 if kind is TroubleKind.STALL else 0.0005,
                size=draw.randint(1, 400),
                data=draw.randbytes(draw.randint(1, 40)),
            )
        )
    return LinkPlan(*troubles, connect_delay_s=draw.choice((0.0, 0.0, 0.02)))


class ChunkTracker:
    """Follows HTTP/1.1 responses with chunked bodies and tells where their chunks are.

    A response without chunks turns it off for the rest of the connection.
    """

    def __init__(self) -> None:
        """Start at the head of a response."""
        self._line = b""
        self._in_head = True
        self._chunked = False
        self._left = 0
        self._opaque = False

    def feed(self, data: bytes) -> Iterator[bool]:
        """Yield for each byte whether it is chunk content with more of its chunk to come."""
        for value in data:
            if self._opaque:
                yield False
            elif self._left:
                self._left -= 1
                yield self._left > 2
            else:
                self._take_line_byte(value)
                yield False

    def _take_line_byte(self, value: int) -> None:
        self._line += bytes([value])
        if not self._line.endswith(b"\r\n"):
            return
        line, self._line = self._line[:-2], b""
        if self._in_head:
            self._take_head(line)
            return
        size = int(line.split(b";")[0], 16) if line else 0
        self._left = size + 2 if size else 0  # the content and the line end after it
        if line and not size:
            self._in_head = True  # an empty line, then perhaps another response

    def _take_head(self, line: bytes) -> None:
        if line.lower().startswith(b"transfer-encoding:"):
            self._chunked = b"chunked" in line.lower()
        elif not line and self._chunked:
            self._in_head = self._chunked = False
        elif line.lower().startswith(b"content-length:"):
            self._opaque = True


class Disturber:
    """The troubles of one direction, applied to bytes: pure.

    ``feed`` yields what is to be done: bytes are to be sent, a trouble is to be acted out.
    """

    def __init__(self, troubles: Sequence[Trouble]) -> None:
        """Take troubles that are ordered by place."""
        self._troubles = deque(troubles)
        self._passed = 0
        chunked = any(t.kind is TroubleKind.TRUNCATE_CHUNKED for t in troubles)
        self._chunks = ChunkTracker() if chunked else None
        self._tail = b""

    def feed(self, data: bytes) -> Iterator[bytes | Trouble]:
        """Take what was received; yield the steps."""
        inside = list(self._chunks.feed(data)) if self._chunks else None
        start = 0
        while self._troubles:
            at = self._place(self._troubles[0], start, len(data), inside)
            if at is None:
                break
            yield from self._pass(data[start:at])
            start = at
            yield from self._act(self._troubles.popleft())
        yield from self._pass(data[start:])

    def _place(
        self, trouble: Trouble, start: int, size: int, inside: list[bool] | None
    ) -> int | None:
        """Return the offset in the current data at which a trouble strikes, if it does."""
        at = start + max(0, trouble.after_bytes - self._passed)
        if trouble.kind is TroubleKind.TRUNCATE_CHUNKED and inside is not None:
            return next((n + 1 for n in range(max(at - 1, start), size) if inside[n]), None)
        return at if at <= size else None

    def _pass(self, data: bytes) -> Iterator[bytes]:
        if data:
            self._passed += len(data)
            self._tail = (self._tail + data)[-_READ:]
            yield data

    def _act(self, trouble: Trouble) -> Iterator[bytes | Trouble]:
        match trouble.kind:
            case TroubleKind.GARBAGE:
                yield trouble.data
            case TroubleKind.DUPLICATE:
                yield self._tail[-trouble.size :]
            case TroubleKind.TRUNCATE_CHUNKED:
                yield replace(trouble, kind=TroubleKind.CUT, reset=False)
            case _:
                yield trouble


@dataclass(slots=True)
class Link:
    """One connection through the proxy: its plan and the bytes that passed on.

    ``came`` and ``went`` are what the server sent and what the client got, where they differ.
    """

    plan: LinkPlan
    up: int = 0
    down: int = 0
    troubles: int = 0
    closed: bool = False
    came: bytearray = field(default_factory=bytearray)
    went: bytearray = field(default_factory=bytearray)

    @property
    def spoils(self) -> bool:
        """Whether bytes on their way down are changed: then both sides are kept to compare."""
        kinds = {t.kind for t in self.plan.troubles if t.direction is Direction.DOWN}
        return not kinds.isdisjoint({TroubleKind.GARBAGE, TroubleKind.DUPLICATE})


class _Cut(Exception):
    """A trouble has cut the connection."""


class _Pump:
    """Moves the bytes of one direction."""

    def __init__(
        self,
        proxy: _Proxy,
        link: Link,
        direction: Direction,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        self._proxy = proxy
        self._link = link
        self._direction = direction
        self._reader = reader
        self._writer = writer
        self._disturber = Disturber([t for t in link.plan.troubles if t.direction is direction])
        self._drip: Trouble | None = None
        self._closed = False
        self._kept = direction is Direction.DOWN and link.spoils

    async def run(self) -> None:
        """Pump until the sender ends or a trouble does."""
        await self._do_all(b"")
        while data := await self._reader.read(_READ):
            if self._kept:
                self._link.came += data
            await self._do_all(data)
        if not self._closed:
            self._writer.write_eof()

    async def _do_all(self, data: bytes) -> None:
        for step in self._disturber.feed(data):
            await self._proxy.thawed.wait()
            if isinstance(step, bytes):
                await self._send(step)
            else:
                self._link.troubles += 1
                await self._act(step)

    async def _send(self, data: bytes) -> None:
        if self._closed:
            return
        if self._drip is None:
            await self._put(data)
            return
        for start in range(0, len(data), self._drip.size):
            await self._put(data[start : start + self._drip.size])
            await asyncio.sleep(self._drip.seconds or 0)

    async def _put(self, data: bytes) -> None:
        if self._kept:
            self._link.went += data
        self._writer.write(data)
        await self._writer.drain()
        name = self._direction.value
        setattr(self._link, name, getattr(self._link, name) + len(data))

    async def _act(self, trouble: Trouble) -> None:
        match trouble.kind:
            case TroubleKind.CUT:
                await delivered(self._writer.transport)
                if trouble.reset:
                    reset(self._writer.transport)
                raise _Cut
            case TroubleKind.OUTAGE:
                await delivered(self._writer.transport)
                await self._proxy.vanish(trouble.seconds or 0)
                raise _Cut
            case TroubleKind.HALF_CLOSE:
                self._closed = True
                self._writer.write_eof()
            case TroubleKind.STALL if trouble.seconds is None:
                await asyncio.Event().wait()
            case TroubleKind.STALL:
                await asyncio.sleep(trouble.seconds or 0)
            case TroubleKind.DRIP:
                self._drip = trouble


class _Proxy:
    """The proxy itself: everything that happens in the loop."""

    def __init__(self, host: str, port: int, otherwise: LinkPlan) -> None:
        self._target = (host, port)
        self._otherwise = otherwise
        self.plans: deque[LinkPlan] = deque()
        self.links: list[Link] = []
        self.thawed = asyncio.Event()
        self.thawed.set()
        self._server: asyncio.Server | None = None
        self._port = 0
        self._coming_back: asyncio.Task[int] | None = None
        self._tasks: dict[asyncio.Task[None], asyncio.StreamWriter] = {}

    async def listen(self, port: int) -> int:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", port, backlog=512)
        self._port = int(self._server.sockets[0].getsockname()[1])
        return self._port

    async def vanish(self, seconds: float) -> None:
        """Refuse connections for some time."""
        if self._server is not None:
            await self.refuse()
            self._coming_back = asyncio.ensure_future(self._come_back(seconds))

    async def _come_back(self, seconds: float) -> int:
        await asyncio.sleep(seconds)
        return await self.listen(self._port)

    async def refuse(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None

    async def cut_all(self, with_reset: bool = False) -> int:
        tasks = dict(self._tasks)
        for task, client in tasks.items():
            if with_reset:
                reset(client.transport)
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for client in tasks.values():
            client.transport.abort()  # closing waits for a client that does not read
        return len(tasks)

    async def freeze(self) -> None:
        self.thawed.clear()

    async def thaw(self) -> None:
        self.thawed.set()

    async def _connected(self, reader: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        task = cast("asyncio.Task[None]", asyncio.current_task())
        self._tasks[task] = client
        link = Link(self.plans.popleft() if self.plans else self._otherwise)
        self.links.append(link)
        try:
            # A cut from outside cancels this task: that is its end, not an error.
            with contextlib.suppress(_Cut, OSError, asyncio.CancelledError):
                await self._relay(link, reader, client)
        finally:
            del self._tasks[task]
            link.closed = True
            client.close()

    async def _relay(
        self, link: Link, reader: asyncio.StreamReader, client: asyncio.StreamWriter
    ) -> None:
        await asyncio.sleep(link.plan.connect_delay_s)
        server_reader, server = await asyncio.open_connection(*self._target)
        up = _Pump(self, link, Direction.UP, reader, server)
        down = _Pump(self, link, Direction.DOWN, server_reader, client)
        pumps = [asyncio.ensure_future(up.run()), asyncio.ensure_future(down.run())]
        try:
            await asyncio.gather(*pumps)
        except ConnectionResetError:
            reset(server.transport)  # a reset on one side is one on the other
            reset(client.transport)
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
            server.close()


class FaultProxy:
    """The proxy in a thread of this process, between ``__enter__`` and ``__exit__``."""

    def __init__(self, target: str, *, otherwise: LinkPlan | None = None) -> None:
        """Choose the server behind it.

        Args:
            target: The server's URL; only host and port matter here.
            otherwise: The plan of connections that none was enqueued for; transparent if None.
        """
        parts = urllib.parse.urlsplit(target)
        if parts.hostname is None or parts.port is None:
            raise ValueError(f"no host and port in {target!r}")
        self._thread = LoopThread("fault-proxy")
        self._proxy = _Proxy(parts.hostname, parts.port, otherwise or LinkPlan())
        self._port = 0

    def __enter__(self) -> Self:
        """Listen on a free port of 127.0.0.1."""
        self._thread.__enter__()
        self._port = self._thread.call(self._proxy.listen, 0)
        self.url = f"http://127.0.0.1:{self._port}"
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Drop every connection and stop."""
        self._thread.call(self._proxy.refuse)
        self._thread.call(self._proxy.cut_all)
        self._thread.__exit__(kind, error, trace)

    @property
    def base_url(self) -> str:
        """The URL to give to a client of an OpenAI-compatible server."""
        return f"{self.url}/v1"

    @property
    def links(self) -> list[Link]:
        """Every connection so far; live objects, to be read only."""
        return list(self._proxy.links)

    def enqueue(self, *plans: LinkPlan) -> None:
        """Add plans, one for each connection to come."""
        self._proxy.plans.extend(plans)

    def cut_all(self, *, reset: bool = False) -> int:
        """Cut every open connection now; return how many there were."""
        return self._thread.call(self._proxy.cut_all, reset)

    def freeze(self) -> None:
        """Let nothing pass from now on, in silence; no connection is closed."""
        self._thread.call(self._proxy.freeze)

    def thaw(self) -> None:
        """Let everything pass again."""
        self._thread.call(self._proxy.thaw)

    def refuse(self) -> None:
        """Refuse connections until ``accept()``; open ones go on."""
        self._thread.call(self._proxy.refuse)

    def accept(self) -> None:
        """Accept connections again, on the same port."""
        self._thread.call(self._proxy.listen, self._port)
