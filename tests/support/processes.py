"""Run the command line from outside, in a clean environment, and end it at a chosen moment.

::

    cli = Cli(tmp_path)                                  # LLMCTL_HOME and HOME below tmp_path
    done = cli.run("run", "--base-url", url, "hello")    # .returncode .stdout .stderr
    with cli.start("run", "hello", kill_at=100) as process:
        done = process.wait()                            # SIGKILL after the 100th byte of stdout
    cli.assert_no_leftovers()                            # nothing it ever started is alive

Every process that a ``Cli`` starts carries a mark of its own in its environment, which children
inherit, and runs in a folder of its own, so leftovers are found whatever process group or session
they moved to, although their parent is dead or has emptied their environment. That needs
``/proc`` (Linux); elsewhere ``HAS_PROC`` is False.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from tests.support._late import be_late

__all__ = [
    "HAS_PROC",
    "Chunk",
    "Cli",
    "CliProcess",
    "Finished",
    "Found",
    "Pipe",
    "clean_environment",
    "descendants",
    "group_members",
    "marked",
    "session_members",
]

HAS_PROC = Path("/proc/self/stat").exists()
REPOSITORY = Path(__file__).parents[2]
_MARK = "LLMCTL_TEST_MARK"
# Everything else of the caller's environment is kept out: keys, proxies, XDG folders, colours.
_INHERITED = ("PATH", "LD_LIBRARY_PATH", "TMPDIR", "TZ", "SSL_CERT_FILE", "COVERAGE_PROCESS_START")
_POLL_S = 0.005
_READ = 1 << 16


def clean_environment(home: Path, extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return an environment with nothing of the caller's but the search paths.

    Args:
        home: Becomes HOME; LLMCTL_HOME is a folder in it.
        extra: Set last.
    """
    kept = {name: os.environ[name] for name in _INHERITED if name in os.environ}
    return {
        **kept,
        "HOME": str(home),
        "LLMCTL_HOME": str(home / "llmctl"),
        "LANG": "C.UTF-8",
        "TERM": "xterm-256color",
        "PYTHONPATH": str(REPOSITORY),
        **(extra or {}),
    }


@dataclass(frozen=True, slots=True)
class Chunk:
    """What one read returned and when (``time.monotonic_ns()``)."""

    at_ns: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Finished:
    """A process that has ended. ``returncode`` is negative for a signal, as in subprocess."""

    arguments: tuple[str, ...]
    returncode: int
    stdout: bytes
    stderr: bytes
    started_ns: int
    ended_ns: int

    @property
    def text(self) -> str:
        """Standard output as text."""
        return self.stdout.decode()

    @property
    def errors(self) -> str:
        """Standard error as text."""
        return self.stderr.decode(errors="replace")

    @property
    def seconds(self) -> float:
        """How long it ran, in seconds."""
        return (self.ended_ns - self.started_ns) / 1e9


class Pipe:
    """Drains one pipe in a thread; may send a signal when it has read so many bytes."""

    def __init__(
        self,
        source: IO[bytes],
        process: subprocess.Popen[bytes],
        *,
        trap: tuple[int, signal.Signals] | None = None,
    ) -> None:
        """Start to drain ``source``; ``trap`` is a number of bytes and a signal."""
        self.chunks: list[Chunk] = []
        self._source = source
        self._process = process
        self._changed = threading.Condition()
        self._size = 0
        self._ended = False
        self._trap = trap
        self._thread = threading.Thread(target=self._drain, daemon=True)
        self._thread.start()

    @property
    def data(self) -> bytes:
        """Everything read so far."""
        return b"".join(chunk.data for chunk in list(self.chunks))

    def kill_at(self, size: int, sign: signal.Signals) -> None:
        """Send ``sign`` to the process as soon as ``size`` bytes have been read."""
        with self._changed:
            self._trap = (size, sign)
            self._spring()

    def wait_for_bytes(self, size: int, timeout_s: float) -> bool:
        """Wait until ``size`` bytes are read; False if the pipe ended or time is up first."""
        with self._changed:
            self._changed.wait_for(lambda: self._size >= size or self._ended, timeout_s)
        be_late()
        return self._size >= size

    def wait_for(self, text: bytes, timeout_s: float) -> bool:
        """Wait until ``text`` is in the data; False if the pipe ended or time is up first."""
        with self._changed:
            self._changed.wait_for(lambda: text in self.data or self._ended, timeout_s)
        be_late()
        return text in self.data

    def join(self, timeout_s: float) -> None:
        """Wait for the end of the pipe."""
        self._thread.join(timeout_s)
        if self._thread.is_alive():
            raise TimeoutError("somebody still holds the other end of the pipe")

    def _drain(self) -> None:
        with self._source:
            while data := self._read():
                with self._changed:
                    self.chunks.append(Chunk(time.monotonic_ns(), data))
                    self._size += len(data)
                    self._spring()
                    self._changed.notify_all()
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def _read(self) -> bytes:
        """Read what there is, but not past the byte at which a signal is due."""
        select.select([self._source], [], [])  # so that a trap set meanwhile is obeyed
        trap = self._trap
        limit = _READ if trap is None else max(1, min(_READ, trap[0] - self._size))
        return os.read(self._source.fileno(), limit)

    def _spring(self) -> None:
        if self._trap is not None and self._size >= self._trap[0]:
            self._process.send_signal(self._trap[1])
            self._trap = None


