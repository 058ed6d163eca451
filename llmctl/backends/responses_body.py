"""The body of a request to the Responses API. Pure."""

from __future__ import annotations

from typing import Any

from llmctl.conversation import Request
from llmctl.errors import Refused
from llmctl.images import Image, Images, in_parts
from llmctl.profiles import Profile


def in_background(profile: Profile, request: Request) -> bool:
    """Say whether the person chose a reply that the server generates whoever listens."""
    return bool(request.options.extra.get("background", profile.background))


def responses_body(
    profile: Profile, request: Request, images: Images | None = None
) -> dict[str, Any]:
    """Return the body that asks for a reply.

    A response in the background has to be stored: who asks for the one asks for the other.

    Raises:
        Refused: an option has no place in this protocol, or an image is not here any more.
    """
    options = request.options
    _check(request)
    fields = {
        "temperature": options.temperature,
        "top_p": options.top_p,
        "max_output_tokens": options.max_tokens,
        "text": None if options.schema is None else {"format": _schema(options.schema)},
    }
    background = {"background": True, "store": True} if in_background(profile, request) else {}
    return {
        "model": request.model,
        "input": [
            {"role": m.role, "content": in_parts(m, images, _text_part, _image_part)}
            for m in request.messages
        ],
        "stream": True,
        **{name: value for name, value in fields.items() if value is not None},
        **background,
        **options.extra,
    }


def _text_part(text: str) -> dict[str, Any]:
    return {"type": "input_text", "text": text}


def _image_part(image: Image) -> dict[str, Any]:
    return {"type": "input_image", "image_url": image.url}


def _check(request: Request) -> None:
    if request.options.stop:
        hint = "--marker TEXT=stop ends a reply at a text."
        raise Refused("The Responses API knows no stop texts.", hint)
    if request.options.seed is not None:
        raise Refused("The Responses API knows no seed.", "Leave out --seed.")


def _schema(schema: object) -> dict[str, Any]:
    return {"type": "json_schema", "name": "reply", "schema": schema, "strict": True}
