"""Files that go along with a message: their text, each in a tag of its own, behind it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from llmctl.environment import Environment
from llmctl.errors import UsageError

LARGEST = 16 * 1024 * 1024
"""Bytes of a file at the most: more fits no model, and would fill the memory first."""

# What such files begin with (their formats' specifications).
_SIGNS = (
    (b"\x89PNG\r\n\x1a\n", "a PNG image"),
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"GIF8", "a GIF image"),
    (b"%PDF-", "a PDF document"),
    (b"PK\x03\x04", "a ZIP archive"),
)


def with_attachments(prompt: str, files: Sequence[Path] | None, env: Environment) -> str:
    """Return the prompt with the text of files behind it.

    Raises:
        UsageError: a file can't be read, or is no text: images are not sent yet.
    """
    return "\n\n".join([prompt, *(attached(file, env) for file in files or ())])


def attached(file: Path, env: Environment) -> str:
    """Return a file's text in its tag.

    Raises:
        UsageError: it can't be read, or is no text.
    """
    try:
        with env.resolve(file).open("rb") as opened:
            data = opened.read(LARGEST + 1)
    except OSError as error:
        raise UsageError(f"{file} can't be attached: {error.strerror}.", _NAME_ANOTHER) from error
    if len(data) > LARGEST:
        raise UsageError(
            f"{file} can't be attached: it is larger than {LARGEST // 1024**2} MiB.", _NAME_ANOTHER
        )
    try:
        text = data.decode()
    except UnicodeDecodeError:
        text = ""
    if "\0" in text or (not text and data):
        what = next((name for sign, name in _SIGNS if data.startswith(sign)), "not UTF-8 text")
        raise UsageError(f"{file} can't be attached: it is {what}.", "Only text can be sent.")
    return f'<file name="{file.name}">\n{text}\n</file>'


_NAME_ANOTHER = "--attach takes the name of a text file."
