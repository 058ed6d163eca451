"""``llmctl doctor``: each thing that can be wrong is made wrong, and named."""

from __future__ import annotations

from pathlib import Path

import pytest

from llmctl.cli import main
from llmctl.environment import ExitStatus
from tests.support.fake_environment import fake_environment


def told(folder: Path, **variables: str) -> tuple[int, str]:
    """Return the doctor's exit status and words."""
    with fake_environment(folder, **variables) as fake:
        return main(["doctor"], fake.env), fake.out


def test_a_library_of_another_version_over_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    metadata = tmp_path / "site" / "cancelable_core-99.0.dist-info" / "METADATA"
    metadata.parent.mkdir(parents=True)
    metadata.write_text("Metadata-Version: 2.4\nName: cancelable-core\nVersion: 99.0\n")
    monkeypatch.syspath_prepend(tmp_path / "site")
    status, words = told(tmp_path)
    assert status == ExitStatus.INTERNAL_ERROR
    assert "fail  packages       cancelable-core 99.0 is installed over" in words
