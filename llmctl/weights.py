"""Where the weights of local models are, and what they are.

``local`` has weights of its own, which come once (`llmctl.weights_pull`) into one folder;
``local:PATH.gguf`` is any file of that format.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from llmctl.environment import Environment, write_private
from llmctl.errors import UsageError, reason
from llmctl.progress import Tell, teller
from llmctl.weights_pull import FILE_NAME, pull

_MAGIC = b"GGUF"
_DIGEST = ".sha256"


def default(env: Environment) -> Path:
    """Return where the weights of ``local`` are, or will be once they are obtained."""
    return env.models / FILE_NAME


async def obtain(env: Environment, tell: Tell | None = None) -> Path:
    """Return the weights of ``local``; fetch them if they are not there yet.

    Args:
        env: says where they live.
        tell: is told how far a download is; by default a line or a bar on stderr.

    Raises:
        Unreachable: they are not there and can't be fetched.
    """
    file = default(env)
    return file if file.is_file() else await pull(env.models, tell or teller(env))


def given(path: Path) -> Path:
    """Return the path of a model that a person named.

    Raises:
        UsageError: it is not a GGUF file.
    """
    try:
        with path.open("rb") as file:
            if file.read(len(_MAGIC)) == _MAGIC:
                return path
    except OSError as error:
        message = f"{path} can't be read: {reason(error)}."
        raise UsageError(message, "Write -m local:PATH.gguf.") from error
    raise UsageError(f"{path} is not a GGUF file.", "Write -m local:PATH.gguf.")


def installed(models: Path) -> list[Path]:
    """Return the weights in a folder, by name."""
    return sorted(models.glob("*.gguf"))


def remove(models: Path, name: str) -> Path:
    """Remove weights from the folder; return the file that is gone.

    Args:
        models: the folder.
        name: a file's name in it, with or without its suffix; ``local`` for its weights.

    Raises:
        UsageError: no weights there have that name.
    """
    wanted = FILE_NAME if name == "local" else name
    for file in installed(models):
        if wanted in (file.name, file.stem):
            file.unlink()
            return file
    raise UsageError(
        f"There are no weights called '{name}' in {models}.", "See: llmctl models list"
    )


def digest(model: Path, cache: Path | None = None) -> str:
    """Return the SHA-256 of a file, computed only if the file has changed.

    Args:
        model: the file.
        cache: a folder that remembers the hash by the file's size and time; None for none.
    """
    if cache is None:
        return _sha256(model)
    path, status = str(model.resolve()), model.stat()
    seen = {"path": path, "size": status.st_size, "mtime_ns": status.st_mtime_ns}
    note = cache / (hashlib.sha256(path.encode()).hexdigest()[:16] + _DIGEST)
    known = _read(note)
    if {**known, "sha256": None} == {**seen, "sha256": None}:
        return str(known["sha256"])
    sha256 = _sha256(model)
    write_private(note, json.dumps({**seen, "sha256": sha256}))
    return sha256


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _read(note: Path) -> dict[str, Any]:
    """Return what a note says; nothing if it is not there or is damaged."""
    try:
        known = json.loads(note.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}
