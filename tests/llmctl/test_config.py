from collections.abc import Mapping
from pathlib import Path

import pytest

from llmctl.config import Color, Config, OnPause, load, parse, setting_names
from llmctl.config_edit import with_setting
from llmctl.errors import UsageError
from llmctl.events import Guarantee
from llmctl.profiles import PRESETS, PrefixDialect
from tests.support.fake_environment import fake_environment

HERE = Path("c.toml")


def loaded(
    tmp_path: Path, text: str, flags: Mapping[str, object] | None = None, **env: str
) -> Config:
    (tmp_path / "config").mkdir(exist_ok=True)
    (tmp_path / "config/config.toml").write_text(text)
    with fake_environment(tmp_path, **env) as fake:
        return load(fake.env, flags=flags or {})


def test_defaults_without_a_file(tmp_path: Path) -> None:
    with fake_environment(tmp_path) as fake:
        config = load(fake.env)
    assert (config.model, config.connect_timeout, config.require) == (None, 10.0, Guarantee.TEXT)
    assert config.profiles == PRESETS
    assert config.origins == {}


def test_the_file_stands_above_the_defaults(tmp_path: Path) -> None:
    config = loaded(tmp_path, 'idle_timeout = "90s"\ntimeout = 5\non_pause = "cut"\nplain = true')
    assert (config.idle_timeout, config.timeout, config.on_pause) == (90.0, 5.0, OnPause.CUT)
    assert config.plain
    assert config.origins["timeout"] == str(tmp_path / "config/config.toml")


def test_the_environment_stands_above_the_file(tmp_path: Path) -> None:
    config = loaded(tmp_path, 'model = "a/b"\nplain = true', LLMCTL_MODEL="c/d", LLMCTL_PLAIN="0")
    assert (config.model, config.plain) == ("c/d", False)
    assert config.origins["model"] == "LLMCTL_MODEL"


def test_flags_stand_above_everything(tmp_path: Path) -> None:
    flags = {"model": "e/f", "temperature": None, "color": "never"}
    config = loaded(tmp_path, "temperature = 0.5", flags, LLMCTL_MODEL="c/d")
    assert (config.model, config.temperature, config.color) == ("e/f", 0.5, Color.NEVER)
    assert config.origins["model"] == "--model"


