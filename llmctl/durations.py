"""Lengths of time as people write them: ``500ms``, ``90s``, ``5m``, ``30d``; plain seconds."""

from __future__ import annotations

import math
import re
from types import MappingProxyType

from llmctl.errors import UsageError

_SECONDS_PER = MappingProxyType(
    {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "": 1.0}
)
_DURATION = re.compile(r"(?P<number>\d+(?:\.\d*)?|\.\d+)\s*(?P<unit>ms|s|m|h|d|)", re.ASCII)


def parse_duration(text: str) -> float:
    """Return the seconds that ``text`` means; 0 is a duration, nothing below it is.

    >>> parse_duration("1.5m")
    90.0

    Raises:
        UsageError: it is not a duration.
    """
    found = _DURATION.fullmatch(text.strip().lower())
    seconds = float(found["number"]) * _SECONDS_PER[found["unit"]] if found else math.inf
    if not math.isfinite(seconds):
        raise UsageError(
            f"'{text}' is not a duration.",
            "Write seconds, or a number with ms, s, m, h or d: 500ms, 90s, 5m, 1h, 30d.",
        )
    return seconds
