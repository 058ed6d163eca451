"""Makes a test slow on purpose, to see that it does not depend on how fast it is.

With ``LLMCTL_TEST_LATE_S=2.2`` whoever waits for output learns of it 2.2 seconds late.
"""

from __future__ import annotations

import os
import time

LATE_S = float(os.environ.get("LLMCTL_TEST_LATE_S", "0"))


def be_late() -> None:
    """Wait, if the environment says so."""
    time.sleep(LATE_S)
