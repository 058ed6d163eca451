"""The wheel as users get it: what is in it, and that it works away from the source."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import venv
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

from llmctl._version import __version__
from llmctl.doctor import PACKAGES

ROOT = Path(__file__).parents[1]

pytestmark = pytest.mark.slow


def build(kind: str, folder: Path, source: Path = ROOT) -> Path:
    """Build a distribution without asking the network."""
    command = [sys.executable, "-m", "hatchling", "build", "-t", kind, "-d", str(folder)]
    subprocess.run(command, cwd=source, check=True, capture_output=True)
    return next(folder.iterdir())


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("wheel", tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def names(wheel: Path) -> list[str]:
    return zipfile.ZipFile(wheel).namelist()


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment that has the wheel, and borrows the dependencies from this one."""
    folder = tmp_path_factory.mktemp("installed")
    venv.create(folder, with_pip=False, symlinks=True)
    python = folder / "bin" / "python"
    install = ["install", "--quiet", "--no-deps", "--no-index", str(wheel)]
    subprocess.run([sys.executable, "-m", "pip", "--python", str(python), *install], check=True)
    site = next(folder.glob("lib/python*/site-packages"))
    (site / "borrowed.pth").write_text(sysconfig.get_path("purelib"))
    return folder


def run(installed: Path, *words: str, program: str = "llmctl") -> str:
    done = subprocess.run(
        [installed / "bin" / program, *words],
        cwd=installed,
        env={"PATH": os.environ["PATH"], "LLMCTL_HOME": str(installed / "home")},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


def test_both_packages_are_typed(names: list[str]) -> None:
    assert {"llmctl/py.typed", "cancelable_core/py.typed"} <= set(names)


def test_nothing_else_lands_in_site_packages(names: list[str]) -> None:
    tops = {name.partition("/")[0] for name in names}
    assert tops == {"llmctl", "cancelable_core", f"llmctl-{__version__}.dist-info"}


def test_every_template_is_in_it(names: list[str]) -> None:
    wanted = {f"llmctl/_prompts/{path.name}" for path in (ROOT / "prompts").glob("*.md")}
    assert wanted == {name for name in names if name.startswith("llmctl/_prompts/")}


def test_the_metadata_says_who_may_use_it(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        text = archive.read(f"llmctl-{__version__}.dist-info/METADATA").decode()
        assert f"llmctl-{__version__}.dist-info/licenses/LICENSE" in archive.namelist()
    facts = Parser().parsestr(text)
    assert facts["Version"] == __version__
    assert facts["License-Expression"] == "MIT"
    assert facts["Requires-Python"] == ">=3.11"
    assert set(facts.get_all("Provides-Extra", [])) == {"all", "fastapi", "local"}


def test_an_installed_program_lists_the_templates(installed: Path) -> None:
    listed = {line.split()[0] for line in run(installed, "prompts", "list").splitlines()}
    assert listed == {path.stem for path in (ROOT / "prompts").glob("*.md")}
    where = "import llmctl.templates as t; print(t.installed_templates())"
    assert f"{installed}/lib" in run(installed, "-c", where, program="python")


def test_an_installed_program_says_its_version(installed: Path) -> None:
    assert run(installed, "--version") == f"llmctl {__version__}\n"
    assert (
        run(installed, "-m", "llmctl", "--version", program="python") == f"llmctl {__version__}\n"
    )


def test_the_source_distribution_builds_the_same_wheel(names: list[str], tmp_path: Path) -> None:
    with tarfile.open(build("sdist", tmp_path / "sdist")) as archive:
        archive.extractall(tmp_path / "source", filter="data")
    again = build("wheel", tmp_path / "wheel", next((tmp_path / "source").iterdir()))
    assert sorted(zipfile.ZipFile(again).namelist()) == sorted(names)


def test_every_dependency_has_a_lower_bound_that_is_tested() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wanted = [
        *project["project"]["dependencies"],
        *project["dependency-groups"]["dev"],
        *project["project"]["optional-dependencies"]["local"],
        *project["project"]["optional-dependencies"]["fastapi"],
    ]
    assert all(re.fullmatch(r"[a-z0-9-]+>=[\d.]+", one) for one in wanted)
    assert "--resolution lowest-direct" in (ROOT / "Makefile").read_text()


def test_the_doctor_looks_for_every_dependency() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert list(PACKAGES) == [one.partition(">=")[0] for one in project["dependencies"]]


def test_the_changelog_has_a_place_for_what_comes() -> None:
    assert "\n## [Unreleased]\n" in (ROOT / "CHANGELOG.md").read_text()
