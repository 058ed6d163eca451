"""What all tests share."""

from __future__ import annotations

import signal

import pytest
from hypothesis import settings

# Started in the background or by nohup, we were told to ignore these, and so would be every
# program that a test starts: they are about what the signals do.
for _number in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGTSTP):
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(
            _number, signal.default_int_handler if _number == signal.SIGINT else signal.SIG_DFL
        )

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
