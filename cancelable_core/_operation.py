# ruff: noqa: SLF001  (the modules of this package are friends)
"""``Cancelable``: a block that can be stopped, and knows why it was.

An operation is a token (it can be cancelled, checked, waited for, linked) with a cancel
scope around a body. The scope does the stopping, so that structured concurrency holds: what
the operation asked for ends at the operation, what somebody else asked for passes through.

    PENDING ── enter ──▶ RUNNING ──┬─ body returned ───────────────────────▶ COMPLETED
                                   ├─ own scope stopped it, by a deadline ──▶ TIMEOUT
                                   ├─ own scope, or an outer one ───────────▶ CANCELLED
                                   └─ body raised ──────────────────────────▶ FAILED

``_state.py`` is what an operation is, ``_control.py`` how it is stopped, this file how it is
made, run, and ended.
"""

from __future__ import annotations

import time
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, assert_never

import anyio

from ._control import ControlledOperation
from ._errors import CancelationError, described, error_for, is_cancelation, is_remade
from ._hooks import Hooks, call_all, call_final
from ._host import Host
from ._loops import is_in_loop, running_loop
from ._sources import ConditionSource, SignalSource, TimeoutSource
from ._token import CancelationToken
from ._types import (
    CancelationReason,
    OperationStatus,
    Seconds,
    WhenCancelled,
    to_seconds,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Awaitable, Callable, Iterable, Mapping
    from types import TracebackType
    from typing import ParamSpec, Self, TypeVar, Unpack

    from ._hooks import ContextCallback, ErrorCallback, ProgressCallback
    from ._options import LinkedOptions, OperationOptions
    from ._pause import PauseToken
    from ._ports import Registry
    from ._shield import Shield
    from ._sources import CancelationSource, Notifier, Predicate
    from ._stream import CancelableStream

    P = ParamSpec("P")
    R = TypeVar("R")
    T = TypeVar("T")

_current: ContextVar[Cancelable | None] = ContextVar("cancelable_operation", default=None)
_ENDINGS: tuple[WhenCancelled, ...] = ("raise", "absorb", "propagate")


def current_operation() -> Cancelable | None:
    """The innermost operation that runs around the caller, in a worker thread too."""
    operation = _current.get()
    while operation is not None and operation.status is not OperationStatus.RUNNING:
        operation = operation._enclosing
    return operation


class Cancelable(ControlledOperation):
    """An async block with any number of reasons to stop.

    ``cancel()``, ``check()``, ``is_cancelled``, ``extend()`` and ``register()`` may be called
    from any thread and from signal handlers. An instance is entered once.

    Example:
        >>> import anyio
        >>> async def main():
        ...     async with Cancelable.with_timeout(0, when_cancelled="absorb") as cancel:
        ...         await anyio.sleep_forever()
        ...     return cancel.context.status
        >>> anyio.run(main)
        <OperationStatus.TIMEOUT: 'timeout'>
    """

    __slots__ = ("_hooks", "_host", "_registry", "_sources", "_stop_pausing", "_when")

    def __init__(  # noqa: PLR0913  (options, all by keyword)
        self,
        operation_id: str | None = None,
        name: str | None = None,
        *,
        parent: Cancelable | None = None,
        linked_to: tuple[CancelationToken, ...] = (),
        sources: tuple[CancelationSource, ...] = (),
        metadata: Mapping[str, Any] | None = None,
        pause_token: PauseToken | None = None,
        register_globally: bool = False,
        registry: Registry | None = None,
        when_cancelled: WhenCancelled = "raise",
    ) -> None:
        """Describe an operation; nothing runs until it is entered.

        Args:
            operation_id: Unique id; one is made when None.
            name: What people call it.
            parent: An operation that this one ends with, in whatever task it runs.
            linked_to: Tokens that cancel this operation, and that it cannot cancel.
            sources: What else can cancel it.
            metadata: Anything worth showing to who watches.
            pause_token: While it is paused, this operation's own time limit stands still.
            register_globally: List it in the process's registry while it runs.
            registry: List it in this registry while it runs.
            when_cancelled: How the block ends when its own cancelation stopped it: ``"raise"``
                a typed error, ``"absorb"`` it and go on behind the block, or ``"propagate"``
                the event loop's own cancelled exception, for code that is being ported.

        Raises:
            ValueError: If ``when_cancelled`` is none of the three.
        """
        if when_cancelled not in _ENDINGS:
            msg = f"when_cancelled must be one of {', '.join(_ENDINGS)}, not {when_cancelled!r}"
            raise ValueError(msg)
        super().__init__(operation_id, name, parent, linked_to, metadata, pause_token)
        self._sources = sources
        self._registry = _default_registry() if register_globally and not registry else registry
        self._when: WhenCancelled = when_cancelled
        self._hooks: Hooks | None = None
        self._host: Host | None = None
        self._stop_pausing: Callable[[], None] | None = None

    @property
    def when_cancelled(self) -> WhenCancelled:
        """How its block ends when its own cancelation stopped it."""
        return self._when

    # -- recipes ---------------------------------------------------------------------

    @classmethod
    def with_timeout(cls, timeout: Seconds, **options: Unpack[LinkedOptions]) -> Self:
        """Stop after ``timeout`` seconds (or a ``timedelta``); 0 stops at once.

        ``options`` are those of the constructor, here and below.
        """
        return cls(sources=(TimeoutSource(timeout),), **options)

    @classmethod
    def with_token(cls, token: CancelationToken, **options: Unpack[OperationOptions]) -> Self:
        """Stop when ``token`` is cancelled."""
        return cls(linked_to=(token,), **options)

    @classmethod
    def with_signal(
        cls, *signals: int, keep_ignored: bool = False, **options: Unpack[LinkedOptions]
    ) -> Self:
        """Stop when the process receives one of ``signals``; see :class:`SignalSource`."""
        return cls(sources=(SignalSource(*signals, keep_ignored=keep_ignored),), **options)

    @classmethod
    def with_condition(
        cls,
        predicate: Predicate,
        check_interval: Seconds | None = None,
        *,
        condition_name: str | None = None,
        notifier: Notifier | None = None,
        in_thread: bool = False,
        **options: Unpack[LinkedOptions],
    ) -> Self:
        """Stop when ``predicate`` becomes true; see :class:`ConditionSource`."""
        source = ConditionSource(
            predicate, check_interval, name=condition_name, notifier=notifier, in_thread=in_thread
        )
        return cls(sources=(source,), **options)

    def add_source(self, source: CancelationSource) -> Self:
        """Also stop for ``source``. Returns this operation.

        Raises:
            RuntimeError: If it was entered already.
        """
        self._require_pending("given sources")
        self._sources += (source,)
        return self

    def combine(self, *others: Cancelable) -> Cancelable:
        """A new operation that stops when this one or any of ``others`` would.

        It has their sources and callbacks, follows them when they are cancelled, and takes
        its name and its other options from this one. They stay as they were.

        Raises:
            RuntimeError: If one of them was entered already.
        """
        members = (self, *others)
        for member in members:
            member._require_pending("combined")
        combined = Cancelable(
            name=self._name,
            linked_to=members,
            sources=tuple(source for member in members for source in member._sources),
            metadata={k: v for member in members for k, v in member.metadata.items()} or None,
            pause_token=_first(member._pause_token for member in members),
            registry=_first(member._registry for member in members),
            when_cancelled=self._when,
        )
        combined._parent = _first(member._parent for member in members)
        for member in members:
            if member._hooks is not None:
                combined._hooks_to_change().absorb(member._hooks)
        return combined

    # -- inside the block --------------------------------------------------------------

    def stream(
        self,
        source: AsyncIterable[T],
        *,
        report_interval: int | None = None,
        buffer_partial: bool | int = False,
    ) -> CancelableStream[T]:
        """Iterate ``source`` under this operation; see :func:`cancelable_stream`."""
        from ._stream import CancelableStream  # noqa: PLC0415  (streams build on operations)

        return CancelableStream(
            source, self, report_interval=report_interval, buffer_partial=buffer_partial
        )

    def shield(self, limit: Seconds | None = None) -> Shield:
        """A block inside this one that no cancelation interrupts.

        Args:
            limit: Seconds after which the shield is lifted.

        Example:
            >>> async def save(cancel, write):
            ...     async with cancel.shield(limit=5):
            ...         await write()
        """
        from ._shield import Shield  # noqa: PLC0415  (start-up does not pay for it)

        return Shield(None if limit is None else to_seconds(limit))

    def wrap(self, function: Callable[P, Awaitable[R]]) -> Callable[P, Awaitable[R]]:
        """``function``, checking for a cancelation before each call."""

        async def checked(*args: P.args, **kwargs: P.kwargs) -> R:
            self.check()
            return await function(*args, **kwargs)

        return checked

    # -- callbacks and progress --------------------------------------------------------

    def on_start(self, callback: ContextCallback) -> Self:
        """Call ``callback(context)`` on entry."""
        self._hooks_to_change().start.append(callback)
        return self

    def on_progress(self, callback: ProgressCallback) -> Self:
        """Call ``callback(id, message, metadata)`` at each report."""
        self._hooks_to_change().progress.append(callback)
        return self

    def on_complete(self, callback: ContextCallback) -> Self:
        """Call ``callback(context)`` when the body has come to its end."""
        self._hooks_to_change().complete.append(callback)
        return self

    def on_cancel(self, callback: ContextCallback) -> Self:
        """Call ``callback(context)`` when a cancelation has stopped the body."""
        self._hooks_to_change().cancel.append(callback)
        return self

    def on_error(self, callback: ErrorCallback) -> Self:
        """Call ``callback(context, error)`` when the body has raised."""
        self._hooks_to_change().error.append(callback)
        return self

    async def report_progress(
        self, message: str, metadata: Mapping[str, Any] | None = None
    ) -> None:
        """Tell whoever listens how far it got. A checkpoint."""
        self._progress = message
        if self._registry is not None:
            self._registry.progressed(self)
        if self._hooks is not None:
            await call_all(self._hooks.progress, self.id, message, metadata or {})
        await anyio.lowlevel.checkpoint()

    def _hooks_to_change(self) -> Hooks:
        if self._hooks is None:
            self._hooks = Hooks()
        return self._hooks

    # -- the block ---------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        """Start: sources first, then the body's scope.

        Raises:
            RuntimeError: If it was entered before.
        """
        self._require_pending("entered")
        self._loop = running_loop()
        self._status = OperationStatus.RUNNING
        try:
            if self._sources:
                await self._start_sources()
            self._report_start()
            self._open()
        except BaseException as error:
            self._error = described(error)
            if self._is_open:
                self._leave_scope(error)
            await self._end(OperationStatus.FAILED)
            raise
        if self._hooks is not None:
            await self._start_hooks(self._hooks)
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> bool | None:
        """End: the scope first, then everything that was attached to it.

        Raises:
            CancelationError: If its own cancelation stopped the body, in mode ``"raise"``.
            ExceptionGroup: If callbacks raised, and nobody else's cancelation passes through.
        """
        failed = None if self._streams is None else await self._close_streams()
        stopped = failed is not None and not isinstance(failed, Exception)
        caught, raised = self._leave_scope(failed if stopped else exc or failed)
        status = OperationStatus.FAILED
        try:
            status = self._conclude(raised, caught=caught)
        finally:
            try:
                await self._end(status)
            finally:
                if self._hooks is not None:
                    await self._end_hooks(self._hooks, raised)
        if not (caught or raised is None or isinstance(raised, Exception)):
            self._failures.clear()  # somebody else's cancelation is not replaced
        try:
            return self._deliver(exc, raised, caught=caught)
        finally:
            self._raise_failures()

    async def _start_sources(self) -> None:
        host = Host(self)
        host.attach(self._sources)
        if not host.is_idle:
            self._host = host
            await host.start_watchers()

    def _report_start(self) -> None:
        self._enclosing = current_operation()
        self._began = self._loop.time()
        self._started_at = time.time()
        if self._registry is not None:
            self._registry.started(self)

    def _open(self) -> None:
        if self._parent is not None:
            self._parent._adopt(self)
        self._scope = anyio.CancelScope(deadline=self.deadline)
        self._scope.__enter__()
        self._is_open = True
        _current.set(self)
        if self._pause_token is not None:
            self._stop_pausing = self._pause_token.on_change(self._rearm)
        self._listen()
        if self._pause_token is not None or self.cause is not None:
            self._arm()

    async def _end(self, status: OperationStatus) -> None:
        host = self._host
        try:
            self._close(status)
        finally:
            if host is not None:
                await host.stop_watchers()

    def _close(self, status: OperationStatus) -> None:
        """Detach from everything. Synchronous, so that no cancelation can cut it short."""
        self._took = self._duration()
        self._status = status
        if self._failures and self._error is None:
            self._error = described(self._failures[0])
        if _current.get() is self:
            _current.set(self._enclosing)
        if self._parent is not None:
            self._parent._disown(self)
        if self._stop_pausing is not None:
            self._stop_pausing()
        host, self._host = self._host, None
        try:
            if host is not None:
                host.detach()
        finally:
            self._unlisten()
            if self._registry is not None and self._started_at is not None:
                self._registry.ended(self)

    async def _start_hooks(self, hooks: Hooks) -> None:
        try:
            await call_all(hooks.start, self.context)
        except BaseException as error:
            if await self.__aexit__(type(error), error, error.__traceback__):
                # Absorbed; but a body that must not run cannot be skipped from here.
                raise error_for(self._causes[0], self.label) from error
            raise

    async def _end_hooks(self, hooks: Hooks, raised: BaseException | None) -> None:
        match self._status:
            case OperationStatus.COMPLETED:
                await call_final(hooks.complete, self.context)
            case OperationStatus.FAILED:
                await call_final(hooks.error, self.context, raised)
            case _:
                await call_final(hooks.cancel, self.context)

    # -- how it ends -------------------------------------------------------------------

    def _leave_scope(self, exc: BaseException | None) -> tuple[bool, BaseException | None]:
        """Leave the scope: whether it stopped the body, and what is still being raised."""
        try:
            kind, tb = (None, None) if exc is None else (type(exc), exc.__traceback__)
            caught = bool(self._scope.__exit__(kind, exc, tb))
        except BaseException as other:  # noqa: BLE001  (a group's rest, or a misnested scope)
            is_dropped = isinstance(exc, GeneratorExit) and not is_in_loop()
            return False, exc if is_dropped or is_remade(exc, other) else other
        return caught, exc

    def _conclude(self, raised: BaseException | None, *, caught: bool) -> OperationStatus:
        if raised is not None and not caught and is_cancelation(raised):
            self._latch(self._outer_cause())  # it came before a deadline that passed meanwhile
            return OperationStatus.CANCELLED
        cause = self.cause  # settles a deadline that passed, whatever the body made of it
        if raised is None:
            return OperationStatus.COMPLETED
        if caught and cause is None:  # extended by a thread, but the scope's timer was faster
            cause = self._time_out()
        if caught and cause is not None and cause.error is not None:
            self._error = described(cause.error)
            return OperationStatus.FAILED
        if caught or self._is_own(raised):
            timed_out = cause is not None and cause.reason is CancelationReason.TIMEOUT
            return OperationStatus.TIMEOUT if timed_out else OperationStatus.CANCELLED
        self._error = described(raised)
        return OperationStatus.FAILED

    def _deliver(
        self, exc: BaseException | None, raised: BaseException | None, *, caught: bool
    ) -> bool:
        if raised is None:
            return False
        if not caught:
            if raised is not exc:
                raise raised
            return self._when == "absorb" and self._is_own(raised)
        cause = self._causes[0]
        if cause.error is not None:
            raise cause.error
        match self._when:
            case "raise":
                raise error_for(cause, self.label) from raised
            case "absorb":
                return True
            case "propagate" if raised is not exc:
                raise raised
            case "propagate":
                return False
            case _:  # pragma: no cover
                assert_never(self._when)

    def _is_own(self, raised: BaseException) -> bool:
        """Whether the body raised what ``check()`` gave it."""
        if not isinstance(raised, CancelationError) or not self._causes:
            return False
        return any(cause is self._causes[0] for cause in raised.cause.chain())


def _first(values: Iterable[T | None]) -> T | None:
    return next((value for value in values if value is not None), None)


def _default_registry() -> Registry:
    from ._registry import default_registry  # noqa: PLC0415  (loaded only when it is used)

    return default_registry()
