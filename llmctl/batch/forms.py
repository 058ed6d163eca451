"""From a line of the input to a row: its id and what will be asked.

Three forms of lines are understood: those of OpenAI's batch files, our own short form, and
plain text. What the command line brings (a `Recipe`) stands behind what the row itself says.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from llmctl import strict_json
from llmctl.batch.lines import BadLine, Line
from llmctl.batch.row import MAX_TOKENS_FIELDS, Path, Row, digest_of
from llmctl.batch.words import check_fields, worded
from llmctl.conversation import Options
from llmctl.profiles import nearest
from llmctl.templates import Template

_COPIED = {"model", "temperature", "top_p", "seed", "stop"}
_SHORT = {*_COPIED, "id", "prompt", "messages", "vars", "metadata", "system", "max_tokens",
          "schema", "options"}  # fmt: skip
_NUMBERS = (
    ("temperature", (int, float), "a number"),
    ("top_p", (int, float), "a number"),
    ("seed", (int,), "a whole number"),
)
_OPENAI = {"custom_id", "method", "url", "body", "metadata"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """What the command line says about every row.

    Attributes:
        model: fills a missing ``model``; None where every row must name its own.
        override_model: it also replaces a different one.
        path: where rows of the short form and of plain text go.
        max_tokens_field: the server's name for the bound.
        system: for rows that have no system message.
        template: rendered with each row's ``vars``.
        variables: the template's, from the command line.
        attached: text that follows every prompt.
        options: for what a row does not say itself.
        markers: texts that act; they are part of what a row is.
        chat_only: there is no server, but an engine that knows chats alone.
    """

    model: str | None = None
    override_model: bool = False
    path: Path = Path.CHAT
    max_tokens_field: str = "max_tokens"
    system: str | None = None
    template: Template | None = None
    variables: Mapping[str, str] = field(default_factory=dict)
    attached: str = ""
    options: Options = field(default_factory=Options)
    markers: tuple[str, ...] = ()
    chat_only: bool = False


def row_of(line: Line, recipe: Recipe, *, is_json: bool) -> Row:
    """Return what a line asks for.

    Raises:
        BadLine: it can't be used.
    """
    if not is_json:
        data: dict[str, Any] = {"id": f"line-{line.number}", "prompt": line.text}
    else:
        data = _object(line.text)
    if "custom_id" in data or "body" in data:
        id_, path, body = _from_openai(data)
    else:
        id_, path, body = _from_short(data, line, recipe)
    body = _completed(_worded(body, path, data, recipe), path, recipe)
    digest = digest_of(path, body, recipe.markers)
    row = Row(line.number, id_, path, body, data.get("metadata"), digest)
    if recipe.chat_only and not (path is Path.CHAT and row.is_plain and _single(body)):
        raise BadLine("the embedded engine takes plain chats with one reply only")
    return row


def id_of_line(line: Line, *, is_json: bool) -> str:
    """Return the id of a line's item, whatever else the line says.

    Raises:
        BadLine: it has none.
    """
    data = _object(line.text) if is_json else {}
    name = "custom_id" if "custom_id" in data else "id"
    return _id(data.get(name, f"line-{line.number}"), name)


def _single(body: Mapping[str, Any]) -> bool:
    return (body.get("n") or 1) == 1 and not body.get("tools")


def _object(text: str) -> dict[str, Any]:
    try:
        data = strict_json.loads(text, names_once=True)
    except strict_json.NameTwice as error:
        raise BadLine(str(error)) from None
    except (ValueError, RecursionError) as error:
        raise BadLine(f"not JSON ({error})") from None
    if not isinstance(data, dict):
        raise BadLine("not a JSON object")
    return data


def _from_openai(data: Mapping[str, Any]) -> tuple[str, Path, dict[str, Any]]:
    body, url = data.get("body"), data.get("url")
    if not isinstance(body, dict):
        raise BadLine("'body' is not a JSON object")
    if str(data.get("method", "POST")).upper() != "POST":
        raise BadLine(f"unknown method {data['method']!r}")
    _check_names(data, _OPENAI)
    path = str(url).removeprefix("/").removeprefix("v1/")
    if path not in list(Path):
        raise BadLine(f"unknown url {url!r}")
    return _id(data.get("custom_id"), "custom_id"), Path(path), dict(body)


def _from_short(
    data: Mapping[str, Any], line: Line, recipe: Recipe
) -> tuple[str, Path, dict[str, Any]]:
    _check_names(data, _SHORT)
    id_ = _id(data.get("id", f"line-{line.number}"), "id")
    body = {name: data[name] for name in _COPIED & data.keys()}
    _check_numbers(body)
    body |= _max_tokens(data.get("max_tokens"), recipe)
    body |= _schema(data.get("schema"), recipe.path)
    body |= _checked(data.get("options", {}), dict, "options")
    if "messages" in data and "prompt" in data:
        raise BadLine("both 'prompt' and 'messages'")
    messages = data["messages"] if "messages" in data else [_user(_prompt(data, recipe))]
    return id_, recipe.path, {**_said(messages, data.get("system"), recipe.path), **body}


def _prompt(data: Mapping[str, Any], recipe: Recipe) -> str:
    alone = recipe.template is not None and recipe.template.asks_by_itself
    return str(_checked(data.get("prompt", "" if alone else None), str, "prompt"))


def _worded(
    body: Mapping[str, Any], path: Path, data: Mapping[str, Any], recipe: Recipe
) -> dict[str, Any]:
    """Return the body with the command line's words around the row's."""
    variables = _checked(data.get("vars", {}), dict, "vars")
    return worded(
        body,
        path,
        template=recipe.template,
        variables={**recipe.variables, **{name: str(value) for name, value in variables.items()}},
        attached=recipe.attached,
        system=None if "system" in data else recipe.system,
    )


def _said(messages: object, system: str | None, path: Path) -> dict[str, Any]:
    """Return the fields that hold what a short line says, as the path wants them."""
    listed = _checked(messages, list, "messages")
    if not listed or not all(isinstance(m, dict) and "role" in m for m in listed):
        raise BadLine("'messages' is not a list of messages")
    if system is not None and listed[0]["role"] not in {"system", "developer"}:
        listed = [{"role": "system", "content": system}, *listed]
    match path:
        case Path.CHAT:
            return {"messages": listed}
        case Path.RESPONSES:
            return {"input": listed}
        case Path.COMPLETIONS:
            if len(listed) > 1:
                raise BadLine("'completions' has no place for messages")
            return {"prompt": listed[0]["content"]}


def _completed(body: dict[str, Any], path: Path, recipe: Recipe) -> dict[str, Any]:
    """Return the body with what the command line says where the row says nothing."""
    _check_model(body.get("model"), recipe)
    options = recipe.options
    bound = {} if _bounded(body) else _max_tokens(options.max_tokens, recipe, path)
    behind = {
        "temperature": options.temperature,
        "top_p": options.top_p,
        "seed": options.seed,
        "stop": list(options.stop) or None,
        **bound,
        **_schema(options.schema, path),
        **options.extra,
    }
    chosen = {name: value for name, value in behind.items() if value is not None}
    model = recipe.model if recipe.override_model or "model" not in body else body["model"]
    completed = {**chosen, **body, "model": model}
    check_fields(completed, path)
    return completed


def _check_model(model: object, recipe: Recipe) -> None:
    if not isinstance(model, str | None):
        raise BadLine("'model' is not a text")
    if model is None and recipe.model is None:
        raise BadLine("no model (-m fills it in)")
    if model is None or recipe.model is None or recipe.override_model or model == recipe.model:
        return
    raise BadLine(f"model {model!r}, not {recipe.model!r} (--override-model)")


def _bounded(body: Mapping[str, Any]) -> bool:
    return any(name in body for name in MAX_TOKENS_FIELDS)


def _max_tokens(bound: int | None, recipe: Recipe, path: Path | None = None) -> dict[str, Any]:
    if bound is None:
        return {}
    match path or recipe.path:
        case Path.CHAT:
            return {recipe.max_tokens_field: bound}
        case Path.RESPONSES:
            return {"max_output_tokens": bound}
        case Path.COMPLETIONS:
            return {"max_tokens": bound}


def _schema(schema: Mapping[str, Any] | None, path: Path) -> dict[str, Any]:
    if schema is None:
        return {}
    named = {"name": "reply", "schema": dict(schema), "strict": True}
    if path is Path.RESPONSES:
        return {"text": {"format": {"type": "json_schema", **named}}}
    return {"response_format": {"type": "json_schema", "json_schema": named}}


def _user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def _id(value: object, name: str) -> str:
    match value:
        case str() if value:
            return value
        case int() if not isinstance(value, bool):
            return str(value)
        case None:
            raise BadLine(f"no {name!r}")
        case "":
            raise BadLine(f"{name!r} is empty")
    raise BadLine(f"{name!r} is not a text")


def _check_numbers(body: Mapping[str, Any]) -> None:
    """See that the options of a short line are of their types."""
    for name, kinds, words in _NUMBERS:
        value = body.get(name)
        if value is not None and (isinstance(value, bool) or not isinstance(value, kinds)):
            raise BadLine(f"{name!r} is not {words}")


def _check_names(data: Mapping[str, Any], known: set[str]) -> None:
    for name in data:
        if name not in known:
            close = nearest(name, known)
            raise BadLine(
                f"unknown field {name!r}" + (f", did you mean {close!r}?" if close else "")
            )


def _checked(value: Any, kind: type, name: str) -> Any:  # noqa: ANN401  (of that kind)
    if not isinstance(value, kind):
        raise BadLine(f"no '{name}'" if value is None else f"'{name}' is not a {kind.__name__}")
    return value
