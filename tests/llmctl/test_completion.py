"""Completion scripts and the manual page: run by the shells and readers they are for."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from llmctl.cli import COMMANDS, main
from llmctl.environment import ExitStatus
from tests.support.fake_environment import fake_environment
from tests.support.processes import clean_environment
from tests.support.pty_driver import PtyProgram

WALKS = [
    pytest.param("llmctl res", {"resume"}, id="a command"),
    pytest.param("llmctl --verbose mod", {"models"}, id="behind a flag"),
    pytest.param("llmctl --home . con", {"conversations", "config"}, id="behind a value"),
    pytest.param("llmctl batch m", {"merge"}, id="below a group"),
    pytest.param("llmctl models pr", {"probe"}, id="not the program's own"),
    pytest.param("llmctl run --max-t", {"--max-tokens"}, id="an option"),
    pytest.param("llmctl batch --max-f", {"--max-failures"}, id="what a group does itself"),
    pytest.param("llmctl run --require te", {"text"}, id="one of few values"),
    pytest.param("llmctl run -m run --require te", {"text"}, id="a value like a command"),
    pytest.param("llmctl run -m oll", {"ollama/"}, id="a model"),
    pytest.param("llmctl chat --template comm", {"commit"}, id="a template"),
    pytest.param("llmctl prompts show rev", {"review"}, id="an argument"),
    pytest.param("llmctl run --schema sch", {"schema.json"}, id="a file"),
    pytest.param("llmctl --home fol", {"folder"}, id="a folder"),
    pytest.param("llmctl batch sch", {"schema.json"}, id="a group's own file"),
    pytest.param("llmctl run --seed ", set(), id="nothing to offer"),
    pytest.param("llmctl run hello wor", set(), id="a prompt"),
]


def printed(folder: Path, what: str) -> str:
    with fake_environment(folder) as fake:
        assert main(["completion", what], fake.env) == ExitStatus.OK
        return fake.out


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with something in it to be completed, and a PATH without Python."""
    (tmp_path / "schema.json").touch()
    (tmp_path / "folder").mkdir()
    return tmp_path


def shell(place: Path, *command: str) -> str:
    path = shutil.which(command[0])
    if path is None:
        pytest.skip(f"{command[0]} is not installed")
    nothing = {"PATH": str(place / "nowhere"), "HOME": str(place), "XDG_CONFIG_HOME": str(place)}
    done = subprocess.run(
        [path, *command[1:]], cwd=place, env=nothing, capture_output=True, text=True, check=False
    )
    assert done.stderr == ""
    return done.stdout


@pytest.mark.parametrize(("line", "offered"), WALKS)
def test_bash(line: str, offered: set[str], place: Path) -> None:
    words = ["''" if word == "" else word for word in line.split(" ")]
    program = (
        f"{printed(place, 'bash')}\nCOMP_WORDS=({' '.join(words)}); COMP_CWORD={len(words) - 1}\n"
        'compopt() { :; }; _llmctl; for one in "${COMPREPLY[@]}"; do echo "$one"; done'
    )
    assert set(shell(place, "bash", "--norc", "-c", program).split()) == offered


def test_bash_makes_three_words_of_an_option_with_its_value(place: Path) -> None:
    program = (
        f"{printed(place, 'bash')}\nCOMP_WORDS=(llmctl run --require = te); COMP_CWORD=4\n"
        '_llmctl; echo "${COMPREPLY[@]}"; COMP_WORDS=(llmctl run --require =); COMP_CWORD=3\n'
        '_llmctl; echo "${COMPREPLY[@]}"'
    )
    told = shell(place, "bash", "--norc", "-c", program)
    assert told == "text\nexact token text best-effort\n"


@pytest.mark.parametrize(("line", "offered"), WALKS)
def test_fish(line: str, offered: set[str], place: Path) -> None:
    (place / "llmctl.fish").write_text(printed(place, "fish"))
    program = f"source llmctl.fish; complete -C '{line}'"
    lines = shell(place, "fish", "--no-config", "-c", program).splitlines()
    assert {each.partition("\t")[0] for each in lines} == {
        f"{word}/" if word == "folder" else word for word in offered
    }


@pytest.mark.slow
def test_zsh(place: Path) -> None:
    if shutil.which("zsh") is None:
        pytest.skip("zsh is not installed")
    (place / "_llmctl").write_text(printed(place, "zsh"))
    (place / ".zshrc").write_text(
        "PS1='> '; autoload -U compinit; compinit -u -D; source ./_llmctl; echo ready\n"
    )
    environment = {**clean_environment(place), "TERM": "dumb", "ZDOTDIR": str(place)}
    with PtyProgram(["zsh", "-i"], env=environment, cwd=place) as terminal:
        terminal.wait_for("ready")
        for line, rest in [
            ("llmctl res\t", "llmctl resume"),
            ("llmctl run --max-t\t", "--max-tokens"),
            ("llmctl run --require te\t", "--require text"),
            ("llmctl run --require=te\t", "--require=text"),
            ("llmctl --home . mod\t", "--home . models"),
            ("llmctl run --schema sch\t", "schema.json"),
            ("llmctl run -m oll\t", "-m ollama/"),
        ]:
            terminal.send(line)
            terminal.wait_for_screen(rest)
            terminal.send(b"\x15")  # forget the line


def test_an_unknown_shell_is_a_mistake_that_names_the_known(tmp_path: Path) -> None:
    with fake_environment(tmp_path) as fake:
        assert main(["completion", "tcsh"], fake.env) == ExitStatus.USAGE
        assert "bash, zsh, fish, man" in fake.err


def test_the_manual_has_every_command_and_exit_status(tmp_path: Path) -> None:
    text = printed(tmp_path, "man")
    assert all(f'.SS "llmctl {name}' in text for name in COMMANDS)
    assert all(f"\\fB{code}\\fR" in text for code in sorted(set(ExitStatus)))


def test_the_manual_is_well_formed(tmp_path: Path) -> None:
    if shutil.which("mandoc") is None:
        pytest.skip("mandoc is not installed")
    page = tmp_path / "llmctl.1"
    page.write_text(printed(tmp_path, "man"))
    lint = ["mandoc", "-T", "lint", "-W", "warning", str(page)]
    done = subprocess.run(lint, capture_output=True, text=True, check=False)
    complaints = [each for each in done.stdout.splitlines() if "missing date" not in each]
    assert complaints == []
