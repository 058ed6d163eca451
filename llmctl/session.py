"""The one loop of a reply: back end → journal → screen, and the three calls that steer it.

::

    pause() resume() stop()          sync, idempotent, never wait
            │
            ▼
    source ──▶ journal ──▶ turn ──▶ view            two tasks: one receives, one delivers
     (chunks)   received   spool    delivered ──▶ journal

The receiving task writes each chunk into the journal and hands it to the turn. The
delivering task takes from the turn what may be shown now. Because they only share the
spool, a pause stops delivery at once and the reply keeps coming (hold), or the receiving
task leaves its stream and the generation ends (cut). A third task watches the clocks.

What a fault means is decided here and nowhere else: an `LlmctlError` becomes the end of the
table in `events.End`; a lost connection climbs the ladder of `resume`; anything else is a
bug and ends in `End.INTERNAL` with everything kept.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

import anyio
import anyio.to_thread
from anyio.lowlevel import checkpoint

from cancelable_core import Cancelable, CancelationToken
from llmctl.clocks import Clocks, Limits
from llmctl.errors import (
    BelowRequire,
    ConnectTimedOut,
    Disconnected,
    LlmctlError,
    Overloaded,
    Refused,
    Unreachable,
)
from llmctl.events import (
    BEHIND_TEXT,
    PAID_AGAIN,
    Chunk,
    Delta,
    End,
    Finished,
    Guarantee,
    MarkerFound,
    Mode,
    Paused,
    PauseReason,
    Problem,
    Resumed,
    Retrying,
    Started,
    Status,
    Strategy,
    Timing,
    Usage,
)
from llmctl.ports import Journal, Opened, Source, Stream, View
from llmctl.retries import Patience, Retries
from llmctl.turn import Mark, Phase, Turn

LIMIT_PATIENCE_S = 1.0
"""Seconds that an end or a marker has to come first when a limit is reached."""

GIVE_UP_FLUSH_S = 0.25
"""Seconds that output still has to get out when the reply ends by force."""

POLL_S = (0.001, 0.05)
"""Seconds between two looks at an output that is still being written: at first, and at most."""

SIGNAL_ENDS: Mapping[int, End] = {
    signal.SIGINT: End.SIGINT,
    signal.SIGTERM: End.SIGTERM,
    signal.SIGHUP: End.SIGHUP,
}

PAUSE_ENDS: Mapping[PauseReason, End] = {
    PauseReason.KEY: End.PAUSED_BY_KEY,
    PauseReason.MARKER: End.PAUSED_BY_MARKER,
    PauseReason.LIMIT: End.PAUSED_BY_LIMIT,
    PauseReason.PAGE: End.PAUSED_BY_KEY,
}

FAULT_ENDS: Mapping[type[LlmctlError], End] = {
    Refused: End.REFUSED,
    ConnectTimedOut: End.CONNECT_TIMEOUT,
    Unreachable: End.UNREACHABLE,
    Overloaded: End.UNREACHABLE,
    Disconnected: End.DISCONNECT,
    BelowRequire: End.BELOW_REQUIRE,
}


@dataclass(frozen=True, slots=True)
class Policy:
    """What a session does where commands differ.

    Attributes:
        ends_on_pause: a pause ends the session (``run``) or waits (``chat``).
        stored: the reply is on disk, so that a later process may go on with it.
        continues: an earlier process began this reply.
        held: that process left it paused with the generation read on.
        limits: how long things may take.
        patience: for how long a lost connection is tried again.
        syncs: make the journal survive a power cut when the reply ends; a journal that many
            replies share is synced by who shares it.
        breath_s: for how long text that is there already may keep keys waiting, in seconds;
            None where nobody presses any.
    """

    ends_on_pause: bool = True
    stored: bool = True
    continues: bool = False
    held: bool = False
    limits: Limits = field(default_factory=Limits)
    patience: Patience = field(default_factory=Patience)
    syncs: bool = True
    breath_s: float | None = None


class Session:
    """Runs one reply from wherever it stands to its end.

    Args:
        turn: the reply; what earlier processes received is in it already.
        source: where its chunks come from.
        journal: what remembers it.
        view: what shows it.
        started: the event that names it.
        policy: what this command does where commands differ.
        now: a clock in seconds.
    """

    def __init__(  # noqa: PLR0913  (its three ports, and what differs between commands)
        self,
        turn: Turn,
        source: Source,
        *,
        journal: Journal,
        view: View,
        started: Started,
        policy: Policy,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.turn = turn
        self.bug: Exception | None = None
        self._problem: Problem | None = None
        self._blamed: End | None = None
        self._had = turn.received.deltas
        self._source = source
        self._journal = journal
        self._view = view
        self._started = started
        self._policy = policy
        self._clocks = Clocks(now)
        self._token = CancelationToken(name="reply")
        self._stops: list[End] = []
        self._source_end: End | None = None
        self._stream: Stream | None = None
        self._answered = False
        self._repaid_tokens = 0
        self._reading: anyio.CancelScope | None = None
        self._sleepers: list[anyio.Event] = []
        self._may_deliver = not policy.continues
        self._first_count = self._tokens_received()
        self._pause_reason = PauseReason.KEY
        self._breathed = 0.0

    # -- control: sync, idempotent, never waits

    def pause(self, reason: PauseReason = PauseReason.KEY, mode: Mode | None = None) -> None:
        """Stop delivery now; hold keeps the generation, cut ends it."""
        paused = self.turn.pause(reason, mode)
        if paused is not None:
            self._enter_pause(paused)

    def resume(self) -> None:
        """Go on delivering."""
        if not self.turn.resume():
            return
        self._clocks.go_on()
        if self._stream is not None:
            self._stream.release()
        if self.turn.mode is Mode.HOLD or self.turn.received.finished:
            self._announce(Strategy.HELD, Guarantee.EXACT)
        self._wake()

    def cut(self) -> None:
        """End the generation of a reply that is held; what was received is kept."""
        self.turn.mode = Mode.CUT
        self._may_deliver = self.turn.received.finished
        if self._reading is not None:
            self._reading.cancel()

    def stop(self, end: End, problem: Problem | None = None) -> None:
        """End this process's share; the first cause decides. Safe from threads and signals."""
        if problem is not None and not self._stops:
            self._blamed, self._problem = end, problem
        self._stops.append(end)
        self._token.cancel(message=end.cause)

    @property
    def resuming(self) -> bool:
        """Whether a way to go on with the reply is being looked for."""
        return not self._may_deliver and self.turn.phase is Phase.STREAMING

    @property
    def stopping(self) -> bool:
        """Whether the end of this share has been asked for."""
        return bool(self._stops)

    def timing(self) -> Timing:
        """Return the figures of this process's share so far."""
        return self._clocks.timing(self._new_tokens())

    def silence(self) -> float:
        """Return for how many seconds nothing has come that was waited for."""
        return 0.0 if self.turn.received.finished else self._clocks.silence()

    def forget(self) -> None:
        """The reply has ended for good: what the back end keeps for a resume can go."""
        self._source.forget()

    # -- the loop

    async def run(self) -> Finished:
        """Run to the end and return the last event, which the view has been shown too."""
        try:
            async with Cancelable.with_token(self._token, when_cancelled="absorb"):
                await self._work()
        except LlmctlError as error:
            self.stop(self._blame(error))
        with anyio.CancelScope(shield=True):
            finished = await self._finish(self._stops[0])
        return finished  # noqa: RET504  (a scope may end its block early, says its type)

    async def _work(self) -> None:
        self._view.show(self._started, self.turn.mark)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._guard, self._receive)
            if self._policy.limits != Limits():
                tasks.start_soon(self._guard, self._watch)
            await self._guard(self._deliver)
            tasks.cancel_scope.cancel()

    async def _guard(self, task: Callable[[], Awaitable[None]]) -> None:
        """Turn what a task raises into the reply's end; text that is here goes out first."""
        try:
            await task()
        except LlmctlError as error:
            self._source_end = self._blame(error)
            self._wake()
        except Exception as error:  # noqa: BLE001  (a bug: said as one, with the reply kept)
            self.bug = error
            problem = Problem("internal", f"llmctl failed: {error!r}.", "Try --verbose.")
            self.stop(End.INTERNAL, problem)

    # -- receiving

    async def _receive(self) -> None:
        await self._wanted()
        here = self.turn.received.finished or self._policy.held
        if self._policy.continues and here and not self._may_deliver:
            self._announce(Strategy.HELD, self._source.guarantee)
            await self._delivered_all()
        await self._source.ready()
        self._clocks.begin()
        retries = Retries(self._policy.patience)
        while not self.turn.received.finished:
            had = self.turn.received.deltas
            try:
                with anyio.CancelScope() as self._reading:
                    await self._read()
            except LlmctlError as error:
                if self.turn.received.deltas > had:
                    retries.progress()
                await self._mend(error, retries)
            await self._wanted()
        self._wake()

    async def _mend(self, error: LlmctlError, retries: Retries) -> None:
        """Wait before the next try; where there is none, raise what went wrong first."""
        received = self.turn.received
        delay = retries.after(error, coming=received.begun and self._answered)
        hopeless = received.begun and not self._source.may_go_on(received.as_prefix())
        if delay is None and not hopeless and self._stands_still:
            retries.progress()  # nobody waits: it is tried again when somebody does
            self.cut()
            return
        if delay is None or hopeless:
            raise retries.first or error
        self._view.show(Retrying(error.message, delay, self.turn.position), self.turn.mark)
        await anyio.sleep(delay)

    async def _read(self) -> None:
        """Open the reply, or find a way to go on with it, and read it to its end."""
        received = self.turn.received
        prefix = received.as_prefix()
        if not received.begun:
            opening = self._source.start()
        elif self._source.spent(prefix):
            self._take_in(Chunk(finish_reason="length"))
            if not self._may_deliver:
                self._announce(Strategy.HELD, self._source.guarantee)
            return
        else:
            self._clocks.reopen()
            opening = self._source.go_on(prefix, self._clocks.sign_of_life)
        async with opening as opened:
            self._stream = opened.stream
            self._answered = True
            try:
                await self._take(opened)
            except anyio.get_cancelled_exc_class():
                await self._save(opened.stream)
                raise
            finally:
                self._stream = None

    async def _take(self, opened: Opened) -> None:
        if opened.strategy is None:
            self._journal.conditions(opened.stream.conditions)
            if self._policy.continues:
                self._announce(Strategy.REPLAY, Guarantee.EXACT)  # nothing exists yet
        elif opened.guarantee is not None:
            if opened.strategy in PAID_AGAIN:
                self._repaid_tokens += self.turn.received.spent
            if opened.strategy in BEHIND_TEXT:
                self.turn.seam()
            if self._may_deliver:
                await self._delivered_all()
            if opened.strategy is Strategy.TOKENS:
                self.turn.whole()
            self._announce(opened.strategy, opened.guarantee, opened.paid_again)
        async for chunk in opened.chunks:
            if chunk.text or chunk.tokens:
                self._clocks.token()
            self._take_in(chunk)
            await self._breathe()

    def _take_in(self, chunk: Chunk) -> None:
        self._journal.received(chunk)
        self.turn.receive(chunk)
        self._wake()

    async def _save(self, stream: Stream) -> None:
        with anyio.move_on_after(0.5, shield=True):
            state = await stream.save()
            if state is not None:
                self._source.keep(state)
                self._journal.saved(state)

    async def _wanted(self) -> None:
        """Wait while the reply is paused with its generation ended."""
        while self.turn.phase is Phase.PAUSED and self.turn.mode is Mode.CUT:
            await self._change()

    # -- delivering

    async def _deliver(self) -> None:
        """Show what may be shown until the reply ends or this process's share does."""
        while True:
            await self._room()
            events = self.turn.deliver() if self._may_deliver else []
            for event in events:
                self._publish(event)
            if self.turn.phase is Phase.PAUSED and self._policy.ends_on_pause:
                await self._end_paused()
                return
            if events:
                await self._breathe()
                continue
            wait = self.turn.at_limit or self._stands_still
            end = self.turn.end or (None if wait else self._source_end)
            if end is not None:
                await self._end_with(end)
                return
            self._wake()
            await self._more()

    async def _more(self) -> None:
        """Wait for something to change; at a limit not for long, as nothing need follow it."""
        patience = 0.0 if self._source_end else LIMIT_PATIENCE_S
        with anyio.move_on_after(patience if self.turn.at_limit else None) as waiting:
            await self._change()
        if waiting.cancelled_caught:
            self.pause(PauseReason.LIMIT)

    @property
    def _stands_still(self) -> bool:
        """Whether the reply is paused and waits to be resumed here."""
        return self.turn.phase is Phase.PAUSED and not self._policy.ends_on_pause

    def _publish(self, event: Delta | MarkerFound | Paused) -> None:
        match event:
            case Paused():
                self._enter_pause(event)
            case MarkerFound():
                self._journal.marker(event, self.turn.mark)
                self._view.show(event, self.turn.mark)
            case Delta():
                self._view.show(event, self.turn.mark)

    def _enter_pause(self, paused: Paused) -> None:
        self._pause_reason = paused.reason
        self._journal.paused(paused)
        self._view.show(paused, self.turn.mark)
        if paused.mode is Mode.CUT:
            self.cut()
        elif self._stream is not None and self._holds(paused):
            self._stream.hold()
        if not self._policy.ends_on_pause:
            self._clocks.stand_still()
        self._wake()

    def _holds(self, paused: Paused) -> bool:
        return not self._policy.ends_on_pause and paused.reason is not PauseReason.PAGE

    async def _end_paused(self) -> None:
        """A pause ends this command; with hold, once the rest has been read."""
        while self.turn.mode is Mode.HOLD and not self.turn.received.finished:
            if self._source_end is not None:
                await self._end_with(self._source_end)
                return
            await self._change()
        await self._end_with(PAUSE_ENDS[self._pause_reason])

    def _announce(
        self, strategy: Strategy, guarantee: Guarantee, paid_again: Usage | None = None
    ) -> None:
        """Say how the reply goes on, then let it."""
        resumed = Resumed(strategy, guarantee, self.turn.position, paid_again)
        self._journal.resumed(resumed)
        if self.turn.phase is Phase.PAUSED:  # the reply goes on, its delivery does not
            self._journal.paused(Paused(self._pause_reason, self.turn.mode, self.turn.position))
        else:
            self._view.show(resumed, self.turn.mark)
        self._may_deliver = True
        self._wake()

    async def _delivered_all(self) -> None:
        while self.turn.waiting and self.turn.phase is Phase.STREAMING:
            await self._change()

    async def _room(self) -> None:
        if self._view.full:
            await _until(lambda: not self._view.full)

    async def _end_with(self, end: End) -> None:
        """End once everything is out: until then a signal or a limit may still cut it."""
        await _until(lambda: self._view.drain(0))
        self.stop(end)

    # -- clocks

    async def _watch(self) -> None:
        limits, clocks = self._policy.limits, self._clocks
        while True:
            await anyio.sleep(clocks.next_look(limits))
            blocked_s = self._view.blocked_for
            clocks.tick(still=blocked_s > 0)
            if limits.total is not None and blocked_s >= limits.total:
                self.stop(End.TOTAL_TIMEOUT)
            end = clocks.expired(limits, receiving=not self.turn.received.finished)
            if end is not None:
                self.stop(end)

    # -- ending

    def _blame(self, error: LlmctlError) -> End:
        ends = (end for kind, end in FAULT_ENDS.items() if isinstance(error, kind))
        self._problem = error.as_problem()
        self._blamed = next(ends, End.INTERNAL)
        return self._blamed

    def _problem_of(self, end: End) -> Problem | None:
        if end is self._blamed:
            return self._problem
        if end.status is Status.TIMEOUT:
            return Problem("timeout", f"The {end.cause} time limit was reached.")
        return None

    async def _finish(self, end: End) -> Finished:
        await self._out()
        mark = self._delivered()
        timing = self._clocks.timing(self._new_tokens())
        resumable = end.resumable or self._only_refused(end)
        self._journal.delivered(mark)
        self._journal.ended(end, timing, resumable=resumable)
        if self._policy.syncs:
            await anyio.to_thread.run_sync(self._journal.sync)
        finished = Finished(
            generation=self._started.generation,
            end=end,
            resumable=resumable and self._policy.stored,
            finish_reason=self.turn.finish_reason,
            position=mark.position,
            usage=self.turn.received.usage,
            timing=timing,
            problem=self._problem_of(end),
            repaid_tokens=self._repaid_tokens,
        )
        self._view.show(finished, mark)
        await self._out()
        return finished

    def _delivered(self) -> Mark:
        """Return how far the reply went out; if all of it did, with what is known by now."""
        out, here = self._view.delivered, self.turn.mark
        return here if (out.model, out.reasoning) == (here.model, here.reasoning) else out

    def _only_refused(self, end: End) -> bool:
        """Whether an earlier process's reply is as it was: only going on was refused."""
        unchanged = self.turn.received.deltas == self._had
        return end is End.REFUSED and self._policy.continues and unchanged

    async def _out(self) -> None:
        """Wait a moment for output that is still under way; where there is none, not at all."""
        if not self._view.drain(0):
            await anyio.to_thread.run_sync(self._view.drain, GIVE_UP_FLUSH_S)

    def _tokens_received(self) -> int | None:
        delivered = self.turn.mark.tokens
        return None if delivered is None else delivered + (self.turn.waiting_tokens or 0)

    def _new_tokens(self) -> int | None:
        received = self._tokens_received()
        if received is None or self._first_count is None:
            return None
        return received - self._first_count

    # -- waking the tasks that wait for something to change

    async def _change(self) -> None:
        event = anyio.Event()
        self._sleepers.append(event)
        await event.wait()

    async def _breathe(self) -> None:
        """Let keys be heard, though there is more to do than is done at once."""
        if self._policy.breath_s is None or time.monotonic() < self._breathed:
            return
        await checkpoint()
        self._breathed = time.monotonic() + self._policy.breath_s

    def _wake(self) -> None:
        while self._sleepers:
            self._sleepers.pop().set()


async def _until(done: Callable[[], bool]) -> None:
    """Wait for what only the writer thread brings about, looking less and less often."""
    delay, longest = POLL_S
    while not done():
        await anyio.sleep(delay)
        delay = min(2 * delay, longest)
