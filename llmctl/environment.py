"""The process we run in: descriptors, variables, clocks, directories. Nothing else asks.

`Environment` is one value that a command is handed, so that a test hands it another one
instead of patching globals. Whatever this program writes to disk goes through
`private_dir`, `open_private` and `write_private`: other users of the machine read none
of it, whatever the umask.
"""

from __future__ import annotations

import errno
import os
import select
import stat
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from enum import IntEnum
from pathlib import Path
from typing import IO, Any, Self

import platformdirs

DIRECTORY_MODE = 0o700
FILE_MODE = 0o600
CANT_BE_WRITTEN = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})
"""What the system says of a place where nothing can be written, but perhaps read."""


class ExitStatus(IntEnum):
    """What the shell is told. How a *reply* ends has its own table, `llmctl.events.End`."""

    OK = 0
    INTERNAL_ERROR = 1
    USAGE = 2
    REFUSED = 3
    UNREACHABLE = 4
    PAUSED = 5
    TRUNCATED = 6
    BELOW_REQUIRE = 7
    SOME_FAILED = 8
    GIVEN_UP = 9
    TIMEOUT = 124
    SIGHUP = 129
    SIGINT = 130
    CLOSED_PIPE = 141
    SIGTERM = 143


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """What a command may know about the process it runs in.

    Attributes:
        stdin: descriptor to read from.
        stdout: descriptor for results.
        stderr: descriptor for everything else.
        variables: the environment variables.
        cwd: what relative paths start from.
        home: the user's home directory.
        data: where conversations, journals and weights live.
        config: where the configuration, keys and own templates live.
        clock: seconds that only ever grow.
        now: seconds since the epoch.
    """

    stdin: int
    stdout: int
    stderr: int
    variables: Mapping[str, str]
    cwd: Path
    home: Path
    data: Path
    config: Path
    clock: Callable[[], float] = time.monotonic
    now: Callable[[], float] = time.time

    @classmethod
    def of_process(cls) -> Self:
        """Return the environment of this process."""
        _occupy_closed_descriptors()
        here = cls(
            stdin=0,
            stdout=1,
            stderr=2,
            variables=os.environ,
            cwd=_working_directory(),
            home=_home(),
            data=platformdirs.user_data_path("llmctl", appauthor=False),
            config=platformdirs.user_config_path("llmctl", appauthor=False),
        )
        folder = here.variable("LLMCTL_HOME")
        return here if folder is None else here.at_home(folder)

    def at_home(self, folder: str | Path) -> Self:
        """Return the same environment with data and configuration in one folder."""
        path = self.resolve(folder)
        return replace(self, data=path, config=path)

    @property
    def models(self) -> Path:
        """Where weights are kept."""
        folder = self.variable("LLMCTL_MODELS")
        return self.data / "models" if folder is None else self.resolve(folder)

    @property
    def user_templates(self) -> Path:
        """Where the user's own templates are."""
        return self.config / "prompts"

    def variable(self, name: str) -> str | None:
        """Return an environment variable; None if it is unset or empty."""
        return self.variables.get(name) or None

    def flag(self, name: str) -> bool:
        """Say whether an environment variable switches something on."""
        return self.variables.get(name, "").lower() not in ("", "0", "false", "no", "off")

    def resolve(self, path: str | Path) -> Path:
        """Return ``path`` made absolute; ``~`` is the user's home directory."""
        parts = Path(path).parts
        if parts[:1] == ("~",):
            return self.home.joinpath(*parts[1:])
        return self.cwd / path

    def is_a_tty(self, descriptor: int) -> bool:
        """Say whether a descriptor is a terminal."""
        return os.isatty(descriptor)

    @property
    def has_input(self) -> bool:
        """Say whether stdin is a file, a pipe or a socket, so that reading it makes sense."""
        mode = os.fstat(self.stdin).st_mode
        return stat.S_ISREG(mode) or stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)

    def allows_color(self, descriptor: int) -> bool:
        """Say whether colour is welcome where nobody asked for or against it."""
        if self.variable("NO_COLOR"):
            return False
        if self.flag("CLICOLOR_FORCE"):
            return True
        return self.is_a_tty(descriptor) and self.variables.get("TERM") != "dumb"

    def say(self, text: str) -> None:
        """Write a line of result.

        Raises:
            BrokenPipeError: nobody reads it any more.
        """
        _write_all(self.stdout, f"{text}\n")

    def write(self, text: str) -> None:
        """Write text as it is.

        Raises:
            BrokenPipeError: nobody reads it any more.
        """
        _write_all(self.stdout, text)

    def waits_for_input(self, seconds: float) -> bool:
        """Say whether stdin has still brought nothing after so many seconds."""
        return not select.select([self.stdin], [], [], seconds)[0]

    def note(self, text: str) -> None:
        """Write a line of talk; a reader that has gone is no reason to fail."""
        try:
            _write_all(self.stderr, f"{text}\n")
        except OSError:
            return

    def discard_output(self) -> None:
        """Let what is still written to stdout go nowhere: its reader has gone."""
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self.stdout)
        os.close(nowhere)

    def read_input(self) -> str:
        """Return all of stdin, which must be UTF-8 (what is not becomes U+FFFD)."""
        with open(self.stdin, "rb", closefd=False) as stream:
            return stream.read().decode("utf-8", "replace")


