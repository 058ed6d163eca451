"""OUTPUT and OUTPUT.errors.jsonl: what came of the items.

A complete item is one line of OUTPUT, appended by one ``write``. What is incomplete is in
the errors file, which is replaced in one step at the end of each run.
"""

from __future__ import annotations

import json
import os
import re
import stat
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmctl.batch.appended import AppendFile
from llmctl.batch.index import Index, Standing
from llmctl.batch.kept import Kept
from llmctl.batch.row import Row
from llmctl.batch.state import Ended
from llmctl.environment import write_private
from llmctl.errors import UsageError, reason

_OK = 200
_REASONS = 1000
_ANOTHER = "Choose another OUTPUT."
_BEGINS = b'{"custom_id":'
_OURS = re.compile(rb'\{"custom_id": ?("(?:[^"\\]|\\.)*"), ?"response": ?\{"status_code": ?200,')


def errors_path(output: Path) -> Path:
    """Return where the incomplete items of an output are listed."""
    return output.with_name(f"{output.name}.errors.jsonl")


def state_path(output: Path) -> Path:
    """Return where an output's state is, unless told otherwise."""
    return output.with_name(f"{output.name}.llmctl")


def check_output(output: Path) -> None:
    """See that results can go into a file; nothing is opened or made.

    Raises:
        UsageError: it, or the errors file beside it, is something else than a file, or there is
            no folder for it.
    """
    is_there = check_file(output)
    check_file(errors_path(output))
    folder = Path(os.path.realpath(output)).parent  # where a link leads, the file is made
    if not is_there and not folder.is_dir():
        raise UsageError(f"There is no folder {folder}.", "Make it, or choose another OUTPUT.")


def check_file(path: Path, hint: str = _ANOTHER) -> bool:
    """See that a file of results is a regular one, or none yet; say whether it is there.

    Args:
        path: the file.
        hint: what to do where it is not.

    Raises:
        UsageError: it is a folder, a device or a pipe.
    """
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return False
    except OSError as error:
        raise UsageError(f"{path} can't be used: {reason(error)}.", hint) from error
    if stat.S_ISDIR(mode):
        raise UsageError(f"{path} is a folder, and results go into a file.", hint)
    if not stat.S_ISREG(mode):
        raise UsageError(f"{path} is no regular file.", hint)
    return True


def complete_row(row: Row, body: Any, kept: Kept, **facts: Any) -> dict[str, Any]:  # noqa: ANN401
    """Return the output line of a complete item; ``facts`` go into its ``llmctl`` object."""
    return {
        "custom_id": row.id,
        "response": {"status_code": 200, "body": body},
        "error": None,
        "llmctl": {**_costs(kept), **facts},
        "metadata": row.metadata,
    }


def failed_row(ended: Ended) -> dict[str, Any]:
    """Return the errors file's line of an item that is not complete."""
    kept = ended.kept
    partial = {"content": kept.text, "reasoning": kept.reasoning, "tokens": kept.tokens}
    return {
        "custom_id": ended.id,
        "response": None,
        "error": ended.error,
        "partial": partial if kept.begun else None,
        "llmctl": {
            **_costs(kept),
            "standing": ended.standing.name.lower(),
            "cause": ended.cause,
        },
        "metadata": ended.metadata,
    }


def _costs(kept: Kept) -> dict[str, Any]:
    return {
        "attempts": kept.attempts,
        "resumes": kept.resumes,
        "finish_reason": kept.finish_reason,
        "first_token_s": None if kept.first_token_s is None else round(kept.first_token_s, 3),
        "duration_s": round(kept.duration_s, 3),
        "wasted_tokens": kept.wasted_tokens,
    }


