"""What it costs to show a reply as Markdown while it streams, beside rich's Live and Markdown.

The same reply is shown by both on a screen of 100x40, four characters at a time, a hundred
times a (virtual) second. Ours paints as often as it does in a chat, at most 30 frames a
second, with a status row that changes four times a second; rich paints ten a second. CPU is
this process's; bytes are those a terminal would get; a frame is timed from the moment its text
is there until it is composed.

``python benchmarks/markdown.py [--rounds 3] [--long-live]``
"""

from __future__ import annotations

import argparse
import io
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from rich.console import Console
from rich.live import Live
from rich.markdown import Markdown

from llmctl.output import Output
from llmctl.terminal.screen import Screen

COLUMNS, ROWS = 100, 40
CHUNK = 4
"""Characters of a chunk: about a token."""

CHUNK_S = 0.01
LIVE_EVERY = 10
"""Chunks between two frames of rich."""

SHORT, LONG = 2_500, 20_000
"""Tokens of the two replies."""

SECTION = """## Step {n}: prepare the *input*

First look at **what is there**: `read_{n}()` returns rows, and [the guide](https://docs.example)
says which of them matter. This paragraph is about as long as a model writes them, with a few words
in **bold** and some `code`, so that its tail is a few rows high before the next block begins.

- the first point, with a bit of *emphasis*
- the second point, which is longer than the first and is wrapped on a narrow screen, as they are
  - a nested one
- the third: `value_{n} = {n}`

```python
def step_{n}(rows: list[dict[str, int]]) -> int:
    \"\"\"Add up what counts.\"\"\"
    total = 0  # nothing yet
    for row in rows:
        if row["kind"] == "step-{n}":
            total += row["value"] * 2
    return total
```

| Name | Value | Meaning |
|------|------:|---------|
| `a{n}` | {n} | the **first** of them |
| `b{n}` | 12 | what follows from it |

> Note: step {n} needs what the step before has written.

"""


def reply(tokens: int) -> str:
    """Return a reply of about so many tokens."""
    sections = (SECTION.format(n=number) for number in range(tokens * CHUNK // len(SECTION) + 1))
    return "".join(sections)[: tokens * CHUNK]


class Sink(Output):
    """Counts what a terminal would get."""

    full = broken = False
    blocked_for = 0.0

    def __init__(self) -> None:
        self.size = 0

    def write(
        self, text: str, on_written: Callable[[int], None] | None = None, *, whole: bool = False
    ) -> None:
        """Count it; it is out at once."""
        assert whole  # noqa: S101  (a frame counts only when it is out)
        self.size += len(text.encode())
        if on_written is not None:
            on_written(len(text))

    def drain(self, timeout: float | None = None) -> bool:  # noqa: ARG002  (the port has it)
        """Say that all is out."""
        return True


@dataclass
class Clock:
    """Virtual time; the screen's one timer."""

    now: float = 0.0
    due: tuple[float, Callable[[], None]] | None = None

    def later(self, seconds: float, call: Callable[[], None]) -> Clock:
        """Call back when so much time has passed."""
        self.due = (self.now + seconds, call)
        return self

    def cancel(self) -> None:
        """Forget it."""
        self.due = None

    def step(self, seconds: float) -> float:
        """Let time pass; return the seconds that a frame took."""
        self.now += seconds
        if self.due is None or self.due[0] > self.now:
            return 0.0
        (_, call), self.due = self.due, None
        begin = time.thread_time()
        call()
        return time.thread_time() - begin


@dataclass
class Figures:
    """What one reply has cost."""

    chars: int
    cpu_s: float = 0.0
    bytes: int = 0
    frames: list[float] = field(default_factory=list)

    def line(self, name: str) -> str:
        """Return one row of figures."""
        frames = sorted(1e3 * took for took in self.frames)
        p50, p99 = frames[len(frames) // 2], frames[int(len(frames) * 0.99)]
        return (
            f"{name:28} {self.chars:7,} chars  CPU {self.cpu_s:7.3f} s  "
            f"bytes {self.bytes / self.chars:6.1f} x source  "
            f"{len(frames):5} frames: p50 {p50:6.2f}  p99 {p99:6.2f}  max {frames[-1]:6.2f} ms"
        )


class Tty:
    """A terminal of a size."""

    in_foreground = True

    def size(self) -> tuple[int, int]:
        """Return its columns and rows."""
        return COLUMNS, ROWS


def ours(text: str) -> Figures:
    figures, sink, clock = Figures(len(text)), Sink(), Clock()
    screen = Screen(sink, Tty(), now=lambda: clock.now, call_later=clock.later)
    begin = time.process_time()
    for number in range(0, len(text), CHUNK):
        if number // CHUNK % 25 == 0:
            screen.footer(
                [f"streaming · model · {number // CHUNK:,} tok · {clock.now:.1f}s · Space pause"]
            )
        screen.reply(text[number : number + CHUNK])
        took = clock.step(CHUNK_S)
        if took:
            figures.frames.append(took)
    screen.end_reply()
    screen.finish()
    figures.cpu_s, figures.bytes = time.process_time() - begin, sink.size
    return figures


def flood(text: str) -> Figures:
    """Show a reply that comes as fast as the screen takes it."""
    figures, sink, clock = Figures(len(text)), Sink(), Clock()
    screen = Screen(sink, Tty(), now=lambda: clock.now, call_later=clock.later)
    begin, at = time.process_time(), 0
    while at < len(text):
        while not screen.full and at < len(text):
            screen.reply(text[at : at + CHUNK])
            at += CHUNK
        figures.frames.append(clock.step(1 / 30))
    screen.end_reply()
    screen.finish()
    figures.cpu_s, figures.bytes = time.process_time() - begin, sink.size
    return figures


def richs(text: str) -> Figures:
    figures = Figures(len(text))
    sink = io.StringIO()
    console = Console(
        file=sink, width=COLUMNS, height=ROWS, force_terminal=True, color_system="256"
    )
    begin = time.process_time()
    with Live(console=console, auto_refresh=False) as live:
        for number in range(0, len(text), CHUNK * LIVE_EVERY):
            started = time.thread_time()
            live.update(Markdown(text[: number + CHUNK * LIVE_EVERY]), refresh=True)
            figures.frames.append(time.thread_time() - started)
    figures.cpu_s, figures.bytes = time.process_time() - begin, len(sink.getvalue().encode())
    return figures


def best(show: Callable[[str], Figures], text: str, rounds: int) -> Figures:
    return min((show(text) for _ in range(rounds)), key=lambda figures: figures.cpu_s)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3, help="the best of so many counts")
    parser.add_argument("--long-live", action="store_true", help="rich with the long reply, too")
    wanted = parser.parse_args()
    ours(reply(500))  # imports, caches
    short, long = (best(ours, reply(tokens), wanted.rounds) for tokens in (SHORT, LONG))
    flooded = best(flood, reply(LONG), wanted.rounds)
    live = best(richs, reply(SHORT), 1)
    print(short.line("ours, 2.5k tokens"))
    print(long.line("ours, 20k tokens"))
    print(flooded.line("ours, 20k at full speed"))
    print(live.line("rich Live, 2.5k tokens"))
    if wanted.long_live:
        print(richs(reply(LONG)).line("rich Live, 20k tokens"))
    print(f"\nCPU(20k) / CPU(2.5k)      {long.cpu_s / short.cpu_s:6.1f}   (at most 9)")
    print(f"rich's CPU / ours         {live.cpu_s / short.cpu_s:6.1f}   (at least 12)")
    print(f"load                      {os.getloadavg()[0]:6.1f}")


if __name__ == "__main__":
    main()
