"""One table: `llmctl` beside the clients that people use, and beside the bare packages.

Every figure is a ratio to the first column, measured in one run: the contestants of a row take
turns, the cell is the median of the rounds, with the lowest and the highest behind it. Times of
a busy machine are worth little, ratios of turns more; the load is printed with them. The server
is `fast_server.py`: on this machine, faster than any client, the same reply to everyone.

Other clients are looked for in ``$LLMCTL_BENCH_PEERS/NAME/bin`` (an environment of their own
each, as ``python -m venv`` makes them); one that is not there, or does not answer, is left out
with a word. Nothing is asked of the network.

``python benchmarks/table.py [--rounds 5] [--tokens 20000] [--quick] [--million]``
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import re
import resource
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import anyio

from benchmarks import batch_throughput, library
from benchmarks.fast_server import serving

ROOT = Path(__file__).resolve().parent.parent
SHORT, LONG, MILLION = 1, 20_000, 1_000_000
WORD = " w{}"
"""What the server says, numbered: some clients give up on a model that repeats itself."""

WORDS = re.compile(rb"\bw\d+")

LONGEST_S = 600
"""CPU seconds that one run may take."""
Found = TypeVar("Found")
Program = Callable[[], Found]
OURS = "llmctl"
BIN = Path(sys.executable).parent

TYPED_LOOP = """
import sys, openai
client = openai.OpenAI(base_url=sys.argv[1], api_key="x")
for chunk in client.chat.completions.create(
    model="m", messages=[{"role": "user", "content": "hi"}], stream=True
):
    if chunk.choices and chunk.choices[0].delta.content:
        sys.stdout.write(chunk.choices[0].delta.content)
        sys.stdout.flush()
"""


@dataclass(frozen=True, slots=True)
class Client:
    """A program that asks for one reply.

    Attributes:
        name: what the table calls it.
        program: its start; ``--version`` and ``--help`` are put behind.
        ask: its command line for a reply from a URL; None where it can't be asked like that.
        variables: for its environment, besides a home of its own.
    """

    name: str
    program: tuple[str, ...]
    ask: Callable[[str, Path], tuple[str, ...]] | None = None
    variables: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Run:
    """What one run of a program took."""

    cpu_s: float
    wall_s: float
    first_s: float
    peak_mb: float
    text: bytes


def peer(name: str, program: str) -> str | None:
    """Return a peer's program, None where it is not installed."""
    path = Path(os.environ.get("LLMCTL_BENCH_PEERS", "peers"), name, "bin", program)
    return str(path.absolute()) if path.exists() else None


def clients() -> Iterator[Client]:
    """Yield the clients that are here; the bare loop and ours always are."""
    yield Client(
        "openai, typed loop",
        (sys.executable, "-c", TYPED_LOOP),
        lambda url, _: (sys.executable, "-c", TYPED_LOOP, url),
    )
    ours = str(BIN / OURS)
    asked = (ours, "run", "-n", "-m", "m", "--api", "chat", "--base-url")
    yield Client(OURS, (ours,), lambda url, _: (*asked, url, "hi"))
    if llm := peer("llm", "llm"):
        yield Client("llm", (llm,), lambda url, home: _llm(llm, url, home))
    if sgpt := peer("shell-gpt", "sgpt"):
        yield Client(
            "shell-gpt",
            (sgpt,),
            lambda url, _: ("env", f"API_BASE_URL={url}", sgpt, "--no-md", "--no-cache", "hi"),
            {"DEFAULT_MODEL": "m"},
        )
    if aider := peer("aider-chat", "aider"):
        yield Client(
            "aider",
            (aider,),
            lambda url, _: _aider(aider, url),
            {"LITELLM_LOCAL_MODEL_COST_MAP": "True"},
        )
    if gptme := peer("gptme", "gptme"):
        yield Client("gptme", (gptme,))


def _llm(program: str, url: str, home: Path) -> tuple[str, ...]:
    model = f"- model_id: bench\n  model_name: m\n  api_base: {url}\n"
    (home / "extra-openai-models.yaml").write_text(model)
    return ("env", f"LLM_USER_PATH={home}", program, "-m", "bench", "hi")


def _aider(program: str, url: str) -> tuple[str, ...]:
    quiet = ("--no-git", "--yes-always", "--no-show-model-warnings", "--no-check-update",
             "--analytics-disable", "--no-pretty", "--no-show-release-notes",
             "--map-tokens", "0")  # fmt: skip
    key = ("--openai-api-base", url, "--openai-api-key", "x")
    return (program, "--message", "hi", "--model", "openai/m", *key, *quiet)


