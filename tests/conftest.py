"""What all tests share."""

from __future__ import annotations

import pytest
from hypothesis import settings

# The same examples every time, and no deadline: the machine may be busy.
settings.register_profile("house", deadline=None, derandomize=True)
settings.load_profile("house")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the long forms unless ``-m`` asks for them."""
    if "exhaustive" in config.option.markexpr:
        return
    long = [item for item in items if item.get_closest_marker("exhaustive")]
    if long:
        config.hook.pytest_deselected(items=long)
        items[:] = [item for item in items if item not in set(long)]
