"""One reply, as a pure state machine. No I/O, no clock, no anyio.

Two things happen to a reply, at their own pace: it is *received* from the back end, and
it is *delivered* to a person or a program. Between the two lies the spool. Whatever stands
in the spool has been paid for and is never lost; nothing in it has acted yet: markers and
limits act when their text is delivered.

::

    receive(chunk) ──▶ spool ──▶ scanner ──▶ deliver() ──▶ Delta │ MarkerFound │ Paused
                                              ▲
                      pause() resume() stop() ┘  flip the phase, at once

    phase        pause     resume      stop
    STREAMING    PAUSED    -           ENDED
    PAUSED       -         STREAMING   ENDED
    ENDED        -         -           -          the first cause decides

`TRANSITIONS` is that table; a pair that is not in it changes nothing.

Three rulers measure a reply. *Model text* is what the model wrote, markers included;
*content* is model text without markers, and what `Position.chars` counts; *tokens* are
counted where they end. A token belongs to the content if at least one of its characters
does, and it is behind a position once all of its characters are (`llmctl.token_counter`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from enum import StrEnum
from typing import NamedTuple, assert_never

from llmctl.events import (
    Action,
    Channel,
    Chunk,
    Delta,
    End,
    MarkerFound,
    Mode,
    Paused,
    PauseReason,
    Position,
)
from llmctl.markers import Item, Marker, MarkerScanner, Text
from llmctl.received import Received
from llmctl.token_counter import TokenCounter


class Phase(StrEnum):
    """Whether text is delivered now."""

    STREAMING = "streaming"
    PAUSED = "paused"
    ENDED = "ended"


class Control(StrEnum):
    """The three things that can be asked of a reply."""

    PAUSE = "pause"
    RESUME = "resume"
    STOP = "stop"


TRANSITIONS: Mapping[tuple[Phase, Control], Phase] = {
    (Phase.STREAMING, Control.PAUSE): Phase.PAUSED,
    (Phase.STREAMING, Control.STOP): Phase.ENDED,
    (Phase.PAUSED, Control.RESUME): Phase.STREAMING,
    (Phase.PAUSED, Control.STOP): Phase.ENDED,
}


class Mark(NamedTuple):
    """How far a reply was delivered, on all rulers at once.

    Attributes:
        chars: content characters delivered.
        model: characters of model text behind which delivery stands.
        reasoning: characters of reasoning delivered.
        tokens: content tokens counted so far; None once the count is lost.
        counted: where in the model text that count was taken, at or before ``model``.
        exact: whether ``tokens`` is the number at ``model`` itself.
    """

    chars: int = 0
    model: int = 0
    reasoning: int = 0
    tokens: int | None = 0
    counted: int = 0
    exact: bool = True

    @property
    def position(self) -> Position:
        """The published form."""
        return Position(self.chars, self.tokens if self.exact else None)

    def short_of(self, before: Mark, missing: int) -> Mark:
        """Return the mark ``missing`` characters of plain content before this one."""
        if not missing:
            return self
        return before._replace(chars=self.chars - missing, model=self.model - missing, exact=False)


Delivery = Delta | MarkerFound | Paused


def _some(event: Paused | None) -> list[Delivery]:
    return [] if event is None else [event]


class Turn:
    """One reply between its back end and its reader.

    Args:
        markers: texts that act, each with its action.
        mode: what a pause by marker or limit does to the generation.
        pause_after: pause when this many content tokens were delivered by this process
            (deltas where the back end does not tell tokens); None for no limit.
        bound: end when this many content tokens were delivered in all; what was received
            beyond them stays. None for no bound; without effect where tokens are not told.
        mark: where an earlier process's delivery stopped.
    """

    def __init__(
        self,
        markers: Mapping[str, Action],
        *,
        mode: Mode = Mode.HOLD,
        pause_after: int | None = None,
        bound: int | None = None,
        mark: Mark = Mark(),  # noqa: B008  (immutable)
    ) -> None:
        self.phase = Phase.STREAMING
        self.end: End | None = None
        self.mode = self._mode = mode
        self.received = Received()
        self.asked = False
        self._scanner = MarkerScanner(markers)
        self._counter = TokenCounter(mark.tokens)
        self._mark = mark
        self._skip = mark
        self._pause_after = pause_after
        self._bound = bound
        self._spool: deque[Chunk] = deque()
        self._spooled_tokens = 0
        self._uncounted = 0  # chunks in the spool of which the number of tokens is not known
        self._items: deque[Item] = deque()
        self._drained = False

    # -- where it stands

    @property
    def mark(self) -> Mark:
        """How far the reply was delivered, on all rulers."""
        return self._mark

    @property
    def position(self) -> Position:
        """How far the reply was delivered, as published."""
        return self._mark.position

    @property
    def finish_reason(self) -> str | None:
        """Why the reply ended here; None if it has not, or the back end has not said it yet."""
        if self.end is End.TOKEN_LIMIT:
            return "length"
        return None if self._undelivered else self.received.finish_reason

    @property
    def waiting(self) -> int:
        """Characters received and not delivered, though nothing more need come for it."""
        return self._undelivered - self._scanner.held

    @property
    def _undelivered(self) -> int:
        received = self.received.chars + self.received.reasoning_chars
        return received - self._mark.model - self._mark.reasoning

    @property
    def waiting_tokens(self) -> int | None:
        """Tokens received and not delivered; None where that is not known."""
        return None if self._items or self._uncounted else self._spooled_tokens

    @property
    def at_limit(self) -> bool:
        """Whether the next character, unless an end or a marker comes first, is one too many."""
        limit = self._pause_after
        streaming = self.phase is Phase.STREAMING
        return streaming and limit is not None and self._counter.units >= limit

    # -- data

    def receive(self, chunk: Chunk) -> None:
        """Take one chunk from the back end into the spool."""
        self.received.add(chunk)
        chunk = self._without_delivered(chunk)
        if chunk.text:
            self._spool.append(chunk)
            self._note_spooled(chunk, 1)

    def seam(self) -> None:
        """What comes next was asked for behind the text so far: ids beyond it are void."""
        self._counter.seam()
        self.received.seam()

    def whole(self) -> None:
        """The ids so far were seen to spell the text so far: their count is known."""
        self._counter.whole()
        self._advance(self._mark.model, 0)

    def deliver(self) -> list[Delivery]:
        """Return the next things to deliver; none if nothing may be delivered now.

        The caller asks again until the list is empty. A reply whose end was received is
        ended by the call that finds the spool empty.
        """
        if self.phase is not Phase.STREAMING:
            return []
        while not self._items:
            if self._spool:
                chunk = self._spool.popleft()
                self._note_spooled(chunk, -1)
                reasoning = self._open(chunk)
                if reasoning:
                    return reasoning
            elif self._ends_for_good and not self._drained:
                self._drained = True
                self._items.extend(self._scanner.finish())
            else:
                self._finish_if_over()
                return []
        return self._deliver_item(self._items.popleft())

    @property
    def _ends_for_good(self) -> bool:
        """Whether nothing can follow; behind a token limit the rest of a marker may."""
        received = self.received
        return received.finished and (received.finish_reason != "length" or received.context_full)

    # -- control

    def pause(self, reason: PauseReason, mode: Mode | None = None) -> Paused | None:
        """Stand still; None if that changes nothing."""
        if not self._step(Control.PAUSE):
            return None
        self.mode = mode or self._mode
        self.asked = False
        if reason is PauseReason.LIMIT:
            self._pause_after = None
        return Paused(reason, self.mode, self.position)

    def resume(self) -> bool:
        """Go on; False if that changes nothing."""
        return self._step(Control.RESUME)

    def stop(self, end: End) -> bool:
        """End with ``end`` unless it has ended already."""
        stopped = self._step(Control.STOP)
        if stopped:
            self.end = end
        return stopped

    # -- inside

    def _step(self, control: Control) -> bool:
        phase = TRANSITIONS.get((self.phase, control))
        if phase is None:
            return False
        self.phase = phase
        return True

    def _without_delivered(self, chunk: Chunk) -> Chunk:
        """Cut off what an earlier process delivered; feed the rulers all the same."""
        if chunk.channel is Channel.REASONING:
            old = min(self._skip.reasoning, len(chunk.text))
            if old:
                self._skip = self._skip._replace(reasoning=self._skip.reasoning - old)
        else:
            self._counter.add(chunk)
            old = min(self._skip.model, len(chunk.text))
            if old:
                self._pass_delivered(chunk.text[:old])
        return chunk._replace(text=chunk.text[old:]) if old else chunk

    def _pass_delivered(self, text: str) -> None:
        self._scanner.skip(text)
        self._skip = self._skip._replace(model=self._skip.model - len(text))
        self._counter.skip(self._mark.counted, self._mark.model - self._skip.model)
        if not self._skip.model:
            self._advance(self._mark.model, 0)

    def _note_spooled(self, chunk: Chunk, sign: int) -> None:
        """Keep count of what waits: the status row asks four times a second."""
        self._spooled_tokens += sign * (chunk.tokens or 0)
        self._uncounted += sign * (chunk.tokens is None)

    def _open(self, chunk: Chunk) -> list[Delivery]:
        if chunk.channel is Channel.CONTENT:
            self._items.extend(self._scanner.feed(chunk.text))
            return []
        self._mark = self._mark._replace(reasoning=self._mark.reasoning + len(chunk.text))
        return [Delta(Channel.REASONING, chunk.text, self.position)]

    def _deliver_item(self, item: Item) -> list[Delivery]:
        if isinstance(item, Marker):
            return self._act(item)
        left = self._left()
        if left is None:
            return [self._pass(item)]
        if left <= 0:
            self._items.appendleft(item)
            return self._reach_limit()
        return [self._pass(self._split(item, self._counter.room(item.end, left)))]

    def _left(self) -> int | None:
        """Return how many more tokens may be delivered; None without a limit."""
        if self._pause_after is None and self._bound is None:
            return None
        counter = self._counter
        limits = ((self._pause_after, counter.units), (self._bound, counter.tokens))
        lefts = [limit - n for limit, n in limits if limit is not None and n is not None]
        return min(lefts, default=None)

    def _reach_limit(self) -> list[Delivery]:
        """Pause, unless the reply may not become longer at all."""
        tokens = self._counter.tokens
        if self._bound is not None and tokens is not None and tokens >= self._bound:
            self.stop(End.TOKEN_LIMIT)
            return []
        return _some(self.pause(PauseReason.LIMIT))

    def _split(self, item: Text, end: int) -> Text:
        """Return the part of ``item`` up to ``end``; the rest goes back into the queue."""
        if end >= item.end:
            return item
        kept = len(item.text) - (item.end - end)
        self._items.appendleft(Text(item.text[kept:], item.end))
        return Text(item.text[:kept], end)

    def _pass(self, item: Text) -> Delta:
        self._counter.pass_text(item.end)
        self._advance(item.end, len(item.text))
        return Delta(Channel.CONTENT, item.text, self.position)

    def _act(self, item: Marker) -> list[Delivery]:
        self._counter.pass_marker(item.end - len(item.marker), item.end)
        self._advance(item.end, 0)
        found = MarkerFound(item.marker, item.action, self.position)
        match item.action:
            case Action.STOP:
                self.stop(End.STOPPED_BY_MARKER)
                return [found]
            case Action.PAUSE | Action.ASK:
                paused = self.pause(PauseReason.MARKER)
                self.asked = item.action is Action.ASK
                return [found, *_some(paused)]
            case _:
                assert_never(item.action)

    def _advance(self, model: int, chars: int) -> None:
        self._mark = Mark(
            chars=self._mark.chars + chars,
            model=model,
            reasoning=self._mark.reasoning,
            tokens=self._counter.tokens,
            counted=model,
            exact=self._counter.at(model) is not None,
        )

    def _finish_if_over(self) -> None:
        if not self.received.finished:
            return
        self._advance(self._mark.model, 0)  # the end may have told how many tokens it were
        if self.received.context_full:
            self.stop(End.CONTEXT_FULL)
        elif self.received.finish_reason == "length":
            self.stop(End.TOKEN_LIMIT)
        else:
            self.stop(End.COMPLETE)
