"""Define the type parameters of the public classes; their defaults and bounds are in the stub.

Type checkers need the default ``Any``, which the type parameters of Python 3.10 to 3.12 do not have.
"""

from __future__ import annotations

from typing import TypeVar, Union

__all__ = ["K", "Key", "T", "T_co", "V"]

Key = Union[str, int, tuple["Key", ...]]  # noqa: UP007  (a string cannot be joined by |)

K = TypeVar("K")
V = TypeVar("V")
T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
