# ruff: noqa: SLF001  (the modules of this package are friends)
# ruff: noqa: ANN401  (what is decorated can be anything; the overloads say what comes out)
"""Functions that run as operations.

Every decorator gives the function a fresh operation for each call. A parameter that wants
it is named ``cancel`` or ``cancelable``, or annotated ``Cancelable``; it vanishes from the
signature that others see, so that frameworks that read signatures do not ask users for it.
A caller may still pass one by keyword, and then that operation is used as it is.
"""

from __future__ import annotations

import functools
import inspect
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, Protocol, TypeVar, overload

from ._operation import Cancelable
from ._sources import ConditionSource, SignalSource, TimeoutSource
from ._stream import Limits, pull_by_pull

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
    from typing import Unpack

    from ._options import OperationOptions
    from ._sources import Notifier, Predicate
    from ._token import CancelationToken
    from ._types import Seconds

P = ParamSpec("P")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)
T = TypeVar("T")

_NAMES = ("cancel", "cancelable")


class Decorator(Protocol):
    """What the decorators here return: async functions and generators keep their type."""

    @overload
    def __call__(
        self, function: Callable[Concatenate[Cancelable, P], Awaitable[R]], /
    ) -> Callable[P, Awaitable[R]]: ...
    @overload
    def __call__(
        self, function: Callable[Concatenate[Cancelable, P], AsyncIterator[T]], /
    ) -> Callable[P, AsyncGenerator[T, None]]: ...
    @overload
    def __call__(self, function: Callable[P, R], /) -> Callable[P, R]: ...
    def __call__(self, function: Any, /) -> Any:
        """Decorate ``function``."""


def cancelable(
    timeout: Seconds | None = None,
    *,
    token: CancelationToken | None = None,
    **options: Unpack[OperationOptions],
) -> Decorator:
    """Run each call as an operation, optionally with a limit and under a token.

    Args:
        timeout: Seconds for each call; 0 is no time at all.
        token: Cancels every call that runs.
        options: Those of :class:`Cancelable`; the name is the function's by default.

    Example:
        >>> import anyio
        >>> @cancelable(timeout=5)
        ... async def fetch(cancel: Cancelable, url: str) -> str:
        ...     return f"{url} by {cancel.name}"
        >>> anyio.run(fetch, "/a")
        '/a by fetch'
    """

    def make(default_name: str) -> Cancelable:
        return Cancelable(
            sources=() if timeout is None else (TimeoutSource(timeout),),
            linked_to=() if token is None else (token,),
            **_named(options, default_name),
        )

    return _decorator(make)


def cancelable_with_token(
    token: CancelationToken, **options: Unpack[OperationOptions]
) -> Decorator:
    """Run each call as an operation under ``token``."""
    return cancelable(token=token, **options)


def cancelable_with_signal(
    *signals: int, keep_ignored: bool = False, **options: Unpack[OperationOptions]
) -> Decorator:
    """Run each call as an operation that ``signals`` stop."""
    source = SignalSource(*signals, keep_ignored=keep_ignored)
    return _decorator(lambda own: Cancelable(sources=(source,), **_named(options, own)))


def cancelable_with_condition(
    predicate: Predicate,
    check_interval: Seconds | None = None,
    *,
    notifier: Notifier | None = None,
    **options: Unpack[OperationOptions],
) -> Decorator:
    """Run each call as an operation that a condition stops."""
    source = ConditionSource(predicate, check_interval, notifier=notifier)
    return _decorator(lambda own: Cancelable(sources=(source,), **_named(options, own)))


def cancelable_combine(*members: Cancelable, name: str | None = None) -> Decorator:
    """Run each call as an operation that stops when any of ``members`` would.

    Members are recipes: they are never entered themselves, so that any number of calls can
    be made from them.
    """
    first, *others = members

    def make(default_name: str) -> Cancelable:
        combined = first.combine(*others)
        combined._name = name or combined.name or default_name
        return combined

    return _decorator(make)


def with_cancelable(cancel: Cancelable) -> Decorator:
    """Run the one call of a function as ``cancel``.

    Raises:
        RuntimeError: On a second call, since an operation is entered once.
    """
    return _decorator(lambda _: cancel)


def _named(options: OperationOptions, default: str) -> OperationOptions:
    return {**options, "name": options.get("name") or default}


def _decorator(make: Callable[[str], Cancelable]) -> Decorator:
    def decorate(function: Any) -> Any:
        parameter = _injected_parameter(function)
        call = _generator if inspect.isasyncgenfunction(function) else _coroutine
        if call is _coroutine and not inspect.iscoroutinefunction(function):
            raise TypeError(f"{function!r} is neither an async function nor an async generator")
        wrapper: Any = functools.wraps(function)(call(function, make, parameter))
        wrapper.__signature__ = _without(inspect.signature(function), parameter)
        return wrapper

    return decorate


def _coroutine(function: Any, make: Callable[[str], Cancelable], parameter: str | None) -> Any:
    place = _place(function, parameter)

    async def call(*args: Any, **kwargs: Any) -> Any:
        if kwargs.get(parameter or "") is not None:
            return await function(*args, **kwargs)
        async with make(function.__name__) as cancel:
            args, kwargs = _inject(args, kwargs, place, parameter, cancel)
            return await function(*args, **kwargs)

    return call


def _generator(function: Any, make: Callable[[str], Cancelable], parameter: str | None) -> Any:
    place = _place(function, parameter)

    async def call(*args: Any, **kwargs: Any) -> Any:
        if kwargs.get(parameter or "") is not None:
            async with aclosing(function(*args, **kwargs)) as items:
                async for item in items:
                    yield item
            return
        cancel = make(function.__name__)
        args, kwargs = _inject(args, kwargs, place, parameter, cancel)
        async with (
            aclosing(function(*args, **kwargs)) as source,
            aclosing(pull_by_pull(source, Limits(cancel))) as items,
        ):
            async for item in items:
                yield item

    return call


def _injected_parameter(function: Any) -> str | None:
    """The parameter that wants the operation."""
    for name, parameter in inspect.signature(function).parameters.items():
        if name in _NAMES or parameter.annotation in (Cancelable, "Cancelable"):
            return name
    return None


def _place(function: Any, parameter: str | None) -> int | None:
    """How many positional arguments stand before the parameter; None if it goes by keyword."""
    if parameter is None:
        return None
    parameters = inspect.signature(function).parameters
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return list(parameters).index(parameter) if parameters[parameter].kind in positional else None


def _inject(
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    place: int | None,
    parameter: str | None,
    cancel: Cancelable,
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if parameter is None:
        return args, kwargs
    if place is not None and place <= len(args):
        return (*args[:place], cancel, *args[place:]), kwargs
    return args, {**kwargs, parameter: cancel}


def _without(signature: inspect.Signature, parameter: str | None) -> inspect.Signature:
    kept = [each for name, each in signature.parameters.items() if name != parameter]
    return signature.replace(parameters=kept)
