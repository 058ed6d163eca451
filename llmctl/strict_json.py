"""JSON as the standard has it: what Python's own parser takes besides is refused. Pure.

``NaN`` and ``Infinity`` are no JSON, and a number too big for Python becomes such a thing. A name
that an object has twice is allowed by the grammar, and means different things to different readers:
of what people write it is most likely a slip, and one of the values would be lost silently.
"""

from __future__ import annotations

import json
import math
from typing import Any


class NameTwice(ValueError):
    """An object has a name twice."""


def loads(text: str, *, names_once: bool = False) -> Any:  # noqa: ANN401  (any JSON)
    """Return what a text says.

    >>> loads('{"a": [1, null]}')
    {'a': [1, None]}

    Args:
        text: the JSON.
        names_once: look for names that an object has twice.

    Raises:
        NameTwice: an object has one.
        ValueError: it is not JSON.
        RecursionError: it is nested too deeply.
    """
    made = _with_names_once if names_once else None
    return json.loads(text, parse_constant=_refuse, parse_float=_finite, object_pairs_hook=made)


def _refuse(constant: str) -> Any:  # noqa: ANN401  (it returns nothing)
    raise ValueError(f"{constant} is no number in JSON")


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise ValueError(f"{text} is too big")
    return number


def _with_names_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in made if names.count(name) > 1)
        raise NameTwice(f"{twice!r} stands twice in one object")
    return made
