"""How the shared classes do what the private ones do: on a view of the store.

A shared store has two views, which are instances of the private class. One reads what is committed, a snapshot
for each operation; the other one works inside of the write transaction. Methods of the private class become those
of the shared one by saying which view they need.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

from tastypy_fast._shared.handles import IN_MEMORY, LiveIterator
from tastypy_fast._shared.write_transaction import OPERATION, SAVEPOINT, WriteTransaction

__all__ = ["Viewed", "iterates", "reads", "reads_whole", "view_type", "writes", "writes_many"]

P = ParamSpec("P")
T = TypeVar("T")

# What the texts of the private methods say of what they hand out.
WATCHED = re.compile(r"[,;] watched as by keying[^.]*")


def view_type(private: type[Any]) -> type[Any]:
    """The class of the views of a shared store: ``private``, on a cache that is there already."""

    def attach(self: Any, store: Any, cache: Any, max_tries: int) -> None:
        self._store = store
        self._attach(cache, IN_MEMORY, max_tries)

    return type(f"{private.__name__}View", (private,), {"__init__": attach, "__doc__": private.__doc__})


class Viewed(Protocol):
    """What a shared store has for these functions."""

    def _view(self) -> Any:
        """What is to be read: the transaction's view in the thread that has it, else what is committed."""

    def _begin(self) -> tuple[WriteTransaction, Any]:
        """The transaction, about to be entered by this instance, and its view."""


def _described(wrapper: Callable[..., Any], method: Callable[..., Any], note: str) -> None:
    functools.update_wrapper(wrapper, method)
    # The example shows the private class; what it does is the same. But nothing that is read here is watched.
    text = WATCHED.sub("", (method.__doc__ or "").partition(">>>")[0].rstrip())
    wrapper.__doc__ = f"{text}\n\n        {note}\n        "


def reads(method: Callable[Concatenate[Any, P], T]) -> Callable[Concatenate[Any, P], T]:
    """A method that only reads: a snapshot, no lock, a copy."""

    def reading(self: Viewed, /, *arguments: P.args, **keywords: P.kwargs) -> T:
        return method(self._view(), *arguments, **keywords)

    _described(reading, method, "Reads what is committed, without waiting for anybody; what it returns is a copy.")
    return reading


def reads_whole(method: Callable[Concatenate[Any, P], T]) -> Callable[Concatenate[Any, P], T]:
    """A method that reads many keys: all of them from one snapshot."""

    def reading(self: Viewed, /, *arguments: P.args, **keywords: P.kwargs) -> T:
        view = self._view()
        with view._one_step:
            return method(view, *arguments, **keywords)

    _described(reading, method, "All of it is from one moment, however much is written meanwhile.")
    return reading


def writes(method: Callable[Concatenate[Any, P], T]) -> Callable[Concatenate[Any, P], T]:
    """A method that changes one key: one transaction."""

    def writing(self: Viewed, /, *arguments: P.args, **keywords: P.kwargs) -> T:
        transaction, view = self._begin()
        result: T = transaction.perform(OPERATION, method, view, *arguments, **keywords)
        return result

    _described(writing, method, "One transaction: atomic, and visible to every process when it returns.")
    return writing


def writes_many(method: Callable[Concatenate[Any, P], T]) -> Callable[Concatenate[Any, P], T]:
    """A method that changes many keys: one transaction, and when it raises nothing of it is kept."""

    def writing(self: Viewed, /, *arguments: P.args, **keywords: P.kwargs) -> T:
        transaction, view = self._begin()
        result: T = transaction.perform(SAVEPOINT, method, view, *arguments, **keywords)
        return result

    _described(writing, method, "One transaction: visible to every process when it returns; nothing if it raises.")
    return writing


def iterates(method: Callable[Concatenate[Any, P], Iterator[T]]) -> Callable[Concatenate[Any, P], Iterator[T]]:
    """A method that returns an iterator: it goes on with the other view where a block begins or ends."""

    def iterating(self: Any, /, *arguments: P.args, **keywords: P.kwargs) -> Iterator[T]:
        return LiveIterator(self, lambda view: method(view, *arguments, **keywords))

    _described(iterating, method, "No transaction stays open between two steps. What is handed out is a copy.")
    return iterating