def _bound() -> None:
    resource.setrlimit(resource.RLIMIT_CPU, (LONGEST_S, LONGEST_S))


def measured(words: Sequence[str], home: Path, variables: Mapping[str, str]) -> Run:
    """Run a program to its end; its output goes into a pipe."""
    kept = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
    env = {**kept, "HOME": str(home), "LLMCTL_HOME": str(home), "OPENAI_API_KEY": "x", **variables}
    began = time.perf_counter()
    process = subprocess.Popen(  # noqa: S603
        words, cwd=home, env=env, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, preexec_fn=_bound,  # noqa: PLW1509
    )  # fmt: skip
    assert process.stdout is not None  # noqa: S101
    descriptor, pieces, first_s = process.stdout.fileno(), [], 0.0
    while piece := os.read(descriptor, 1 << 16):
        if not first_s and WORDS.search(piece):
            first_s = time.perf_counter() - began
        pieces.append(piece)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    process.stdout.close()
    if process.returncode in {-signal.SIGKILL, -signal.SIGXCPU}:
        raise RuntimeError(f"it took more than {LONGEST_S} CPU s")
    if process.returncode:
        raise RuntimeError(f"it exited with {process.returncode}")
    return Run(
        usage.ru_utime + usage.ru_stime,
        time.perf_counter() - began,
        first_s,
        usage.ru_maxrss / (1024 if sys.platform == "linux" else 1024**2),
        b"".join(pieces),
    )


def cell(values: Sequence[float], base: Sequence[float]) -> str:
    """Return the ratios of the rounds: the median, and the lowest and the highest."""
    ratios = [mine / his for mine, his in zip(values, base, strict=True)]
    low, high = min(ratios), max(ratios)
    return f"{statistics.median(ratios):.2f} ({low:.2f}-{high:.2f})"


