"""Files that go along with a message, each in a tag of its own behind it.

A file of text is in its tag; of an image there is the name (`llmctl.images`).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from llmctl.environment import Environment
from llmctl.errors import UsageError
from llmctl.images import Images, media_type

LARGEST = 16 * 1024 * 1024
"""Bytes of a file at the most: more fits no model, and would fill the memory first."""

# What such files begin with (their formats' specifications).
_SIGNS = (
    (b"%PDF-", "a PDF document"),
    (b"PK\x03\x04", "a ZIP archive"),
)


def with_attachments(
    prompt: str, files: Sequence[Path] | None, env: Environment, images: Images | None
) -> str:
    """Return the prompt with the tags of files behind it.

    Args:
        prompt: the person's words.
        files: what goes along.
        env: where their names start from.
        images: keeps images; None where none can be sent.

    Raises:
        UsageError: a file can't be read, or is neither text nor an image that can be sent.
    """
    return "\n\n".join([prompt, *(attached(file, env, images) for file in files or ())])


def attached(file: Path, env: Environment, images: Images | None) -> str:
    """Return a file's tag; see `with_attachments`."""
    try:
        with env.resolve(file).open("rb") as opened:
            data = opened.read(LARGEST + 1)
    except OSError as error:
        raise UsageError(f"{file} can't be attached: {error.strerror}.", _NAME_ANOTHER) from error
    if len(data) > LARGEST:
        raise UsageError(
            f"{file} can't be attached: it is larger than {LARGEST // 1024**2} MiB.", _NAME_ANOTHER
        )
    if kind := media_type(data):
        return _image(file, data, kind, images)
    try:
        text = data.decode()
    except UnicodeDecodeError:
        text = ""
    if "\0" in text or (not text and data):
        what = next((name for sign, name in _SIGNS if data.startswith(sign)), "not UTF-8 text")
        raise UsageError(f"{file} can't be attached: it is {what}.", _TAKEN)
    return f'<file name="{file.name}">\n{text}\n</file>'


def _image(file: Path, data: bytes, kind: str, images: Images | None) -> str:
    if images is None:
        hint = "Write it into the rows' messages, as the server takes it."
        raise UsageError(f"{file} can't be attached here: it is an image ({kind}).", hint)
    try:
        return images.keep(file.name, data)
    except OSError as error:
        message = f"{file} can't be attached: it can't be kept ({error.strerror})."
        raise UsageError(message, "Try --no-store.") from error


_NAME_ANOTHER = "--attach takes the name of a text file, or of an image."
_TAKEN = "Text can be sent, and PNG, JPEG, GIF and WebP images."
