"""The line a person types their message on, around prompt_toolkit's `PromptSession`.

Imported only when a chat begins: prompt_toolkit is a tenth of a second. It runs nested in
the raw terminal of `tty.Terminal` and leaves it, and every handler of a signal, as they were.
(With its default, ``handle_sigint=True``, a handler that was there before hears no SIGINT any
more afterwards; and it removes any handler of SIGWINCH that did not come from the loop.)

It is never asked where the cursor is (CPR): an answer that comes late would be read as keys.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

from prompt_toolkit import PromptSession
from prompt_toolkit.application import get_app_or_none, in_terminal, run_in_terminal
from prompt_toolkit.completion import CompleteEvent, Completer, Completion
from prompt_toolkit.document import Document
from prompt_toolkit.enums import DEFAULT_BUFFER
from prompt_toolkit.filters import Condition, has_completions, has_focus
from prompt_toolkit.history import FileHistory, History, InMemoryHistory
from prompt_toolkit.input import Input
from prompt_toolkit.input.typeahead import get_typeahead, store_typeahead
from prompt_toolkit.input.vt100_parser import Vt100Parser
from prompt_toolkit.key_binding import KeyBindings
from prompt_toolkit.key_binding.key_processor import KeyPress, KeyPressEvent
from prompt_toolkit.keys import Keys
from prompt_toolkit.output import ColorDepth, Output
from prompt_toolkit.shortcuts import CompleteStyle

from llmctl.environment import open_private, private_dir
from llmctl.terminal.keys import ESC_DELAY_S
from llmctl.terminal.prompt_terminal import input_from, output_to, without_reports
from llmctl.terminal.sanitizer import sanitize
from llmctl.terminal.tty import FOREGROUND_POLL_S, in_foreground

if TYPE_CHECKING:
    from prompt_toolkit.application import Application

HINT_S = 2.0
"""Seconds that the hint about leaving is shown, and a second Ctrl-C leaves."""

EDITING_HINT = "Enter sends this instead of your last message, in a branch; Ctrl-C clears it"

LEAVING_HINT = "Ctrl-C again, or Ctrl-D, leaves."

MENU_ROWS = 6
"""Rows of the list of completions."""


class Kind(StrEnum):
    """How a prompt ended."""

    TEXT = "text"
    EXIT = "exit"
    INTERRUPT_EXIT = "interrupt-exit"
    CANCELLED = "cancelled"
    GONE = "gone"


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of a prompt.

    Attributes:
        kind: TEXT was sent with Enter; EXIT is Ctrl-D; INTERRUPT_EXIT is Ctrl-C twice;
            CANCELLED by `PromptLine.cancel`; GONE if the terminal was hung up.
        text: what was typed; with CANCELLED so far.
        instead: it takes the place of the last message, which Esc Esc had brought back.
    """

    kind: Kind
    text: str = ""
    instead: bool = False


@dataclass(frozen=True, slots=True)
class Suggestion:
    """What may be put at the cursor.

    Attributes:
        text: what is put there.
        over: how many characters before the cursor it takes the place of.
        shown: how it is listed, if that is not the text.
    """

    text: str
    over: int
    shown: str | None = None


