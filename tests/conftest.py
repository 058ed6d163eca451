"""What all tests share."""

from __future__ import annotations

from hypothesis import settings

# The same examples every time, and no deadline: the machine may be busy.
settings.register_profile("house", deadline=None, derandomize=True)
settings.load_profile("house")
