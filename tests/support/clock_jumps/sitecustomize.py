"""A wall clock that jumps, for every Python that starts with this folder on its path.

Half the looks at it find it moved, by up to a day to and fro; ``LLMCTL_TEST_CLOCK`` seeds it.
`clock_jumps.environment` sets both up. Monotonic clocks and the times of files stay true, as
they do when somebody sets a machine's clock.
"""

import os
import random
import time

DAY_S = 86_400.0
_true = time.time
_chance = random.Random(os.environ.get("LLMCTL_TEST_CLOCK"))  # noqa: S311  (repeatable)
_off = 0.0


def _jumping() -> float:
    global _off  # noqa: PLW0603  (the clock of the process)
    if _chance.random() < 0.5:
        _off = _chance.uniform(-DAY_S, DAY_S)
    return _true() + _off


time.time = _jumping
