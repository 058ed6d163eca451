"""A document for a JSON schema, and whether a text is one: the grammar that a server enforces.

Only what the tests' schemas use: objects (all properties required, no others), arrays, strings
with or without ``enum``, whole numbers and booleans.
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from typing import Any

__all__ = ["instance", "satisfies"]

_WORDS = ("pause", "a 猫", 'say "ab"', "🚀", "back\\slash", "x\ny", "{", "}]")


def instance(schema: Mapping[str, Any], seed: str) -> str:
    """Return the text of a document; the same seed gives the same one."""
    draw = random.Random(seed)  # noqa: S311  (it only has to repeat)
    return json.dumps(_value(schema, draw), ensure_ascii=False)


def _value(schema: Mapping[str, Any], draw: random.Random) -> Any:
    match schema:
        case {"enum": list(choices)}:
            return draw.choice(choices)
        case {"type": "object", "properties": dict(properties)}:
            return {name: _value(inner, draw) for name, inner in properties.items()}
        case {"type": "array", "items": dict(inner)}:
            return [_value(inner, draw) for _ in range(draw.randint(1, 3))]
        case {"type": "string"}:
            return draw.choice(_WORDS)
        case {"type": "integer"}:
            return draw.randint(-99, 999)
        case {"type": "boolean"}:
            return draw.random() < 0.5
    raise AssertionError(f"not a schema of the tests: {schema}")


def satisfies(text: str, schema: Mapping[str, Any]) -> bool:
    """Tell whether a whole text is a document of the schema."""
    try:
        return _fits(json.loads(text), schema)
    except ValueError:
        return False


def _fits(value: object, schema: Mapping[str, Any]) -> bool:
    match schema:
        case {"enum": list(choices)}:
            return value in choices
        case {"type": "object", "properties": dict(properties)}:
            whole = isinstance(value, dict) and value.keys() == properties.keys()
            return whole and all(_fits(value[name], inner) for name, inner in properties.items())  # type: ignore[index]
        case {"type": "array", "items": dict(inner)}:
            return isinstance(value, list) and all(_fits(each, inner) for each in value)
    kinds = {"string": str, "integer": int, "boolean": bool}
    return type(value) is kinds[schema["type"]]
