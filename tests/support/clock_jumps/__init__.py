"""Start a program with a wall clock that jumps."""

from collections.abc import Mapping
from pathlib import Path


def environment(env: Mapping[str, str], seed: int) -> dict[str, str]:
    """Return what makes the wall clock of a Python jump, to be set on top of ``env``."""
    here = str(Path(__file__).parent)
    path = ":".join(filter(None, (here, env.get("PYTHONPATH"))))
    return {"PYTHONPATH": path, "LLMCTL_TEST_CLOCK": str(seed)}
