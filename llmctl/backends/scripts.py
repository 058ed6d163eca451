"""The built-in scripts: what ``-m scripted:NAME`` plays."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from llmctl.backends.script import Script, script_from_text

_READING_S = 0.03
"""A word's delay at the pace of a fast reader."""

_DEMO = """\
# A reply you can stop

This text comes from a script, so nothing is computed and nothing is billed. Press Space \
while it streams: it stops at once, and what you have read is safe on disk. Press Space \
again and it goes on with the very next word.

Three things worth trying:

1. Pause, wait as long as you like, resume.
2. Pause, close the terminal, and run `llmctl resume` in another one.
3. Kill the program with `kill -9` in mid-sentence, and resume all the same.

```python
def fibonacci(n: int) -> int:
    a, b = 0, 1
    for _ in range(n):
        a, b = b, a + b
    return a
```

Whatever happens to the connection, the process or the machine: no word of the reply is \
lost, none is repeated, and none is invented.
"""

_MARKERS = """\
First I look at the plan. It has three steps, and the second one deletes files, so I stop \
here and let you look at it. !!PAUSE Thank you. The first two steps are done, and the third \
needs a decision that is yours to take. Shall I keep the old copies? !!ASK I will keep them \
until you say otherwise. That was the last step. !!STOP Nothing behind the stop is shown.
"""

_LONG_TOKENS = 20_000


def _demo() -> Script:
    return script_from_text("demo", _DEMO, delay_s=_READING_S)


def _markers() -> Script:
    return script_from_text("markers", _MARKERS, delay_s=_READING_S)


def _long() -> Script:
    """Return numbered words: whatever is lost or repeated shows."""
    return script_from_text("long", " ".join(map(str, range(1, _LONG_TOKENS + 1))))


BUILT_IN: Mapping[str, Callable[[], Script]] = {"demo": _demo, "markers": _markers, "long": _long}
