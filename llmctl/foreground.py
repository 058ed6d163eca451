"""This process as the place where one reply runs: its output, its signals, its talk.

What a command needs around a `Session` is put together here and put away again when the
reply has ended: the writer of stdout, the view, the signals, the back end.
"""

from __future__ import annotations

import signal
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Self

import anyio

from cancelable_core import Cancelable, CancelationToken, signal_hub
from llmctl.backends.choose import Unavailable, back_end_for, fetch
from llmctl.clocks import Limits
from llmctl.config import Config, OnPause
from llmctl.conversation import Options, Request
from llmctl.environment import Environment
from llmctl.errors import LlmctlError, UsageError
from llmctl.events import (
    Action,
    End,
    Event,
    Finished,
    Mode,
    Problem,
    Started,
    Timing,
)
from llmctl.images import Images
from llmctl.journal import Header, Journal, NoJournal, Recorded
from llmctl.output import Output
from llmctl.ports import BackEnd
from llmctl.profiles import Profile, Selection
from llmctl.records import Records
from llmctl.replies import content_of
from llmctl.resume.ladder import Ladder, rungs
from llmctl.session import GIVE_UP_FLUSH_S, SIGNAL_ENDS, Policy, Session
from llmctl.store import StoredMessage
from llmctl.talk import Talk, penalties_begin_anew
from llmctl.templates import load_template
from llmctl.terminal.sanitizer import sanitize
from llmctl.tracing import Tracing
from llmctl.turn import Mark, Turn
from llmctl.views import BlockView, JsonView, TextView, View
from llmctl.watched import Diagnosis, Watcher, watched

