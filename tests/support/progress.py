"""Helpers for the tests of the progress bar."""

from __future__ import annotations

import io
import re


class Screen(io.StringIO):
    """The stream that shows a bar."""

    @property
    def states(self):
        """The states that were shown, in order: (finished, total, failed)."""
        found = re.findall(r"(\d+)/(\d+) \[[^\]]*?(?:failed=(\d+))?\]", self.getvalue())
        return [tuple(int(number or 0) for number in numbers) for numbers in found]

    @property
    def has_ended(self):
        return self.getvalue().endswith("\n")


def tasks(count, **status):
    return {f"task {number}": dict(status) for number in range(count)}
