"""A coverage-guided fuzzer on one target: ``python -m tests.fuzz NAME [-max_total_time=S]``.

It needs the package ``atheris``, which is no dependency of the project. Inputs that reach new
code are kept below ``build/fuzz``; a crash is written there too and ends the run.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    atheris: Any
else:
    import atheris

with atheris.instrument_imports(include=["llmctl"]):
    from tests.fuzz.seeds import SEEDS
    from tests.fuzz.targets import TARGETS


def main() -> None:
    """Fuzz the target that the command line names until it fails or its time is over."""
    if sys.argv[1:2] == [] or sys.argv[1] not in TARGETS:
        sys.exit(f"usage: python -m tests.fuzz {{{','.join(TARGETS)}}} [-max_total_time=SECONDS]")
    name = sys.argv[1]
    folder = Path("build", "fuzz", name)
    folder.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(SEEDS[name]):
        (folder / f"seed-{number}").write_bytes(seed)
    options = [sys.argv[0], str(folder), f"-artifact_prefix={folder.parent}/", *sys.argv[2:]]
    atheris.Setup(options, TARGETS[name])
    atheris.Fuzz()


main()
