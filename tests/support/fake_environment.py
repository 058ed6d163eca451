"""An `Environment` that is nobody's process: folders below tmp_path, pipes for output."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from llmctl.environment import Environment


@dataclass(frozen=True, slots=True)
class Captured:
    """A fake environment and what was written to it."""

    env: Environment

    @property
    def out(self) -> str:
        """What stdout got."""
        return _content(self.env.stdout)

    @property
    def err(self) -> str:
        """What stderr got."""
        return _content(self.env.stderr)


@contextmanager
def fake_environment(folder: Path, typed: str = "", **variables: str) -> Iterator[Captured]:
    """Make an environment below ``folder`` whose stdin holds ``typed``."""
    files = [tempfile.TemporaryFile() for _ in range(3)]  # noqa: SIM115  (closed below)
    try:
        os.write(files[0].fileno(), typed.encode())
        os.lseek(files[0].fileno(), 0, os.SEEK_SET)
        yield Captured(
            Environment(
                stdin=files[0].fileno(),
                stdout=files[1].fileno(),
                stderr=files[2].fileno(),
                variables=variables,
                cwd=folder,
                home=folder / "home",
                data=folder / "data",
                config=folder / "config",
            )
        )
    finally:
        for file in files:
            file.close()


def _content(descriptor: int) -> str:
    return os.pread(descriptor, 1 << 20, 0).decode()
