"""A batch as its user describes it: what the command line says, as plain values."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from llmctl.batch.lines import Shard
from llmctl.batch.results import check_output
from llmctl.conversation import Options
from llmctl.errors import UsageError
from llmctl.events import Action
from llmctl.prices import Prices, is_price

LOCAL, RAY = "local", "ray"
"""The engines."""
PLACE = "{shard}"
GRACE_S = 20.0
"""Seconds that what runs has after SIGTERM, unless told otherwise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What to run. Durations are in seconds; None means no limit, unless said otherwise.

    Attributes:
        input: the file of requests.
        output: where complete items go; has ``{shard}`` in it if the job is sharded.
        state: the state folder; None puts it beside the output.
        base_urls: servers that share the work; none means the configured back end.
        override_model: the model chosen replaces another one in a row.
        system: for rows without a system message.
        template: a template's name.
        variables: its variables.
        attached: text that follows every prompt.
        options: for what rows don't say themselves.
        markers: texts of the model that act; ``stop`` completes, others are noted.
        concurrency: requests at a time; None finds out.
        item_timeout_s: for one item, its retries included, in this run.
        deadline_s: for the run.
        retries: further tries of an item that failed.
        rpm: requests a minute, of the whole job.
        tpm: tokens a minute, of the whole job.
        prices: what tokens cost.
        max_cost: dollars the run may cost.
        max_output_tokens: tokens that may arrive.
        max_requests: requests the run may send.
        max_failures: failed items that end the run.
        max_share: the same as a share; None for no limit.
        canary: items that end before the rest start.
        wait_ready_s: how long an endpoint may be gone; None is 0 before it has answered,
            60 after.
        grace_s: after SIGTERM, until what runs is cut.
        restart: begin an item anew that can't be gone on with (else it fails).
        retry_failed: also try again what was refused.
        accept_changed: changed lines are new work, removed ones forgotten.
        shard: which part of the input is meant.
        engine: ``local``: this process makes all attempts; ``ray``: actors of Ray do.
    """

    input: Path
    output: Path
    state: Path | None = None
    base_urls: tuple[str, ...] = ()
    override_model: bool = False
    system: str | None = None
    template: str | None = None
    variables: Mapping[str, str] = field(default_factory=dict)
    attached: str = ""
    options: Options = field(default_factory=Options)
    markers: Mapping[str, Action] = field(default_factory=dict)
    concurrency: int | None = None
    item_timeout_s: float | None = None
    deadline_s: float | None = None
    retries: int = 5
    rpm: float | None = None
    tpm: float | None = None
    prices: Prices | None = None
    max_cost: float | None = None
    max_output_tokens: int | None = None
    max_requests: int | None = None
    max_failures: int | None = None
    max_share: float | None = 0.2
    canary: int = 1
    wait_ready_s: float | None = None
    grace_s: float = GRACE_S
    restart: bool = True
    retry_failed: bool = False
    accept_changed: bool = False
    shard: Shard = Shard()  # noqa: RUF009  (immutable)
    engine: str = LOCAL

    def check(self) -> None:
        """See that what was asked fits together, and that OUTPUT can be one.

        Raises:
            UsageError: it does not, or a number is none that can be meant.
        """
        self._check_numbers()
        check_output(self.results)
        if self.input.exists() and self.results.exists() and self.input.samefile(self.results):
            raise UsageError(f"{self.input} is both INPUT and OUTPUT.", "Choose another OUTPUT.")
        if self.variables and self.template is None:
            raise UsageError("-V needs a template.", "Add -t NAME.")
        if self.shard.count > 1 and PLACE not in self.output.name:
            raise UsageError(
                "A sharded job needs {shard} in OUTPUT's name.", "Write -o 'out-{shard}.jsonl'."
            )
        if self.max_cost is not None and self.prices is None:
            raise UsageError(
                "--max-cost needs to know what tokens cost.",
                "Add --price INPUT,OUTPUT in dollars a million tokens.",
            )

    def _check_numbers(self) -> None:
        numbers = {"--rpm": self.rpm, "--tpm": self.tpm, "--max-cost": self.max_cost}
        for option, number in numbers.items():
            if number is not None and not 0 < number < math.inf:
                hint = f"Leave {option} out for no limit."
                raise UsageError(f"{option} takes a number above 0, not {number:g}.", hint)
        prices = self.prices
        if prices is not None and not (is_price(prices.prompt) and is_price(prices.completion)):
            raise UsageError(
                f"{prices.prompt:g} and {prices.completion:g} are no prices.",
                "Give dollars a million tokens, 0 or more.",
            )

    @property
    def results(self) -> Path:
        """Where this shard's complete items go."""
        return self.output.parent / self.output.name.replace(PLACE, str(self.shard.index))

    def share(self, whole: float | None) -> float | None:
        """Return this shard's part of something that is the whole job's."""
        return None if whole is None else whole / self.shard.count

    def share_of_count(self, whole: int | None) -> int | None:
        """Return this shard's part of a number of things; the parts add up to the whole."""
        if whole is None:
            return None
        each, over = divmod(whole, self.shard.count)
        return each + (self.shard.index < over)