class CliProcess:
    """A running command. Leaving the ``with`` block kills it and all that it started."""

    def __init__(  # noqa: PLR0913  (named, and mostly left out)
        self,
        arguments: Sequence[str],
        *,
        env: Mapping[str, str],
        cwd: Path,
        stdin: bytes | IO[bytes] | int | None = None,
        stdout: IO[bytes] | int | None = None,
        kill_at: int | None = None,
    ) -> None:
        """Start ``arguments`` as the leader of a new session.

        Args:
            arguments: The whole command.
            env: The whole environment.
            cwd: Where it runs.
            stdin: Bytes to feed, a file or descriptor, or None for an empty input.
            stdout: A file or descriptor instead of the drained pipe.
            kill_at: SIGKILL it once exactly so many bytes of stdout are read; draining goes on.
        """
        self.arguments = tuple(arguments)
        self.started_ns = time.monotonic_ns()
        source = subprocess.PIPE if isinstance(stdin, bytes) else stdin
        self._process = subprocess.Popen(
            self.arguments,
            env=dict(env),
            cwd=cwd,
            stdin=subprocess.DEVNULL if source is None else source,
            stdout=subprocess.PIPE if stdout is None else stdout,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        self.mark = env.get(_MARK)
        trap = None if kill_at is None else (kill_at, signal.SIGKILL)
        out = self._process.stdout
        self.stdout = Pipe(out, self._process, trap=trap) if out else None
        assert self._process.stderr is not None
        self.stderr = Pipe(self._process.stderr, self._process)
        self._timers: list[threading.Timer] = []
        if isinstance(stdin, bytes):
            threading.Thread(target=self._feed, args=(stdin,), daemon=True).start()

    @property
    def pid(self) -> int:
        """The process id, which is also its group's and its session's."""
        return self._process.pid

    @property
    def stdin(self) -> IO[bytes] | None:
        """The pipe to its standard input, if started with ``stdin=subprocess.PIPE``."""
        return self._process.stdin

    def poll(self) -> int | None:
        """Return the exit status, or None while it runs."""
        return self._process.poll()

    def send_signal(self, sign: signal.Signals) -> int:
        """Send a signal to the process; return the monotonic time in ns."""
        self._process.send_signal(sign)
        return time.monotonic_ns()

    def send_group_signal(self, sign: signal.Signals) -> None:
        """Send a signal to the whole process group, as a terminal does."""
        os.killpg(self.pid, sign)

    def kill_after_bytes(self, size: int, sign: signal.Signals = signal.SIGKILL) -> None:
        """Send ``sign`` once ``size`` bytes of stdout, or some more, are read.

        A read that is under way may pass ``size``; ``kill_at`` at the start is exact.
        """
        if self.stdout is None:
            raise ValueError("stdout is not drained here")
        self.stdout.kill_at(size, sign)

    def kill_after(self, seconds: float, sign: signal.Signals = signal.SIGKILL) -> None:
        """Send ``sign`` after ``seconds``, unless the process ends before."""
        timer = threading.Timer(seconds, self._process.send_signal, (sign,))
        timer.daemon = True
        self._timers.append(timer)
        timer.start()

    def wait(self, timeout_s: float = 30.0) -> Finished:
        """Wait for the end and return all output.

        Raises:
            TimeoutError: If the process still runs, or a child of it still holds its output.
        """
        try:
            returncode = self._process.wait(timeout_s)
        except subprocess.TimeoutExpired as error:
            shown = self.stderr.data[-2000:].decode(errors="replace")
            raise TimeoutError(f"{self.arguments} still runs; stderr: {shown}") from error
        ended_ns = time.monotonic_ns()
        for pipe in filter(None, (self.stdout, self.stderr)):
            pipe.join(timeout_s)
        out = self.stdout.data if self.stdout else b""
        return Finished(
            self.arguments, returncode, out, self.stderr.data, self.started_ns, ended_ns
        )

    def __enter__(self) -> Self:
        """Return the process itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Kill what is left of it."""
        for timer in self._timers:
            timer.cancel()
        if self.poll() is None:
            self._process.kill()
            self._process.wait()
        if self._process.stdin:
            self._process.stdin.close()

    def _feed(self, data: bytes) -> None:
        assert self._process.stdin is not None
        try:
            with self._process.stdin as pipe:
                pipe.write(data)
        except BrokenPipeError:
            pass  # the program need not read all of it


class Cli:
    """Starts ``python -m llmctl`` with a home of its own."""

    def __init__(
        self,
        home: Path,
        *,
        env: Mapping[str, str] | None = None,
        program: Sequence[str] = ("-m", "llmctl"),
    ) -> None:
        """Choose the home folder, which is made if need be, and what else is in the environment.

        Args:
            home: Becomes HOME, and the working directory is a folder in it.
            env: Added to the clean environment.
            program: What the interpreter runs.
        """
        self.home = home
        self.data = home / "llmctl"
        self.cwd = home / "work"
        self.cwd.mkdir(parents=True, exist_ok=True)
        self.mark = uuid.uuid4().hex
        self.env = clean_environment(home, {_MARK: self.mark, **(env or {})})
        self._program = (sys.executable, *program)

    def command(self, *arguments: str) -> tuple[str, ...]:
        """Return the whole command line, for a terminal or a shell to run (with ``env``)."""
        return (*self._program, *arguments)

    def start(
        self,
        *arguments: str,
        stdin: bytes | IO[bytes] | int | None = None,
        stdout: IO[bytes] | int | None = None,
        kill_at: int | None = None,
        env: Mapping[str, str] | None = None,
        wrap: Sequence[str] = (),
    ) -> CliProcess:
        """Start the command; see ``CliProcess`` for the streams.

        Args:
            arguments: What follows ``llmctl`` on the command line.
            stdin: The input; None is empty.
            stdout: Where the output goes; None is a pipe that is drained.
            kill_at: SIGKILL it once exactly so many bytes of stdout are read.
            env: Set on top for this process.
            wrap: A command to run it under, such as ``("nohup",)``.
        """
        return CliProcess(
            (*wrap, *self.command(*arguments)),
            env={**self.env, **(env or {})},
            cwd=self.cwd,
            stdin=stdin,
            stdout=stdout,
            kill_at=kill_at,
        )

    def run(
        self,
        *arguments: str,
        stdin: bytes | None = None,
        env: Mapping[str, str] | None = None,
        timeout_s: float = 30.0,
    ) -> Finished:
        """Run the command to its end."""
        with self.start(*arguments, stdin=stdin, env=env) as process:
            return process.wait(timeout_s)

    def leftovers(self) -> list[Found]:
        """Return every living process that this ``Cli`` started, or that those started."""
        return marked(self.mark, self.home)

    def assert_no_leftovers(self, timeout_s: float = 2.0) -> None:
        """Wait for everything started to be gone.

        Raises:
            AssertionError: If something is alive after ``timeout_s``; the message lists it.
        """
        deadline = time.monotonic() + timeout_s
        while left := self.leftovers():
            if time.monotonic() > deadline:
                raise AssertionError("left running: " + "; ".join(map(str, left)))
            time.sleep(_POLL_S)

    def kill_leftovers(self) -> None:
        """Kill everything started that still lives."""
        for found in self.leftovers():
            try:
                os.kill(found.pid, signal.SIGKILL)
            except ProcessLookupError:
                continue


# --- /proc ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Found:
    """A living process as ``/proc`` shows it; a zombie does not count as living."""

    pid: int
    parent: int
    group: int
    session: int
    state: str
    command: str


def _find(pid: int) -> Found | None:
    folder = Path("/proc", str(pid))
    try:
        _, _, rest = (folder / "stat").read_text(errors="replace").rpartition(")")
        command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    state, parent, group, session = rest.split()[:4]
    return Found(pid, int(parent), int(group), int(session), state, command.strip())


def _living() -> list[Found]:
    pids = (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit())
    return [found for pid in pids if (found := _find(pid)) is not None and found.state not in "ZX"]


def marked(mark: str, folder: Path | None = None) -> list[Found]:
    """Return the living processes that carry a mark, or work in a folder, given at their start."""
    wanted = f"{_MARK}={mark}".encode()
    return [
        found
        for found in _living()
        if wanted in _environment(found.pid)
        or (folder is not None and _works_in(found.pid, folder))
    ]


def _works_in(pid: int, folder: Path) -> bool:
    try:
        return Path("/proc", str(pid), "cwd").readlink().is_relative_to(folder.resolve())
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return False


def _environment(pid: int) -> list[bytes]:
    try:
        return Path("/proc", str(pid), "environ").read_bytes().split(b"\0")
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return []


def group_members(group: int) -> list[Found]:
    """Return the living members of a process group."""
    return [found for found in _living() if found.group == group]


def session_members(session: int) -> list[Found]:
    """Return the living members of a session."""
    return [found for found in _living() if found.session == session]


def descendants(pid: int) -> list[Found]:
    """Return the living children of a process and theirs, while the chain of parents is whole."""
    living = _living()
    found: list[Found] = []
    parents = {pid}
    while parents:
        children = [process for process in living if process.parent in parents]
        found += children
        parents = {process.pid for process in children}
    return found
