"""The replies of a chat: asked for, gone on with, shown and put away."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TypeVar, TypeVarTuple

import anyio.to_thread

from llmctl.chat.desk import Desk
from llmctl.chat.editor import Editor
from llmctl.chat.ending import GOES_ON, ending
from llmctl.chat.history import History, OnBroken, Standing
from llmctl.chat.keyboard import Draft, as_typed
from llmctl.chat.models import Models
from llmctl.chat.pages import Pages
from llmctl.chat.reply import LiveReply
from llmctl.chat.setup import Setup
from llmctl.chat.view import ChatView
from llmctl.config import Config, Pace
from llmctl.conversation import Request
from llmctl.errors import LlmctlError
from llmctl.events import End, Finished, Guarantee, Mode, PauseReason, Status
from llmctl.images import in_short
from llmctl.journal import Header, Journal, NoJournal, Recorded
from llmctl.prices import Cost, cost_of
from llmctl.records import new_id
from llmctl.replies import content_of
from llmctl.requests import request_of, seeded
from llmctl.resume.ladder import Ladder, rungs
from llmctl.session import Policy, Session
from llmctl.targets import target_of
from llmctl.turn import Turn
from llmctl.unfinished import request_to_go_on_with, turn_to_go_on_with
from llmctl.watched import watched

NOT_SAVED = "What is said from here on is remembered until this chat ends, and not saved."

KEYS_WAIT_S = 0.001
"""Seconds for which a reply that comes at full speed may keep a key waiting."""

Args = TypeVarTuple("Args")
Result = TypeVar("Result")


class Replies:
    """Shows one reply after the other, and keeps each where it belongs.

    Args:
        setup: what the next reply is asked with.
        history: the conversation.
        draft: what the person types meanwhile.
        desk: the terminal.
        models: the model in use.
        config: the settings in force.
        editor: edits a reply.
        instruction: what a model is told that is asked to go on.

    Attributes:
        live: the reply on the screen; None if there is none.
        last: how the last one ended.
        stopped_at: when the last one was stopped, if it was; monotonic seconds.
        spent: what the replies of this process have cost, where that is known.
        on_gone: called when the terminal goes away under a reply.
    """

    def __init__(  # noqa: PLR0913  (put together in one place, `chat.begin`)
        self,
        setup: Setup,
        history: History,
        draft: Draft,
        desk: Desk,
        models: Models,
        *,
        config: Config,
        editor: Editor,
        instruction: str,
    ) -> None:
        self.live: LiveReply | None = None
        self.last: Finished | None = None
        self.stopped_at: float | None = None
        self.spent: Cost | None = None
        self.on_gone: Callable[[], None] = lambda: None
        self._setup = setup
        self._history = history
        self._draft = draft
        self._desk = desk
        self._models = models
        self._config = config
        self._editor = editor
        self._instruction = instruction
        self._resumable: Ladder | None = None

    async def send(self, prompt: str) -> None:
        """Ask for a reply and show it."""
        try:
            if self._history.unfinished is not None:
                await _in_thread(self._history.keep)
            header = self._header(prompt)
            journal = await _in_thread(self._history.begin, header, self._tell_of_breaks())
        except LlmctlError as error:
            self._draft.text = as_typed(prompt)
            self._desk.complain(error)
            return
        self.forget_what_cannot_go_on()
        mode, pause_after = self._models.holding.mode, self._setup.pause_after
        turn = Turn(header.markers, mode=mode, pause_after=pause_after)
        ladder = self._ladder(header.request)
        await self._play(header, turn, journal, ladder)

    async def open_paused(self) -> None:
        """Show the unfinished reply, paused; Space goes on with it."""
        try:
            await self._go_on(paused=True)
        except LlmctlError as error:
            self._desk.complain(error)

    async def resume(self, require: Guarantee | None = None) -> None:
        """Go on with the unfinished reply."""
        await self._go_on(paused=False, require=require)

    async def edit(self) -> None:
        """Let the person edit the unfinished reply, and go on from that."""
        assert self._history.unfinished is not None  # noqa: S101  (the caller looked)
        before = content_of(self._history.unfinished.recorded)[0]
        edited = await self._editor.edit(before)
        if edited == before:
            self._desk.say("nothing was changed")
        if edited:
            await self._go_on(paused=False, edited=None if edited == before else edited)
        elif edited is not None:
            self._desk.say("the edit is empty; the reply is as it was")

    async def _go_on(
        self, *, paused: bool, require: Guarantee | None = None, edited: str | None = None
    ) -> None:
        """Take up the unfinished reply and play it.

        Raises:
            LlmctlError: it is not there any more, or its model can't be used.
        """
        assert self._history.unfinished is not None  # noqa: S101  (the caller looked)
        await self._models.follow(self._history.unfinished.recorded.header.target)
        mode = self._models.holding.mode
        journal, recorded = await _in_thread(self._history.take, self._tell_of_breaks())
        if edited is not None:
            self._rewrite(journal, recorded, edited)
        request = request_to_go_on_with(recorded, journal)
        turn = turn_to_go_on_with(
            recorded,
            recorded.header.markers,
            mode=mode,
            pause_after=self._setup.pause_after,
            bound=request.options.max_tokens,
        )
        if paused:
            turn.pause(PauseReason.KEY, Mode.CUT)
            self._desk.say(f"> {in_short(recorded.header.request.messages[-1].content)}")
        whole = content_of(recorded)[0]
        show = self._desk.screen.seen if not paused and edited is None else self._desk.screen.reply
        show(whole)
        ladder = self._ladder(request)
        ladder.require = require or self._config.require
        ladder.conditions, ladder.saved = recorded.conditions, recorded.saved
        ladder.guarantee = recorded.guarantee
        await self._play(recorded.header, turn, journal, ladder, recorded)

    def _rewrite(self, journal: Journal, recorded: Recorded, text: str) -> None:
        """Put an edit in the place of what there is of a reply."""
        for kept in (recorded.conditions, recorded.saved or {}):
            self._models.back_end.discard(kept)
        journal.rewritten(text)
        recorded.rewrite(text)

    async def _play(
        self,
        header: Header,
        turn: Turn,
        journal: Journal,
        ladder: Ladder,
        recorded: Recorded | None = None,
    ) -> None:
        live: LiveReply
        view = ChatView(
            self._desk.screen,
            mark=turn.mark,
            on_delivered=journal.delivered,
            tell=lambda event: live.tell(event),  # noqa: PLW0108  (it is made below)
        )
        pages = []
        if self._config.pace is Pace.PAGE:
            pages.append(Pages(self._desk.screen, lambda: live.end_page()))  # noqa: PLW0108
        session = Session(
            turn,
            ladder,
            journal=journal,
            view=watched(view, [*self._setup.tracing.watchers(), *pages]),
            started=header.started(ladder.back_end.name, ladder.back_end.api),
            policy=Policy(
                ends_on_pause=False,
                stored=not isinstance(journal, NoJournal),
                continues=recorded is not None,
                held=recorded is not None and recorded.pause is Mode.HOLD,
                limits=self._setup.limits,
                breath_s=KEYS_WAIT_S,
            ),
        )
        live = LiveReply(
            session,
            self._desk.screen,
            self._desk.terminal,
            self._draft,
            model=header.request.model,
            holding=self._models.holding,
            plain=self._desk.plain,
        )
        self.live = live
        ahead = self._desk.prompt.ahead()
        with self._desk.terminal.attach(live.press, self.on_gone, ahead=ahead) as keyboard:
            self.last = await live.run()
            await keyboard.settled()
        self.live = None
        self._resumable = ladder
        before = content_of(recorded)[0] if recorded is not None else ""
        standing = self._history.standing
        try:
            await _in_thread(
                self._history.settle, journal, header, before + view.text, self.last.end
            )
        except LlmctlError as error:
            self._desk.say(f"llmctl: {error.message} The reply stays in its journal.")
            self._desk.say(NOT_SAVED)
        self.forget_what_cannot_go_on()
        self._after(
            self.last, live, header.request, self._paid(self.last, header.request, recorded)
        )
        if self.last.end is End.BELOW_REQUIRE and not self._draft.text:
            self._draft.text = f"/resume {Guarantee.BEST_EFFORT}"  # asked for, not done
        if self._desk.leaving is None and not self.last.position.chars:
            await self._take_back(header.request.messages[-1].content, standing)

    def forget_what_cannot_go_on(self) -> None:
        """Let go of what the back end keeps for a reply that is not unfinished any more."""
        if self._resumable is not None and self._history.unfinished is None:
            self._resumable.forget()
            self._resumable = None

    def _paid(self, finished: Finished, request: Request, recorded: Recorded | None) -> Cost | None:
        """Return what a reply has cost, where prices are known, and add it up."""
        profile = self._setup.selection.profile
        if profile is None or profile.price is None:
            return None
        whole = recorded is None and finished.end.status is Status.COMPLETE
        cost = cost_of(finished, request, profile.price, whole=whole)
        self.spent = cost if self.spent is None else self.spent + cost
        return cost

    def _after(
        self, finished: Finished, live: LiveReply, request: Request, cost: Cost | None
    ) -> None:
        """Say how the reply ended, and what follows from it for the chat."""
        for line in ending(finished, live.resumed, cost, options=request.options):
            self._desk.screen.line(line)
        self.stopped_at = time.monotonic() if finished.end is End.SIGINT else None
        if live.left or finished.end in {End.SIGTERM, End.SIGHUP}:
            self._desk.leaving = finished.end.exit_code
        elif self._history.unfinished is not None and finished.position.chars:
            self._desk.screen.line(GOES_ON)
        if finished.end.status not in {Status.COMPLETE, Status.TRUNCATED}:
            self._draft.put_back()

    async def _take_back(self, prompt: str, standing: Standing) -> None:
        """A prompt whose reply was stopped before its first character goes back."""
        assert self.last is not None  # noqa: S101  (it has just ended)
        if self.last.end.status is Status.COMPLETE:
            return
        try:
            if self._history.unfinished is not None:
                await _in_thread(self._history.drop)
            await _in_thread(self._history.stand, standing)
        except LlmctlError as error:
            self._desk.complain(error)
        self._draft.put_back(as_typed(prompt))

    def _header(self, prompt: str) -> Header:
        setup, before = self._setup, self._history.messages
        request = request_of(prompt, before, setup.system, setup.selection.model, setup.options)
        return Header(
            generation=new_id("g"),
            conversation=self._history.id,
            created=time.time(),
            request=seeded(request, self._models.back_end),
            history=len(before),
            target=target_of(setup.selection, self._config),
            markers=setup.markers,
            command="chat",
            parent=self._history.parent,
        )

    def _ladder(self, request: Request) -> Ladder:
        ways, require = rungs(self._instruction), self._config.require
        return Ladder(self._models.back_end, request, ways, require, tell=self._desk.say)

    def _tell_of_breaks(self) -> OnBroken:
        """Return what says that the disk won't have more, whichever thread has found that out."""
        loop = asyncio.get_running_loop()

        def tell(error: OSError) -> None:
            loop.call_soon_threadsafe(self._say_not_saved, error)

        return tell

    def _say_not_saved(self, error: OSError) -> None:
        self._desk.say(f"llmctl: the reply is no longer being saved: {error.strerror}.")
        self._desk.say(NOT_SAVED)


async def _in_thread(function: Callable[[*Args], Result], *args: *Args) -> Result:
    return await anyio.to_thread.run_sync(function, *args)