class Table:
    """Rows of figures, the first contestant's being 1."""

    def __init__(self, rounds: int, home: Path) -> None:
        self.rounds = rounds
        self.home = home
        self.left_out: dict[str, str] = {}

    def runs(self, what: str, programs: Mapping[str, Program[Found]]) -> dict[str, list[Found]]:
        """Run the contestants in turns; who fails is left out, with a word."""
        found: dict[str, list[Found]] = {each: [] for each in programs}
        for _ in range(self.rounds):
            for each in [each for each in programs if each in found]:
                try:
                    found[each].append(programs[each]())
                except (RuntimeError, OSError, subprocess.SubprocessError) as error:
                    self.left_out[f"{each}, {what}"] = str(error)
                    del found[each]
        return found

    def row(self, name: str, values: Mapping[str, Sequence[float]]) -> None:
        """Print a row: the first contestant's figure, and the ratios of the others."""
        (base, of_base), *others = values.items()
        told = " · ".join(f"{each} {cell(found, of_base)}" for each, found in others)
        print(f"| {name} | {base} = {statistics.median(of_base):.3g} | {told} |", flush=True)

    def starts(self, found: Sequence[Client]) -> None:
        """Processor seconds of a start."""
        for option in ("--version", "--help"):
            programs: dict[str, Program[float]] = {
                "python -c pass, CPU s": lambda: self._cpu((sys.executable, "-c", "pass"), {})
            }
            for client in found[1:]:
                programs[client.name] = self._start(client, option)
            self.row(f"start-up, {option}", self.runs(option, programs))

    def replies(self, found: Sequence[Client], tokens: int) -> None:
        """The delay of the first token, CPU and memory of a reply."""
        asking = [client for client in found if client.ask is not None]
        with serving(SHORT, WORD) as short, serving(tokens, WORD) as long:
            programs = {client.name: self._reply(client, short, long, tokens) for client in asking}
            pairs = self.runs("a reply", programs)
        for name, figure in (
            ("from the command to the first token, s", lambda one, _: one.first_s),
            ("CPU s of a reply of one token", lambda one, _: one.cpu_s),
            ("CPU s of each further token, into a pipe",
             lambda one, many: (many.cpu_s - one.cpu_s) / (tokens - SHORT)),
            (f"peak memory at {tokens:,} tokens, MB", lambda _, many: many.peak_mb),
        ):  # fmt: skip
            self.row(name, {each: [figure(*pair) for pair in of] for each, of in pairs.items()})

    def million(self, found: Sequence[Client]) -> None:
        """Memory over 1, 20,000 and 1,000,000 tokens, ours alone."""
        ours = next(client for client in found if client.name == OURS)
        peaks = []
        for tokens in (SHORT, LONG, MILLION):
            with serving(tokens) as url:  # as a text has them, the words repeat themselves
                assert ours.ask is not None  # noqa: S101
                run = measured(ours.ask(url, self.home), self.home, ours.variables)
                assert run.text.count(b" token") == tokens, tokens  # noqa: S101
                peaks.append(run.peak_mb)
        told = ", ".join(f"{peak:.1f}" for peak in peaks)
        text_mb = len(run.text) / 1e6
        print(f"| peak memory of {OURS} over 1, 20,000, 1,000,000 tokens | MB | {told};"
              f" the text itself is {text_mb:.0f} MB |", flush=True)  # fmt: skip

    def library(self) -> None:
        """The cancelation primitives, as `library.py` measures them."""
        found = {**anyio.run(library.measure), **library.importing()}
        told = " · ".join(f"{name} {value:.2f}" for name, value in found.items())
        print(f"| cancelable_core | anyio = 1 | {told} |", flush=True)
        if library.libraries() == [library.OURS]:
            self.left_out["the peer cancelation library"] = "not installed beside this Python"

    def batch(self, streams: int) -> None:
        """Tokens a CPU second of a batch."""
        requests, tokens = streams * 2, 100
        with serving(tokens) as url:

            def cost(kind: str) -> Program[float]:
                def run() -> float:
                    got = batch_throughput.run_client(kind, url, streams, requests)
                    return got["cpu_s"] / got["tokens"]

                return run

            kinds = ["openai", "llmctl", "aiohttp"]
            if importlib.util.find_spec("aiohttp") is None:
                kinds.remove("aiohttp")
                self.left_out["aiohttp"] = "not installed"
            names = {"openai": "openai, typed loop", "llmctl": "llmctl batch"}
            programs = {names.get(kind, kind): cost(kind) for kind in kinds}
            self.row(f"CPU s a token, {streams} streams at a time", self.runs("batch", programs))

    def told_by(self, name: str, *words: str) -> None:
        """Put in what another program of this folder prints."""
        program = [sys.executable, str(ROOT / "benchmarks" / name), *words]
        done = subprocess.run(program, capture_output=True, text=True, check=False)  # noqa: S603
        if done.returncode:
            self.left_out[name] = (done.stderr.strip().splitlines() or ["failed"])[-1]
        for line in filter(str.strip, done.stdout.splitlines()):
            print(f"| {name} | | {' '.join(line.split())} |", flush=True)

    def _cpu(self, words: Sequence[str], variables: Mapping[str, str]) -> float:
        return measured(words, self.home, variables).cpu_s

    def _start(self, client: Client, option: str) -> Program[float]:
        return lambda: self._cpu((*client.program, option), client.variables)

    def _ask(self, client: Client, url: str, tokens: int) -> Run:
        assert client.ask is not None  # noqa: S101
        run = measured(client.ask(url, self.home), self.home, client.variables)
        came = len(set(WORDS.findall(run.text)))
        if came != tokens:
            raise RuntimeError(f"{came:,} of {tokens:,} tokens came")
        return run

    def _reply(
        self, client: Client, short: str, long: str, tokens: int
    ) -> Program[tuple[Run, Run]]:
        return lambda: (self._ask(client, short, SHORT), self._ask(client, long, tokens))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5, help="turns of each row")
    parser.add_argument("--tokens", type=int, default=LONG, help="of a long reply")
    parser.add_argument("--quick", action="store_true", help="leave the long programs out")
    parser.add_argument("--million", action="store_true", help="a reply of a million tokens, too")
    wanted = parser.parse_args()
    found = list(clients())
    with tempfile.TemporaryDirectory(prefix="llmctl-bench-") as folder:
        table = Table(wanted.rounds, Path(folder))
        print("| what | 1 is | ratios: median (lowest-highest) |\n|---|---|---|")
        table.starts(found)
        table.replies(found, wanted.tokens)
        if wanted.million:
            table.million(found)
        table.batch(64)
        table.library()
        if not wanted.quick:
            table.told_by("pause_latency.py", "--pauses", "50")
            table.told_by("markdown.py", "--rounds", "1")
    for name in ("llm", "shell-gpt", "aider-chat", "gptme"):
        if peer(name, {"shell-gpt": "sgpt", "aider-chat": "aider"}.get(name, name)) is None:
            table.left_out[name] = "not installed"
    for name, why in table.left_out.items():
        print(f"\nleft out: {name} ({why})", end="")
    python = sys.version.split()[0]
    print(f"\n\nPython {python}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
