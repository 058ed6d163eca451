"""Start the program. Asking for the version takes a path of its own, before any import.

Ctrl-C never shows a traceback: a command hears it itself or ends by `KeyboardInterrupt`;
before it is loaded and after it has ended the process just ends.
"""

from __future__ import annotations

import atexit
import gc
import os
import sys

from llmctl._version import __version__

_INTERRUPTED = 130
_OBJECTS_BETWEEN_COLLECTIONS = 200_000


def main() -> None:
    """Run `llmctl` with this process's arguments and exit with its status."""
    if sys.argv[1:] == ["--version"]:
        print(f"llmctl {__version__}")  # noqa: T201  (the one line before the machinery exists)
        return
    # What modules are made of stays: looking for garbage in it is a tenth of a start.
    gc.set_threshold(_OBJECTS_BETWEEN_COLLECTIONS)
    sys.unraisablehook = _unraisable
    atexit.register(_hear_no_more)  # registered first, so called last
    _leave_on_interrupt(_INTERRUPTED)
    # Imported here for start-up's sake: Typer alone costs five times the interpreter.
    from llmctl.cli import main as run  # noqa: PLC0415

    status = _INTERRUPTED
    try:
        _raise_on_interrupt()
        status = run(sys.argv[1:])
    except KeyboardInterrupt:
        pass  # once more, while the command told of the first
    finally:
        _leave_on_interrupt(status)
    sys.exit(status)


def _leave_on_interrupt(status: int) -> None:
    import signal  # noqa: PLC0415  (start-up)

    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:  # as under nohup
        signal.signal(signal.SIGINT, lambda *_: os._exit(status))


def _hear_no_more() -> None:
    """Let no signal change the status while modules are torn down: that can't hang."""
    import signal  # noqa: PLC0415  (start-up)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)


def _raise_on_interrupt() -> None:
    import signal  # noqa: PLC0415  (start-up)

    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _unraisable(what: sys.UnraisableHookArgs) -> None:
    """End where Python would print and forget an interrupt (in a destructor, a callback)."""
    if isinstance(what.exc_value, KeyboardInterrupt):
        os._exit(_INTERRUPTED)
    sys.__unraisablehook__(what)


if __name__ == "__main__":
    main()
