"""A running batch says where it is, so that ``llmctl top`` finds it: its files may be anywhere.

A notice is one small file in the data directory, made when the work begins and removed when it
ends. It only points: who works on the batch, and whether anybody still does, is what the lease
in the state folder says. One that was left behind by ``kill -9`` is removed by who finds it.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from llmctl.batch.lease import Owner, look
from llmctl.batch.status import BatchStatus, status_of
from llmctl.environment import private_dir, write_private

_FOLDER = "batches"


@dataclass(frozen=True, slots=True)
class Running:
    """A batch that a process of this machine works on.

    Attributes:
        output: its OUTPUT.
        owner: that process.
        status: how it stands.
    """

    output: Path
    owner: Owner
    status: BatchStatus


@contextmanager
def noticed(data: Path, output: Path, state: Path) -> Iterator[None]:
    """Let others know of a batch while the block runs; without a place for it, nobody knows.

    Args:
        data: the data directory.
        output: the batch's OUTPUT.
        state: its state folder, whose lease this process has.
    """
    path = data / _FOLDER / f"{os.getpid()}-{secrets.token_hex(4)}.json"
    with suppress(OSError):  # a batch needs no data directory
        private_dir(path.parent)
        write_private(path, json.dumps({"output": str(output), "state": str(state)}))
    try:
        yield
    finally:
        with suppress(OSError):
            path.unlink()


def running(data: Path) -> list[Running]:
    """Return the batches that processes of this machine work on, the oldest first."""
    found = [one for path in (data / _FOLDER).glob("*.json") if (one := _look(path)) is not None]
    return sorted(found, key=lambda one: one.owner.since)


def _look(path: Path) -> Running | None:
    try:
        told = json.loads(path.read_text("utf-8"))
        output, state = Path(told["output"]), Path(told["state"])
    except FileNotFoundError:
        return None  # it has just ended
    except (ValueError, KeyError, TypeError):
        path.unlink(missing_ok=True)
        return None
    holder = look(state)
    if holder is None or not holder.is_live or f"{holder.owner.pid}" != path.name.split("-")[0]:
        path.unlink(missing_ok=True)  # who took it over has a notice of its own
        return None
    return Running(output, holder.owner, status_of(output, state)) if holder.owner.is_here else None
