"""One process at a time on a state folder, also where the folder is on NFS.

The lease is a file that names its owner. It is made by ``link``, which is atomic
everywhere, and its owner touches it every few seconds. A lease whose owner is known to be
dead (this host, no such process) or that was silent for `SILENCE_S` is moved aside and
taken. Times are the file server's own: a fresh file's time is compared with the lease's, so
that clocks which differ between hosts don't matter.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from llmctl.environment import open_private
from llmctl.errors import LlmctlError

SILENCE_S = 60.0
"""Seconds without a heartbeat after which a lease may be taken over."""

HEARTBEAT_S = 5.0
"""Seconds between two heartbeats."""

_NAME = "lease"


class BatchBusy(LlmctlError):
    """Another process works on this batch."""

    kind = "busy"
    exit_code = 2


@dataclass(frozen=True, slots=True)
class Owner:
    """Who holds a lease.

    Attributes:
        token: different for every taking.
        host: its machine.
        pid: its process there.
        since: when it was taken, in seconds since the epoch.
    """

    token: str
    host: str
    pid: int
    since: float

    @classmethod
    def me(cls) -> Owner:
        """Return this process as an owner."""
        return cls(secrets.token_hex(8), socket.gethostname(), os.getpid(), time.time())

    @property
    def is_here(self) -> bool:
        """Whether it is a process of this machine."""
        return self.host == socket.gethostname()

    @property
    def is_dead(self) -> bool:
        """Whether it is known to be gone."""
        if not self.is_here:
            return False
        if self.pid == os.getpid():
            return True  # a predecessor in a container, where process ids repeat
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except PermissionError:
            return False
        return False


@dataclass(frozen=True, slots=True)
class Held:
    """A lease as another process finds it.

    Attributes:
        owner: who holds it.
        silent_s: seconds since its last heartbeat.
    """

    owner: Owner
    silent_s: float

    @property
    def is_live(self) -> bool:
        """Whether its owner has to be taken for alive."""
        return not self.owner.is_dead and self.silent_s < SILENCE_S


class Lease:
    """The right to write into a state folder.

    Args:
        folder: the folder.

    Raises:
        BatchBusy: another process has it.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / _NAME
        self._owner = Owner.me()
        mine = folder / f".{_NAME}-{self._owner.token}"
        try:
            with open_private(mine, "w") as file:
                json.dump(asdict(self._owner), file)
            self._take(mine)
        finally:
            mine.unlink(missing_ok=True)

    def _take(self, mine: Path) -> None:
        while True:
            try:
                os.link(mine, self._path)
            except FileExistsError:
                self._clear(mine)
            else:
                return

    def _clear(self, mine: Path) -> None:
        """Move a dead lease aside.

        Raises:
            BatchBusy: it is alive.
        """
        held = look(self._path.parent, probe=mine)
        if held is None:
            return
        if held.is_live:
            raise busy(held)
        aside = mine.with_name(f"{mine.name}-old")
        try:
            self._path.rename(aside)
        except FileNotFoundError:
            return  # another process was quicker
        moved = _read(aside)
        if moved is not None and moved != held.owner:  # it took it between our two looks
            os.link(aside, self._path)
        aside.unlink(missing_ok=True)

    def beat(self) -> None:
        """Say that this process is alive.

        Raises:
            BatchBusy: the lease was taken over while this process stood still.
            OSError: the folder is gone.
        """
        held = look(self._path.parent, probe=None)
        if held is None and self._path.parent.exists():
            raise BatchBusy("Another process has taken this batch over, and left it again.")
        if held is not None and held.owner != self._owner:
            raise busy(held)
        os.utime(self._path)

    def release(self) -> None:
        """Give it up."""
        if _read(self._path) == self._owner:
            self._path.unlink(missing_ok=True)


def look(folder: Path, *, probe: Path | None = None) -> Held | None:
    """Return who holds the lease of a folder, None if nobody does.

    Args:
        folder: the folder.
        probe: a file on the same server that may be touched to learn its time.
    """
    path = folder / _NAME
    owner = _read(path)
    try:
        beat = path.stat().st_mtime
        now = _server_time(probe)
    except FileNotFoundError:
        return None
    return None if owner is None else Held(owner, max(0.0, now - beat))


def _server_time(probe: Path | None) -> float:
    if probe is None:
        return time.time()
    os.utime(probe)
    return probe.stat().st_mtime


def _read(path: Path) -> Owner | None:
    try:
        return Owner(**json.loads(path.read_text("utf-8")))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError):
        return Owner("", "", 0, 0.0)  # damaged: somebody's, silent from now on


def busy(held: Held) -> BatchBusy:
    """Return what is said where another process has the lease."""
    owner = held.owner
    return BatchBusy(
        f"Another process works on this batch: pid {owner.pid} on {owner.host},"
        f" last heartbeat {held.silent_s:.0f} s ago.",
        f"Wait for it, or stop it there; after {SILENCE_S:g} s of silence it is taken over.",
    )
