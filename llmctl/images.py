"""Images that go along with a message: a tag in its text, the bytes in a file of their own.

The tag names an image by the SHA-256 of its bytes. So a message stays text wherever it goes
(draft, journal, store, export), and an image that is asked about ten times is kept once. Where
a back end takes images, each tag becomes the image itself; nobody can write a tag by accident,
nor that of an image he has not got.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from llmctl.conversation import Message
from llmctl.environment import Environment, write_private
from llmctl.errors import Refused

FOLDER = "images"
"""Where they are in the data directory."""

ABANDONED_S = 86_400.0
"""Seconds after which an image that no message names was attached to none."""

_TAG = re.compile(r'<image name="([^"<>\n]*)" sha256="([0-9a-f]{64})"/>')
_UNFIT = re.compile(r'["<>\x00-\x1f\x7f]')


@dataclass(frozen=True, slots=True)
class Image:
    """An image that stands in a message.

    Attributes:
        name: its file's name.
        data: its bytes.
    """

    name: str
    data: bytes

    @property
    def url(self) -> str:
        """The image as a ``data:`` URL (RFC 2397)."""
        kind = media_type(self.data) or "application/octet-stream"
        return f"data:{kind};base64,{base64.b64encode(self.data).decode()}"


def media_type(data: bytes) -> str | None:
    """Return what kind of image bytes are, by what they begin with; None for another thing."""
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "image/png"
    if data.startswith(b"\xff\xd8\xff"):
        return "image/jpeg"
    if data.startswith((b"GIF87a", b"GIF89a")):
        return "image/gif"
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return "image/webp"
    return None


def digests_in(text: str) -> set[str]:
    """Return the SHA-256 of each image whose tag stands in a text."""
    return {found[2] for found in _TAG.finditer(text)}


def in_short(text: str) -> str:
    """Return a text with the name of each image in place of its tag, for a person to read."""
    return _TAG.sub(r"[\1]", text)


class Images:
    """The images of one home.

    Args:
        folder: where their files are; None keeps them in this process alone.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder
        self._here: dict[str, bytes] = {}

    @classmethod
    def of(cls, env: Environment, *, stored: bool = True) -> Self:
        """Return the images of the environment's home."""
        return cls(env.data / FOLDER if stored else None)

    def keep(self, name: str, data: bytes) -> str:
        """Keep an image and return its tag.

        Raises:
            OSError: it can't be written.
        """
        digest = hashlib.sha256(data).hexdigest()
        if self._folder is None:
            self._here[digest] = data
        else:
            path = self._folder / digest
            if not path.exists():
                write_private(path, data)
        return f'<image name="{_UNFIT.sub("_", name)}" sha256="{digest}"/>'

    def parts(self, message: Message) -> list[str | Image]:
        """Return a message in its parts: what stands between images, and the images themselves.

        Only a person attaches any: what looks like a tag in another's message is text.

        Raises:
            Refused: an image is not here any more.
        """
        parts: list[str | Image] = []
        text, end = message.content, 0
        for found in _TAG.finditer(text) if message.role == "user" else ():
            parts += [text[end : found.start()], Image(found[1], self._data(*found.groups()))]
            end = found.end()
        parts.append(text[end:])
        return [part for part in parts if part != ""]

    def forget(self, used: Callable[[str], bool], gone: set[str], now: float) -> None:
        """Delete what is not ``used`` any more.

        Args:
            used: says whether an image with this digest stands in a message.
            gone: digests of what stood in messages that were deleted; another image may have
                been attached to a message that is still to be sent, and is left for a day.
            now: seconds since the epoch.
        """
        for path in self._folder.glob("*") if self._folder is not None else ():
            old = now - path.stat().st_mtime > ABANDONED_S
            if (path.name in gone or old) and not used(path.name):
                path.unlink(missing_ok=True)

    def _data(self, name: str, digest: str) -> bytes:
        data = self._here.get(digest)
        if data is None and self._folder is not None:
            try:
                data = (self._folder / digest).read_bytes()
            except OSError:
                data = None
        if data is None or hashlib.sha256(data).hexdigest() != digest:
            raise Refused(
                f"The image {name} is not here, or is damaged.", "Attach it again, or leave it out."
            )
        return data


def in_parts(
    message: Message,
    images: Images | None,
    of_text: Callable[[str], dict[str, Any]],
    of_image: Callable[[Image], dict[str, Any]],
) -> str | list[dict[str, Any]]:
    """Return what a message says: its text or, where an image is in it, its parts in order.

    Args:
        message: the message.
        images: those it may name; None leaves its text as it is.
        of_text: makes the part of a text, as a protocol has it.
        of_image: makes the part of an image.

    Raises:
        Refused: an image is not here any more.
    """
    parts = () if images is None else images.parts(message)
    if not any(isinstance(part, Image) for part in parts):
        return message.content
    return [of_image(part) if isinstance(part, Image) else of_text(part) for part in parts]


def text_alone(message: Message, taker: str) -> str:
    """Return the text of a message without images.

    Raises:
        Refused: one is in it.
    """
    if message.role == "user" and (found := _TAG.search(message.content)):
        raise Refused(
            f"{taker} takes no images, and {found[1]} is one.",
            "Use a model that does, by the chat or responses API.",
        )
    return message.content
