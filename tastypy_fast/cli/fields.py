"""Find fields of values by dotted names, and compare them with JSON."""

from __future__ import annotations

from typing import Any, NamedTuple

import click

from tastypy_fast._formats.json_text import parse_json

__all__ = ["FieldCondition", "FieldConditionType", "find_field"]


def find_field(value: Any, path: str) -> Any:
    """Return a field of a value. ``a.b`` is the field ``a.b``, or the field ``b`` in the field ``a``. Raises KeyError.

    >>> find_field({"a": {"b": 1}, "c.d": 2}, "a.b"), find_field({"a": {"b": 1}, "c.d": 2}, "c.d")
    (1, 2)
    """
    if isinstance(value, dict) and path in value:
        return value[path]
    for name in path.split("."):
        if not isinstance(value, dict) or name not in value:
            raise KeyError(path)
        value = value[name]
    return value


def is_same(one: Any, other: Any) -> bool:
    """Return whether two values of JSON are equal. A number is neither true nor false, unlike in Python.

    >>> is_same(1, 1.0), is_same(1, True), is_same([{"a": None}], [{"a": None}]), is_same("1", 1)
    (True, False, True, False)
    """
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(is_same(one[name], other[name]) for name in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(is_same, one, other))
    return bool(one == other)


class FieldCondition(NamedTuple):
    """The condition that a field of a value equals a value of JSON. A missing field equals nothing."""

    path: str
    wanted: Any

    def is_met(self, value: Any) -> bool:
        """Return whether a value meets the condition."""
        try:
            return is_same(find_field(value, self.path), self.wanted)
        except KeyError:
            return False


class FieldConditionType(click.ParamType):  # type: ignore[type-arg]  # which click 8.2 does not have
    """FIELD=VALUE, in which VALUE is JSON, or else a string.

    >>> FieldConditionType().convert("a.b=[1]", None, None), FieldConditionType().convert("c=x=y", None, None)
    (FieldCondition(path='a.b', wanted=[1]), FieldCondition(path='c', wanted='x=y'))
    """

    name = "condition"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the condition."""
        if not isinstance(value, str):
            return value
        path, equals, text = value.partition("=")
        if not path or not equals:
            self.fail(f"{value!r} is not of the form FIELD=VALUE", param, ctx)
        try:
            return FieldCondition(path, parse_json(text.encode("utf-8", "surrogateescape")))
        except ValueError:
            return FieldCondition(path, text)
