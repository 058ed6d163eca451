"""The loop of a chat: prompt, reply, prompt.

One process, one terminal, one conversation at a time. Between replies prompt_toolkit owns
the terminal; while a reply is there, `terminal.screen` writes and `reply.LiveReply` reads
keys. The terminal stays raw throughout, so that no key is ever echoed into the text.
"""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import TypeVar, TypeVarTuple

import anyio
import anyio.to_thread
from anyio.abc import TaskGroup

from llmctl.attachments import with_attachments
from llmctl.backends.choose import fetch
from llmctl.chat.commands import Commands
from llmctl.chat.completion import Completions
from llmctl.chat.editor import Editor
from llmctl.chat.ending import GOES_ON, ending
from llmctl.chat.history import History, Standing
from llmctl.chat.keyboard import STOP_GUARD_S, Draft, as_sent, as_typed, is_command
from llmctl.chat.pages import Pages
from llmctl.chat.reply import Holding, LiveReply
from llmctl.chat.setup import Setup
from llmctl.chat.signals import Signals, hear
from llmctl.chat.view import ChatView
from llmctl.config import Config, Pace
from llmctl.conversation import Request
from llmctl.environment import Environment
from llmctl.errors import LlmctlError, UsageError
from llmctl.events import (
    End,
    Finished,
    Guarantee,
    Mode,
    PauseReason,
    Status,
    Strategy,
)
from llmctl.images import in_short
from llmctl.journal import Header, Journal, NoJournal, Recorded
from llmctl.output import Output
from llmctl.ports import BackEnd
from llmctl.prices import Cost, cost_of
from llmctl.profiles import Selection
from llmctl.records import new_id
from llmctl.replies import content_of
from llmctl.requests import request_of, seeded
from llmctl.resume.ladder import Ladder, rungs
from llmctl.session import Policy, Session
from llmctl.targets import selection_of, target_of
from llmctl.terminal.prompt_line import Answer, Kind, PromptLine
from llmctl.terminal.screen import Surface
from llmctl.terminal.tty import Terminal
from llmctl.turn import Turn
from llmctl.unfinished import request_to_go_on_with, turn_to_go_on_with
from llmctl.watched import watched

WARM_UP_AFTER_S = 0.1
"""Seconds until the engine or the client is loaded, so that the prompt is there by then."""

AFTER_NO_CUT = {Strategy.CURSOR, Strategy.INSTRUCT}
"""Ways that don't count where a pause may become a cut: the run is over, the person is asked."""

NOT_SAVED = "What is said from here on is remembered until this chat ends, and not saved."

KEYS_WAIT_S = 0.001
"""Seconds for which a reply that comes at full speed may keep a key waiting."""

CANCEL_AGAIN_S = 0.02
"""Seconds until a prompt that could not be ended yet is ended again."""

Args = TypeVarTuple("Args")
Result = TypeVar("Result")
MakeBackEnd = Callable[[Selection], BackEnd]


@dataclass(frozen=True, slots=True)
class Desk:
    """The terminal and its parts."""

    terminal: Terminal
    screen: Surface
    prompt: PromptLine
    output: Output
    completions: Completions


