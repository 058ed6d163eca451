"""Where a model lives: the back ends known by name, and which one a person means.

A `Profile` says what is known *beforehand* about a back end: its address, where its key
comes from, whether its tokens cost money, and what it is known to accept. The table of
presets is this module's heart; a profile in the configuration file starts from one of
them. What a table can't know (it depends on the model behind the address) is left out:
a strategy that is not known to work is not claimed.
"""

from __future__ import annotations

import difflib
import ipaddress
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Protocol
from urllib.parse import urlsplit

from llmctl.errors import UsageError
from llmctl.prices import Prices

if TYPE_CHECKING:
    from llmctl.environment import Environment

LOCAL = "local"
SCRIPTED = "scripted"
RESERVED = (LOCAL, SCRIPTED)

_PASSWORD = re.compile(r"//[^/]*@")


class Api(StrEnum):
    """The wire protocol spoken with a server; auto leaves the choice to the program."""

    AUTO = "auto"
    CHAT = "chat"
    RESPONSES = "responses"
    COMPLETIONS = "completions"
    LLAMACPP = "llamacpp"


class PrefixDialect(StrEnum):
    """How a server is asked to go on behind the beginning of its own message."""

    CONTINUE_FINAL_MESSAGE = "continue_final_message"
    """A trailing assistant message, ``continue_final_message`` true, ``add_generation_prompt``
    false."""

    PREFIX_FLAG = "prefix_flag"
    """A trailing assistant message that carries ``prefix`` true."""

    PARTIAL_FLAG = "partial_flag"
    """A trailing assistant message that carries ``partial`` true."""

    TRAILING_ASSISTANT = "trailing_assistant"
    """A trailing assistant message and nothing else."""


class ReasoningDialect(StrEnum):
    """How a server is given back what its model has thought, before the text it goes on with."""

    FIELD = "field"
    """The assistant message carries ``reasoning_content``; one without content is gone on with
    within the reasoning."""

    NAMED = "named"
    """The same, and ``continue_final_message`` names the field that is gone on with."""

    BEHIND = "behind"
    """The message carries ``reasoning_content``; only its content can be gone on with."""


