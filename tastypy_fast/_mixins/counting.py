"""Count the tasks of a tracker: numbers, fractions and percentages."""

from __future__ import annotations

from collections.abc import Callable

from tastypy_fast._inspect.task_counts import ProgressCounts, count_progress, count_tasks
from tastypy_fast.types import StatusCounts

__all__ = ["CountingMixin"]


class CountingMixin:
    """The part of a tracker that counts. Statuses that were set and not yet synced are counted, too.

    A handle has ``_totals()``, which returns (tasks, done, aborted, tried).
    """

    _totals: Callable[[], tuple[int, int, int, int]]

    def _fraction(self, which: int) -> float:
        totals = self._totals()
        return totals[which] / totals[0] if totals[0] else 0.0

    def count_by_status(self) -> StatusCounts:
        """Return how many tasks are new, running, to retry, failed, aborted and done, all from one snapshot.

        The six numbers add up to the number of tasks. ``types.TaskStatus`` defines the words. A task has failed if it
        has no tries left. Without a limit of tries, a failed try leaves it "to retry". An instance with ``mode="r"``
        and without a limit uses ``kept_max_tries``.

        Returns:
            The numbers.

        Cost:
            O(n) over 16 bytes for every 500 tasks, and over 2 kB for every 500 of which some were tried and are not
            done: 3 to 20 ms for a million tasks. And one lookup for each unsynced key and each claim.

        Example:
            >>> tracker = ProgressTracker(path, max_tries=1, init={"a": {"_done": True}, "b": {"_tries": 1}, "c": {}})
            >>> tracker.count_by_status()
            StatusCounts(new=1, running=0, to_retry=0, failed=1, aborted=0, done=1)
        """
        return count_tasks(self).counts

    def _count_progress(self, allow_aborted: bool) -> ProgressCounts:
        return count_progress(self, allow_aborted)

    def num_done(self) -> int:
        """Return how many tasks are done.

        Returns:
            The number of tasks.

        Cost:
            O(1), and O(w) for w tasks that are watched in memory. The first count after opening reads 32 kB for a
            million tasks, or 4 MB if the previous process was killed.

        Example:
            >>> ProgressTracker(path, init={"a": {"_done": True}, "b": {}}).num_done()
            1
        """
        return self._totals()[1]

    def num_aborted(self) -> int:
        """Return how many tasks are aborted.

        Returns:
            The number of tasks.

        Cost:
            As for ``num_done()``.

        Example:
            >>> ProgressTracker(path, init={"a": {"_aborted": True}, "b": {}}).num_aborted()
            1
        """
        return self._totals()[2]

    def num_tried(self) -> int:
        """Return how many tasks were tried at least once.

        Returns:
            The number of tasks.

        Cost:
            As for ``num_done()``.

        Example:
            >>> ProgressTracker(path, init={"a": {"_tries": 2}, "b": {}}).num_tried()
            1
        """
        return self._totals()[3]

    def fraction_done(self) -> float:
        """Return the part of the tasks that are done.

        Returns:
            From 0.0 to 1.0; 0.0 if there are no tasks.

        Cost:
            As for ``num_done()``.

        Example:
            >>> ProgressTracker(path, init={"a": {"_done": True}, "b": {}}).fraction_done()
            0.5
        """
        return self._fraction(1)

    def fraction_aborted(self) -> float:
        """Return the part of the tasks that are aborted.

        Returns:
            From 0.0 to 1.0; 0.0 if there are no tasks.

        Cost:
            As for ``num_done()``.

        Example:
            >>> ProgressTracker(path, init={"a": {"_aborted": True}, "b": {}}).fraction_aborted()
            0.5
        """
        return self._fraction(2)

    def fraction_tried(self) -> float:
        """Return the part of the tasks that were tried at least once.

        Returns:
            From 0.0 to 1.0; 0.0 if there are no tasks.

        Cost:
            As for ``num_done()``.

        Example:
            >>> ProgressTracker(path, init={"a": {"_tries": 1}, "b": {}}).fraction_tried()
            0.5
        """
        return self._fraction(3)

    def percent_done(self, decimals: int = 2) -> str:
        """Return the part of the tasks that are done, as text.

        Args:
            decimals: The number of digits after the point.

        Returns:
            Text such as ``34.70 %``.

        Cost:
            As for ``num_done()``.

        Example:
            >>> ProgressTracker(path, init={"a": {"_done": True}, "b": {}, "c": {}}).percent_done()
            '33.33 %'
        """
        return percent(self.fraction_done(), decimals)

    def percent_not_done(self, decimals: int = 2) -> str:
        """Return the part of the tasks that are not done, as text.

        Args:
            decimals: The number of digits after the point.

        Returns:
            Text such as ``34.70 %``.

        Cost:
            As for ``num_done()``.

        Example:
            >>> ProgressTracker(path, init={"a": {"_done": True}, "b": {}, "c": {}}).percent_not_done(decimals=0)
            '67 %'
        """
        return percent(1 - self.fraction_done(), decimals)

    def percent_aborted(self, decimals: int = 2) -> str:
        """Return the part of the tasks that are aborted, as text.

        Args:
            decimals: The number of digits after the point.

        Returns:
            Text such as ``34.70 %``.

        Cost:
            As for ``num_done()``.

        Example:
            >>> ProgressTracker(path, init={"a": {"_aborted": True}, "b": {}}).percent_aborted(1)
            '50.0 %'
        """
        return percent(self.fraction_aborted(), decimals)

    def percent_not_aborted(self, decimals: int = 2) -> str:
        """Return the part of the tasks that are not aborted, as text.

        Args:
            decimals: The number of digits after the point.

        Returns:
            Text such as ``34.70 %``.

        Cost:
            As for ``num_done()``.

        Example:
            >>> ProgressTracker(path, init={"a": {"_aborted": True}, "b": {}}).percent_not_aborted(1)
            '50.0 %'
        """
        return percent(1 - self.fraction_aborted(), decimals)

    def percent_tried(self, decimals: int = 2) -> str:
        """Return the part of the tasks that were tried at least once, as text.

        Args:
            decimals: The number of digits after the point.

        Returns:
            Text such as ``34.70 %``.

        Cost:
            As for ``num_done()``.

        Example:
            >>> ProgressTracker(path, init={"a": {"_tries": 1}, "b": {}}).percent_tried()
            '50.00 %'
        """
        return percent(self.fraction_tried(), decimals)

    def percent_not_tried(self, decimals: int = 2) -> str:
        """Return the part of the tasks that were never tried, as text.

        Args:
            decimals: The number of digits after the point.

        Returns:
            Text such as ``34.70 %``.

        Cost:
            As for ``num_done()``.

        Example:
            >>> ProgressTracker(path, init={"a": {"_tries": 1}, "b": {}}).percent_not_tried()
            '50.00 %'
        """
        return percent(1 - self.fraction_tried(), decimals)


def percent(fraction: float, decimals: int) -> str:
    """Format a fraction as a percentage, for example ``34.70 %``."""
    return f"{100 * fraction:.{decimals}f} %"
