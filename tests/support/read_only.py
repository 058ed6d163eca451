"""A folder that one program can only read, whoever runs it: a mount of its own."""

from __future__ import annotations

import subprocess
from pathlib import Path

_SEALED = 'mount --bind "$0" "$0" && mount -o remount,ro,bind "$0" && exec "$@"'


def read_only(folder: Path) -> tuple[str, ...]:
    """Return what runs a program to which a folder is read-only; it takes root."""
    return ("unshare", "--mount", "sh", "-c", _SEALED, str(folder))


def can_be_read_only(folder: Path) -> bool:
    """Say whether that can be done here."""
    try:
        tried = subprocess.run([*read_only(folder), "true"], check=False, capture_output=True)
    except FileNotFoundError:
        return False
    return tried.returncode == 0
