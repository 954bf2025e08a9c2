"""Parse values of options: times such as 5m, limits such as 5%."""

from __future__ import annotations

import contextlib
import re
from typing import Any

import click

__all__ = ["Duration", "ExecutorName", "FailureLimit", "TriesLimit"]

_NUMBER = r"(\d+(?:\.\d*)?|\.\d+)"
_DURATION = re.compile(rf"(?:{_NUMBER}d)?(?:{_NUMBER}h)?(?:{_NUMBER}m)?(?:{_NUMBER}s?)?", re.ASCII)
# A longer number may not fit into the store.
MAX_DIGITS = 18
_SECONDS = (86400.0, 3600.0, 60.0, 1.0)


class Duration(click.ParamType):  # type: ignore[type-arg]  # which click 8.2 does not have
    """A time such as 30s, 5m, 2h, 1.5d or 1h30m, as a number of seconds. A number without a unit is in seconds.

    >>> Duration().convert("1h30m", None, None)
    5400.0
    """

    name = "duration"

    def __init__(self, zero: bool = False, least: float = 0.0, most: float = float("inf")) -> None:
        self._zero = zero
        self._least = least
        self._most = most

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the number of seconds."""
        if not isinstance(value, str):
            return value
        found = _DURATION.fullmatch(value)
        seconds = 0.0
        if found:
            seconds = sum(float(number) * unit for number, unit in zip(found.groups(), _SECONDS, strict=True) if number)
        if not found or not value or not (seconds or self._zero) or seconds == float("inf"):
            self.fail(f"{value!r} is not a time such as 30s, 5m or 2h", param, ctx)
        if not self._least <= seconds <= self._most:
            self.fail(f"{value!r} is not a time from {self._least:g} to {self._most:g} seconds", param, ctx)
        return seconds


class FailureLimit(click.ParamType):  # type: ignore[type-arg]  # which click 8.2 does not have
    """A number of tasks, or a share of them such as 5%, which becomes a float between 0 and 1.

    >>> FailureLimit().convert("12", None, None), FailureLimit().convert("5%", None, None)
    (12, 0.05)
    """

    name = "failures"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return an integer, or a float between 0 and 1."""
        if not isinstance(value, str):
            return value
        limit: int | float | None = None
        with contextlib.suppress(ValueError):
            limit = float(value[:-1]) / 100 if value.endswith("%") else int(value)
        if limit is None or limit < 0 or (isinstance(limit, float) and not 0 < limit < 1):
            self.fail(f"{value!r} is neither a number of tasks nor a share such as 5%", param, ctx)
        return limit


class TriesLimit(click.ParamType):  # type: ignore[type-arg]  # which click 8.2 does not have
    """A limit of tries, or none, which is 0.

    >>> TriesLimit().convert("3", None, None), TriesLimit().convert("none", None, None)
    (3, 0)
    """

    name = "limit"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the limit."""
        if value == "none":
            return 0
        if isinstance(value, str):
            if not value.isdecimal():
                self.fail(f"{value!r} is neither a number of tries nor none", param, ctx)
            if len(value) > MAX_DIGITS:
                self.fail(f"{value[:80]!r} is too large for a limit of tries; use none for no limit", param, ctx)
        return int(value)


class ExecutorName(click.ParamType):  # type: ignore[type-arg]  # which click 8.2 does not have
    """The name of an executor of run(), or dask:ADDRESS for a Dask cluster.

    >>> ExecutorName().convert("dask:tcp://head:8786", None, None)
    'dask:tcp://head:8786'
    """

    name = "executor"
    names = ("processes", "threads", "async")

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the name unchanged."""
        if value not in self.names and not re.match(r"dask:.", value):
            self.fail(f"{value!r} is neither one of {', '.join(self.names)} nor dask:ADDRESS", param, ctx)
        return value