def id_of(line: bytes) -> str | None:
    """Return the ``custom_id`` of a complete item's line, None if it is none."""
    found = _OURS.match(line)
    try:
        if found:
            return str(json.loads(found[1]))
        row = json.loads(line)
        return str(row["custom_id"]) if is_complete(row) else None
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def is_complete(row: Mapping[str, Any]) -> bool:
    """Say whether a row of results, ours or OpenAI's, has a whole reply.

    Raises:
        KeyError: it is no such row.
    """
    response = row["response"] or {}
    return response.get("status_code") == _OK and not row.get("error")


def not_results(path: Path, number: int) -> UsageError:
    """Return what is said of a file that is no OUTPUT."""
    return UsageError(
        f"{path} holds something else than complete items (line {number}).",
        "Choose another OUTPUT, or move the file away.",
    )


def recall_complete(output: Path, index: Index) -> list[str]:
    """Put what is complete into the index; return (some of) the ids that the input lacks.

    Raises:
        UsageError: the file holds something else.
    """
    strange: list[str] = []
    for number, line in _lines(output):
        if is_torn(line):
            continue  # it is cut off before anything is appended
        id_ = id_of(line)
        if id_ is None:
            raise not_results(output, number)
        known = index.find(id_)
        if known is None:
            strange.append(id_)
        elif not known.changed:
            index.stand(id_, Standing.COMPLETE)
    return strange


def is_torn(line: bytes) -> bool:
    """Say whether a line is the beginning of one of ours whose writer was killed."""
    if line.endswith(b"\n"):
        return False
    begins = _BEGINS.startswith(line[: len(_BEGINS)].rstrip(b"\0"))
    return begins and id_of(line) is None


def drop_changed(output: Path, index: Index) -> None:
    """Take the results of requests that have changed out of the output, in one step."""

    def stays(line: bytes) -> bool:
        known = index.find(id_of(line) or "")
        return known is None or not known.changed

    write_private(output, (line for _, line in whole_lines(output) if stays(line)))


@dataclass(frozen=True, slots=True)
class Failures:
    """What is to be said of the items that failed.

    Attributes:
        file: the errors file, with every reason.
        items: how many failed.
        reason: the most frequent one, a sentence.
        alike: how many failed for that reason.
    """

    file: Path
    items: int
    reason: str
    alike: int


def write_errors(output: Path, index: Index, ended: Callable[[int], Ended]) -> Failures | None:
    """Replace the errors file by how the incomplete items stand, in input order.

    Returns:
        What is to be said of those that failed; None if there are none.
    """
    file = errors_path(output)
    reasons: Counter[str] = Counter()
    items = 0

    def lines() -> Iterator[bytes]:
        nonlocal items
        for end in map(ended, index.ends()):
            if end.standing is not Standing.STOPPED:
                items += 1
                _count(reasons, (end.error or {}).get("message") or f"It ended as {end.cause}.")
            yield f"{as_line(failed_row(end))}\n".encode()

    write_private(file, lines())
    return Failures(file, items, *reasons.most_common(1)[0]) if reasons else None


def _count(reasons: Counter[str], reason: str) -> None:
    """Count a reason; of a great many different ones only the first, for memory's sake."""
    if reason in reasons or len(reasons) < _REASONS:
        reasons[reason] += 1


def as_line(row: Any) -> str:  # noqa: ANN401  (JSON)
    """Return a row as JSON that any reader takes: lone surrogates are escaped."""
    text = json.dumps(row, ensure_ascii=False, separators=(",", ":"))
    return text.encode("utf-8", "replace").decode()


def open_output(path: Path) -> AppendFile:
    """Open OUTPUT to append to it.

    Raises:
        UsageError: that can't be done.
    """
    try:
        return AppendFile(path)
    except OSError as error:
        raise UsageError(
            f"{path} can't be written: {reason(error)}.", "Name another file."
        ) from error


def whole_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Yield a file's lines that have an end, with their numbers; none if there is no file."""
    return ((number, line) for number, line in _lines(path) if line.endswith(b"\n"))


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    if not path.exists():
        return
    with path.open("rb") as file:
        yield from enumerate(file, 1)
