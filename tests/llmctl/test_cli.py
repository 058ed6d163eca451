"""The command line from outside, except for what needs a model."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pytest

from llmctl.cli import main
from tests.support.fake_environment import fake_environment
from tests.support.processes import Cli
from tests.support.pty_driver import PtyProgram

COMMANDS = [
    "config show",
    "config set",
    "config path",
    "keys set",
    "keys list",
    "keys remove",
    "prompts list",
    "prompts show",
    "models list",
    "models pull",
    "models remove",
    "models probe",
    "completion",
    "top",
    "doctor",
]


class Done(NamedTuple):
    """How a command ended that ran inside this process."""

    status: int
    text: str
    errors: str


def call(folder: Path, *words: str, typed: str = "", **variables: str) -> Done:
    """Run a command with its data and configuration below ``folder``."""
    with fake_environment(folder, typed, **variables) as fake:
        return Done(main(words, fake.env), fake.out, fake.err)


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    return Cli(tmp_path)


def home(tmp_path: Path) -> Path:
    return tmp_path / "llmctl"


def test_help_lists_every_command(cli: Cli) -> None:
    done = cli.run("--help")
    assert done.returncode == 0
    assert all(f"\n  {command.split()[0]} " in done.text for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*command.split(), "--help"]) == 0
    told = capsys.readouterr()
    assert told.out.startswith(f"Usage: llmctl {command} ")
    assert told.err == ""


@pytest.mark.parametrize(
    ("words", "sentence", "hint"),
    [
        (["confg"], "No such command 'confg'.", "Did you mean 'config'?"),
        (["xyzzy"], "No such command 'xyzzy'.", "'llmctl --help' lists what there is."),
        (["config", "shwo"], "No such command 'shwo'.", "Did you mean 'show'?"),
        (["--hom", "x", "config"], "No such option: --hom", "Did you mean --home?"),
        (["config", "show", "--jsn"], "No such option: --jsn", "Did you mean --json?"),
        (["prompts", "show"], "Missing argument 'NAME'.", "'llmctl prompts show --help'"),
        (["--color", "blue", "config", "path"], "'blue' is not one of", "'llmctl --help'"),
        (["prompts", "show", "consise"], "no template 'consise'", "Did you mean 'concise'?"),
        (["keys", "set", "opnai"], "No back end is called 'opnai'", "Did you mean 'openai'?"),
        (["keys", "remove", "groq"], "No key is stored for 'groq'", "keys list"),
        (["--config", "no.toml", "config", "show"], "There is no configuration file", "--config"),
        (["--config", ".", "config", "show"], "can't be read: Is a directory.", "--config"),
        (["--home", "", "config", "show"], "--home needs a folder.", "usual places"),
        (["--home", "/dev/null", "conversations", "list"], "can't be the data dir", "--home"),
        (["--home", "/dev/null", "config", "show"], "can't be read: Not a directory.", "--home"),
        (["--home", "/proc/none", "config", "set", "model", "x"], "/proc/none: No such", "place"),
        (["--config", "", "config", "show"], "--config needs a file.", "usual place"),
        (["conversations", "delete", ""], "An id can't be empty.", "conversations list"),
        (["--home", "/proc/none", "run", "-m", "scripted:x", "hi"], "/proc/none", "--home"),
        (["run", "-m", "scripted:none", "hi"], "none can't be read: No such file", "scripted:FILE"),
        (["conversations", "delete"], "Name conversations", "conversations list"),
        (["conversations", "export", "x", "--format", "doc"], "--format is one of", "Without"),
        (["batch", "--shard", "2/2", "x", "-o", "y"], "--shard takes i/n", "0/4"),
        (["batch", __file__, "-o", "", "-m", "scripted:/dev/null"], "-o needs the name", "-o FILE"),
        (["batch", __file__, "-o", "/", "-m", "scripted:/dev/null"], "/ is a folder", "another"),
        (["batch", __file__, "-o", "o", "--base-url", "a", "-m", "x"], "'a' is not", "HOST"),
        (["run", "--base-url", "http://u:p@a", "-m", "x", "hi"], "a password here", "profiles"),
        (["run", "--base-url", "//u:p@a", "-m", "x", "hi"], "'//a' is not the address", "HOST"),
        (["batch", "status", "none.jsonl"], "There is no batch", "OUTPUT"),
        (["config", "set", "modle", "x"], "modle is not a setting", "Did you mean 'model'?"),
        (["config", "set", "timeout", "soon"], "'soon' is not a duration", "500ms"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_mistake_is_one_sentence_and_one_hint(
    tmp_path: Path, words: list[str], sentence: str, hint: str
) -> None:
    done = call(tmp_path, *words)
    lines = done.errors.splitlines()
    assert (done.status, done.text) == (2, "")
    assert lines[0].startswith("llmctl: ")
    assert sentence in lines[0]
    assert len(lines) == 2
    assert lines[1].startswith("hint: ")
    assert hint in lines[1]


def test_a_group_without_a_command_shows_its_help(tmp_path: Path) -> None:
    done = call(tmp_path, "config")
    assert (done.status, done.text) == (2, "")
    assert done.errors.startswith("Usage: llmctl config ")


def test_verbose_shows_where_an_error_comes_from(tmp_path: Path) -> None:
    done = call(tmp_path, "--verbose", "prompts", "show", "nothing")
    assert done.status == 2
    assert done.errors.startswith("Traceback")
    assert "llmctl: There is no template 'nothing'." in done.errors


def test_a_setting_goes_into_the_file_and_comes_back(tmp_path: Path) -> None:
    path = (tmp_path / "config") / "config.toml"
    assert call(tmp_path, "config", "path").text == f"{path}\n"
    assert call(tmp_path, "config", "set", "idle_timeout", "90s").status == 0
    assert call(tmp_path, "config", "set", "profiles.work.preset", "vllm").status == 0
    shown = json.loads(call(tmp_path, "config", "show", "--json").text)
    assert shown["settings"]["idle_timeout"] == {"value": 90.0, "from": str(path)}
    assert shown["settings"]["model"] == {"value": None, "from": "default"}
    assert shown["profiles"]["work"]["base_url"] == "http://localhost:8000/v1"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_a_text_setting_may_look_like_a_number(tmp_path: Path) -> None:
    assert call(tmp_path, "config", "set", "model", "7").status == 0
    shown = json.loads(call(tmp_path, "config", "show", "--json").text)
    assert shown["settings"]["model"]["value"] == "7"


def test_a_wrong_setting_changes_nothing(tmp_path: Path) -> None:
    call(tmp_path, "config", "set", "timeout", "5m")
    before = ((tmp_path / "config") / "config.toml").read_text()
    assert call(tmp_path, "config", "set", "timeout", "soon").status == 2
    assert ((tmp_path / "config") / "config.toml").read_text() == before


def test_home_and_config_may_be_named(tmp_path: Path) -> None:
    done = call(tmp_path, "--home", "elsewhere", "config", "path")
    assert done.text.endswith("/elsewhere/config.toml\n")
    done = call(tmp_path, "--config", str(tmp_path / "own.toml"), "config", "path")
    assert done.text == f"{tmp_path}/own.toml\n"


def test_config_set_puts_a_wrong_value_right_whatever_else_is_wrong(tmp_path: Path) -> None:
    file = tmp_path / "c.toml"
    wrong = "[profiles.vllm]\nmodel = 1\n"
    file.write_text(f"temperature = -1 # cold\ntimeout = true\n{wrong}")
    call_it = partial(call, tmp_path, "--config", str(file))
    shown = call_it("config", "show")
    assert (shown.status, "'llmctl config set temperature VALUE'" in shown.errors) == (2, True)
    for key in ("temperature", "top_p"):  # neither again nor anew
        done = call_it("config", "set", "--", key, "-1")
        assert (done.status, f"{key} must be a number" in done.errors) == (2, True)
    assert call_it("config", "set", "temperature", "0.5").status == 0
    assert file.read_text() == f"temperature = 0.5 # cold\ntimeout = true\n{wrong}"
    assert call_it("config", "set", "profiles.vllm.model", "m").status == 0
    assert call_it("config", "set", "timeout", "5m").status == 0
    assert call_it("config", "show").status == 0


@pytest.mark.parametrize("command", ["", "run", "batch", "batch status", *COMMANDS])
def test_every_command_has_both_words_for_help(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    shown = []
    for word in ("-h", "--help"):
        assert call(tmp_path, *command.split(), word).status == 0
        shown.append(capsys.readouterr().out)
    assert shown[0] == shown[1]
    assert "-h, --help" in shown[0]


def test_what_some_editors_put_before_a_text_is_no_part_of_a_key(tmp_path: Path) -> None:
    assert call(tmp_path, "keys", "set", "openai", typed="\ufeffsk-abc\n").status == 0
    assert '"sk-abc"' in (tmp_path / "config" / "keys.json").read_text()


def test_a_template_that_cant_be_used_is_named_beside_the_others(tmp_path: Path) -> None:
    (tmp_path / "config" / "prompts" / "folder.md").mkdir(parents=True)
    done = call(tmp_path, "prompts", "list")
    assert (done.status, "\nmarkers" in done.text) == (0, True)
    assert "folder.md can't be read: Is a directory." in done.errors
    assert "folder" in call(tmp_path, "completion", "bash").text


def test_a_key_from_stdin_is_stored_and_never_shown(tmp_path: Path) -> None:
    secret = "sk-very-secret-123"  # noqa: S105
    stored = call(tmp_path, "keys", "set", "openai", typed=f"{secret}\n")
    assert stored.status == 0
    path = tmp_path / "config" / "keys.json"
    assert secret in path.read_text()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    looks = ["keys list", "config show", "config show --json", "--verbose doctor"]
    shown = [stored, *(call(tmp_path, *look.split()) for look in looks)]
    assert all(secret not in done.text + done.errors for done in shown)
    assert "openai\tkey file\n" in shown[1].text
    assert "key from key file" in shown[2].text
    assert call(tmp_path, "keys", "remove", "openai").status == 0
    assert call(tmp_path, "keys", "list").text == ""


@pytest.mark.parametrize("typed", ["", "\n", "two words\n", "sk-\ufffd\n", "sk-\0a", "sk-ключ"])
def test_what_is_no_key_is_not_stored(tmp_path: Path, typed: str) -> None:
    done = call(tmp_path, "keys", "set", "openai", typed=typed)
    assert done.status == 2
    assert not ((tmp_path / "config") / "keys.json").exists()


def test_a_template_is_shown_as_its_file_has_it(tmp_path: Path) -> None:
    own = (tmp_path / "config") / "prompts"
    own.mkdir(parents=True)
    (own / "mine.md").write_text("Be {{how}}.\n")
    assert call(tmp_path, "prompts", "show", "mine").text == "Be {{how}}.\n"
    facts = json.loads(call(tmp_path, "prompts", "show", "mine", "--json").text)
    assert (facts["role"], facts["variables"]) == ("system", {"how": None})
    assert {"mine", "markers", "concise"} <= {
        line.split()[0] for line in call(tmp_path, "prompts", "list").text.splitlines()
    }


def test_a_closed_pipe_ends_quietly(cli: Cli) -> None:
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        cli.command("config", "show"),
        stdout=write,
        stderr=subprocess.PIPE,
        env=cli.env,
        check=False,
    )
    os.close(write)
    assert (done.returncode, done.stderr) == (141, b"")


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_descriptors_are_nobody_s(cli: Cli, tmp_path: Path, closed: str) -> None:
    script = f'"$@" {closed}; echo $? > "{tmp_path}/status"'
    command = ["sh", "-c", script, "sh", *cli.command("config", "set", "timeout", "5m")]
    subprocess.run(command, env=cli.env, check=True)
    assert (tmp_path / "status").read_text() == "0\n"
    assert (home(tmp_path) / "config.toml").read_text() == 'timeout = "5m"\n'


def test_a_working_directory_that_is_gone_is_no_reason_to_fail(cli: Cli, tmp_path: Path) -> None:
    script = 'mkdir gone && cd gone && rmdir ../gone && exec "$@"'
    command = ["sh", "-c", script, "sh", *cli.command("config", "path")]
    done = subprocess.run(command, env=cli.env, cwd=tmp_path, capture_output=True, check=True)
    assert done.stdout.decode() == f"{home(tmp_path)}/config.toml\n"


def test_the_doctor_finds_nothing_broken_here(tmp_path: Path) -> None:
    done = call(tmp_path, "doctor")
    assert (done.status, done.errors) == (0, "")
    facts = json.loads(call(tmp_path, "doctor", "--json").text)
    assert facts["usable"]
    states = {check["name"]: check["state"] for check in facts["checks"]}
    assert {"python", "packages", "store", "configuration", "keys"} <= states.keys()
    assert all(check["advice"] for check in facts["checks"] if check["state"] != "ok")


def test_the_doctor_names_what_is_broken(tmp_path: Path) -> None:
    (tmp_path / "config").mkdir()
    ((tmp_path / "config") / "config.toml").write_text("timeout = 'soon'")
    done = call(tmp_path, "doctor")
    assert done.status == 1
    assert "fail  configuration" in done.text
    assert "500ms" in done.text


def test_the_doctor_names_a_folder_that_can_t_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = call(tmp_path, "--home", str(tmp_path / "file" / "below"), "doctor")
    assert done.status == 1
    assert "fail  store" in done.text


def test_the_doctor_names_keys_and_where_they_are(tmp_path: Path) -> None:
    done = call(tmp_path, "doctor", GROQ_API_KEY="gsk-secret")
    assert "groq (GROQ_API_KEY)" in done.text
    assert "gsk-secret" not in done.text


def test_python_m_is_the_same_program(cli: Cli) -> None:
    command = [sys.executable, "-m", "llmctl", "config", "path"]
    done = subprocess.run(command, env=cli.env, capture_output=True, check=True)
    assert done.stdout == cli.run("config", "path").stdout


def test_a_key_is_typed_without_being_seen(cli: Cli, tmp_path: Path) -> None:
    with PtyProgram(cli.command("keys", "set", "openai"), env=cli.env) as program:
        program.wait_for("not shown")
        program.send("sk-typed-secret\r")
        assert program.wait() == 0
        assert b"sk-typed" not in program.output
    assert "sk-typed-secret" in (home(tmp_path) / "keys.json").read_text()
