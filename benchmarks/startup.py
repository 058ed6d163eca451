"""What a start costs: until the version, the help, and the first prompt of a chat are there.

Each command is started in turn, round by round, so that whatever else the machine does meets
them all alike; the medians are compared. A chat runs in a real terminal and counts until its
prompt is painted. Beside them stand a bare Python and, where it is installed, the chat of
`llm`, another client in Python (in an environment of its own: its packages are not ours).

``python benchmarks/startup.py [--rounds 15] [--llm PATH]``
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from llmctl.environment import Environment
from tests.support.processes import HAS_PROC, Cli
from tests.support.pty_driver import PtyProgram

PROMPT = re.compile(r"(?:^|[\nm])>")
"""How a prompt is painted; the letter ends what sets its colours."""

PATIENCE_S = 60.0


@dataclass
class Start:
    """One command, and what its starts have cost.

    Attributes:
        name: what the table calls it.
        words: the command.
        prompts: it counts until the prompt is there; else until it has ended.
        seconds: wall clock, a figure a start.
        cpu: processor seconds, a figure a start (Linux; only of what prompts).
    """

    name: str
    words: Sequence[str]
    prompts: bool = False
    seconds: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)

    def once(self, cli: Cli) -> None:
        """Start it and note what that took."""
        with PtyProgram(self.words, env=cli.env, cwd=cli.cwd, columns=80, rows=24) as program:
            if not self.prompts:
                program.wait(PATIENCE_S)
                self.seconds.append(time.monotonic() - program.started_ns / 1e9)
                return
            shown = program.wait_for(PROMPT, timeout_s=PATIENCE_S)
            self.cpu += [used] if (used := cpu_seconds(program.pid)) else []
            self.seconds.append((shown.at_ns - program.started_ns) / 1e9)


def cpu_seconds(pid: int) -> float | None:
    """Return the processor time that a living process's threads have had."""
    if not HAS_PROC:
        return None
    tasks = Path(f"/proc/{pid}/task").glob("*/schedstat")
    return sum(int(task.read_text().split()[0]) for task in tasks) / 1e9


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--llm", default=shutil.which("llm"), help="the other client's program")
    wanted = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        cli = Cli(Path(folder), env={"LLMCTL_MODELS": str(Environment.of_process().models)})
        starts = [
            Start("bare Python", (sys.executable, "-c", "pass")),
            Start("llmctl --version", cli.command("--version")),
            Start("llmctl --help", cli.command("--help")),
            Start("llmctl chat, the prompt", cli.command("chat"), prompts=True),
        ]
        if wanted.llm:
            cli.env |= {"LLM_USER_PATH": folder, "OPENAI_API_KEY": "none"}
            starts.append(Start("llm chat, the prompt", (wanted.llm, "chat"), prompts=True))
        for turn in range(wanted.rounds + 1):
            for start in starts:
                start.once(cli)
            if not turn:  # the first one compiles what it imports
                for start in starts:
                    start.seconds.clear()
                    start.cpu.clear()
    report(starts, wanted.rounds)
    if not wanted.llm:
        print("llm is not installed here, so nothing stands beside the chat (--llm PATH)")


def report(starts: Sequence[Start], rounds: int) -> None:
    """Print the medians."""
    bare = statistics.median(starts[0].seconds)
    print(
        f"median of {rounds} rounds, load {os.getloadavg()[0]:.1f} on {os.cpu_count()} processors"
    )
    for start in starts:
        median = statistics.median(start.seconds)
        cpu = f"  {1000 * statistics.median(start.cpu):6.0f} ms of processor" if start.cpu else ""
        print(f"{start.name:24} {1000 * median:6.0f} ms  {median / bare:5.1f} x bare{cpu}")
    if starts[-1].name.startswith("llm "):
        ours, theirs = starts[-2:]
        print(f"the prompt of llmctl takes {_ratio(ours.seconds, theirs.seconds)} of llm's time")
        if ours.cpu and theirs.cpu:
            print(f"and {_ratio(ours.cpu, theirs.cpu)} of its processor time")


def _ratio(ours: Sequence[float], theirs: Sequence[float]) -> str:
    return f"{statistics.median(ours) / statistics.median(theirs):.2f}"


if __name__ == "__main__":
    main()
