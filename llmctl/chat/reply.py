"""One reply in a chat: its session, what keys do to it, its status row, its holds' bounds."""

from __future__ import annotations

import time
from dataclasses import dataclass

import anyio

from llmctl.chat.keyboard import Draft, Keyboard
from llmctl.config import OnPause
from llmctl.events import (
    End,
    Event,
    Finished,
    MarkerFound,
    Mode,
    Paused,
    PauseReason,
    Resumed,
    Retrying,
)
from llmctl.session import Session
from llmctl.talk import at
from llmctl.terminal.keys import Press
from llmctl.terminal.screen import Surface
from llmctl.terminal.status import Facts, State, footer
from llmctl.terminal.tty import Terminal
from llmctl.turn import Phase

PAINT_EVERY_S = 0.25
"""Seconds between two looks at the status row."""

SIGCONT_DELAY_S = 0.5
"""Seconds within which a SIGCONT is heard that came while we were stopped."""

HOLD_LIMIT_CHARS = 1024 * 1024
"""Text waiting in a hold above which `auto` ends the generation."""

BILLED_HOLD_S = 60.0
"""Seconds of a hold after which `auto` ends a generation that costs money."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Holding:
    """How pauses are held here.

    Attributes:
        on_pause: what the person chose.
        billed: the generation costs money while it is held.
        can_go_on: the back end can go on with a cut reply as exactly as is required.
        engine_stands_still: a hold stops the generation itself, so that nothing is spent.
    """

    on_pause: OnPause
    billed: bool
    can_go_on: bool
    engine_stands_still: bool

    @property
    def mode(self) -> Mode:
        """What a key press does to the generation."""
        return Mode.CUT if self.on_pause is OnPause.CUT else Mode.HOLD

    @property
    def suspended_mode(self) -> Mode:
        """What Ctrl-Z does: a stopped process can hold no connection."""
        return Mode.HOLD if self.engine_stands_still else Mode.CUT

    def is_over(self, held_s: float, waiting: int) -> bool:
        """Say whether a hold has become too dear: too much text, or paid for too long."""
        if self.on_pause is not OnPause.AUTO or self.engine_stands_still or not self.can_go_on:
            return False
        return waiting > HOLD_LIMIT_CHARS or (self.billed and held_s > BILLED_HOLD_S)


class LiveReply:
    """A reply while it is on the screen.

    Args:
        session: what runs it.
        surface: where text, status row and hints go.
        terminal: what is suspended.
        draft: what the person types meanwhile.
        model: the model's name, for the status row.
        holding: how pauses are held here.
        plain: changes of state are lines, since there is no status row.
    """

    def __init__(  # noqa: PLR0913  (each is said by its name)
        self,
        session: Session,
        surface: Surface,
        terminal: Terminal,
        draft: Draft,
        *,
        model: str,
        holding: Holding,
        plain: bool,
    ) -> None:
        self.session = session
        self.left = False
        self._surface = surface
        self._draft = draft
        self._model = model
        self._holding = holding
        self._plain = plain
        self._terminal = terminal
        self._came_back_at = float("-inf")
        self._keyboard = Keyboard(self, draft, time.monotonic)
        self._paused_at = 0.0
        self._by: PauseReason | None = None
        self._hint = ""
        self._resumed: Resumed | None = None
        self._retried_at: int | None = None

    async def run(self) -> Finished:
        """Run the reply to its end with the status row below it."""
        if self.paused:  # opened so
            self._announce(f"paused at {at(self.session.turn.position)}")
        async with anyio.create_task_group() as tasks:
            self.paint()
            tasks.start_soon(self._keep_painting)
            finished = await self.session.run()
            tasks.cancel_scope.cancel()
        self._surface.footer(())
        return finished

    def press(self, press: Press) -> None:
        """Do what a key does."""
        self._hint = ""
        self._keyboard.press(press)
        self.paint()
        self._surface.flush()

    def interrupt(self) -> None:
        """SIGINT: the same as Ctrl-C."""
        self._keyboard.stop()

    def tell(self, event: Event) -> None:
        """Take an event that is not text: it changes the status row."""
        match event:
            case Paused():
                self._paused_at = time.monotonic()
                self._by = event.reason
                paged = event.reason is PauseReason.PAGE
                self._announce(
                    "page; Space goes on" if paged else f"paused at {at(event.position)}"
                )
            case Resumed(strategy, guarantee, position):
                if self._by is not PauseReason.PAGE:
                    self._resumed = event
                    self._announce(f"resumed at {at(position)} ({strategy}, {guarantee})")
                self._by = None
            case Retrying():
                self._retried_at = self.session.turn.received.deltas
            case MarkerFound():
                pass
            case _:
                return
        self.paint()

    @property
    def resumed(self) -> Resumed | None:
        """How the reply went on last."""
        return self._resumed

    def end_page(self) -> None:
        """A page is full: wait for the reader, while the model runs ahead."""
        self.session.pause(PauseReason.PAGE, Mode.HOLD)

    # -- what keys do (keyboard.Controls)

    @property
    def paused(self) -> bool:
        """Whether the reply is paused."""
        return self.session.turn.phase is Phase.PAUSED

    def pause(self) -> None:
        """Pause the reply."""
        self.session.pause(PauseReason.KEY, self._holding.mode)

    def resume(self) -> None:
        """Let it go on."""
        self.session.resume()

    def stop(self) -> None:
        """Stop it, kept and resumable."""
        self.session.stop(End.SIGINT)

    def steer(self) -> None:
        """End it where it stands, kept; the queued text is the next turn."""
        self.session.stop(End.STEERED)

    def leave(self) -> None:
        """Leave the chat; the reply stays paused."""
        self.left = True
        self.session.stop(End.PAUSED_BY_KEY)

    def suspend(self) -> None:
        """Pause, and suspend the program."""
        self.session.pause(PauseReason.KEY, self._holding.suspended_mode)
        if self._holding.suspended_mode is Mode.CUT:
            self.session.cut()
        self._surface.aside(self._terminal.suspend)
        self._came_back_at = time.monotonic()
        self.paint()

    def continued(self) -> None:
        """SIGCONT: somebody stopped us without a warning and let us go on."""
        if time.monotonic() - self._came_back_at < SIGCONT_DELAY_S:
            return  # the signal that ended `suspend`
        if self._terminal.continued():
            self._surface.reopen()
            self.paint()

    def hint(self, text: str) -> None:
        """Show a line to the person, until the next key."""
        self._hint = text
        if self._plain:
            self._surface.line(text)

    def redraw(self) -> None:
        """Paint the screen anew."""
        self._surface.redraw()

    @property
    def _at_page(self) -> bool:
        """Whether it stands at the end of a page; the reader's time costs nothing then."""
        return self.paused and self._by is PauseReason.PAGE

    def _announce(self, change: str) -> None:
        if self._plain:
            self._surface.line(f"[{change}]")

    # -- the status row

    def paint(self) -> None:
        """Show the status row as it is now."""
        self._surface.footer(footer(self._facts(), self._surface.columns))

    async def _keep_painting(self) -> None:
        while True:
            turn = self.session.turn
            held_s = 0.0 if self._at_page else time.monotonic() - self._paused_at
            if not self.paused:
                self.paint()
            elif self._at_page and turn.received.finished and not turn.waiting:
                self.resume()  # there is no other page
            elif self._holding.is_over(held_s, turn.waiting):
                self._cut()
            elif turn.received.finished:
                self.paint()
            await anyio.sleep(PAINT_EVERY_S)

    def _cut(self) -> None:
        if self.session.turn.mode is Mode.HOLD and not self.session.turn.received.finished:
            self.session.cut()
            self.paint()

    def _facts(self) -> Facts:
        turn = self.session.turn
        timing = self.session.timing()
        return Facts(
            state=self._state(),
            model=self._model,
            position=turn.position,
            waiting_tokens=turn.waiting_tokens,
            waiting_chars=turn.waiting,
            tokens_per_s=timing.tokens_per_s,
            seconds=timing.duration_s - timing.paused_s,
            silent_s=self.session.silence(),
            draft=self._draft.text,
            hint=self._hint,
            queued=tuple(self._draft.queued),
            held=self._held,
        )

    @property
    def _held(self) -> str:
        if self._at_page:
            return "the model runs ahead"
        return "engine held" if self._holding.engine_stands_still else "connection held"

    def _state(self) -> State:
        if self.session.stopping:
            return State.STOPPING
        if self.session.resuming:
            return State.RESUMING
        return self._pause() if self.paused else self._flow()

    def _flow(self) -> State:
        turn = self.session.turn
        if turn.received.deltas == self._retried_at:
            return State.RETRYING
        if turn.mark.chars:
            return State.STREAMING
        return State.THINKING if turn.mark.reasoning else State.WAITING

    def _pause(self) -> State:
        turn = self.session.turn
        if turn.asked:
            return State.ASKED
        if self._by is PauseReason.MARKER:
            return State.PAUSED_BY_MARKER
        if self._at_page and turn.mode is Mode.HOLD:
            return State.PAGE_COMPLETE if turn.received.finished else State.PAGE
        if turn.received.finished:
            return State.PAUSED_COMPLETE
        return State.PAUSED_CUT if turn.mode is Mode.CUT else State.PAUSED_HELD
