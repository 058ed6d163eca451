"""A reply that a key pauses, that pauses itself, and that goes on exactly where it was.

Run: python examples/06_llm/01_llm_streaming.py    Space pauses and resumes, q ends.
With --demo the keys press themselves.

The model is a script, so that the example needs nothing; put another one in ``model``: an
async iterator of pieces of text, from a position (in characters) on.

Three things to take away:

* the key does not wait for the next piece: it shuts a gate, between two pieces;
* the marker is found in any chunking, and text after it is not shown before the resume;
* the position counts what was shown. A new connection goes on from there.
"""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator

import anyio

from cancelable_core import Cancelable, CancelationToken, PauseToken, cancelable_stream

MARKER = "!!PAUSE"
REPLY = (
    "A pause keeps the thought. !!PAUSE"
    "What was said before it stays, letter for letter, "
    "and what comes after begins at the very next letter."
)


async def model(position: int) -> AsyncIterator[str]:
    """The scripted model: pieces of three characters, from ``position`` on."""
    for start in range(position, len(REPLY), 3):
        await anyio.sleep(0.005)
        yield REPLY[start : start + 3]


class MarkerScanner:
    """Splits text into what may be shown and markers, however it was cut into pieces."""

    def __init__(self, marker: str = MARKER) -> None:
        self._marker = marker
        self._held = ""

    def feed(self, piece: str) -> Iterator[str]:
        """Text to show, and the marker itself each time it was found."""
        self._held += piece
        while (found := self._held.find(self._marker)) >= 0:
            if found:
                yield self._held[:found]
            yield self._marker
            self._held = self._held[found + len(self._marker) :]
        safe = len(self._held) - self._beginning_of_a_marker()
        if safe:
            yield self._held[:safe]
        self._held = self._held[safe:]

    def rest(self) -> str:
        """What was held back when the text has ended."""
        rest, self._held = self._held, ""
        return rest

    def _beginning_of_a_marker(self) -> int:
        for size in range(min(len(self._marker) - 1, len(self._held)), 0, -1):
            if self._marker.startswith(self._held[-size:]):
                return size
        return 0


class Reply:
    """One reply: shown piece by piece, held by a gate, continued from its position."""

    def __init__(self, gate: PauseToken, show: Callable[[str], object]) -> None:
        self.gate = gate
        self.text = ""
        self.position = 0
        """Characters of the model's own text that have been dealt with, markers included."""
        self._show = show

    async def stream(self, cancel: Cancelable, source: Callable[[int], AsyncIterator[str]]) -> None:
        """Show the reply from where it stopped."""
        scanner = MarkerScanner()
        async with cancelable_stream(source(self.position), cancel) as pieces:
            async for piece in pieces:
                for part in scanner.feed(piece):
                    await self._deal_with(part)
        await self._deal_with(scanner.rest())

    async def _deal_with(self, part: str) -> None:
        await self.gate.wait_while_paused()
        self.position += len(part)
        if part == MARKER:
            self._show("\n[the model pauses; Space goes on]\n")
            self.gate.pause()
        elif part:
            self.text += part
            self._show(part)


def write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


# -- keys ----------------------------------------------------------------------------------


def press(key: str, gate: PauseToken, stop: CancelationToken) -> None:
    """What a key does; called in the thread that reads the keyboard."""
    if key == " ":
        gate.resume() if gate.is_paused else gate.pause()
    elif key in ("q", "\x03", ""):
        stop.cancel(message="by key")


@contextlib.contextmanager
def keyboard(gate: PauseToken, stop: CancelationToken) -> Iterator[None]:
    """Read single keys in a thread, with the terminal put back in the end."""
    import termios  # noqa: PLC0415  (not on every platform)
    import tty  # noqa: PLC0415

    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)
    tty.setcbreak(descriptor)

    def read() -> None:
        while not stop.is_cancelled:
            press(sys.stdin.read(1), gate, stop)

    threading.Thread(target=read, daemon=True).start()
    try:
        yield
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


async def interactive() -> None:
    gate, stop = PauseToken(), CancelationToken(name="keyboard")
    reply = Reply(gate, write)
    with keyboard(gate, stop):
        async with Cancelable.with_token(stop, name="reply", when_cancelled="absorb") as cancel:
            await reply.stream(cancel, model)
    print(f"\n{cancel.context.status} at character {reply.position}")


async def demo() -> None:
    gate, stop = PauseToken(), CancelationToken(name="keyboard")
    shown: list[str] = []
    reply = Reply(gate, shown.append)

    async def person() -> None:
        while not gate.is_paused:
            await anyio.sleep(0.001)
        print("paused by the marker after:", repr(reply.text))
        await anyio.sleep(0.05)
        press(" ", gate, stop)
        while len(reply.text) < 60:
            await anyio.sleep(0.001)
        press(" ", gate, stop)
        at = len(reply.text)
        await anyio.sleep(0.05)
        print("paused by Space, and not a letter came:", len(reply.text) == at)
        press("q", gate, stop)

    async with anyio.create_task_group() as group:
        group.start_soon(person)
        async with Cancelable.with_token(stop, name="reply", when_cancelled="absorb") as cancel:
            await reply.stream(cancel, model)
    print("ended by a key:", cancel.cause)

    gate.resume()
    async with Cancelable(name="reply, continued") as cancel:
        await reply.stream(cancel, model)
    print("continued from there, letter for letter:", reply.text == REPLY.replace(MARKER, ""))
    print(reply.text)


if __name__ == "__main__":
    anyio.run(demo if "--demo" in sys.argv else interactive)
