from typing import Any, Union

from typing_extensions import TypeVar

__all__ = ["K", "Key", "T", "T_co", "V"]

Key = Union[str, int, tuple["Key", ...]]  # noqa: UP007

K = TypeVar("K", bound=Key, default=Any)
V = TypeVar("V", default=Any)
T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
