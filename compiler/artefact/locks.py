"""The locks of loading and running: no signal handler, finaliser or fork waits for one for ever.

A signal handler or a finaliser can run in the middle of a load or a run, in the same thread, and
call any function of this package. It must not wait for a context that is in use: whoever uses it
may be this very thread, or wait for what this thread holds. So a context's lock is never waited for
by a thread that holds `loading`, or, while it is in use, by one that holds another context's.
"""

from __future__ import annotations

import itertools
import os
import threading
import weakref
from collections.abc import Callable
from contextlib import AbstractContextManager
from types import TracebackType

loading = threading.RLock()
"""Held while code is loaded or unloaded. A fork takes it first: the system's loader has locks of
its own, which no thread of the child would give back."""


_is_loading: Callable[[], bool] = loading._is_owned  # type: ignore[attr-defined]
"""Whether this thread holds it, as threading.Condition asks a lock."""


class WouldWait(Exception):
    """A context is in use, and this thread must not wait for it."""


class ContextLock:
    """The right to use a model's context: one thread at a time, and never twice within one.

    The holder sets `held` while it uses the context. It is a flag beside the lock, which a thread
    can take twice: a plain lock would leave a window between taking it and noting by whom. Nobody
    may use a context that is no longer `is_open`.
    """

    __slots__ = ("__weakref__", "held", "is_open", "lock")

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.held = False
        self.is_open = True
        _all[next(_numbers)] = self

    def turn(self) -> AbstractContextManager[object]:
        """Give what holds the lock in a with statement; entering it may raise WouldWait."""
        if _is_loading() or (self.held and _interrupts()):
            return _WithoutWaiting(self)
        return self.lock  # written in C: no signal can come between taking it and the statement


class _WithoutWaiting:
    def __init__(self, context: ContextLock) -> None:
        self.context = context

    def __enter__(self) -> None:
        if not self.context.lock.acquire(blocking=False):
            raise WouldWait
        if self.context.held:  # by this thread
            self.context.lock.release()
            raise WouldWait

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.context.lock.release()


_all: weakref.WeakValueDictionary[int, ContextLock] = weakref.WeakValueDictionary()
_numbers = itertools.count()


def _interrupts() -> bool:
    """True if this thread is in the middle of a run of any model."""
    contexts = (reference() for reference in _all.valuerefs())
    return any(context is not None and _is_owned(context.lock) for context in contexts)


def _is_owned(lock: threading.RLock) -> bool:
    owned: bool = lock._is_owned()  # type: ignore[attr-defined]  # as threading.Condition asks
    return owned


def _renew() -> None:
    """In the child of a fork: a thread that held a lock in the parent is not here."""
    loading.release()
    for reference in _all.valuerefs():
        context = reference()
        if context is not None and not _is_owned(context.lock):
            context.lock = threading.RLock()
            context.held = False


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=loading.acquire, after_in_parent=loading.release, after_in_child=_renew
    )