def running_interpreter() -> str:
    """Return the path of the Python that runs this program."""
    return sys.executable


def private_dir(path: Path) -> Path:
    """Make a directory, and those above it, that only its owner may enter.

    A directory that exists already stays as its owner made it.
    """
    if not path.is_dir():
        private_dir(path.parent)
        try:
            path.mkdir(DIRECTORY_MODE)
        except FileExistsError:
            if not path.is_dir():
                raise
        else:
            path.chmod(DIRECTORY_MODE)  # a umask may have taken bits from the owner too
    return path


def open_private(path: Path, mode: str) -> IO[Any]:
    """Open a file that only its owner may read; text is UTF-8, its line ends as written.

    Args:
        path: the file; its directory must exist.
        mode: as for `open`.
    """
    text = "b" not in mode
    return open(  # the caller closes it; Path.open has no opener
        path,
        mode,
        opener=_open_owner_only,
        encoding="utf-8" if text else None,
        newline="" if text else None,
    )


def write_private(path: Path, content: str | bytes | Iterable[bytes]) -> None:
    """Replace a file's content in one step: a reader sees the old or the new, never half.

    A symbolic link stays one; the file it points to is replaced.

    Args:
        path: the file.
        content: all of it, or its parts, which are taken as they are written.

    Raises:
        OSError: it can't be written, or is there and no regular file; it is as it was.
    """
    parts = [content.encode()] if isinstance(content, str) else content
    _check_replaceable(path)
    target = Path(os.path.realpath(path))
    private_dir(target.parent)
    try:
        descriptor, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    except OSError as error:
        error.filename = str(path)  # the one that the person knows
        raise
    try:
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(descriptor, FILE_MODE)
            file.writelines([parts] if isinstance(parts, bytes) else parts)
            file.flush()
            os.fsync(descriptor)
        Path(name).replace(target)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _check_replaceable(path: Path) -> None:
    """See that a file may take the place of what is there, if anything is."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(mode):
        raise FileExistsError(errno.EEXIST, "It is no regular file", str(path))


def _open_owner_only(path: str, flags: int) -> int:
    descriptor = os.open(path, flags, FILE_MODE)
    if stat.S_IMODE(os.fstat(descriptor).st_mode) != FILE_MODE:
        os.fchmod(descriptor, FILE_MODE)
    return descriptor


def _write_all(descriptor: int, text: str) -> None:
    rest = memoryview(text.encode("utf-8", "replace"))
    while rest:
        try:
            rest = rest[os.write(descriptor, rest) :]
        except BlockingIOError:  # somebody else made the shared descriptor non-blocking
            select.select([], [descriptor], [])


def _working_directory() -> Path:
    try:
        return Path.cwd()
    except FileNotFoundError:  # somebody removed it; absolute paths still work
        return Path("/")


def _home() -> Path:
    try:
        return Path.home()
    except RuntimeError:  # no HOME and no entry for this user
        return Path("/")


def _occupy_closed_descriptors() -> None:
    """Keep the first file that is opened from becoming stdin, stdout or stderr."""
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            # Opened for reading: stdin is at its end, and a write fails as it should.
            os.open(os.devnull, os.O_RDONLY)
