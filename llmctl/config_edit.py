"""Change one setting in a configuration file's text; comments and order stay.

Apart from `llmctl.config`, because only ``config set`` needs the library that can do it.
"""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any

import tomlkit
from tomlkit.exceptions import ParseError, TOMLKitError

from llmctl.errors import UsageError


def with_setting(text: str, key: str, value: str) -> list[str]:
    """Return the texts in which ``key`` is ``value``, the likelier reading first.

    A value that reads as TOML may be meant so (``0.2``, ``true``) or as the string it is
    (``model = "7"``); the setting's own type decides, which the caller knows.

    Args:
        text: the file as it is; it must be TOML.
        key: a setting, or ``profiles.NAME.SETTING``.
        value: what to set it to, as typed.

    Raises:
        UsageError: the key does not name a place in the file.
    """
    return [_replaced(text, key.split("."), reading) for reading in _readings(value)]


def _readings(value: str) -> list[Any]:
    try:
        return [tomlkit.value(value), value]
    except ParseError:
        return [value]


def _replaced(text: str, path: list[str], value: object) -> str:
    document = tomlkit.parse(text)
    table: MutableMapping[str, Any] = document
    try:
        for name in path[:-1]:
            if name not in table:
                is_parent = table is document and len(path) > 2  # noqa: PLR2004  (profiles.X.Y)
                table.update({name: tomlkit.table(is_super_table=is_parent)})
            table = table[name]
        table[path[-1]] = value
    except (TOMLKitError, TypeError, AttributeError) as error:
        hint = "Write SETTING, or profiles.NAME.SETTING."
        raise UsageError(f"'{'.'.join(path)}' is no place for a setting.", hint) from error
    return tomlkit.dumps(document)
