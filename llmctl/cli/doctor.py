"""``llmctl doctor``: what is wrong here and what to do about it."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from llmctl.cli.invocation import here, new_app
from llmctl.doctor import Finding, State, examine
from llmctl.environment import ExitStatus

app = new_app()


@app.command()
def doctor(
    context: typer.Context,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Write one JSON object.")] = False,
) -> int:
    """Say what is wrong here and what to do; exit 0 when usable, 1 when something is broken."""
    invocation = here(context)
    findings = list(examine(invocation.env, invocation.config))
    usable = all(finding.state is not State.FAIL for finding in findings)
    if as_json:
        facts = {"usable": usable, "checks": [finding.as_json() for finding in findings]}
        invocation.env.say(json.dumps(facts, indent=2))
    else:
        for finding in findings:
            invocation.env.say(_as_text(finding))
    return ExitStatus.OK if usable else ExitStatus.INTERNAL_ERROR


def _as_text(finding: Finding) -> str:
    line = f"{finding.state:4}  {finding.name:13}  {finding.message}"
    return f"{line}\n{'':21}{finding.advice}" if finding.advice else line