KeyFor = Callable[[Profile], str | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Manner:
    """How a reply is run; what does not change the reply itself.

    Attributes:
        json: write events instead of text.
        full: write what earlier processes delivered, too.
        extract: write only the first code block of this language ("" is any); None for all.
        pause_after: content tokens after which to pause; None for no limit.
        markers: texts that act; None means those recorded (or none).
        verbose: show where a fault of the program comes from, and what happens meanwhile.
        key_for: finds a server's key.
    """

    json: bool = False
    full: bool = False
    extract: str | None = None
    pause_after: int | None = None
    markers: Mapping[str, Action] | None = None
    verbose: bool = False
    key_for: KeyFor


class Foreground:
    """This process as the place where one reply runs: its output, signals and talk."""

    def __init__(self, env: Environment, manner: Manner, config: Config) -> None:
        self.env = env
        self.manner = manner
        self.config = config
        self._session: Session | None = None
        self._options = Options()
        self._early: tuple[End, Problem | None] | None = None
        self._early_stop = CancelationToken(name="start")
        clean = sanitize if env.is_a_tty(env.stdout) else str
        self._stdout = Output(env.stdout, on_broken=self._lost_reader, clean=clean)
        self._stderr = Output(env.stderr, clean=sanitize if env.is_a_tty(env.stderr) else str)
        self._talk = Talk(lambda line: self._stderr.write(f"{line}\n"))
        self._tracing = Tracing.of(env)

    def __enter__(self) -> Self:
        """Hear signals from now on."""
        wanted = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        self._signals = signal_hub.subscribe(wanted, self._signal, keep_ignored=True)
        return self

    def __exit__(self, *_: object) -> None:
        """Let the talk get out; put the writers and the signals away."""
        self._stderr.drain(GIVE_UP_FLUSH_S)
        self._stderr.close()
        self._stdout.close()
        self._signals.close()
        self._tracing.close()

    def back_end(
        self, selection: Selection, *, stored: bool, images: Images | None = None
    ) -> BackEnd:
        """Return the selected back end, or one that says why there is none."""
        try:
            if selection.is_local:
                anyio.run(self._fetch, selection)
            return back_end_for(
                selection,
                env=self.env,
                connect_timeout=self.config.connect_timeout,
                key_for=self.manner.key_for,
                stored=stored,
                images=images,
                ends_runs=self.config.on_pause is OnPause.CUT,
            )
        except UsageError:
            raise
        except LlmctlError as error:
            return Unavailable(error)

    async def _fetch(self, selection: Selection) -> None:
        async with Cancelable.with_token(self._early_stop, when_cancelled="absorb"):
            await fetch(selection, self.env)

    def play(
        self,
        header: Header,
        turn: Turn,
        journal: Journal,
        ladder: Ladder,
        recorded: Recorded | None = None,
    ) -> Finished:
        """Run the reply's session to its end."""
        before = content_of(recorded)[0] if recorded is not None and self.manner.full else ""
        view = self._view(journal, turn.mark, before)
        session = Session(
            turn,
            ladder,
            journal=journal,
            view=watched(view, self._watchers()),
            started=header.started(ladder.back_end.name, ladder.back_end.api),
            policy=self._policy(journal, recorded),
        )
        self._session = session
        if self._early is not None:
            session.stop(*self._early)
        finished = anyio.run(_run_and_close, session, ladder.back_end)
        if session.bug is not None and self.manner.verbose:
            self._talk.say("".join(traceback.format_exception(session.bug)))
        if isinstance(view, BlockView) and not view.found and finished.end is End.COMPLETE:
            language = f" in {self.manner.extract}" if self.manner.extract else ""
            self._talk.say(f"llmctl: The reply has no block of code{language}.")
        return finished

    def show_ended(self, conversation: str, message: StoredMessage) -> End:
        """Show a reply that has ended: nothing or, with ``--full``, all of it."""
        reply = message.reply or {}
        mark = Mark(chars=len(message.content), tokens=reply.get("tokens"))
        view = self._view(NoJournal(), mark, message.content if self.manner.full else "")
        end = next(
            each for each in End if (each.status, each.cause) == (reply["status"], reply["cause"])
        )
        generation = str(message.generation)
        started = Started(generation, conversation, reply["model"], backend="none", api="none")
        timing = Timing(None, 0.0, 0.0, None)
        finished = Finished(
            generation=generation,
            end=end,
            resumable=False,
            finish_reason=None,
            position=mark.position,
            usage=None,
            timing=timing,
        )
        for event in (started, finished):
            view.show(event, mark)
        view.drain(None)
        return end

    def settle(self, records: Records, journal: Journal) -> None:
        """Close the journal; say so if its reply can't be moved into the store now."""
        try:
            records.settle(journal)
        except LlmctlError as error:
            self._talk.say(f"llmctl: {error.message} The reply stays in its journal.")

    def ladder(self, request: Request, back_end: BackEnd) -> Ladder:
        """Return where the reply's chunks will come from."""
        self._options = request.options
        instruction = load_template("continuation", self.env).body
        require, say = self.config.require, self._talk.say
        return Ladder(back_end, request, rungs(instruction), require, tell=say)

    @property
    def mode(self) -> Mode:
        """What a pause does to the generation here."""
        return Mode.HOLD if self.config.on_pause is OnPause.HOLD else Mode.CUT

    def warn_about(self, recorded: Recorded) -> None:
        """Say what the end of the last process may mean for this one's output."""
        if recorded.aside is not None:
            self._talk.say(
                f"the journal of this reply was damaged: it goes on from before the damage,"
                f" and what stood behind it is kept in {recorded.aside}"
            )
        if recorded.end is None:
            self._talk.say(
                "the last process was killed, or could not save it:"
                " what it was writing may be printed again ('--full' prints the reply once)"
            )
        elif recorded.end is End.CLOSED_PIPE and not self.manner.full:
            self._talk.say("the last reader left early; '--full' prints the whole reply")

    def on_broken_journal(self, error: OSError) -> None:
        """Say that from here on a crash would lose text."""
        self._talk.unsaved(error.strerror or str(error))

    def _policy(self, journal: Journal, recorded: Recorded | None) -> Policy:
        config = self.config
        return Policy(
            stored=not isinstance(journal, NoJournal),
            continues=recorded is not None,
            held=recorded is not None and recorded.pause is Mode.HOLD,
            limits=Limits(config.first_token_timeout, config.idle_timeout, config.timeout),
        )

    def _watchers(self) -> tuple[Watcher, ...]:
        traces = self._tracing.watchers()
        if not self.manner.verbose:
            return traces
        return (*traces, Diagnosis(self._talk.say, self.env.clock))

    def _view(self, journal: Journal, mark: Mark, before: str) -> View:
        if self.manner.json:
            return JsonView(
                self._stdout,
                mark=mark,
                on_delivered=journal.delivered,
                tell=self._tell,
                before=before,
            )
        text: Callable[..., View] = partial(TextView, self._stdout)
        if self.manner.extract is not None:
            text = partial(BlockView, self._stdout, language=self.manner.extract)
        return text(
            final_newline=self.env.is_a_tty(self.env.stdout),
            mark=mark,
            on_delivered=journal.delivered,
            tell=self._tell,
            before=before,
        )

    def _tell(self, event: Event) -> None:
        self._talk.tell(event)
        if penalties_begin_anew(event, self._options):
            self._talk.say("penalties count only what is written from here on")

    def _signal(self, number: int) -> None:
        self._stop(SIGNAL_ENDS[number])

    def _lost_reader(self, error: OSError) -> None:
        if isinstance(error, BrokenPipeError):
            self._stop(End.CLOSED_PIPE)
        else:
            said = f"stdout can't be written: {error.strerror}."
            self._stop(End.INTERNAL, Problem("output", said))

    def _stop(self, end: End, problem: Problem | None = None) -> None:
        if self._session is None:
            self._early = self._early or (end, problem)
            self._early_stop.cancel()
        else:
            self._session.stop(end, problem)


async def _run_and_close(session: Session, back_end: BackEnd) -> Finished:
    try:
        finished = await session.run()
        if not finished.resumable:
            session.forget()
        return finished
    finally:
        with anyio.CancelScope(shield=True):
            await back_end.aclose()