class Chat:
    """An interactive session.

    Args:
        setup: what the next reply is asked with.
        history: the conversation.
        desk: the terminal and its parts.
        config: the settings in force.
        env: the process.
        make_back_end: returns what generates a selected model's replies.
        make_screen: returns the terminal's writer, plain or not.
        instruction: what a model is told that is asked to go on.
    """

    def __init__(  # noqa: PLR0913  (put together in one place, `cli.chat`)
        self,
        setup: Setup,
        history: History,
        desk: Desk,
        *,
        config: Config,
        env: Environment,
        make_back_end: MakeBackEnd,
        make_screen: Callable[[bool], Surface],
        instruction: str,
    ) -> None:
        self.setup = setup
        self.history = history
        self.desk = desk
        self.env = env
        self.config = config
        self.draft = Draft()
        self.leaving: int | None = None
        self.last: Finished | None = None
        self.stopped_at: float | None = None
        self.spent: Cost | None = None
        self.plain = config.plain
        self._make_back_end = make_back_end
        self._make_screen = make_screen
        self._instruction = instruction
        self._back_end: BackEnd | None = None
        self._live: LiveReply | None = None
        self._resumable: Ladder | None = None
        self._editor = Editor(desk.terminal, env)
        self._asking = False
        self._tasks: TaskGroup | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    # -- the loop

    async def run(self) -> int:
        """Run until the person leaves; return the exit status."""
        self._loop = asyncio.get_running_loop()
        commands = Commands(self)
        with ExitStack() as stack:
            hear(self._signals(), stack)
            async with anyio.create_task_group() as tasks:
                self._tasks = tasks
                tasks.start_soon(self._warm_up)
                if self.history.unfinished is not None:
                    await self.open_paused()
                while self.leaving is None:
                    await self._turn(commands)
                tasks.cancel_scope.cancel()
            self._forget_what_cannot_go_on()
            self._keep_what_was_typed()
            self._say_how_to_go_on()
            await self.desk.screen.released()
        await self._close_back_end()
        return self.leaving or 0

    async def _turn(self, commands: Commands) -> None:
        """Take one input, from the queue or from the prompt, and do what it says."""
        text: str | None = self.draft.take_queued()
        if text:
            self.say(f"> {text}")
        else:
            text = await self._ask()
        if text is None or not text.strip():
            return
        if is_command(text):
            await commands.run(text.strip())
        else:
            await self.send(as_sent(text))

    async def _ask(self) -> str | None:
        default, self.draft.text = self.draft.text, ""
        await self.desk.screen.released()
        self._asking = self.leaving is None
        if not self._asking:
            return None
        answer = await self.desk.prompt.ask(default, guard_s=self._guard_s)
        self._asking = False
        match answer.kind:
            case Kind.EXIT:
                self.leaving = 0
            case Kind.GONE:
                self._end(End.SIGHUP)
            case Kind.INTERRUPT_EXIT:
                self.leaving = 130
            case Kind.CANCELLED:
                self.draft.text = answer.text
            case _:
                return self._typed(answer)
        return None

    def _typed(self, answer: Answer) -> str | None:
        """Return what was typed with the files that were completed in it."""
        completed = self.desk.completions.attachments(answer.text)
        if is_command(answer.text) or not answer.text.strip():
            return answer.text
        files, self.setup.attached = [*self.setup.attached, *completed], []
        try:
            text = with_attachments(answer.text, files, self.env, self.setup.images)
        except UsageError as error:
            self.draft.text = answer.text
            self.complain(error)
            return None
        if files:
            self.say(f"attached {', '.join(file.name for file in files)}")
        if answer.instead:
            self.history.rewind()
        return text

    @property
    def _guard_s(self) -> float:
        """For how long yet presses of Ctrl-C may be meant for a reply that has stopped."""
        if self.stopped_at is None:
            return 0.0
        return self.stopped_at + STOP_GUARD_S - time.monotonic()

    # -- replies

    async def send(self, prompt: str) -> None:
        """Ask for a reply and show it."""
        try:
            if self.history.unfinished is not None:
                await _in_thread(self.history.keep)
            header = self._header(prompt)
            journal = await _in_thread(self.history.begin, header, self._on_broken_journal)
        except LlmctlError as error:
            self.draft.text = as_typed(prompt)
            self.complain(error)
            return
        self._forget_what_cannot_go_on()
        turn = Turn(header.markers, mode=self._holding.mode, pause_after=self.setup.pause_after)
        ladder = self._ladder(header.request)
        await self._play(header, turn, journal, ladder)

    async def open_paused(self) -> None:
        """Show the unfinished reply, paused; Space goes on with it."""
        try:
            await self._go_on(paused=True)
        except LlmctlError as error:
            self.complain(error)

    async def resume(self, require: Guarantee | None = None) -> None:
        """Go on with the unfinished reply."""
        await self._go_on(paused=False, require=require)

    async def edit(self) -> None:
        """Let the person edit the unfinished reply, and go on from that."""
        assert self.history.unfinished is not None  # noqa: S101  (the caller looked)
        before = content_of(self.history.unfinished.recorded)[0]
        edited = await self._editor.edit(before)
        if edited == before:
            self.say("nothing was changed")
        if edited:
            await self._go_on(paused=False, edited=None if edited == before else edited)
        elif edited is not None:
            self.say("the edit is empty; the reply is as it was")

    async def _go_on(
        self, *, paused: bool, require: Guarantee | None = None, edited: str | None = None
    ) -> None:
        """Take up the unfinished reply and play it.

        Raises:
            LlmctlError: it is not there any more, or its model can't be used.
        """
        assert self.history.unfinished is not None  # noqa: S101  (the caller looked)
        target = self.history.unfinished.recorded.header.target
        selection = selection_of(target, self.config, self.env)
        if selection != self.setup.selection:
            await self.use(selection)
        mode = self._holding.mode
        journal, recorded = await _in_thread(self.history.take, self._on_broken_journal)
        if edited is not None:
            self._rewrite(journal, recorded, edited)
        request = request_to_go_on_with(recorded, journal)
        turn = turn_to_go_on_with(
            recorded,
            recorded.header.markers,
            mode=mode,
            pause_after=self.setup.pause_after,
            bound=request.options.max_tokens,
        )
        if paused:
            turn.pause(PauseReason.KEY, Mode.CUT)
            self.say(f"> {in_short(recorded.header.request.messages[-1].content)}")
        whole = content_of(recorded)[0]
        show = self.desk.screen.seen if not paused and edited is None else self.desk.screen.reply
        show(whole)
        ladder = self._ladder(request)
        ladder.require = require or self.config.require
        ladder.conditions, ladder.saved = recorded.conditions, recorded.saved
        ladder.guarantee = recorded.guarantee
        await self._play(recorded.header, turn, journal, ladder, recorded)

    def _rewrite(self, journal: Journal, recorded: Recorded, text: str) -> None:
        """Put an edit in the place of what there is of a reply."""
        for kept in (recorded.conditions, recorded.saved or {}):
            self.back_end.discard(kept)
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
            self.desk.screen,
            mark=turn.mark,
            on_delivered=journal.delivered,
            tell=lambda event: live.tell(event),  # noqa: PLW0108  (it is made below)
        )
        pages = []
        if self.config.pace is Pace.PAGE:
            pages.append(Pages(self.desk.screen, lambda: live.end_page()))  # noqa: PLW0108
        session = Session(
            turn,
            ladder,
            journal=journal,
            view=watched(view, [*self.setup.tracing.watchers(), *pages]),
            started=header.started(ladder.back_end.name, ladder.back_end.api),
            policy=Policy(
                ends_on_pause=False,
                stored=not isinstance(journal, NoJournal),
                continues=recorded is not None,
                held=recorded is not None and recorded.pause is Mode.HOLD,
                limits=self.setup.limits,
                breath_s=KEYS_WAIT_S,
            ),
        )
        live = LiveReply(
            session,
            self.desk.screen,
            self.desk.terminal,
            self.draft,
            model=header.request.model,
            holding=self._holding,
            plain=self.plain,
        )
        self._live = live
        ahead = self.desk.prompt.ahead()
        with self.desk.terminal.attach(live.press, self._terminal_gone, ahead=ahead) as keyboard:
            self.last = await live.run()
            await keyboard.settled()
        self._live = None
        self._resumable = ladder
        before = content_of(recorded)[0] if recorded is not None else ""
        standing = self.history.standing
        try:
            await _in_thread(
                self.history.settle, journal, header, before + view.text, self.last.end
            )
        except LlmctlError as error:
            self.say(f"llmctl: {error.message} The reply stays in its journal.")
            self.say(NOT_SAVED)
        self._forget_what_cannot_go_on()
        self._after(
            self.last, live, header.request, self._paid(self.last, header.request, recorded)
        )
        if self.last.end is End.BELOW_REQUIRE and not self.draft.text:
            self.draft.text = f"/resume {Guarantee.BEST_EFFORT}"  # asked for, not done
        if self.leaving is None and not self.last.position.chars:
            await self._take_back(header.request.messages[-1].content, standing)

    def _forget_what_cannot_go_on(self) -> None:
        """Let go of what the back end keeps for a reply that is not unfinished any more."""
        if self._resumable is not None and self.history.unfinished is None:
            self._resumable.forget()
            self._resumable = None

    def _paid(self, finished: Finished, request: Request, recorded: Recorded | None) -> Cost | None:
        """Return what a reply has cost, where prices are known, and add it up."""
        profile = self.setup.selection.profile
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
            self.desk.screen.line(line)
        self.stopped_at = time.monotonic() if finished.end is End.SIGINT else None
        if live.left or finished.end in {End.SIGTERM, End.SIGHUP}:
            self.leaving = finished.end.exit_code
        elif self.history.unfinished is not None and finished.position.chars:
            self.desk.screen.line(GOES_ON)
        if finished.end.status not in {Status.COMPLETE, Status.TRUNCATED}:
            self.draft.put_back()

    async def _take_back(self, prompt: str, standing: Standing) -> None:
        """A prompt whose reply was stopped before its first character goes back."""
        assert self.last is not None  # noqa: S101  (it has just ended)
        if self.last.end.status is Status.COMPLETE:
            return
        try:
            if self.history.unfinished is not None:
                await _in_thread(self.history.drop)
            await _in_thread(self.history.stand, standing)
        except LlmctlError as error:
            self.complain(error)
        self.draft.put_back(as_typed(prompt))

    # -- what the next reply is asked with

    def take_over(self, back_end: BackEnd) -> None:
        """Use a back end that was made already."""
        self._back_end = back_end

    @property
    def back_end(self) -> BackEnd:
        """What generates replies now."""
        if self._back_end is None:
            self._back_end = self._make_back_end(self.setup.selection)
        return self._back_end

    async def use(self, selection: Selection) -> None:
        """Talk to another model from now on."""
        await fetch(selection, self.env)
        back_end = self._make_back_end(selection)
        await self._close_back_end()
        self._back_end, self.setup.selection = back_end, selection
        assert self._tasks is not None  # noqa: S101  (the chat runs)
        self._tasks.start_soon(self._warm_up)

    @property
    def _holding(self) -> Holding:
        require, supports = self.config.require, self.back_end.supports
        ways = [g for way, g in supports.items() if way not in AFTER_NO_CUT]
        return Holding(
            on_pause=self.config.on_pause,
            billed=self.setup.selection.billed,
            can_go_on=any(guarantee.at_least(require) for guarantee in ways),
            engine_stands_still=not self.setup.selection.profile,
        )

    def _header(self, prompt: str) -> Header:
        setup, before = self.setup, self.history.messages
        request = request_of(prompt, before, setup.system, setup.selection.model, setup.options)
        return Header(
            generation=new_id("g"),
            conversation=self.history.id,
            created=time.time(),
            request=seeded(request, self.back_end),
            history=len(before),
            target=target_of(setup.selection, self.config),
            markers=setup.markers,
            command="chat",
            parent=self.history.parent,
        )

    def _ladder(self, request: Request) -> Ladder:
        ways, require = rungs(self._instruction), self.config.require
        return Ladder(self.back_end, request, ways, require, tell=self.say)

    async def _warm_up(self) -> None:
        """Load the engine or the client while the person types; the prompt comes first."""
        await anyio.sleep(WARM_UP_AFTER_S)
        try:
            await self.back_end.ready()
        except LlmctlError:
            return  # said when a reply is asked for, which tries again

    async def _close_back_end(self) -> None:
        if self._back_end is not None:
            with anyio.CancelScope(shield=True):
                await self._back_end.aclose()
            self._back_end = None

    # -- talk

    def _keep_what_was_typed(self) -> None:
        kept = [self.desk.prompt.remember(text) for text in self.draft.unsent()]
        if any(kept):
            self.say("What was typed and not sent is in the history: Up brings it back.")

    def _say_how_to_go_on(self) -> None:
        reply = self.history.unfinished
        if reply is not None:
            self.say(f"Go on with 'llmctl chat -c' or 'llmctl resume {reply.generation}'.")

    def clear(self) -> None:
        """Clear the screen."""
        self.desk.screen.redraw()

    def go_plain(self) -> bool:
        """Switch plain output on or off; say whether it is on."""
        self.plain = not self.plain
        self.desk = replace(self.desk, screen=self._make_screen(self.plain))
        return self.plain

    def write(self, sequence: str) -> None:
        """Send the terminal a sequence of our own."""
        self.desk.output.write(sequence, whole=True)

    def say(self, text: str) -> None:
        """Show lines of talk."""
        for line in text.splitlines():
            if not self.desk.prompt.say(line):
                self.desk.screen.line(line)

    def complain(self, error: LlmctlError) -> None:
        """Show an error: its sentence and its hint."""
        self.say(f"llmctl: {error.message}")
        if error.hint:
            self.say(f"hint: {error.hint}")

    def _on_broken_journal(self, error: OSError) -> None:
        """Say that the disk won't have more; whichever thread has found that out."""

        def say() -> None:
            self.say(f"llmctl: the reply is no longer being saved: {error.strerror}.")
            self.say(NOT_SAVED)

        assert self._loop is not None  # noqa: S101  (the chat runs)
        self._loop.call_soon_threadsafe(say)

    # -- signals

    def _signals(self) -> Signals:
        return (
            (signal.SIGINT, self._interrupt),
            (signal.SIGTERM, lambda: self._end(End.SIGTERM)),
            (signal.SIGHUP, lambda: self._end(End.SIGHUP)),
            (signal.SIGTSTP, self._suspend),
            (signal.SIGCONT, self._continued),
            (signal.SIGWINCH, self._resized),
        )

    def _interrupt(self) -> None:
        if self._live is not None:
            self._live.interrupt()
        else:
            self.desk.prompt.interrupt()

    def _suspend(self) -> None:
        if self._editor.runs:
            self._editor.suspend()
        elif self._live is not None:
            self._live.suspend()
        else:
            self.desk.prompt.suspend()

    def _resized(self) -> None:
        self.desk.screen.resized()
        if self._live is not None:
            self._live.paint()

    def _continued(self) -> None:
        if self._live is not None:
            self._live.continued()

    def _terminal_gone(self) -> None:
        self._end(End.SIGHUP)

    def _end(self, end: End) -> None:
        self.leaving = end.exit_code
        self._editor.end()
        if self._live is not None:
            self._live.session.stop(end)
        else:
            self._cancel_prompt()

    def _cancel_prompt(self) -> None:
        """End the prompt; one that is only just beginning, as soon as it can be ended."""
        if self._asking:
            self.desk.prompt.cancel()
            asyncio.get_running_loop().call_later(CANCEL_AGAIN_S, self._cancel_prompt)


async def _in_thread(function: Callable[[*Args], Result], *args: *Args) -> Result:
    return await anyio.to_thread.run_sync(function, *args)
