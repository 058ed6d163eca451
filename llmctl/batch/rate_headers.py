"""What the headers of an answer say about how much more may be asked. Pure.

``x-ratelimit-remaining-requests`` with ``x-ratelimit-reset-requests`` (and the same with
``tokens``), as OpenAI, Groq, Mistral and others send them; times are ``1s``, ``6m0s``,
``250ms`` or plain seconds.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

LONGEST_S = 120.0
"""Seconds; a reset that is further away is not waited for as a whole."""

_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def blocked_s(headers: Mapping[str, str]) -> float:
    """Return the seconds for which nothing more should be asked; 0 if something remains."""
    waits = (
        seconds_of(headers.get(f"x-ratelimit-reset-{kind}", ""))
        for kind in ("requests", "tokens")
        if headers.get(f"x-ratelimit-remaining-{kind}", "").strip() == "0"
    )
    return min(LONGEST_S, max(waits, default=0.0))


def seconds_of(text: str) -> float:
    """Return what a reset time means in seconds, 0 if it means nothing.

    >>> seconds_of("6m0s"), seconds_of("250ms"), seconds_of("2.5")
    (360.0, 0.25, 2.5)
    """
    try:
        return max(0.0, float(text))
    except ValueError:
        return sum(float(number) * _SECONDS[unit] for number, unit in _PART.findall(text))