class PromptLine:
    """Asks a person for a message, again and again.

    Args:
        history: the file that remembers what was sent, made readable for its owner only;
            None remembers it in this process.
        complete: returns what may stand for the end of the text before the cursor.
        last_message: returns what Esc Esc brings back.
        on_suspend: restores the terminal, stops the process, and takes it back when continued.
        plain: no list that opens and closes; hints are lines that stay.
        color: the list of completions may be coloured.
        keys: the descriptor that keys are read from.
        screen: the descriptor that leads to the screen.
        now: a clock in seconds.
        session_input: where keys come from instead, for tests.
        session_output: where the line is painted instead, for tests.
    """

    def __init__(  # noqa: PLR0913  (named, and mostly left out)
        self,
        *,
        history: Path | None = None,
        complete: Callable[[str], Iterable[Suggestion]] = lambda _text: (),
        last_message: Callable[[], str] = str,
        on_suspend: Callable[[], object] = lambda: None,
        plain: bool = False,
        color: bool = True,
        keys: int = 0,
        screen: int = 1,
        now: Callable[[], float] = time.monotonic,
        session_input: Input | None = None,
        session_output: Output | None = None,
    ) -> None:
        self._last_message = last_message
        self._on_suspend = on_suspend
        self._plain = plain
        self._keys = keys
        self._now = now
        self._hint = ""
        self._brought_back = False
        self._hinted_at = float("-inf")
        self._default = ""
        self._deaf_until = float("-inf")
        self._input = session_input or input_from(keys)
        # A dumb terminal gets prompt_toolkit's own dumb prompt, which it has if not told better.
        dumb = os.environ.get("TERM") in ("dumb", "unknown")
        output = session_output or (None if dumb else output_to(screen))
        self._session: PromptSession[str | Answer] = PromptSession(
            self._prompt,
            multiline=True,
            prompt_continuation="  ",
            history=InMemoryHistory() if history is None else _history_in(history),
            completer=_Suggestions(complete),
            complete_while_typing=False,
            complete_style=CompleteStyle.READLINE_LIKE if plain else CompleteStyle.COLUMN,
            reserve_space_for_menu=MENU_ROWS,
            include_default_pygments_style=False,
            color_depth=None if color else ColorDepth.DEPTH_1_BIT,
            key_bindings=self._bindings(),
            input=self._input,
            output=output,
            interrupt_exception=_Interrupted,
        )
        self._session.app.ttimeoutlen = ESC_DELAY_S
        self._session.app.timeoutlen = ESC_DELAY_S

    async def ask(self, default: str = "", *, guard_s: float = 0.0) -> Answer:
        """Let the person type; nobody else reads or writes the terminal meanwhile.

        Args:
            default: what the line begins with.
            guard_s: seconds in which Ctrl-C does nothing, unless something is typed.
        """
        self._default, self._deaf_until = default, self._now() + guard_s
        self._hint, self._brought_back = "", False
        self._hinted_at = float("-inf")
        with _kept(signal.SIGWINCH):
            answer = await self._ask_once(default)
            while answer is None:
                answer = await self._ask_once("")
        return answer

    def cancel(self) -> None:
        """End a prompt that is being asked; it returns CANCELLED and what was typed so far."""
        self._end(Kind.CANCELLED, _well_formed(self._session.default_buffer.text))

    def interrupt(self) -> None:
        """Do what Ctrl-C does: clear the line, else hint, else leave."""
        buffer = self._session.default_buffer
        if self._is_deaf(buffer.text):
            return
        if buffer.text:
            buffer.reset(append_to_history=True)
            self._brought_back = False
            self._session.app.invalidate()  # a signal is no key, which would do that
        elif self._now() - self._hinted_at < HINT_S:
            self._end(Kind.INTERRUPT_EXIT)
        elif self._is_asking:
            self._hinted_at = self._now()
            self._show_hint(LEAVING_HINT)

    def suspend(self) -> None:
        """Do what Ctrl-Z does."""
        if self._app is not None:
            self._app.create_background_task(self._suspend())

    def say(self, text: str) -> bool:
        """Show a line above the prompt that is being asked; False if none is."""
        if not self._is_asking:
            return False
        run_in_terminal(lambda: self._write_line(text))
        return True

    def type_ahead(self, data: bytes) -> None:
        """Have the next prompt take these bytes as typed."""
        keys: list[KeyPress] = []
        parser = Vt100Parser(keys.append)
        parser.feed(without_reports(data.decode("utf-8", "surrogateescape"))[0])
        parser.flush()
        store_typeahead(self._input, keys)

    def remember(self, text: str) -> bool:
        """Keep a text among what was sent, where Up finds it; say whether for later chats, too."""
        history = self._session.history
        history.append_string(text)
        return isinstance(history, FileHistory)

    def ahead(self) -> bytes:
        """Return, once, what was typed behind the Enter of the last prompt and read with it."""
        return "".join(_as_typed(press) for press in get_typeahead(self._input)).encode(
            "utf-8", "surrogateescape"
        )

    # -- while asking

    async def _ask_once(self, default: str) -> Answer | None:
        """Return the answer; None if only the line was cleared."""
        try:
            result = await self._session.prompt_async(
                default=default, handle_sigint=False, set_exception_handler=False
            )
        except EOFError:
            return Answer(Kind.GONE if self._input.closed else Kind.EXIT)
        except _Interrupted:
            return self._interrupted()
        if isinstance(result, Answer):
            return result
        return Answer(Kind.TEXT, _well_formed(result), self._brought_back)

    def _interrupted(self) -> Answer | None:
        """Do what `interrupt` does where our keys are not asked: at the dumb prompt."""
        buffer = self._session.default_buffer
        if buffer.text:
            buffer.append_to_history()
            return None
        if self._is_deaf(buffer.text):
            return None
        if self._now() - self._hinted_at < HINT_S:
            return Answer(Kind.INTERRUPT_EXIT)
        self._hinted_at = self._now()
        self._write_line(LEAVING_HINT)
        return None

    def _is_deaf(self, text: str) -> bool:
        """Say whether Ctrl-C does nothing yet; whoever has typed means this prompt."""
        if text != self._default:
            self._deaf_until = float("-inf")
        return self._now() < self._deaf_until

    @property
    def _app(self) -> Application[str | Answer] | None:
        app = get_app_or_none()
        return app if app is not None and app.is_running and not app.is_done else None

    @property
    def _is_asking(self) -> bool:
        return self._app is not None

    def _end(self, kind: Kind, text: str = "") -> None:
        if self._app is not None:
            self._app.exit(result=Answer(kind, text))

    def _prompt(self) -> str:
        hint = self._hint or (EDITING_HINT if self._brought_back else "")
        return f"{hint}\n> " if hint else "> "

    def _show_hint(self, hint: str) -> None:
        if self._plain:
            self.say(hint)
            return
        self._hint = hint
        self._session.app.invalidate()
        asyncio.get_running_loop().call_later(HINT_S, self._hide_hint)

    def _hide_hint(self) -> None:
        self._hint = ""
        if self._is_asking:
            self._session.app.invalidate()

    def _write_line(self, text: str) -> None:
        output = self._session.output
        output.write_raw(sanitize(text) + "\r\n")
        output.flush()

    async def _suspend(self) -> None:
        """Stop; in the background, leave the terminal alone until it is ours again."""
        async with in_terminal():
            self._on_suspend()
            while not in_foreground(self._keys):  # noqa: ASYNC110  (nobody tells)
                await asyncio.sleep(FOREGROUND_POLL_S)

    # -- keys

    def _bindings(self) -> KeyBindings:
        bindings = KeyBindings()
        here = has_focus(DEFAULT_BUFFER)
        empty = Condition(lambda: not self._session.default_buffer.text)
        bindings.add("enter", filter=here)(_enter)
        bindings.add("escape", "enter", filter=here)(_newline)
        bindings.add("c-j", filter=here)(_newline)
        bindings.add("escape", filter=here & has_completions, eager=True)(_close_the_list)
        bindings.add("escape", "escape", filter=here)(self._bring_back)
        bindings.add("c-c", filter=here)(lambda _event: self.interrupt())
        bindings.add("c-d", filter=here & empty)(lambda _event: self._end(Kind.EXIT))
        bindings.add("c-z")(lambda _event: self.suspend())
        return bindings

    def _bring_back(self, event: KeyPressEvent) -> None:
        """Put the last message into the line; what was there can be had again with Up."""
        message, buffer = self._last_message(), event.current_buffer
        if message:
            buffer.reset(Document(message), append_to_history=bool(buffer.text))
            self._brought_back = True
            if self._plain:
                self.say(EDITING_HINT)


