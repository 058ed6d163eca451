"""What a key does while a reply streams or is paused. No terminal, no clock of its own.

::

    key       streaming                  paused
    Space     pause (draft: text)        resume (draft: text)
    Esc       set the draft aside,       set the draft aside,
              else pause                 else a hint
    Enter     queue the draft            empty: resume; draft: steer;
                                         a command: stop, then do it
    Ctrl-C    stop the reply             stop
    Ctrl-D    a hint                     leave
    Ctrl-Z    pause and suspend          suspend

The first printable key other than Space begins a draft; a paste always goes into it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from llmctl.terminal.keys import Key, Press

KEYS = """\
          at the prompt       while it streams      while paused
Space     text                pause                 resume
Enter     send                queue the draft       resume; with a draft: send
                                                    it, the reply ends here
Esc       twice: edit the     set the draft aside,  set the draft aside,
          last message        else pause            else a hint
Alt-Enter a new line          a new line            a new line
Ctrl-C    clear; then leave   stop, kept            stop, kept
Ctrl-D    leave               a hint                leave, kept
Ctrl-Z    suspend             pause and suspend     suspend
Ctrl-L    clear the screen    paint it again        paint it again
Up, Down  what was sent       the draft set aside   the draft set aside
Ctrl-R    search that
Tab       complete
Once something is typed, Space is text. Ctrl-J is a new line too."""
"""What keys do, for a person."""

STOP_GUARD_S = 2.0
"""Seconds after a stop in which further presses of Ctrl-C do nothing."""


def is_command(text: str) -> bool:
    """Say whether a text is a slash command; two slashes begin a message with one.

    Blanks before it do not count: a Space that came too late to pause would make it a message.
    """
    return text.lstrip().startswith("/") and not text.lstrip().startswith("//")


def as_typed(message: str) -> str:
    """Return what is typed to send a message: of one that begins with a slash, two of them."""
    words = message.lstrip()
    return f"{message.removesuffix(words)}/{words}" if words.startswith("/") else message


def as_sent(typed: str) -> str:
    """Return the message that is typed so."""
    words = typed.lstrip()
    return f"{typed.removesuffix(words)}{words[1:]}" if words.startswith("//") else typed


class Controls(Protocol):
    """What keys can do to the chat."""

    @property
    def paused(self) -> bool:
        """Whether the reply is paused."""

    def pause(self) -> None:
        """Pause the reply."""

    def resume(self) -> None:
        """Let it go on."""

    def stop(self) -> None:
        """Stop it, kept and resumable."""

    def steer(self) -> None:
        """End it where it stands, kept; the queued text is the next turn."""

    def leave(self) -> None:
        """Leave the chat; the reply stays paused."""

    def suspend(self) -> None:
        """Pause, and suspend the program."""

    def hint(self, text: str) -> None:
        """Show a line to the person."""

    def redraw(self) -> None:
        """Paint the screen anew."""


@dataclass(slots=True)
class Draft:
    """What a person types while a reply is there.

    Attributes:
        text: what is being typed.
        queued: what will be sent as the next turn.
        command: a command given at a pause, for as soon as the reply has stopped.
        aside: what Esc set aside; Up brings it back.
    """

    text: str = ""
    queued: list[str] = field(default_factory=list)
    command: str = ""
    aside: list[str] = field(default_factory=list)

    def set_aside(self) -> None:
        """Put the draft away; it is not lost."""
        self.aside.append(self.text)
        self.text = ""

    def bring_back(self) -> None:
        """Get the draft that was put away last."""
        if self.aside and not self.text:
            self.text = self.aside.pop()

    def queue(self) -> None:
        """Make the draft the next turn, or more of it."""
        self.queued.append(self.text)
        self.text = ""

    def give_command(self) -> None:
        """Make the draft the command that comes next."""
        self.command, self.text = self.text, ""

    def take_queued(self) -> str:
        """Return what comes next and forget it: a command, or the messages before the next."""
        if self.command:
            command, self.command = self.command, ""
            return command
        places = [place for place, text in enumerate(self.queued) if is_command(text)]
        end = max(places[0], 1) if places else len(self.queued)
        text = _as_one(self.queued[:end])
        del self.queued[:end]
        return text

    def put_back(self, *first: str) -> None:
        """Make one draft of ``first``, of what is queued and of what is typed."""
        self.text = _as_one([part for part in (*first, *self.queued, self.text) if part])
        self.queued.clear()

    def unsent(self) -> list[str]:
        """Return all that was typed and never sent, oldest first."""
        return [text for text in (*self.aside, *self.queued, self.text) if text.strip()]

    def delete_word(self) -> None:
        """Delete back to the beginning of the last word."""
        self.text = self.text.rstrip().rpartition(" ")[0]


def _as_one(typed: Sequence[str]) -> str:
    """Join what was typed; only at the beginning of all a slash is one too many."""
    return "\n\n".join([*typed[:1], *map(as_sent, typed[1:])])


class Keyboard:
    """Turns key presses into controls.

    Args:
        controls: what keys can do.
        draft: what is typed.
        now: a clock in seconds.
    """

    def __init__(self, controls: Controls, draft: Draft, now: Callable[[], float]) -> None:
        self._controls = controls
        self._draft = draft
        self._now = now
        self._stopped_at: float | None = None

    def press(self, press: Press) -> None:
        """Do what a key does here."""
        match press.key:
            case None | Key.PASTE:
                self._draft.text += press.text
            case Key.SPACE:
                self._space()
            case Key.ENTER:
                self._enter()
            case Key.ESCAPE:
                self._escape()
            case Key.CTRL_C:
                self.stop()
            case Key.CTRL_D:
                self._ctrl_d()
            case Key.CTRL_Z:
                self._controls.suspend()
            case Key.CTRL_L:
                self._controls.redraw()
            case _:
                self._edit(press.key)

    def stop(self) -> None:
        """Stop the reply; pressed again and again, it stops once."""
        now = self._now()
        if self._stopped_at is not None and now - self._stopped_at < STOP_GUARD_S:
            return
        self._stopped_at = now
        self._controls.stop()

    def _space(self) -> None:
        if self._draft.text:
            self._draft.text += " "
        elif self._controls.paused:
            self._controls.resume()
        else:
            self._controls.pause()

    def _enter(self) -> None:
        if self._controls.paused and is_command(self._draft.text):
            self._draft.give_command()
            self._controls.stop()
        elif self._draft.text.strip():
            self._draft.queue()
            if self._controls.paused:
                self._controls.steer()
        elif self._controls.paused:
            self._controls.resume()

    def _escape(self) -> None:
        if self._draft.text:
            self._draft.set_aside()
        elif self._controls.paused:
            self._controls.hint("Space goes on, Ctrl-C stops the reply, Ctrl-D leaves")
        else:
            self._controls.pause()

    def _ctrl_d(self) -> None:
        if self._controls.paused:
            self._controls.leave()
        else:
            self._controls.hint("Ctrl-C stops the reply; Ctrl-D leaves once it is paused")

    def _edit(self, key: Key) -> None:
        match key:
            case Key.NEWLINE:
                self._draft.text += "\n"
            case Key.BACKSPACE:
                self._draft.text = self._draft.text[:-1]
            case Key.CTRL_U:
                self._draft.text = ""
            case Key.CTRL_W:
                self._draft.delete_word()
            case Key.UP:
                self._draft.bring_back()
            case _:
                pass
