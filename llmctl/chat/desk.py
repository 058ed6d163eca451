"""The person's terminal and its parts, and talk on it."""

from __future__ import annotations

from collections.abc import Callable

from llmctl.chat.completion import Completions
from llmctl.errors import LlmctlError
from llmctl.output import Output
from llmctl.terminal.prompt_line import PromptLine
from llmctl.terminal.screen import Surface
from llmctl.terminal.tty import Terminal


class Desk:
    """Where a person sits.

    Args:
        terminal: the terminal.
        prompt: asks for input.
        output: writes to the terminal.
        completions: what Tab suggests.
        make_screen: returns what shows replies, plain or not.
        plain: show them plainly to begin with.

    Attributes:
        screen: what shows replies now.
        leaving: the exit status once the person leaves, or must; None until then.
    """

    def __init__(  # noqa: PLR0913  (put together in one place, `chat.begin`)
        self,
        terminal: Terminal,
        prompt: PromptLine,
        output: Output,
        completions: Completions,
        *,
        make_screen: Callable[[bool], Surface],
        plain: bool,
    ) -> None:
        self.terminal = terminal
        self.prompt = prompt
        self.completions = completions
        self.plain = plain
        self.screen = make_screen(plain)
        self.leaving: int | None = None
        self._output = output
        self._make_screen = make_screen

    def say(self, text: str) -> None:
        """Show lines of talk."""
        for line in text.splitlines():
            if not self.prompt.say(line):
                self.screen.line(line)

    def complain(self, error: LlmctlError) -> None:
        """Show an error: its sentence and its hint."""
        self.say(f"llmctl: {error.message}")
        if error.hint:
            self.say(f"hint: {error.hint}")

    def clear(self) -> None:
        """Clear the screen."""
        self.screen.redraw()

    def go_plain(self) -> bool:
        """Switch plain output on or off; say whether it is on."""
        self.plain = not self.plain
        self.screen = self._make_screen(self.plain)
        return self.plain

    def write(self, sequence: str) -> None:
        """Send the terminal a sequence of our own."""
        self._output.write(sequence, whole=True)
