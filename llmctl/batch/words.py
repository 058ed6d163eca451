"""What the command line adds to a row's own words: a template, files, a system message.

All three forms of lines are treated alike. A template and files go around the *prompt*: the text of
the last message, if that is the user's. A system message is added where a row has none.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llmctl.batch.lines import BadLine
from llmctl.batch.row import MAX_TOKENS_FIELDS, Path
from llmctl.errors import UsageError
from llmctl.templates import Rendered, Template

_FIELD = {Path.CHAT: "messages", Path.RESPONSES: "input", Path.COMPLETIONS: "prompt"}


def worded(  # noqa: PLR0913  (each is an option of the command line)
    body: Mapping[str, Any],
    path: Path,
    *,
    template: Template | None,
    variables: Mapping[str, str],
    attached: str,
    system: str | None,
) -> dict[str, Any]:
    """Return a body whose words are complete.

    Args:
        body: as the row has it.
        path: where it goes.
        template: what the prompt is put into.
        variables: the template's.
        attached: text that follows the prompt.
        system: for a row without a system message; the template's goes before.

    Raises:
        BadLine: there is no place for what is to be added.
    """
    name = _FIELD[path]
    own = _prompt(body.get(name))
    prompt = (own or "") + attached
    if template is not None:
        filled = _filled(template, variables, prompt)
        prompt, system = filled.prompt, filled.system or system
    said = body
    if prompt != (own or ""):
        if own is None:
            raise BadLine("the last message is no text of the user's, as -t and --attach need")
        said = {**body, name: _with_prompt(body[name], prompt)}
    return dict(said) if system is None else _with_system(said, path, system)


def check_fields(body: Mapping[str, Any], path: Path) -> None:
    """See that a body has what is asked, and that what is read here is of its type.

    The rest is the server's to judge.

    Raises:
        BadLine: it is not so.
    """
    match path, body.get(_FIELD[path]):
        case Path.CHAT, [_, *_] as messages if all(map(_is_message, messages)):
            pass
        case Path.CHAT, words:
            raise BadLine("'messages' is not a list of messages" if words else "no messages")
        case Path.COMPLETIONS, None:
            raise BadLine("no prompt")
    for name in (*MAX_TOKENS_FIELDS, "n"):
        if body.get(name) is not None and not _is_count(body[name]):
            raise BadLine(f"{name!r} is not a number of at least 1")
    if not _is_stop(body.get("stop")):
        raise BadLine("'stop' is not a text or a list of texts")


def _is_message(message: object) -> bool:
    return isinstance(message, dict) and "role" in message


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _is_stop(value: object) -> bool:
    texts = value if isinstance(value, list) else [value]
    return value is None or all(isinstance(text, str) for text in texts)


def _filled(template: Template, variables: Mapping[str, str], prompt: str) -> Rendered:
    try:
        return template.render(variables, prompt)
    except UsageError as error:
        raise BadLine(error.message.rstrip(".")) from None


def _prompt(words: object) -> str | None:
    """Return the text of the last message, if it is the user's and nothing but text."""
    match words:
        case str():
            return words
        case [*_, {"role": "user", "content": str(text)}]:
            return text
    return None


def _with_prompt(words: Any, prompt: str) -> Any:  # noqa: ANN401  (a text or messages)
    return prompt if isinstance(words, str) else [*words[:-1], {**words[-1], "content": prompt}]


def _with_system(body: Mapping[str, Any], path: Path, system: str) -> dict[str, Any]:
    words = body.get(_FIELD[path])
    match path:
        case Path.COMPLETIONS:
            raise BadLine("'completions' has no place for a system message")
        case Path.RESPONSES if isinstance(words, str) or "instructions" in body:
            return {"instructions": system, **body}
    if not isinstance(words, list) or not words or _is_system(words[0]):
        return dict(body)
    return {**body, _FIELD[path]: [{"role": "system", "content": system}, *words]}


def _is_system(message: object) -> bool:
    return isinstance(message, dict) and message.get("role") in {"system", "developer"}
