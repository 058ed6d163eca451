"""The long forms run only where they are asked for: ``pytest -m exhaustive``."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from tests.exactness.laboratory import Laboratory, obtain_weights


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what is exhaustive unless ``-m`` names it."""
    if "exhaustive" in str(config.option.markexpr):
        return
    long = [item for item in items if item.get_closest_marker("exhaustive")]
    config.hook.pytest_deselected(items=long)
    items[:] = [item for item in items if item not in long]


@pytest.fixture(scope="session")
def weights() -> Path:
    """Return the weights, fetched if need be; skip where there can be no engine."""
    if importlib.util.find_spec("xllamacpp") is None:
        pytest.skip("the embedded engine is not installed")
    try:
        return obtain_weights()
    except FileNotFoundError as error:
        pytest.skip(f"the weights can't be had: {error}")


@pytest.fixture(scope="session")
def laboratory(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Laboratory:  # noqa: ARG001
    """Return what all tests share; a reply that is resumed exactly was also repeated."""
    return Laboratory(tmp_path_factory.mktemp("exactness"), repeat=False)
