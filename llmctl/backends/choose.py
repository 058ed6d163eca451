"""Make the back end that a selection stands for; the adapters are imported only here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from types import MappingProxyType
from typing import Any

from llmctl.capabilities import LLAMA_SERVER, Capabilities, Memory
from llmctl.environment import Environment, private_dir
from llmctl.errors import LlmctlError, Unreachable
from llmctl.events import Guarantee, Strategy
from llmctl.images import Images
from llmctl.ports import BackEnd, Stream
from llmctl.profiles import Api, Profile, Selection


async def fetch(selection: Selection, env: Environment) -> None:
    """Fetch what the selected model needs and this machine has not: the default weights.

    Raises:
        Unreachable: they can't be had.
    """
    if selection.is_local and selection.path is None:
        from llmctl import weights  # noqa: PLC0415  (other back ends need none)

        await weights.obtain(env)


def back_end_for(  # noqa: PLR0913  (where it runs, and what it may do there)
    selection: Selection,
    *,
    env: Environment,
    connect_timeout: float | None,
    key_for: Callable[[Profile], str | None],
    stored: bool,
    images: Images | None = None,
    ends_runs: bool = False,
) -> BackEnd:
    """Return what generates the selected model's replies; nothing is started yet.

    What it needs must be here (`fetch`).

    Args:
        selection: the model.
        env: where this machine keeps weights and engine state.
        connect_timeout: seconds in which a connection must be made; None for no limit.
        key_for: finds a server's key; not called for what needs none.
        stored: engine state and what is learnt of servers may be written to disk.
        images: those that messages may name; None are those of ``env``.
        ends_runs: a server that goes on by itself is told to stop when a reply is left.

    Raises:
        LlmctlError: a key, a file or the engine is missing.
    """
    if selection.script is not None:
        from llmctl.backends.scripted import ScriptedBackEnd, load_script  # noqa: PLC0415

        return ScriptedBackEnd(load_script(selection.script, folder=env.cwd))
    if selection.profile is not None:
        memory = Memory.of(env, writes=stored)
        known = {"key": key_for(selection.profile), "connect_timeout_s": connect_timeout}
        return _server(
            selection.profile,
            selection.model,
            memory,
            images=images or Images.of(env),
            ends_runs=ends_runs,
            **known,
        )
    from llmctl import weights  # noqa: PLC0415  (start-up)
    from llmctl.backends.embedded import Embedded  # noqa: PLC0415

    path = selection.path
    model = weights.default(env) if path is None else weights.given(path)
    return Embedded(model, home=private_dir(env.data / "engine") if stored else None)


def _server(
    profile: Profile,
    model: str,
    memory: Memory,
    *,
    images: Images,
    ends_runs: bool,
    **known: Any,  # noqa: ANN401  (key and connect timeout, as all take them)
) -> BackEnd:
    """Return what speaks the profile's protocol."""
    if profile.api in {Api.COMPLETIONS, Api.RESPONSES}:
        found = memory.recall(profile.base_url, model, profile.api)
        profile = profile if found is None else found.applied_to(profile)
    match profile.api:
        case Api.COMPLETIONS:
            from llmctl.backends.completions import CompletionsBackEnd  # noqa: PLC0415

            return CompletionsBackEnd(profile, **known)
        case Api.LLAMACPP | Api.AUTO if _is_native(profile, memory.recall(profile.base_url, model)):
            from llmctl.backends.llamacpp import LlamaServer  # noqa: PLC0415  (one is needed)

            return LlamaServer(profile, **known)
        case Api.RESPONSES:
            from llmctl.backends.responses import ResponsesBackEnd  # noqa: PLC0415

            return ResponsesBackEnd(profile, ends_runs=ends_runs, images=images, **known)
    from llmctl.backends.learning import LearningBackEnd  # noqa: PLC0415

    return LearningBackEnd(profile, model, memory, images=images, **known)


def _is_native(profile: Profile, known: Capabilities | None) -> bool:
    """Say whether to speak llama-server's own protocol: if told to, or to one that was probed."""
    probed = known is not None and known.server.kind == LLAMA_SERVER
    return profile.api is Api.LLAMACPP or probed


class Unavailable:
    """A back end that can't be had.

    Args:
        error: why; None if nothing needs to be generated any more.
    """

    name = "none"
    api = "none"
    accepts_seed = False
    pays_twice = False
    supports: Mapping[Strategy, Guarantee] = MappingProxyType({})

    def __init__(self, error: LlmctlError | None = None) -> None:
        self._error = error

    async def ready(self) -> None:
        """Say why it can't be had.

        Raises:
            LlmctlError: always, if there is a reason.
        """
        if self._error is not None:
            raise self._error

    def open(self, *_: Any, **__: Any) -> AbstractAsyncContextManager[Stream]:  # noqa: ANN401
        """Never come here: `ready` has said no."""
        raise Unreachable("There is no back end.", "Name one with -m.") from self._error

    def discard(self, conditions: Mapping[str, Any]) -> None:
        """Nothing is kept."""

    async def aclose(self) -> None:
        """Nothing is open."""
