"""Where the weights of local models are, and what they are."""

from __future__ import annotations

import hashlib
from pathlib import Path

FILE_NAME = "SmolLM2-135M-Instruct.Q4_1.gguf"


def digest(model: Path, cache: Path | None) -> str:  # noqa: ARG001  (soon)
    """Return a file's SHA-256."""
    with model.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
