from pathlib import Path

import pytest

from llmctl.config import Config
from llmctl.errors import UsageError
from llmctl.profiles import (
    PRESETS,
    Api,
    PrefixDialect,
    Selection,
    is_on_this_machine,
    resolve_model,
)
from llmctl.targets import selection_of, target_of
from tests.support.fake_environment import fake_environment


def resolve(tmp_path: Path, spec: str | None, config: Config | None = None) -> Selection:
    with fake_environment(tmp_path, OPENAI_API_KEY="sk-would-be-billed") as fake:
        return resolve_model(spec, config or Config(), fake.env)


def test_a_key_alone_never_selects_a_paid_back_end(tmp_path: Path) -> None:
    chosen = resolve(tmp_path, None)
    assert chosen.is_local
    assert not chosen.billed
    assert str(chosen) == "local"


def test_the_configured_model_is_used_where_none_is_named(tmp_path: Path) -> None:
    assert str(resolve(tmp_path, None, Config(model="groq/m"))) == "groq/m"
    assert str(resolve(tmp_path, "local", Config(model="groq/m"))) == "local"


def test_a_gguf_file(tmp_path: Path) -> None:
    chosen = resolve(tmp_path, "local:~/m.gguf")
    assert chosen.path == tmp_path / "home/m.gguf"
    assert str(chosen) == f"local:{tmp_path}/home/m.gguf"


def test_the_model_s_name_may_hold_slashes(tmp_path: Path) -> None:
    chosen = resolve(tmp_path, "openrouter/meta-llama/llama-3")
    assert chosen.model == "meta-llama/llama-3"
    assert chosen.billed
    assert str(chosen) == "openrouter/meta-llama/llama-3"


def test_an_address_takes_the_server_s_own_name(tmp_path: Path) -> None:
    config = Config(base_url="http://127.0.0.1:9/v1")
    chosen = resolve(tmp_path, "openai/gpt", config)
    assert chosen.model == "openai/gpt"
    assert chosen.profile is not None
    assert (chosen.profile.name, chosen.profile.prefix, chosen.billed) == (
        "127.0.0.1:9",
        None,
        False,
    )


def test_a_protocol_counts_with_a_profile_too_and_is_remembered(tmp_path: Path) -> None:
    spoken = Config(api=Api.RESPONSES)
    chosen = resolve(tmp_path, "openai/gpt", spoken)
    assert chosen.profile is not None
    assert chosen.profile.api is Api.RESPONSES
    with fake_environment(tmp_path) as fake:
        again = selection_of(target_of(chosen, spoken), Config(), fake.env)
        plain = resolve_model("openai/gpt", Config(), fake.env)
        assert again == chosen
        assert selection_of(target_of(plain, Config()), spoken, fake.env) == plain


def test_an_unknown_server_elsewhere_may_cost_money(tmp_path: Path) -> None:
    assert resolve(tmp_path, "m", Config(base_url="https://llm.example/v1")).billed


def test_naming_the_protocol_says_what_the_server_can_do(tmp_path: Path) -> None:
    chosen = resolve(tmp_path, "m", Config(base_url="http://[::1]:9/v1", api=Api.LLAMACPP))
    assert chosen.profile is not None
    assert chosen.profile.prefix is PrefixDialect.TRAILING_ASSISTANT


@pytest.mark.parametrize(
    ("spec", "hint"),
    [
        ("opnai/gpt", "Did you mean 'openai'?"),
        ("gpt-9", "--base-url"),
        ("openai", "openai/MODEL"),
        ("openai/", "openai/MODEL"),
        ("local:", "PATH.gguf"),
    ],
)
def test_what_names_no_model(tmp_path: Path, spec: str, hint: str) -> None:
    with pytest.raises(UsageError) as caught:
        resolve(tmp_path, spec)
    assert hint in (caught.value.hint or "")


def test_an_address_needs_a_model(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="own name"):
        resolve(tmp_path, None, Config(base_url="http://localhost/v1"))


def test_every_preset_of_the_contract_is_there() -> None:
    names = "openai anthropic gemini openrouter deepseek mistral groq ollama llamacpp vllm sglang"
    assert list(PRESETS) == [*names.split(), "lmstudio"]


@pytest.mark.parametrize("name", PRESETS)
def test_what_is_billed_wants_a_key_and_what_runs_here_is_not(name: str) -> None:
    known = PRESETS[name]
    assert known.billed == known.requires_key == (not is_on_this_machine(known.base_url))
    assert known.api_key_env is not None or not known.requires_key
