"""A reply that was interrupted between its last token and the word that it had ended."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.exactness.shown import shown
from tests.support.processes import Cli

WORDS = "one two three four"


def leave_three_of_three(journal: Path) -> None:
    """Make the bound three tokens, all of them received; the reply's end was not."""
    records: list[dict[str, Any]] = [json.loads(line) for line in journal.read_text().splitlines()]
    records[0]["request"]["options"]["max_tokens"] = 3
    behind = [r for r in records if r["type"] == "received"][3:]
    kept = [record for record in records if record not in behind]
    journal.write_text("".join(f"{json.dumps(record)}\n" for record in kept))


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