class TokenCounts(StrEnum):
    """How a server tells which tokens a piece of text completes, when it is asked to."""

    LOGPROBS = "logprobs"
    """The log probabilities that come with each piece: one entry a token, with its bytes."""

    IDS = "ids"
    """The ids of each piece's tokens (``return_token_ids``)."""

    USAGE = "usage"
    """A running total in the usage of each piece (``continuous_usage_stats``)."""

    TIMINGS = "timings"
    """A running total in the timings of each piece (``timings_per_token``)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """A back end, as far as it is known before the first request.

    Attributes:
        name: what stands before the slash in ``-m NAME/MODEL``.
        base_url: the address that the protocol's paths are appended to.
        api: the wire protocol.
        api_key_env: the environment variable that may hold the key.
        api_key_cmd: a command that prints the key (a string is split as a shell would,
            but no shell runs it).
        requires_key: nothing can be asked of it without a key.
        billed: its tokens cost money.
        model: the model to use where none is named.
        prefix: how it goes on behind a prefix; None where that is not known to work.
        prefix_base_url: the address for such requests, where it is another one.
        prefix_echoed: its answer to such a request repeats the prefix.
        prefix_keeps_blanks: it is known not to trim the blanks at a prefix's end.
        reasoning: how it takes reasoning back; None where that is not known to work.
        accepts_seed: a seed in the body is known not to be refused.
        seed_field: the body's field for it.
        usage_in_stream: ``stream_options.include_usage`` is known not to be refused.
        max_tokens_field: the body's field for the bound on the reply.
        token_counts: how it tells its tokens; None where it is not known to.
        token_prompts: completions take token ids as a prompt, and say which they had.
        price: what its tokens cost, where the person has said so.
        background: replies are asked for in the background (Responses), which stores them there.
        keeps_runs: a response in the background is not known to be lost or ignored.
    """

    name: str
    base_url: str
    api: Api = Api.CHAT
    api_key_env: str | None = None
    api_key_cmd: str | tuple[str, ...] | None = None
    requires_key: bool = False
    billed: bool = False
    model: str | None = None
    prefix: PrefixDialect | None = None
    prefix_base_url: str | None = None
    prefix_echoed: bool = False
    prefix_keeps_blanks: bool = False
    reasoning: ReasoningDialect | None = None
    accepts_seed: bool = False
    seed_field: str = "seed"
    usage_in_stream: bool = True
    max_tokens_field: str = "max_tokens"
    token_counts: TokenCounts | None = None
    token_prompts: bool = False
    price: Prices | None = None
    background: bool = False
    keeps_runs: bool = True

    @property
    def is_an_address(self) -> bool:
        """Whether it was given by its address alone: nothing can be stored under its name."""
        return self.name == urlsplit(self.base_url).netloc


def _service(name: str, base_url: str, key: str, **known: object) -> Profile:
    """Describe a paid service that wants a key."""
    profile = Profile(name=name, base_url=base_url, api_key_env=key, requires_key=True, billed=True)
    return replace(profile, **known)  # type: ignore[arg-type]


_PRESETS = (
    # A trailing assistant message is accepted here but starts a new message: no prefix.
    _service(
        "openai",
        "https://api.openai.com/v1",
        "OPENAI_API_KEY",
        accepts_seed=True,
        max_tokens_field="max_completion_tokens",
    ),
    # Older models go on behind a prefix, newer ones refuse it: not claimed.
    _service("anthropic", "https://api.anthropic.com/v1", "ANTHROPIC_API_KEY"),
    # The same: it depends on the model.
    _service(
        "gemini",
        "https://generativelanguage.googleapis.com/v1beta/openai",
        "GEMINI_API_KEY",
    ),
    # Hands the request to whichever provider serves the model: must be probed.
    _service(
        "openrouter",
        "https://openrouter.ai/api/v1",
        "OPENROUTER_API_KEY",
        accepts_seed=True,
    ),
    _service(
        "deepseek",
        "https://api.deepseek.com",
        "DEEPSEEK_API_KEY",
        prefix=PrefixDialect.PREFIX_FLAG,
        prefix_base_url="https://api.deepseek.com/beta",
        reasoning=ReasoningDialect.FIELD,
    ),
    # It reports usage without being asked.
    _service(
        "mistral",
        "https://api.mistral.ai/v1",
        "MISTRAL_API_KEY",
        prefix=PrefixDialect.PREFIX_FLAG,
        prefix_echoed=True,
        accepts_seed=True,
        seed_field="random_seed",
        usage_in_stream=False,
    ),
    _service(
        "groq",
        "https://api.groq.com/openai/v1",
        "GROQ_API_KEY",
        prefix=PrefixDialect.TRAILING_ASSISTANT,
        accepts_seed=True,
    ),
    # Some model templates go on behind a prefix, others ignore it without a word.
    Profile(
        name="ollama",
        base_url="http://localhost:11434/v1",
        api_key_env="OLLAMA_API_KEY",
        accepts_seed=True,
    ),
    Profile(
        name="llamacpp",
        base_url="http://localhost:8080/v1",
        api=Api.LLAMACPP,
        api_key_env="LLAMA_API_KEY",
        prefix=PrefixDialect.TRAILING_ASSISTANT,
        prefix_keeps_blanks=True,
        reasoning=ReasoningDialect.NAMED,
        token_counts=TokenCounts.TIMINGS,
        accepts_seed=True,
    ),
    Profile(
        name="vllm",
        base_url="http://localhost:8000/v1",
        api_key_env="VLLM_API_KEY",
        prefix=PrefixDialect.CONTINUE_FINAL_MESSAGE,
        reasoning=ReasoningDialect.BEHIND,
        token_counts=TokenCounts.IDS,
        token_prompts=True,
        accepts_seed=True,
    ),
    # Without the flag it silently turns a trailing assistant message into a user's. It tells
    # ids with completions only: a streamed chat that asks for them is refused.
    Profile(
        name="sglang",
        base_url="http://localhost:30000/v1",
        prefix=PrefixDialect.CONTINUE_FINAL_MESSAGE,
        prefix_keeps_blanks=True,
        token_prompts=True,
        accepts_seed=True,
    ),
    Profile(name="lmstudio", base_url="http://localhost:1234/v1", accepts_seed=True),
)

PRESETS: Mapping[str, Profile] = {profile.name: profile for profile in _PRESETS}


@dataclass(frozen=True, slots=True)
class Selection:
    """The model that a command talks to.

    Attributes:
        model: the model's name as its back end knows it.
        profile: the server; None for the embedded engine.
        path: the GGUF file for the embedded engine; None means its default weights.
        script: what the scripted back end plays; None where a model answers.
    """

    model: str
    profile: Profile | None = None
    path: Path | None = None
    script: str | None = None

    @property
    def is_local(self) -> bool:
        """Say whether the embedded engine runs it."""
        return self.profile is None and self.script is None

    @property
    def billed(self) -> bool:
        """Say whether its tokens cost money."""
        return self.profile is not None and self.profile.billed

    def __str__(self) -> str:
        """Return what ``-m`` would take to select it again."""
        if self.script is not None:
            return f"{SCRIPTED}:{self.script}"
        if self.profile is not None:
            return f"{self.profile.name}/{self.model}"
        return LOCAL if self.path is None else f"{LOCAL}:{self.path}"


class ModelSettings(Protocol):
    """The part of the configuration that names models; `llmctl.config.Config` has it."""

    @property
    def model(self) -> str | None:
        """The model in force where ``-m`` is not given; None if nobody chose one."""

    @property
    def profiles(self) -> Mapping[str, Profile]:
        """The presets and what the configuration file made of them."""

    @property
    def base_url(self) -> str | None:
        """The address given for this command alone."""

    @property
    def api(self) -> Api:
        """The wire protocol to speak there, or with a profile's server; auto is its own."""

    @property
    def api_key_env(self) -> str | None:
        """The environment variable with the key for that address."""


