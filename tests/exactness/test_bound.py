"""The bound on a reply, where more or less of it has been received than delivered."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from llmctl.journal import sealed
from tests.exactness.shown import shown
from tests.support.processes import Cli

WORDS = "one two three four"


def leave_three_of_three(journal: Path) -> None:
    """Make the bound three tokens, all of them received; the reply's end was not."""
    records: list[dict[str, Any]] = [json.loads(line) for line in journal.read_text().splitlines()]
    records[0]["request"]["options"]["max_tokens"] = 3
    behind = [r for r in records if r["type"] == "received"][3:]
    kept = [record for record in records if record not in behind]
    for record in kept:
        del record["crc"]
    journal.write_bytes(b"".join(map(sealed, kept)))


def test_all_tokens_are_here_but_not_the_end(tmp_path: Path) -> None:
    cli = Cli(tmp_path)
    script = cli.cwd / "script.json"
    script.write_text(json.dumps({"text": WORDS}))
    first = cli.run("run", "-n", "-m", f"scripted:{script}", "--pause-after", "2", "--json", "hi")
    (journal,) = cli.data.glob("journals/*.jsonl")
    leave_three_of_three(journal)
    rest = shown(cli.run("resume", "--json", timeout_s=10), as_json=True)
    assert rest.status == 6
    assert rest.resumes == (("held", "exact"),)
    assert shown(first, as_json=True).text + rest.text == "one two three"


def test_a_bound_below_what_was_received_holds_the_rest_back(tmp_path: Path) -> None:
    """Read on to its end while paused, then granted two words at a time."""
    cli = Cli(tmp_path)
    script = cli.cwd / "script.json"
    script.write_text(json.dumps({"text": WORDS}))
    shared = ("-n", "-m", f"scripted:{script}", "--on-pause", "hold")
    first = cli.run("run", *shared, "--pause-after", "1", "--json", "hi")
    bounds: tuple[list[str], ...] = (["--max-tokens", "2"], ["--max-tokens", "1"], [])
    resumes = [cli.run("resume", "--json", *bound, timeout_s=10) for bound in bounds]
    parts = [shown(output, as_json=True) for output in (first, *resumes)]
    assert [part.text for part in parts] == ["one", " two", " three", " four"]
    assert [part.status for part in parts] == [5, 6, 6, 0]
    assert {resume for part in parts[1:] for resume in part.resumes} == {("held", "exact")}
