"""Everything that can go wrong on purpose.

::

    LlmctlError                 message for people, hint, exit code
    ├── UsageError              bad input or options                          2
    ├── Refused                 the back end said no: key, model, request     3
    │   ├── ContextFull         the prompt does not fit the context           3
    │   ├── PrefixRefused       nothing goes on behind a message's beginning  3
    │   └── Denied              key, account or model: not this request alone 3
    ├── Unreachable             no connection, or no weights to load          4
    ├── ConnectTimedOut         no connection within --connect-timeout      124
    ├── Disconnected            the connection was lost in mid-reply          4
    ├── Overloaded              429 or 5xx; may be tried again                4
    ├── BelowRequire            no strategy reaches the wanted guarantee      7
    └── StrategyUnavailable     this strategy can't be used here: next rung   7

An exception that is not in this tree (and no cancelation) is a bug and ends in exit 1.
The sentence for the person is ``message``; the cause for us is ``__cause__``. The first three
are `Advised`: what a person can do about them is in ``hint``, and a type checker sees to that.
"""

from __future__ import annotations

from typing import ClassVar

from llmctl.events import Problem


class LlmctlError(Exception):
    """Base of all errors a person may see.

    Args:
        message: one sentence.
        hint: what to do about it, one sentence.
    """

    kind: ClassVar[str] = "error"
    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def as_problem(self) -> Problem:
        """Return the published form."""
        return Problem(self.kind, self.message, self.hint)


class Advised(LlmctlError):
    """Base of those that a person can do something about: a hint always says what."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message, hint)
        self.hint: str = hint


class UsageError(Advised):
    """The command line, a file or a setting can't be used as given."""

    kind = "usage"
    exit_code = 2


class Refused(Advised):
    """The back end understood and said no."""

    kind = "refused"
    exit_code = 3


class ContextFull(Refused):
    """The prompt does not fit the model's context."""

    kind = "context"


class Denied(Refused):
    """The back end refuses for a reason that other requests may meet as well.

    Args:
        message: one sentence.
        hint: what to do about it.
        always: no request will be accepted (a wrong key, an exhausted quota).
    """

    def __init__(self, message: str, hint: str, *, always: bool = False) -> None:
        super().__init__(message, hint)
        self.always = always


class PrefixRefused(Refused):
    """The model does not go on behind the beginning of its own message."""


class Unreachable(Advised):
    """Nothing answers, or what is needed to answer can't be had."""

    kind = "unreachable"
    exit_code = 4


class ConnectTimedOut(LlmctlError):
    """No connection could be made within the connect timeout."""

    kind = "timeout"
    exit_code = 124


class Disconnected(LlmctlError):
    """The connection ended before the reply did."""

    kind = "disconnected"
    exit_code = 4


class Overloaded(LlmctlError):
    """The back end can't serve right now (429, 5xx).

    Args:
        message: one sentence.
        hint: what to do about it.
        retry_after: seconds the server asked to wait; None if it did not say.
        busy: it is asked too much (429, 503), not at fault.
    """

    kind = "overloaded"
    exit_code = 4

    def __init__(
        self,
        message: str,
        hint: str | None = None,
        *,
        retry_after: float | None = None,
        busy: bool = False,
    ) -> None:
        super().__init__(message, hint)
        self.retry_after = retry_after
        self.busy = busy


class BelowRequire(LlmctlError):
    """No way to go on reaches the guarantee the user asked for."""

    kind = "below-require"
    exit_code = 7


class StrategyUnavailable(LlmctlError):
    """This strategy can't be used here, or what it claimed did not hold."""

    kind = "strategy"
    exit_code = 7


def reason(error: OSError | ValueError) -> str:
    """Return why a file can't be used, as the end of a sentence, without its name."""
    if isinstance(error, UnicodeDecodeError):
        return "it is not UTF-8 text"
    return getattr(error, "strerror", None) or str(error)
