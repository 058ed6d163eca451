"""When a request that did not get through is sent again, and when it is given up. Pure.

Two cases differ. A request that nothing was ever heard of may have a wrong address: it is
tried a few times within a second or two, and the person hears what is wrong. A reply that
was coming is worth more: a network that is gone for a minute, a server that is started
again, a proxy that says 502 meanwhile are waited for, less and less eagerly. Whatever the
case, a server that says when to come back (``Retry-After``) is taken at its word, and every
piece of the reply that arrives makes the patience whole again.
"""

from __future__ import annotations

from dataclasses import dataclass

from llmctl.errors import ConnectTimedOut, Disconnected, LlmctlError, Overloaded, Unreachable

LONGEST_RETRY_AFTER_S = 60.0
"""A server that wants us to wait longer is taken for unreachable."""

_PASSING = (Disconnected, Overloaded, Unreachable)
"""Faults that another try may mend."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How often, and for how long, a reply is asked for again.

    Attributes:
        delays_s: seconds before each further try; the last one before all behind it. Empty:
            there is none.
        first_tries: further tries of a request that nothing was heard of.
        in_reply_s: seconds spent waiting, in all, for a reply that was coming, or for a
            server that says when to come back.
    """

    delays_s: tuple[float, ...] = (0.5, 1.0, 2.0, 4.0, 8.0, 15.0)
    first_tries: int = 2
    in_reply_s: float = 90.0


NO_PATIENCE = Patience(delays_s=())
"""Whoever asks decides about further tries."""


class Retries:
    """Counts the faults since the reply last got on.

    Attributes:
        first: the first of them: what is to blame if there is no further try.

    Args:
        patience: how long to go on.
    """

    def __init__(self, patience: Patience) -> None:
        self.first: LlmctlError | None = None
        self._patience = patience
        self._tries = 0
        self._waited_s = 0.0

    def progress(self) -> None:
        """A piece of the reply has arrived."""
        self.first = None
        self._tries = 0
        self._waited_s = 0.0

    def after(self, fault: LlmctlError, *, coming: bool) -> float | None:
        """Return the seconds to wait before the next try; None if there is none.

        Args:
            fault: what went wrong this time.
            coming: there is something of the reply, and this process has had an answer.
        """
        self.first = self.first or fault
        asked = fault.retry_after if isinstance(fault, Overloaded) else None
        if not self._may_pass(fault, coming=coming) or (asked or 0.0) > LONGEST_RETRY_AFTER_S:
            return None
        if self._tries >= self._patience.first_tries and not coming and asked is None:
            return None
        delay_s = self._delay_s(asked)
        self._tries += 1
        self._waited_s += delay_s
        return None if self._waited_s > self._patience.in_reply_s else delay_s

    def _may_pass(self, fault: LlmctlError, *, coming: bool) -> bool:
        if not self._patience.delays_s:
            return False
        return isinstance(fault, _PASSING) or (coming and isinstance(fault, ConnectTimedOut))

    def _delay_s(self, asked: float | None) -> float:
        """Return what was asked for; from the third time on no less than our own delay."""
        delays = self._patience.delays_s
        own = delays[min(self._tries, len(delays) - 1)]
        if asked is None:
            return own
        return max(asked, own) if self._tries >= self._patience.first_tries else asked
