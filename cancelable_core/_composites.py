"""Sources made of sources. Pure state on top of their members' own ``attach``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anyio

from ._closing import close_all
from ._types import CancelationReason, Cause, Closable

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable

    from ._sources import CancelationSource, SourceHost
    from ._token import CancelationToken


class AnyOfSource:
    """Cancels when any member would; the reason is that member's."""

    __slots__ = ("sources",)

    def __init__(self, *sources: CancelationSource) -> None:
        """Combine ``sources``.

        Raises:
            ValueError: If there are none.
        """
        self.sources = _at_least_one(sources)

    def attach(self, host: SourceHost) -> Closable:
        """Attach every member to the operation."""
        return _Attached.all_of((source, host) for source in self.sources)


class AllOfSource:
    """Cancels when every member would have; the reason is that of the last one."""

    __slots__ = ("sources",)

    def __init__(self, *sources: CancelationSource) -> None:
        """Combine ``sources``.

        Raises:
            ValueError: If there are none.
        """
        self.sources = _at_least_one(sources)

    def attach(self, host: SourceHost) -> Closable:
        """Attach every member to a part of its own."""
        missing: dict[object, None] = {}
        parts = [_Part(host, missing) for _ in self.sources]
        missing.update(dict.fromkeys(parts))
        return _Attached.all_of(zip(self.sources, parts, strict=True))


def _at_least_one(sources: tuple[CancelationSource, ...]) -> tuple[CancelationSource, ...]:
    if not sources:
        msg = "a composite source needs at least one member"
        raise ValueError(msg)
    return sources


class _Attached:
    """The live parts of a composite; closed last to first."""

    __slots__ = ("_parts",)

    def __init__(self) -> None:
        self._parts: list[Closable] = []

    @classmethod
    def all_of(cls, pairs: Iterable[tuple[CancelationSource, SourceHost]]) -> _Attached:
        attached = cls()
        try:
            for source, host in pairs:
                if (part := source.attach(host)) is not None:
                    attached._parts.append(part)
        except BaseException:
            attached.close()
            raise
        return attached

    def close(self) -> None:
        close_all(self._parts)


class _Part:
    """One member of an ``AllOfSource``: fires into a list of who is still missing."""

    __slots__ = ("_host", "_missing")

    def __init__(self, host: SourceHost, missing: dict[object, None]) -> None:
        self._host = host
        self._missing = missing

    def fire(self, cause: Cause) -> None:
        if self._missing.pop(self, _FIRED) is not _FIRED and not self._missing:
            self._host.fire(cause)

    def limit(self, seconds: float) -> None:
        async def expire() -> None:
            await anyio.sleep(max(0, seconds))
            message = f"after {seconds:g} s"
            self.fire(Cause(reason=CancelationReason.TIMEOUT, message=message))

        self._host.run(expire)

    def follow(self, token: CancelationToken) -> Closable:
        return token.register(self.fire)

    def run(self, watcher: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self._host.run(watcher)


_FIRED = object()
