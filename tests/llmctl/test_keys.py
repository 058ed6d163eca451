import stat
import sys
import threading
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from llmctl import keys
from llmctl.config import Config
from llmctl.errors import Refused, UsageError
from llmctl.keys import Key, KeyFile, Place, find_key, key_place, redact
from llmctl.profiles import PRESETS, resolve_model
from tests.support.fake_environment import fake_environment

OPENAI = PRESETS["openai"]


def echo(text: str) -> tuple[str, ...]:
    return (sys.executable, "-c", f"print({text!r})")


def test_each_place_stands_above_the_next(tmp_path: Path) -> None:
    with fake_environment(tmp_path, OPENAI_API_KEY="from-variable") as fake:
        KeyFile(fake.env).set("openai", "from-file")
        commanded = replace(OPENAI, api_key_cmd=echo("from-command"))
        silent = replace(fake.env, variables={})
        found = [
            find_key(commanded, fake.env),
            find_key(OPENAI, fake.env),
            find_key(OPENAI, silent),
        ]
    assert [key and key.key for key in found] == ["from-command", "from-variable", "from-file"]


def test_a_command_that_no_shell_would_take_is_said_to_be_none(tmp_path: Path) -> None:
    broken = replace(OPENAI, api_key_cmd="pass show 'work")
    with (
        fake_environment(tmp_path) as fake,
        pytest.raises(UsageError, match="No closing") as caught,
    ):
        find_key(broken, fake.env)
    assert "as a shell" in caught.value.hint


def test_a_paid_back_end_without_a_key_is_refused_with_what_to_do(tmp_path: Path) -> None:
    with fake_environment(tmp_path) as fake, pytest.raises(Refused) as caught:
        find_key(OPENAI, fake.env)
    assert caught.value.exit_code == 3
    assert "OPENAI_API_KEY" in (caught.value.hint or "")
    assert "keys set openai" in (caught.value.hint or "")


def test_an_address_has_no_name_that_a_key_could_be_stored_under(tmp_path: Path) -> None:
    config = Config(model="x", base_url="http://127.0.0.1:8000/v1", api_key_env="MY_KEY")
    with fake_environment(tmp_path) as fake, pytest.raises(Refused) as caught:
        server = resolve_model(None, config, fake.env).profile
        assert server is not None
        find_key(server, fake.env)
    assert caught.value.hint == "Set MY_KEY."


def test_a_server_of_one_s_own_needs_none(tmp_path: Path) -> None:
    with fake_environment(tmp_path) as fake:
        assert find_key(PRESETS["vllm"], fake.env) is None


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ((sys.executable, "-c", "raise SystemExit(3)"), "exit status 3"),
        ((sys.executable, "-c", "print()"), "printed no key"),
        ("/no/such/program --now", "No such file"),
    ],
)
def test_a_command_that_gives_no_key(
    tmp_path: Path, command: tuple[str, ...] | str, message: str
) -> None:
    with fake_environment(tmp_path) as fake, pytest.raises(Refused, match=message):
        find_key(replace(OPENAI, api_key_cmd=command), fake.env)


def test_a_command_may_be_a_string_and_print_more_lines(tmp_path: Path) -> None:
    command = f"{sys.executable} -c \"print('one\\ntwo')\""
    with fake_environment(tmp_path) as fake:
        found = find_key(replace(OPENAI, api_key_cmd=command), fake.env)
    assert found == Key("one", Place.COMMAND, "api_key_cmd")


def test_the_key_file_is_the_owner_s_alone(tmp_path: Path) -> None:
    with fake_environment(tmp_path) as fake:
        store = KeyFile(fake.env)
        store.set("openai", "sk-one")
        store.set("groq", "gsk-two")
        assert stat.S_IMODE(store.path.stat().st_mode) == 0o600
        assert store.places() == {"openai": Place.FILE, "groq": Place.FILE}
        assert [store.remove("groq"), store.remove("groq")] == [True, False]
        assert key_place(OPENAI, fake.env) == "key file"


@pytest.mark.parametrize("content", ["{", "[]"])
def test_a_broken_key_file_is_said_not_overwritten(tmp_path: Path, content: str) -> None:
    with fake_environment(tmp_path) as fake:
        store = KeyFile(fake.env)
        store.path.parent.mkdir()
        store.path.write_text(content)
        with pytest.raises(UsageError, match="key file"):
            store.set("openai", "sk-one")
        assert store.path.read_text() == content


def test_the_keyring_is_asked_only_for_what_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vault: dict[tuple[str, str], str] = {}
    ring = SimpleNamespace(
        set_password=lambda service, name, key: vault.update({(service, name): key}),
        get_password=lambda service, name: vault.get((service, name)),
        delete_password=lambda service, name: vault.pop((service, name)),
    )
    with fake_environment(tmp_path) as fake:
        with pytest.raises(Refused):
            find_key(OPENAI, fake.env)  # no keyring needed to know that
        monkeypatch.setitem(sys.modules, "keyring", ring)
        store = KeyFile(fake.env)
        store.set_in_keyring("openai", "sk-ring")
        assert "sk-ring" not in store.path.read_text()
        assert find_key(OPENAI, fake.env) == Key("sk-ring", Place.KEYRING, "system keyring")
        assert store.remove("openai")
    assert vault == {}


def test_a_keyring_that_hangs_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys, "KEYRING_PATIENCE_S", 0.01)
    let_go = threading.Event()
    ring = SimpleNamespace(get_password=lambda _service, _name: let_go.wait())
    monkeypatch.setitem(sys.modules, "keyring", ring)
    with fake_environment(tmp_path) as fake:
        KeyFile(fake.env).path.parent.mkdir()
        KeyFile(fake.env).path.write_text('{"openai": {"keyring": true}}')
        with pytest.raises(Refused, match="did not answer within"):
            find_key(OPENAI, fake.env)
    let_go.set()


def test_without_the_keyring_package_there_is_a_clear_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "keyring", None)
    with fake_environment(tmp_path) as fake, pytest.raises(UsageError, match="not installed"):
        KeyFile(fake.env).set_in_keyring("openai", "sk-one")


def test_a_key_never_shows_itself() -> None:
    assert "sk-secret" not in repr(Key("sk-secret", Place.FILE, "f"))


def test_redaction_takes_the_longer_key_first() -> None:
    text = "a sk-secret-long b sk-secret c"
    assert redact(text, {"sk-secret", "sk-secret-long", "a", ""}) == "a [key] b [key] c"
