"""docs/backends.md says what ``models probe`` sees, and nothing else."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from llmctl.profiles import PRESETS, Api
from tests.support.backends_page import HEAD, probed, rows
from tests.support.dialects import DIALECTS

PAGE = Path(__file__).parents[2] / "docs" / "backends.md"


def table() -> list[str]:
    """Return the table's lines."""
    return re.findall(r"^\|.*\|$", PAGE.read_text(), re.MULTILINE)


def test_the_table_is_what_the_probes_see() -> None:
    lines = table()
    assert tuple(lines[:2]) == HEAD
    made = list(rows())
    ours = [line for line in lines[2:] if line.split("|")[1].strip() in PRESETS]
    known = {(name, str(api)) for name, api in DIALECTS}
    theirs = [line for line in ours if (_cell(line, 1), _cell(line, 2)) not in known]
    assert [line for line in ours if line not in theirs] == made
    assert all(_cell(line, 6) == "run" for line in theirs)  # made elsewhere, on the real program
    assert {_cell(line, 1) for line in ours} == PRESETS.keys()


def _cell(line: str, number: int) -> str:
    return line.split("|")[number].strip()


@pytest.mark.parametrize("name", PRESETS)
def test_the_presets_claim_no_more_than_a_probe_would_see(name: str) -> None:
    """What the table of presets says beforehand is what the probe of its dialect finds."""
    found, known = probed(DIALECTS[name, Api.CHAT]), PRESETS[name]
    assert found["prefix"] == known.prefix
    assert found["prefix_echoed"] == known.prefix_echoed
    assert found["replies"] <= 7
    assert found["prefix_keeps_blanks"] or not known.prefix_keeps_blanks