def resolve_model(spec: str | None, config: ModelSettings, env: Environment) -> Selection:
    """Say which model ``-m SPEC`` means here.

    Args:
        spec: what ``-m`` was given; None means the model in force.
        config: the configuration.
        env: gives relative paths their meaning.

    Raises:
        UsageError: the profile is not known, or the model or file is not named.
    """
    chosen = spec or config.model
    if config.base_url is not None:
        return _at_address(chosen, config, config.base_url)
    if chosen is None or chosen == LOCAL:
        return Selection(LOCAL)
    if chosen.startswith(f"{LOCAL}:"):
        return _gguf_file(chosen.removeprefix(f"{LOCAL}:"), env)
    if chosen.startswith(f"{SCRIPTED}:"):
        return Selection(chosen, script=chosen.removeprefix(f"{SCRIPTED}:"))
    return _from_profile(chosen, config)


def nearest(word: str, known: Iterable[str]) -> str | None:
    """Return the known word that ``word`` was probably meant to be."""
    return next(iter(difflib.get_close_matches(word, list(known), n=1)), None)


def checked_url(url: str) -> str:
    """Return ``url`` if it is the address of a server.

    Raises:
        UsageError: it has no scheme, another one than http or https, no host, or no such port.
    """
    try:
        parts = urlsplit(url)
        sound = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:  # a bracket that does not close, a port that is no number or too large
        sound = False
    if sound:
        return url
    told = _PASSWORD.sub("//", url)
    raise UsageError(f"'{told}' is not the address of a server.", "Write http://HOST:PORT/v1.")


def _at_address(model: str | None, config: ModelSettings, base_url: str) -> Selection:
    if model is None:
        raise UsageError(
            "--base-url needs the server's own name of the model.",
            "Add -m NAME.",
        )
    if "@" in urlsplit(checked_url(base_url)).netloc:
        raise UsageError(
            "An address can't have a password here: it would be kept with every reply.",
            "Keep it in the configuration: llmctl config set profiles.NAME.base_url URL.",
        )
    plain = Profile(name="", base_url="", api=config.api)
    profile = replace(
        PRESETS["llamacpp"] if config.api is Api.LLAMACPP else plain,
        name=urlsplit(base_url).netloc,
        base_url=base_url,
        api=config.api,
        api_key_env=config.api_key_env,
        requires_key=config.api_key_env is not None,
        billed=not is_on_this_machine(base_url),
    )
    return Selection(model, profile)


def _gguf_file(path: str, env: Environment) -> Selection:
    if not path:
        raise UsageError("local: needs a GGUF file.", "Write -m local:PATH.gguf.")
    file = env.resolve(path)
    return Selection(file.stem, path=file)


def _from_profile(chosen: str, config: ModelSettings) -> Selection:
    name, _, model = chosen.partition("/")
    profile = config.profiles.get(name)
    if profile is None:
        hint = _did_you_mean(name, config.profiles)
        raise UsageError(f"No back end is called '{name}'.", hint)
    if config.api is not Api.AUTO:
        profile = replace(profile, api=config.api)
    model = model or profile.model or ""
    if not model:
        raise UsageError(f"'{chosen}' names no model.", f"Write -m {name}/MODEL.")
    return Selection(model, profile)


def _did_you_mean(name: str, profiles: Mapping[str, Profile]) -> str:
    close = nearest(name, [*profiles, LOCAL])
    if close is not None:
        return f"Did you mean '{close}'?"
    return "Known are local, " + ", ".join(profiles) + "; or give --base-url with -m."


def is_on_this_machine(base_url: str) -> bool:
    """Say whether an address is this machine's own (nobody bills for that)."""
    host = urlsplit(base_url).hostname or ""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
