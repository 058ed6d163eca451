"""Every example runs unattended and prints what it printed when it was written."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
OUTPUTS = Path(__file__).parent / "data" / "examples"
EXAMPLES = sorted(
    path for path in (ROOT / "examples").rglob("*.py") if "__pycache__" not in path.parts
)
DASHBOARD = re.compile(
    r"\d+ running · \d+ ended · [\d.]+/s\n"
    r"durations: .*\n(?s:.*)"
    r"OPERATION +STATUS +FOR  PROGRESS\n"
    r"(?s:.*)0 running · 20 ended · [\d.]+/s\n"
)


@pytest.fixture(scope="module")
def running() -> Iterator[dict[Path, subprocess.Popen[str]]]:
    """All of them at once: they mostly wait. Some are perhaps another worker's to look at."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error"}
    processes = {
        path: subprocess.Popen(
            [sys.executable, str(path), "--demo"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=environment,
        )
        for path in EXAMPLES
    }
    yield processes
    for process in processes.values():
        with process:
            process.kill()


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example(path: Path, running: dict[Path, subprocess.Popen[str]]) -> None:
    printed, _ = running[path].communicate(timeout=60)
    assert running[path].returncode == 0, printed
    if path.stem == "01_monitoring_dashboard":
        assert DASHBOARD.match(printed), printed
        return
    expected = (OUTPUTS / f"{path.stem}.txt").read_text()
    assert sorted(printed.splitlines()) == sorted(expected.splitlines())


def test_the_readme_lists_every_example() -> None:
    readme = (ROOT / "examples" / "README.md").read_text()
    listed = set(re.findall(r"\| `([\w.]+\.py)` \|", readme))
    assert listed == {path.name for path in EXAMPLES}


def test_the_service_starts_as_its_readme_says() -> None:
    sys.path.insert(0, str(ROOT))
    try:
        pytest.importorskip("fastapi")
        app = import_module("examples.03_integrations.04_fastapi_example").app
    finally:
        sys.path.remove(str(ROOT))
    assert {"/data", "/limited", "/stream", "/echo"} <= {
        route.path for route in app.routes if hasattr(route, "path")
    }
