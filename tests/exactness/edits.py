"""Making a journal lie: what it recorded is changed, and the label must not survive."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from llmctl.journal import sealed

Edit = Callable[[dict[str, Any]], None]
"""Changes one record of a journal."""


def edit(journal: Path, change: Edit) -> int:
    """Change a journal's records; return how many are not what they were."""
    records = [json.loads(line) for line in journal.read_text().splitlines()]
    for record in records:
        del record["crc"]  # whoever lies about a reply makes it anew
    before = [json.dumps(record) for record in records]
    for record in records:
        change(record)
    journal.write_bytes(b"".join(map(sealed, records)))
    return sum(old != json.dumps(record) for old, record in zip(before, records, strict=True))


def condition(*path: str, value: Any) -> Edit:
    """Change one of the recorded conditions; what was saved at the cut stays as it was."""

    def change(record: dict[str, Any]) -> None:
        if record["type"] == "conditions":
            _put(record["conditions"], path, value)

    return change


def condition_everywhere(*path: str, value: Any) -> Edit:
    """Change a condition also where the state that was saved at the cut repeats it."""

    def change(record: dict[str, Any]) -> None:
        if record["type"] in {"conditions", "saved"}:
            _put(record.get("conditions") or record["state"], path, value)

    return change


def asked_seed(seed: int) -> Edit:
    """Change the seed that was asked for; the conditions still have the true one."""

    def change(record: dict[str, Any]) -> None:
        if record["type"] == "header":
            record["request"]["options"]["seed"] = seed

    return change


def received_character(place: int) -> Edit:
    """Change one character of the text that was received, the ``place``-th."""
    passed = 0

    def change(record: dict[str, Any]) -> None:
        nonlocal passed
        if record["type"] != "received":
            return
        text, start = record["text"], passed
        passed += len(text)
        if start <= place < passed:
            at = place - start
            other = "x" if text[at] != "x" else "y"
            record["text"] = text[:at] + other + text[at + 1 :]

    return change


def _put(data: dict[str, Any], path: tuple[str, ...], value: Any) -> None:
    for name in path[:-1]:
        data = data[name]
    data[path[-1]] = value
