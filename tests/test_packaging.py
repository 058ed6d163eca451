"""The wheel as users get it: what is in it, and that it works away from the source."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
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


LIBRARY = ROOT / "cancelable_core"
PROJECTS = {"llmctl": ROOT, "cancelable-core": LIBRARY}


def build(kind: str, folder: Path, source: Path = ROOT) -> Path:
    """Build a distribution without asking the network, as at a time that is given."""
    command = [sys.executable, "-m", "hatchling", "build", "-t", kind, "-d", str(folder)]
    then = {**os.environ, "SOURCE_DATE_EPOCH": "1700000000"}
    subprocess.run(command, cwd=source, env=then, check=True, capture_output=True)
    return next(folder.iterdir())


def environment(folder: Path, wheel: Path, borrowed: str) -> Path:
    """Make an environment that has the wheel, and finds what it needs in other folders."""
    venv.create(folder, with_pip=False, symlinks=True)
    install = ["install", "--quiet", "--no-deps", "--no-index", str(wheel)]
    pip = [sys.executable, "-m", "pip", "--python", str(folder / "bin" / "python")]
    subprocess.run([*pip, *install], check=True)
    site = next(folder.glob("lib/python*/site-packages"))
    (site / "borrowed.pth").write_text(borrowed)
    return folder


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
    return environment(folder, wheel, sysconfig.get_path("purelib"))


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of the library alone."""
    return build("wheel", tmp_path_factory.mktemp("library"), LIBRARY)


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The source distributions."""
    folder = tmp_path_factory.mktemp("sources")
    return {name: build("sdist", folder / name, source) for name, source in PROJECTS.items()}


@pytest.fixture(scope="module")
def library_alone(library: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment that has the library and what anyio consists of, and nothing else."""
    borrowed = tmp_path_factory.mktemp("borrowed")
    for name in ("anyio", "idna", "sniffio", "typing_extensions.py"):
        found = Path(sysconfig.get_path("purelib")) / name
        if found.exists():  # which of them anyio needs differs between its versions
            (borrowed / name).symlink_to(found)
    return environment(tmp_path_factory.mktemp("alone"), library, str(borrowed))


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
    assert set(facts.get_all("Provides-Extra", [])) == {
        "all",
        "fast",
        "fastapi",
        "local",
        "otel",
        "ray",
    }


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


def test_the_source_distribution_builds_the_same_wheel(
    names: list[str], sources: dict[str, Path], tmp_path: Path
) -> None:
    with tarfile.open(sources["llmctl"]) as archive:
        archive.extractall(tmp_path / "source", filter="data")
    again = build("wheel", tmp_path / "wheel", next((tmp_path / "source").iterdir()))
    assert sorted(zipfile.ZipFile(again).namelist()) == sorted(names)


def contents(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def test_the_library_alone_is_the_one_that_the_program_brings(wheel: Path, library: Path) -> None:
    packed = {n: data for n, data in contents(library).items() if ".dist-info/" not in n}
    brought = {n: data for n, data in contents(wheel).items() if n.startswith("cancelable_core/")}
    assert packed == brought


def test_the_library_alone_needs_anyio_and_nothing_else(library: Path) -> None:
    [name] = [name for name in contents(library) if name.endswith("/METADATA")]
    facts = Parser().parsestr(contents(library)[name].decode())
    assert facts["Version"] == __version__
    needed = [one for one in facts.get_all("Requires-Dist", []) if "extra ==" not in one]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert needed == [one for one in project["dependencies"] if one.startswith("anyio")]
    assert name.replace("METADATA", "licenses/LICENSE") in contents(library)
    assert (LIBRARY / "LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()


def test_the_library_alone_works_without_the_program_s_packages(library_alone: Path) -> None:
    [snippet] = re.findall(
        r"^```python\n(.*?)^```$", (LIBRARY / "README.md").read_text(), re.MULTILINE | re.DOTALL
    )
    code = f"""
import importlib.util, pkgutil, time, anyio, cancelable_core
for name in ("openai", "typer", "rich", "prompt_toolkit", "llmctl"):
    assert importlib.util.find_spec(name) is None, name
{snippet.replace("(5,", "(0.01,").replace("after 5 s", "after 0.01 s")}
anyio.run(main)
print(cancelable_core.__file__)
"""
    assert f"{library_alone}/lib" in run(library_alone, "-c", code, program="python")


def test_the_library_alone_builds_again_from_its_source(
    library: Path, sources: dict[str, Path], tmp_path: Path
) -> None:
    with tarfile.open(sources["cancelable-core"]) as archive:
        archive.extractall(tmp_path / "source", filter="data")
    again = build("wheel", tmp_path / "wheel", next((tmp_path / "source").iterdir()))
    assert contents(again) == contents(library)


def test_builds_repeat_to_the_byte_elsewhere(
    wheel: Path, library: Path, sources: dict[str, Path], tmp_path: Path
) -> None:
    copy = tmp_path / "elsewhere"
    unwanted = shutil.ignore_patterns(".venv*", ".git", ".*_cache", "__pycache__", ".hypothesis")
    shutil.copytree(ROOT, copy, ignore=unwanted, copy_function=shutil.copyfile)  # new times, modes
    for name, whole in (("llmctl", wheel), ("cancelable-core", library)):
        there = copy / PROJECTS[name].relative_to(ROOT)
        for kind, one in (("wheel", whole), ("sdist", sources[name])):
            other = build(kind, tmp_path / name / kind, there)
            assert (one.name, digest(one)) == (other.name, digest(other))


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_every_dependency_has_a_lower_bound_that_is_tested() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    extras = project["project"]["optional-dependencies"]
    assert extras["all"] == [f"llmctl[{','.join(name for name in extras if name != 'all')}]"]
    wanted = [
        *project["project"]["dependencies"],
        *project["dependency-groups"]["dev"],
        *(one for name, extra in extras.items() if name != "all" for one in extra),
    ]
    assert all(re.fullmatch(r"[a-z0-9-]+>=[\d.]+", one) for one in wanted)
    assert "--resolution lowest-direct" in (ROOT / "Makefile").read_text()


def test_the_doctor_looks_for_every_dependency() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert list(PACKAGES) == [one.partition(">=")[0] for one in project["dependencies"]]


def test_the_changelog_has_a_place_for_what_comes() -> None:
    assert "\n## [Unreleased]\n" in (ROOT / "CHANGELOG.md").read_text()