def test_a_profile_starts_from_its_preset(tmp_path: Path) -> None:
    config = loaded(
        tmp_path,
        """
        [profiles.work]
        preset = "vllm"
        base_url = "http://10.0.0.7:8000/v1"
        api_key_cmd = ["pass", "show", "work"]
        [profiles.openai]
        model = "gpt-9"
        """,
    )
    work, openai = config.profiles["work"], config.profiles["openai"]
    assert (work.name, work.prefix) == ("work", PrefixDialect.CONTINUE_FINAL_MESSAGE)
    assert (work.base_url, work.api_key_cmd) == (
        "http://10.0.0.7:8000/v1",
        ("pass", "show", "work"),
    )
    assert (openai.model, openai.api_key_env) == ("gpt-9", "OPENAI_API_KEY")
    assert config.profiles["groq"] is PRESETS["groq"]


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ('modle = "x"', "c.toml: modle is not a setting", "Did you mean 'model'?"),
        ("xyzzy = 1", "c.toml: xyzzy is not a setting", "Known are model"),
        ("model = 1", "c.toml: model must be a string, not 1", None),
        ('model = ""', "c.toml: model must be a text that is not empty, not ''", None),
        ('temperature = "hot"', "temperature must be a number", None),
        ("temperature = true", "temperature must be a number", None),
        ("temperature = -1", "temperature must be a number of 0 or more, not -1", None),
        ("temperature = inf", "temperature must be a number of 0 or more, not inf", None),
        ("temperature = nan", "temperature must be a number of 0 or more, not nan", None),
        ("top_p = 1.1", "top_p must be a number from 0 to 1, not 1.1", None),
        ("max_tokens = 0", "max_tokens must be a whole number above 0", None),
        ("max_tokens = true", "max_tokens must be a whole number above 0", None),
        ("plain = 1", "plain must be true or false", None),
        ('require = "best"', "require must be one of exact, token, text, best-effort", None),
        ('timeout = "5 min"', "timeout: '5 min' is not a duration", "500ms"),
        ("timeout = -1", "timeout must be a duration", None),
        ("timeout = nan", "timeout must be a duration", None),
        ("timeout = true", "timeout must be a number", None),
        ("model =", "c.toml is not TOML", "Mend it there"),
        ("profiles = 3", "profiles must be tables", "[profiles.NAME]"),
        ("profiles.x = 3", "profiles.x must be a table", "[profiles.x]"),
        ("[profiles.local]", "profiles.local can't be the name", "another"),
        ("[profiles.'a/b']", "profiles.a/b can't be the name", "another"),
        ("[profiles.'']", "profiles. can't be the name", "another"),
        ("[profiles.x]", "profiles.x has neither base_url nor preset", None),
        ('[profiles.x]\npreset = "vlm"', "profiles.x.preset must be one of openai", None),
        ('[profiles.vllm]\nbase_ulr = "x"', "profiles.vllm.base_ulr", "Did you mean 'base_url'?"),
        ('[profiles.x]\nbase_url = "http://a:65536"', "'http://a:65536' is not", "PORT"),
        ('[profiles.x]\nbase_url = "http://[a"', "'http://[a' is not the address", "HOST"),
        ('[profiles.x]\nbase_url = "10.0.0.1"', "profiles.x.base_url: '10.0.0.1' is not", "http"),
        ('[profiles.vllm]\nmodel = ""', "profiles.vllm.model must be a text that is not", None),
        ("[profiles.vllm]\napi_key_cmd = [1]", "api_key_cmd must be a command", None),
    ],
)
def test_what_nobody_understands_says_where_it_is(
    text: str, message: str, hint: str | None
) -> None:
    with pytest.raises(UsageError) as caught:
        parse(text, HERE)
    assert message in caught.value.message
    assert (hint or "") in (caught.value.hint or "")


@pytest.mark.parametrize("how", ["flag", "variable"])
def test_a_file_that_was_named_must_exist(tmp_path: Path, how: str) -> None:
    variables = {"LLMCTL_CONFIG": "no.toml"} if how == "variable" else {}
    file = "no.toml" if how == "flag" else None
    with (
        fake_environment(tmp_path, **variables) as fake,
        pytest.raises(UsageError, match="There is no configuration file"),
    ):
        load(fake.env, file=file)


def test_what_some_editors_put_before_a_text_is_no_part_of_it(tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text('model = "a/b"', "utf-8-sig")
    with fake_environment(tmp_path) as fake:
        assert load(fake.env, file=tmp_path / "c.toml").model == "a/b"


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with fake_environment(tmp_path) as fake, pytest.raises(UsageError, match="can't be read"):
        load(fake.env, file=tmp_path)


def test_every_setting_of_the_file_has_a_default() -> None:
    assert all(hasattr(Config(), name) for name in setting_names())


def test_changing_a_setting_keeps_comments_and_order() -> None:
    text = "# mine\nmodel = 'a/b' # the good one\nplain = true\n"
    changed, as_string = with_setting(text, "timeout", "5")
    assert changed == "# mine\nmodel = 'a/b' # the good one\nplain = true\ntimeout = 5\n"
    assert as_string.endswith('timeout = "5"\n')
    assert with_setting(text, "model", "c/d")[0].splitlines()[1] == 'model = "c/d" # the good one'


def test_a_profile_is_made_where_there_is_none() -> None:
    text = with_setting("model = 'a/b'\n", "profiles.work.preset", "vllm")[0]
    text = with_setting(text, "profiles.work.base_url", "http://h/v1")[0]
    settings, profiles = parse(text, HERE)
    assert (settings, profiles["work"].base_url) == ({"model": "a/b"}, "http://h/v1")


def test_a_setting_has_no_settings_below_it() -> None:
    with pytest.raises(UsageError, match="no place for a setting"):
        with_setting("model = 'a/b'\n", "model.name", "x")
