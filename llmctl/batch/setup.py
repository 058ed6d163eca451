"""From a job to the things that run it: recipe, endpoints, rules."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import anyio

from llmctl.backends.choose import back_end_for, fetch
from llmctl.backends.rows import RowServer
from llmctl.batch.attempt import Manner
from llmctl.batch.buckets import Bucket
from llmctl.batch.endpoint import Endpoint, Fleet, OnEngine, OnServer
from llmctl.batch.forms import Recipe
from llmctl.batch.job import Job
from llmctl.batch.limiter import Auto, Fixed, Limiter
from llmctl.batch.row import Path
from llmctl.batch.rules import Rules
from llmctl.capabilities import Memory
from llmctl.clocks import Limits
from llmctl.config import Config
from llmctl.environment import Environment
from llmctl.errors import Overloaded
from llmctl.profiles import Api, Profile, Selection, resolve_model
from llmctl.resume.ladder import rungs
from llmctl.templates import load_template
from llmctl.tracing import Tracing

KeyFor = Callable[[Profile], str | None]

_PATHS = {Api.COMPLETIONS: Path.COMPLETIONS, Api.RESPONSES: Path.RESPONSES}
_ANY_MODEL = "*"


def selections_of(job: Job, config: Config, env: Environment) -> list[Selection]:
    """Return where the job's rows are asked: one place, or several servers.

    Raises:
        UsageError: a back end is not known.
    """
    if not job.base_urls:
        return [resolve_model(None, config, env)]
    named = config if config.model else replace(config, model=_ANY_MODEL)
    return [resolve_model(None, replace(named, base_url=url), env) for url in job.base_urls]


def recipe_of(job: Job, selection: Selection, config: Config, env: Environment) -> Recipe:
    """Return what the job says about every row.

    Raises:
        UsageError: there is no such template.
    """
    template = None if job.template is None else load_template(job.template, env)
    profile = selection.profile
    return Recipe(
        model=None if selection.model == _ANY_MODEL else selection.model,
        override_model=job.override_model,
        path=_PATHS.get(config.api, Path.CHAT),
        max_tokens_field="max_tokens" if profile is None else profile.max_tokens_field,
        system=config.system_under(job.system),
        template=template,
        variables=job.variables,
        attached=job.attached,
        options=job.options,
        markers=tuple(f"{text}={action}" for text, action in sorted(job.markers.items())),
        chat_only=profile is None,
    )


def rules_of(job: Job, config: Config, env: Environment, tracing: Tracing) -> Rules:
    """Return what the run may do; budgets are this shard's part."""
    limits = Limits(
        config.first_token_timeout, config.idle_timeout, job.item_timeout_s or config.timeout
    )
    instruction = load_template("continuation", env).body
    return Rules(
        manner=Manner(rungs(instruction), config.require, limits, job.markers, tracing),
        retries=job.retries,
        restart=job.restart,
        canary=job.canary,
        wait_ready_s=job.wait_ready_s,
        deadline_s=job.deadline_s,
        grace_s=job.grace_s,
        max_requests=job.share_of_count(job.max_requests),
        max_output_tokens=job.share_of_count(job.max_output_tokens),
        max_cost=job.share(job.max_cost),
        max_failures=job.share_of_count(job.max_failures),
        max_share=job.max_share,
    )


async def fleet_of(  # noqa: PLR0913  (what a run is made of)
    job: Job,
    selections: list[Selection],
    *,
    config: Config,
    env: Environment,
    key_for: KeyFor,
    arrived: Callable[[int], None],
    clock: Callable[[], float],
    limiter_for: Callable[[int], Limiter] | None = None,
) -> Fleet:
    """Return the endpoints, nothing of them started yet.

    Args:
        job: how many requests at a time, and at what rates.
        selections: where rows are asked.
        config: the configuration.
        env: where weights are.
        key_for: finds a server's key.
        arrived: told how many tokens arrive.
        clock: seconds that only grow.
        limiter_for: gives the limiter of an endpoint by its place; None: as the job says.

    Raises:
        LlmctlError: a key, a file or the engine is missing.
    """
    fleet = Fleet()
    for number, selection in enumerate(selections):
        selection = _as_known(selection, env)  # noqa: PLW2901  (what was found out about it)
        limiter = limiter_for(number) if limiter_for else _limiter(job, selection, len(selections))
        if selection.profile is not None:
            server = RowServer(
                selection.profile,
                key=key_for(selection.profile),
                connect_timeout_s=config.connect_timeout,
                hears=Ear(limiter, arrived, clock),
            )
            name, seeds = selection.profile.name, selection.profile.accepts_seed
            fleet.endpoints.append(Endpoint(name, OnServer(server), limiter, accepts_seed=seeds))
            continue
        await fetch(selection, env)
        shared = back_end_for(
            selection,
            env=env,
            connect_timeout=config.connect_timeout,
            key_for=key_for,
            stored=True,
        )
        fleet.endpoints.append(
            Endpoint(
                shared.name,
                OnEngine(shared),
                limiter,
                accepts_seed=shared.accepts_seed,
                counts_chunks=True,
            )
        )
    return fleet


def _as_known(selection: Selection, env: Environment) -> Selection:
    """Return a selection with what a probe has found out about its server."""
    profile = selection.profile
    if profile is None:
        return selection
    known = Memory.of(env, writes=False).recall(profile.base_url, selection.model)
    return selection if known is None else replace(selection, profile=known.applied_to(profile))


@dataclass(frozen=True, slots=True)
class Ear:
    """Lets the limiter hear what a server's answers say and bring."""

    limiter: Limiter
    arrived: Callable[[int], None]
    clock: Callable[[], float]

    async def gate(self) -> None:
        """Hold back what was begun before the server asked to wait."""
        while (seconds := self.limiter.blocked_s(self.clock())) > 0:  # noqa: ASYNC110  (a time)
            await anyio.sleep(seconds)

    def headers(self, headers: Mapping[str, str]) -> None:
        """Read what remains."""
        self.limiter.headers(headers, self.clock())

    def refused(self, error: Overloaded) -> None:
        """Wait as long as the server says, whoever's turn it is."""
        self.limiter.refused(error.retry_after, self.clock())

    def units(self, units: int) -> None:
        """Count what has come."""
        self.arrived(units)
        self.limiter.units(units, self.clock())

    def corrected(self, units: int) -> None:
        """Count what the server says had come besides."""
        self.arrived(units)
        self.limiter.corrected(units)


def _limiter(job: Job, selection: Selection, endpoints: int) -> Limiter:
    """Return an endpoint's limiter: the job's rates, divided by shards and endpoints."""
    rpm, tpm = job.share(job.rpm), job.share(job.tpm)
    if selection.is_local:
        concurrency: Fixed | Auto = Fixed(1)
    else:
        concurrency = Auto() if job.concurrency is None else Fixed(-(-job.concurrency // endpoints))
    return Limiter(
        concurrency,
        requests=None if rpm is None else Bucket(rpm / endpoints),
        tokens=None if tpm is None else Bucket(tpm / endpoints),
    )