class _Interrupted(Exception):
    """Ctrl-C, where prompt_toolkit's own keys come first."""


def _enter(event: KeyPressEvent) -> None:
    """Send the line; with the list of completions open, take the chosen one."""
    buffer = event.current_buffer
    if buffer.complete_state is not None and buffer.complete_state.current_completion:
        buffer.complete_state = None
    else:
        buffer.validate_and_handle()


def _newline(event: KeyPressEvent) -> None:
    event.current_buffer.insert_text("\n")


def _close_the_list(event: KeyPressEvent) -> None:
    event.current_buffer.cancel_completion()


class _Suggestions(Completer):
    """Completes what stands before the cursor."""

    def __init__(self, complete: Callable[[str], Iterable[Suggestion]]) -> None:
        self._complete = complete

    def get_completions(
        self, document: Document, complete_event: CompleteEvent
    ) -> Iterator[Completion]:
        """Yield what may stand there."""
        del complete_event
        for each in self._complete(document.text_before_cursor):
            yield Completion(each.text, -each.over, display=each.shown)


class _PrivateHistory(FileHistory):
    """A file; what it cannot take is still remembered in this process."""

    def store_string(self, string: str) -> None:
        try:
            super().store_string(_well_formed(string))
        except OSError:
            return


def _history_in(path: Path) -> History:
    try:
        private_dir(path.parent)
        open_private(path, "ab").close()
    except OSError:
        return InMemoryHistory()
    return _PrivateHistory(str(path))


def _well_formed(text: str) -> str:
    """Return what was typed as Unicode; bytes that were not UTF-8 become U+FFFD."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _as_typed(press: KeyPress) -> str:
    if press.key == Keys.BracketedPaste:
        return f"\x1b[200~{press.data}\x1b[201~"
    return press.data


@contextmanager
def _kept(number: signal.Signals) -> Iterator[None]:
    handler = signal.getsignal(number)
    try:
        yield
    finally:
        signal.signal(number, handler or signal.SIG_DFL)
