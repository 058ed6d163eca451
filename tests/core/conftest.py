"""Every async test runs on each event loop, in virtual time."""

from __future__ import annotations

from typing import Any

import pytest

from cancelable_core.testing import virtual_backend


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    return virtual_backend(request.param)
