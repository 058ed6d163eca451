"""The model a chat talks to now, and what generates its replies."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import anyio
from anyio.abc import TaskGroup

from llmctl.backends.choose import fetch
from llmctl.chat.reply import Holding
from llmctl.chat.setup import Setup
from llmctl.config import Config
from llmctl.environment import Environment
from llmctl.errors import LlmctlError
from llmctl.events import Strategy
from llmctl.ports import BackEnd
from llmctl.profiles import Selection
from llmctl.targets import selection_of

WARM_UP_AFTER_S = 0.1
"""Seconds until the engine or the client is loaded, so that the prompt is there by then."""

AFTER_NO_CUT = {Strategy.CURSOR, Strategy.INSTRUCT}
"""Ways that don't count where a pause may become a cut: the run is over, the person is asked."""


class Models:
    """Holds the back end of the selected model; another one when that is changed.

    Args:
        setup: says which model is selected.
        config: the settings in force.
        env: the process.
        make: returns what generates a selected model's replies.
    """

    def __init__(
        self,
        setup: Setup,
        config: Config,
        env: Environment,
        make: Callable[[Selection], BackEnd],
    ) -> None:
        self._setup = setup
        self._config = config
        self._env = env
        self._make = make
        self._back_end: BackEnd | None = make(setup.selection)
        self._tasks: TaskGroup | None = None

    @property
    def back_end(self) -> BackEnd:
        """What generates replies now.

        Raises:
            LlmctlError: the model can't be used.
        """
        if self._back_end is None:
            self._back_end = self._make(self._setup.selection)
        return self._back_end

    @property
    def holding(self) -> Holding:
        """How pauses are held with this model."""
        require, supports = self._config.require, self.back_end.supports
        ways = [g for way, g in supports.items() if way not in AFTER_NO_CUT]
        return Holding(
            on_pause=self._config.on_pause,
            billed=self._setup.selection.billed,
            can_go_on=any(guarantee.at_least(require) for guarantee in ways),
            engine_stands_still=not self._setup.selection.profile,
        )

    def start(self, tasks: TaskGroup) -> None:
        """Load what is in use while the person types, now and whenever it is changed."""
        self._tasks = tasks
        tasks.start_soon(self._warm_up)

    async def follow(self, target: Mapping[str, Any]) -> None:
        """Talk to the model that a reply came from, as its journal kept it.

        Raises:
            LlmctlError: it can't be used; the one before stays.
        """
        selection = selection_of(target, self._config, self._env)
        if selection != self._setup.selection:
            await self.use(selection)

    async def use(self, selection: Selection) -> None:
        """Talk to another model from now on.

        Raises:
            LlmctlError: it can't be used; the one before stays.
        """
        await fetch(selection, self._env)
        back_end = self._make(selection)
        await self.close()
        self._back_end, self._setup.selection = back_end, selection
        if self._tasks is not None:
            self._tasks.start_soon(self._warm_up)

    async def close(self) -> None:
        """Let go of what is in use; it is made anew when it is needed."""
        if self._back_end is not None:
            with anyio.CancelScope(shield=True):
                await self._back_end.aclose()
            self._back_end = None

    async def _warm_up(self) -> None:
        """Load the engine or the client; the prompt comes first."""
        await anyio.sleep(WARM_UP_AFTER_S)
        try:
            await self.back_end.ready()
        except LlmctlError:
            return  # said when a reply is asked for, which tries again
