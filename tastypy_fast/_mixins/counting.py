"""How far a tracker is: numbers, fractions and percentages of its tasks."""

from __future__ import annotations

from tastypy_fast._core.handles import TrackerHandle

__all__ = ["CountingMixin"]


class CountingMixin(TrackerHandle):
    """The part of a tracker that counts.

    Cost of each method: the heads of all status blocks at the first count (32 kB for a million tasks, in one piece
    unless the process before was killed), and no more than the tasks that are watched in memory at any later one.
    Statuses that were set and not yet synced are counted.
    """

    def num_done(self) -> int:
        """How many tasks are done.

        >>> ProgressTracker(path, init={"a": {"_done": True}, "b": {}}).num_done()
        1
        """
        return self._totals()[1]

    def num_aborted(self) -> int:
        """How many tasks are aborted.

        >>> ProgressTracker(path, init={"a": {"_aborted": True}, "b": {}}).num_aborted()
        1
        """
        return self._totals()[2]

    def num_tried(self) -> int:
        """How many tasks were tried at least once.

        >>> ProgressTracker(path, init={"a": {"_tries": 2}, "b": {}}).num_tried()
        1
        """
        return self._totals()[3]

    def _fraction(self, which: int) -> float:
        totals = self._totals()
        return totals[which] / totals[0] if totals[0] else 0.0

    def fraction_done(self) -> float:
        """The part of the tasks that is done, from 0.0 to 1.0; 0.0 when there are none.

        >>> ProgressTracker(path, init={"a": {"_done": True}, "b": {}}).fraction_done()
        0.5
        """
        return self._fraction(1)

    def fraction_aborted(self) -> float:
        """The part of the tasks that is aborted, from 0.0 to 1.0; 0.0 when there are none.

        >>> ProgressTracker(path, init={"a": {"_aborted": True}, "b": {}}).fraction_aborted()
        0.5
        """
        return self._fraction(2)

    def fraction_tried(self) -> float:
        """The part of the tasks that was tried at least once, from 0.0 to 1.0; 0.0 when there are none.

        >>> ProgressTracker(path, init={"a": {"_tries": 1}, "b": {}}).fraction_tried()
        0.5
        """
        return self._fraction(3)

    def percent_done(self, decimals: int = 2) -> str:
        """The part of the tasks that is done, as text.

        >>> ProgressTracker(path, init={"a": {"_done": True}, "b": {}, "c": {}}).percent_done()
        '33.33 %'
        """
        return percent(self.fraction_done(), decimals)

    def percent_not_done(self, decimals: int = 2) -> str:
        """The part of the tasks that is not done, as text.

        >>> ProgressTracker(path, init={"a": {"_done": True}, "b": {}, "c": {}}).percent_not_done(decimals=0)
        '67 %'
        """
        return percent(1 - self.fraction_done(), decimals)

    def percent_tried(self, decimals: int = 2) -> str:
        """The part of the tasks that was tried at least once, as text.

        >>> ProgressTracker(path, init={"a": {"_tries": 1}, "b": {}}).percent_tried()
        '50.00 %'
        """
        return percent(self.fraction_tried(), decimals)

    def percent_not_tried(self, decimals: int = 2) -> str:
        """The part of the tasks that was never tried, as text.

        >>> ProgressTracker(path, init={"a": {"_tries": 1}, "b": {}}).percent_not_tried()
        '50.00 %'
        """
        return percent(1 - self.fraction_tried(), decimals)

    def percent_aborted(self, decimals: int = 2) -> str:
        """The part of the tasks that is aborted, as text.

        >>> ProgressTracker(path, init={"a": {"_aborted": True}, "b": {}}).percent_aborted(1)
        '50.0 %'
        """
        return percent(self.fraction_aborted(), decimals)

    def percent_not_aborted(self, decimals: int = 2) -> str:
        """The part of the tasks that is not aborted, as text.

        >>> ProgressTracker(path, init={"a": {"_aborted": True}, "b": {}}).percent_not_aborted(1)
        '50.0 %'
        """
        return percent(1 - self.fraction_aborted(), decimals)


def percent(fraction: float, decimals: int) -> str:
    """A fraction as in ``34.70 %``."""
    return f"{100 * fraction:.{decimals}f} %"
