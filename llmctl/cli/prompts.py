"""``llmctl prompts``: which templates there are and what they say."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from llmctl.cli.invocation import here, new_app, show_text
from llmctl.templates import Template, all_templates, load_template

app = new_app(no_args_is_help=True, help="List and show templates.")

AsJson = Annotated[bool, typer.Option("--json", help="Write JSON.")]


@app.command("list")
def list_(context: typer.Context, *, as_json: AsJson = False) -> None:
    """List the templates: the user's own and the installed ones."""
    env = here(context).env
    templates, problems = all_templates(env)
    for problem in problems:
        env.note(f"llmctl: {problem.message}")
    if as_json:
        env.say(json.dumps([_facts(template) for template in templates], indent=2))
        return
    width = max((len(template.name) for template in templates), default=0)
    for template in templates:
        show_text(env, f"{template.name:{width}}  {template.description}".rstrip() + "\n")
    env.note(f"Your own are *.md files in {env.user_templates}.")


@app.command()
def show(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="The template's name.")],
    *,
    as_json: AsJson = False,
) -> None:
    """Show a template as its file has it."""
    env = here(context).env
    template = load_template(name, env)
    if as_json:
        env.say(json.dumps(_facts(template), indent=2))
    else:
        show_text(env, template.path.read_text("utf-8").rstrip("\n") + "\n")


def _facts(template: Template) -> dict[str, Any]:
    return {
        "name": template.name,
        "description": template.description,
        "file": str(template.path),
        "role": template.role,
        "version": template.version,
        "variables": {name: template.defaults.get(name) for name in template.variables},
        "options": dict(template.options),
        "markers": {text: str(action) for text, action in template.markers.items()},
    }
