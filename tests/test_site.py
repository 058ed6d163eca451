"""The site is built without a warning: no page is left out, no link within it leads nowhere."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_the_site(tmp_path: Path) -> None:
    words = ["-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html", "-d", str(tmp_path / "kept")]
    built = subprocess.run(
        [sys.executable, *words, str(ROOT / "docs"), str(tmp_path / "site")],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (built.returncode, built.stderr) == (0, "")
    commands = (tmp_path / "site" / "commands.html").read_text()
    assert "llmctl conversations fork" in commands
    assert "--first-token-timeout" in commands
    names = (tmp_path / "site" / "cancelable" / "api.html").read_text()
    assert 'id="cancelable_core.Cancelable.with_timeout"' in names
