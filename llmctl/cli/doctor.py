"""``llmctl doctor``: what is wrong here and what to do about it."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from llmctl.cli.invocation import here, new_app
from llmctl.counts import counted
from llmctl.doctor import Finding, State, examine
from llmctl.environment import Environment, ExitStatus

app = new_app()


@app.command()
def doctor(
    context: typer.Context,
    *,
    repair: Annotated[
        bool,
        typer.Option(
            "--repair", help="Save what can be saved of a damaged store; keep the damaged file."
        ),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Write one JSON object.")] = False,
) -> int:
    """Say what is wrong here and what to do; exit 0 when usable, 1 when something is broken."""
    invocation = here(context)
    if repair:
        _repair(invocation.env)
    findings = list(examine(invocation.env, invocation.config))
    usable = all(finding.state is not State.FAIL for finding in findings)
    if as_json:
        facts = {"usable": usable, "checks": [finding.as_json() for finding in findings]}
        invocation.env.say(json.dumps(facts, indent=2))
    else:
        for finding in findings:
            invocation.env.say(_as_text(finding))
    return ExitStatus.OK if usable else ExitStatus.INTERNAL_ERROR


def _repair(env: Environment) -> None:
    from llmctl.records import DATABASE  # noqa: PLC0415  (start-up)
    from llmctl.store_repair import repair, trouble  # noqa: PLC0415

    path = env.data / DATABASE
    if trouble(path) is None:
        env.note("The store is not damaged.")
        return
    done = repair(path)
    env.note(
        f"saved {counted(done.messages, 'message')}"
        f" of {counted(done.conversations, 'conversation')};"
        f" the damaged file is {done.aside}"
    )


def _as_text(finding: Finding) -> str:
    line = f"{finding.state:4}  {finding.name:13}  {finding.message}"
    return f"{line}\n{'':21}{finding.advice}" if finding.advice else line
