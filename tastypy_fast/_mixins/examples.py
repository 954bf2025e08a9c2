"""Give the methods and properties that a shared class inherits from a mixin their own examples."""

from __future__ import annotations

import types
from typing import Any, TypeVar

__all__ = ["show_own_examples"]

C = TypeVar("C", bound=type[Any])

PRIVATE = ("PersistentOrderedDict", "ProgressTracker")


def show_own_examples(cls: C) -> C:
    """Copy each method or property whose example makes a private store, and change the example to a shared store.

    Only the docstring differs. Both kinds share the mixins, and ``help()`` of each kind shows its own use.
    """
    for name in dir(cls):
        member = next(vars(base)[name] for base in cls.__mro__ if name in vars(base))
        function = member.__func__ if isinstance(member, classmethod) else member
        if isinstance(member, property):
            function = member.fget
        text = getattr(function, "__doc__", None)
        if not isinstance(function, types.FunctionType) or not text or name.startswith("__"):
            continue
        own = text
        for private in PRIVATE:
            own = own.replace(f" {private}", f" Shared{private}").replace(f"({private}(", f"(Shared{private}(")
        if own != text and name not in vars(cls):
            copy = types.FunctionType(function.__code__, function.__globals__, name, function.__defaults__,
                                      function.__closure__)
            copy.__kwdefaults__ = function.__kwdefaults__
            copy.__annotations__ = function.__annotations__
            copy.__qualname__ = f"{cls.__qualname__}.{name}"
            copy.__doc__ = own
            if isinstance(member, property):
                setattr(cls, name, property(copy, member.fset, member.fdel))
            else:
                setattr(cls, name, classmethod(copy) if isinstance(member, classmethod) else copy)
    return cls
