"""What one process of `llmctl` showed of a reply, read from its output. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.support.processes import Finished

_RESUMED = re.compile(r"^resumed at .* \((\S+), (\S+)\)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Shown:
    """One process's share of a reply.

    Attributes:
        text: the content that reached stdout.
        status: the exit status.
        resumes: strategy and guarantee of each resume it announced.
        counts: tokens at the characters where a count was told (events only).
        starts: characters at which resumes were said to go on (events only).
        finished: the last event (events only, and not of a process that was killed).
        errors: what it said on stderr.
    """

    text: str
    status: int
    resumes: tuple[tuple[str, str], ...]
    counts: Mapping[int, int] = field(default_factory=dict)
    starts: tuple[int, ...] = ()
    finished: Mapping[str, Any] | None = None
    errors: str = ""


def shown(process: Finished, *, as_json: bool) -> Shown:
    """Read the output of a process that has ended."""
    if not as_json:
        resumes = tuple((m[1], m[2]) for m in _RESUMED.finditer(process.errors))
        return Shown(process.text, process.returncode, resumes, errors=process.errors)
    events = list(_events(process.stdout))
    deltas = [e for e in events if e["type"] == "delta" and e["channel"] == "content"]
    resumed = [e for e in events if e["type"] == "resumed"]
    return Shown(
        text="".join(e["text"] for e in deltas),
        status=process.returncode,
        resumes=tuple((e["strategy"], e["guarantee"]) for e in resumed),
        counts={
            e["position"]["chars"]: e["position"]["tokens"]
            for e in events
            if "position" in e and e["position"]["tokens"] is not None
        },
        starts=tuple(e["position"]["chars"] for e in resumed),
        finished=next((e for e in events if e["type"] == "finished"), None),
        errors=process.errors,
    )


def _events(stdout: bytes) -> Iterator[dict[str, Any]]:
    """Yield the events; a last line that was cut by force counts for nothing."""
    for line in stdout.splitlines(keepends=True):
        if line.endswith(b"\n"):
            yield json.loads(line)
