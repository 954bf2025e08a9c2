"""The deep proxy behind ``.set``: it records a way into a value and one operation at its end.

``pod.set["a"]["b"].append(1)`` becomes one call, ``apply(operation)``, with an operation that knows how to
do itself on a root that can be keyed. The proxy knows nothing else of the store behind it, so that the
store decides what is read, locked and written around the operation.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

__all__ = ["DeepProxy", "Operation"]


class Step(NamedTuple):
    """One step into a value: an item or an attribute."""

    is_item: bool
    name: Any

    def take(self, target: Any) -> Any:
        return target[self.name] if self.is_item else getattr(target, self.name)

    def __str__(self) -> str:
        return f"[{self.name!r}]" if self.is_item else f".{self.name}"


class Operation(NamedTuple):
    """What is to be done at the end of some steps: ``act(target, *arguments)``."""

    steps: tuple[Step, ...]
    act: Callable[..., Any]
    arguments: tuple[Any, ...]

    def without_iterators(self) -> Operation:
        """The same, done as often as need be and without running anybody's generator meanwhile: what a method or
        a slice would read to its end is read now."""
        if self.act is operator.setitem and not isinstance(self.arguments[0], slice):
            return self
        return self._replace(arguments=_read(self.arguments))

    def perform(self, root: Any) -> Any:
        """Do it, beginning at ``root``; what the act returns."""
        target = root
        for step in self.steps:
            target = step.take(target)
        return self.act(target, *self.arguments)


class Done(NamedTuple):
    """What an augmented assignment leaves for Python to assign: it was assigned already."""

    steps: tuple[Step, ...]


def _read(value: Any) -> Any:
    if isinstance(value, tuple):
        return tuple(map(_read, value)) if type(value) is tuple else value
    if type(value) is dict:
        return {name: _read(item) for name, item in value.items()}
    return list(value) if isinstance(value, Iterator) else value


def _call(target: Any, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
    return target(*arguments, **keywords)


def _augment(target: Any, step: Step, change: Callable[[Any, Any], Any], operand: Any) -> None:
    """``target[name] change= operand`` as one act."""
    result = change(step.take(target), operand)
    if step.is_item:
        target[step.name] = result
    else:
        setattr(target, step.name, result)


def _augmented(name: str) -> Callable[[DeepProxy, Any], Any]:
    change = getattr(operator, name)

    def method(self: DeepProxy, operand: Any) -> Any:
        steps = self._steps
        if steps:
            self._apply(Operation(steps[:-1], _augment, (steps[-1], change, operand)))
        else:
            self._apply(Operation((), change, (operand,)))
        return Done(steps)

    method.__name__ = name
    return method


class DeepProxy:
    """A place inside a store, to change what is there.

    Keys, indexes and slices lead further in; calling a method, assigning, ``del`` and every augmented
    assignment do something there and are saved. To read, leave ``.set`` away.
    """

    __slots__ = ("_apply", "_steps")

    # Each would otherwise be tried through __getitem__, and a loop would never end.
    __iter__ = None
    __contains__ = None

    def __init__(self, apply: Callable[[Operation], Any], steps: tuple[Step, ...] = ()) -> None:
        self._apply = apply
        self._steps = steps

    def __getitem__(self, key: Any) -> DeepProxy:
        return DeepProxy(self._apply, (*self._steps, Step(True, key)))

    def __getattr__(self, name: str) -> DeepProxy:
        if name.startswith("__"):
            raise AttributeError(name)
        return DeepProxy(self._apply, (*self._steps, Step(False, name)))

    def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        return self._apply(Operation(self._steps, _call, (arguments, keywords)))

    def __setitem__(self, key: Any, value: Any) -> None:
        if isinstance(value, Done) and value.steps == (*self._steps, Step(True, key)):
            return
        self._apply(Operation(self._steps, operator.setitem, (key, value)))

    def __delitem__(self, key: Any) -> None:
        self._apply(Operation(self._steps, operator.delitem, (key,)))

    def __repr__(self) -> str:
        where = "".join(str(step) for step in self._steps)
        return f"<DeepProxy .set{where}: changes what is there; leave .set away to read it>"

    __iadd__ = _augmented("iadd")
    __isub__ = _augmented("isub")
    __imul__ = _augmented("imul")
    __imatmul__ = _augmented("imatmul")
    __itruediv__ = _augmented("itruediv")
    __ifloordiv__ = _augmented("ifloordiv")
    __imod__ = _augmented("imod")
    __ipow__ = _augmented("ipow")
    __ilshift__ = _augmented("ilshift")
    __irshift__ = _augmented("irshift")
    __iand__ = _augmented("iand")
    __ixor__ = _augmented("ixor")
    __ior__ = _augmented("ior")
