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


def test_what_others_may_read(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir(mode=0o700)
    (tmp_path / "data").chmod(0o755)
    _, words = told(tmp_path)
    assert f"warn  privacy        others may read {tmp_path}/data" in words
    assert f"chmod -R go= {tmp_path}/data {tmp_path}/config\n" in words
    (tmp_path / "data").chmod(0o700)
    assert "ok    privacy" in told(tmp_path)[1]


def test_images_that_others_may_read(tmp_path: Path) -> None:
    image = tmp_path / "data" / "images" / "one"
    image.parent.mkdir(parents=True, mode=0o700)
    image.parent.chmod(0o700)
    (tmp_path / "data").chmod(0o700)
    image.write_bytes(b"")
    image.chmod(0o644)
    assert f"others may read {image}\n" in told(tmp_path)[1]
    image.chmod(0o600)
    assert "ok    privacy" in told(tmp_path)[1]


def test_one_folder_for_all_is_named_once(tmp_path: Path) -> None:
    (tmp_path / "all").mkdir()
    (tmp_path / "all").chmod(0o755)
    with fake_environment(tmp_path) as fake:
        main(["--home", str(tmp_path / "all"), "doctor"], fake.env)
        assert f"chmod -R go= {tmp_path}/all\n" in fake.out


def test_a_journal_that_cant_be_read_is_named_and_left_alone(tmp_path: Path) -> None:
    journal = tmp_path / "data" / "journals" / "g1.jsonl"
    journal.parent.mkdir(parents=True)
    journal.write_text("garbage\n")
    _, words = told(tmp_path)
    assert "warn  replies        1 of 1 can't be read: g1.jsonl has no header" in words
    assert journal.read_text() == "garbage\n"


def test_traces_that_are_asked_for(tmp_path: Path) -> None:
    _, words = told(tmp_path, OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:4318")
    assert "ok    traces         they go to otlp" in words


def test_a_template_that_cant_be_used(tmp_path: Path) -> None:
    file = tmp_path / "config" / "prompts" / "mine.md"
    file.parent.mkdir(parents=True)
    file.write_text("+++\nrole =\n+++\n")
    assert f"warn  templates      {file}: the front matter is not TOML" in told(tmp_path)[1]
    file.unlink()
    assert "ok    templates" in told(tmp_path)[1]


def test_a_server_elsewhere_without_tls(tmp_path: Path) -> None:
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "config.toml").write_text(
        '[profiles.far]\npreset = "vllm"\nbase_url = "http://gpu.example/v1"\n'
        '[profiles.near]\npreset = "vllm"\nbase_url = "http://127.0.0.1:8000/v1"\n'
    )
    assert "warn  addresses      not encrypted: far\n" in told(tmp_path)[1]
