"""``llmctl top``: what runs now."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from llmctl.cli.invocation import here, new_app

app = new_app()


@app.command()
def top(
    context: typer.Context,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Write one JSON object.")] = False,
) -> int:
    """Show the replies and batches that run on this machine now.

    On a terminal the table is kept up to date until Ctrl-C; elsewhere it is written once.
    """
    from llmctl.records import Records  # noqa: PLC0415  (start-up)
    from llmctl.top import Table, Watch, running  # noqa: PLC0415

    invocation = here(context)
    env = invocation.env
    with Records(env.data) as records:
        if as_json:
            tasks = [task.as_json() for task in running(records, env)]
            env.say(json.dumps({"running": tasks}, indent=2, ensure_ascii=False))
            return 0
        plain = invocation.config().plain or env.variable("TERM") == "dumb"
        if env.is_a_tty(env.stdout) and not plain:
            return Watch(records, env).run()
        for line in Table().lines(running(records, env), env.now()):
            env.say(line)
    return 0
