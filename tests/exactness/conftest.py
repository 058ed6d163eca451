"""What the tests of exactness share."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.exactness.laboratory import Laboratory
from tests.support.engine import weights_or_skip


@pytest.fixture(scope="session")
def weights() -> Path:
    """Return the weights, fetched if need be; skip where there can be no engine."""
    return weights_or_skip()


@pytest.fixture(scope="session")
def laboratory(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Laboratory:  # noqa: ARG001
    """Return what all tests share; a reply that is resumed exactly was also repeated."""
    return Laboratory(tmp_path_factory.mktemp("exactness"), repeat=False)
