"""Helpers for the tests of the progress bar."""

from __future__ import annotations

import io
import re


class Screen(io.StringIO):
    """The stream that shows a bar."""

    @property
    def states(self):
        """The states that were shown, in order: (finished, total, failed and aborted)."""
        found = re.findall(r"(\d+)/(\d+) \[[^\]]*?(?:failed=(\d+))?(?:, )?(?:aborted=(\d+))?\]", self.getvalue())
        states = [[int(number or 0) for number in numbers] for numbers in found]
        return [(finished, total, failed + aborted) for finished, total, failed, aborted in states]

    @property
    def has_ended(self):
        return self.getvalue().endswith("\n")


def tasks(count, **status):
    return {f"task {number}": dict(status) for number in range(count)}
