"""Show the progress of a tracker as a tqdm bar, which counts the finished tasks in the store, not loop iterations."""

from __future__ import annotations

import errno
import functools
import sys
from collections.abc import Iterable, Iterator
from math import inf
from time import perf_counter
from typing import Any, Generic, overload

from tastypy_fast._inspect.task_counts import ProgressCounts
from tastypy_fast._optional import optional_import
from tastypy_fast._type_parameters import K, T
from tastypy_fast.exceptions import PersistentOrderedDictException
from tastypy_fast.types import ProgressBar

__all__ = ["Bar", "ProgressBarMixin"]

# Counting takes at most 1/PART of the time, even for a large store.
PART = 50


class ProgressBarMixin(Generic[K]):
    """The part of a tracker that shows a bar."""

    @overload
    def progress(self, iterable: None = None, *, allow_aborted: bool = False, **options: Any) -> ProgressBar[K]: ...
    @overload
    def progress(self, iterable: Iterable[T], *, allow_aborted: bool = False, **options: Any) -> ProgressBar[T]: ...
    def progress(self, iterable: Iterable[Any] | None = None, *, allow_aborted: bool = False, **options: Any) -> Any:
        """Wrap a loop over tasks in a tqdm bar, on a terminal or in a notebook.

        The bar's total is the number of tasks, and grows with it. The bar shows the finished tasks, which are done,
        aborted or failed: they have no tries left by ``max_tries``. So the bar begins where the last run stopped, and
        counts the work of all workers. Rate and remaining time are computed for this run only.

        The bar counts the tasks after a step of the loop, at most once in ``mininterval`` seconds (0.1 by default). If
        that is 0, it counts after each step. ``update()`` counts, too. Use ``with tracker.progress() as bar:`` for your
        own loop, which waits for workers and claims nothing. Only one process should show a bar.

        Args:
            iterable: A ``todo_*`` or ``try_*`` iterator, or an iterable that wraps one. The default is
                ``self.try_keys()``.
            allow_aborted: Whether the iterator also yields aborted tasks. Then only those without a try left count as
                finished, and as aborted.
            **options: Options of tqdm: ``desc``, ``unit``, ``disable``, ``mininterval``, ``postfix`` and so on. A
                ``bar_format`` may use ``{failed}`` and ``{aborted}``.

        Returns:
            A tqdm bar. Iterate over it.

        Raises:
            ImportError: tqdm is not installed; it comes with the extra ``progress``.
            TypeError: ``total`` or ``initial`` is given; the store provides both.

        Cost:
            One read of the clock after each task. Counting takes 3 to 20 ms for a million tasks, and at most two per
            cent of the time.

        Example:
            >>> tracker = ProgressTracker(path, init={"a": {"_done": True}, "b": {}})
            >>> for key in tracker.progress(disable=True):
            ...     tracker.mark_done(key)
            >>> tracker.percent_done()
            '100.00 %'
        """
        for name in ("total", "initial"):
            if name in options:
                raise TypeError(f"progress() takes {name} from the store; leave it out")
        make = bar_class(optional_import("tqdm.auto", "progress", "progress()").tqdm)
        tracker: Any = self
        return make(tracker, iterable, bool(allow_aborted), tracker._count_progress(bool(allow_aborted)), options)


class Bar:
    """A tqdm bar that counts the tasks of a tracker. The other base class is one of tqdm's classes."""

    # tqdm's monitor thread is off, because this class reads the clock itself.
    monitor_interval = 0
    disable: bool
    # Whether it writes text, and is not a widget of a notebook.
    _is_text = True

    def __init__(
        self, tracker: Any, tasks: Iterable[Any] | None, allow_aborted: bool, found: ProgressCounts,
        options: dict[str, Any],
    ) -> None:
        self._tracker = tracker
        self._tasks = tasks
        self._allow_aborted = allow_aborted
        self.failed, self.aborted = found.failed, found.aborted
        self._interval = options.get("mininterval", 0.1) or 0.0
        # The times of the next count of the tasks, and of the next count of the failed and aborted ones.
        self._next = self._next_count = 0.0
        # Do not pass the iterable to tqdm, because tqdm would keep it, and with it the claims of its iterator.
        settings = {"unit": "task", "miniters": 1, **options, "mininterval": 0}
        if self._is_text:
            stream = options.get("file") or sys.stderr
            # A program without a standard error has no bar.
            settings |= {"disable": True} if stream is None else {"file": QuietStream(stream)}
        super().__init__(None, total=found.tasks, initial=found.finished, **settings)  # type: ignore[call-arg]
        self._next = inf if self.disable else perf_counter() + self._interval

    def __iter__(self) -> Iterator[Any]:
        tasks: Iterator[Any] | None = None
        may_count = True
        try:
            tasks = self._begin()
            due = self._next
            for task in tasks:
                yield task
                if perf_counter() >= due:
                    self.update()
                    due = self._next
        except GeneratorExit:
            # The loop was left early, or the garbage collector ended it. The collector may have interrupted an
            # operation of this thread, in which the store must not be used.
            may_count = not any(lock.is_mine() for lock in self._tracker._store.locks)
            raise
        except BaseException:
            self._turn_red()
            raise
        finally:
            tasks = None  # end the iterator, which releases the claimed tasks that were not yielded
            if may_count:
                self.close()
            else:
                self._end()

    def _begin(self) -> Iterator[Any]:
        """Return the iterator over the tasks. Only the caller keeps a reference to it."""
        if self._tasks is None:
            return iter(self._tracker.try_keys(self._allow_aborted))
        tasks = iter(self._tasks)
        if tasks is self._tasks:
            self._tasks = ()
        return tasks

    def update(self, n: float | None = 1) -> bool | None:
        """Count the tasks, unless they were counted just before. Returns whether the bar was drawn again.

        ``n`` is tqdm's argument. It is ignored, because the store has the number.
        """
        return self._count() if perf_counter() >= self._next else None

    def close(self) -> None:
        """Count the tasks one last time, and end the bar."""
        if not self.disable:
            self._next_count = 0.0
            self._count()
        self._end()

    def __del__(self) -> None:
        self._end()

    @property
    def format_dict(self) -> Any:
        """Return the values that tqdm shows, with the numbers of failed and aborted tasks."""
        facts = super().format_dict  # type: ignore[misc]
        numbers = {"failed": self.failed, "aborted": self.aborted}
        facts.update(numbers)
        more = (f"{name}={number}" for name, number in numbers.items() if number)
        facts["postfix"] = ", ".join(filter(None, [facts["postfix"], *more])) or None
        return facts

    def _count(self) -> bool:
        """Count the tasks, and draw the bar if a number has changed. Returns whether it was drawn."""
        began = perf_counter()
        tracker = self._tracker
        try:
            tasks, done, aborted, tried = tracker._totals()
            if not ((aborted and not self._allow_aborted) or (tracker.max_tries and tried)):
                counts = ProgressCounts(tasks, done)
            elif began >= self._next_count:
                counts = tracker._count_progress(self._allow_aborted)
                self._next_count = perf_counter() + self._pause(began)
            else:
                counts = ProgressCounts(tasks, done, self.failed, self.aborted)
        except PersistentOrderedDictException:
            # Ignore the error, because a bar must not end a loop. The next step of the loop or the next sync raises it.
            return False
        finally:
            self._next = perf_counter() + self._pause(began)
        return self._show(counts)

    def _pause(self, began: float) -> float:
        """Return the pause, in seconds, after a count that began at ``began``."""
        return max(self._interval, PART * (perf_counter() - began)) if self._interval else 0.0

    def _show(self, counts: ProgressCounts) -> bool:
        bar: Any = self
        tasks = counts.tasks
        # The numbers of an earlier count may be too large by now.
        change = min(counts.finished, tasks) - bar.n
        is_new = change < 0 or tasks != bar.total or counts[2:] != (self.failed, self.aborted)
        self.failed, self.aborted = counts.failed, counts.aborted
        if tasks != bar.total:
            if hasattr(bar, "container"):
                self._stretch(bar.container.children[-2], tasks)
            bar.total = tasks
        shown = bool(change and super().update(change))  # type: ignore[misc]
        if is_new and not shown and bar._time() >= bar.start_t + bar.delay:
            shown = bool(bar.refresh(lock_args=bar.lock_args))
        return shown

    def _stretch(self, widget: Any, tasks: int) -> None:
        """Set the new total in the widget of a notebook, which was made for another total."""
        bar: Any = self
        widget.max = tasks * (1 if bar.unit_scale is True else bar.unit_scale or 1)
        if not bar.total:  # a bar without a total has another style
            widget.bar_style = ""
            if bar.ncols is None:
                widget.layout.width = None

    def _turn_red(self) -> None:
        """Turn the bar of a notebook red, because an exception has ended the loop."""
        if not self.disable and hasattr(self, "container"):
            self.disp(bar_style="danger")  # type: ignore[attr-defined]

    def _end(self) -> None:
        self._next = inf
        super().close()  # type: ignore[misc]


@functools.cache
def bar_class(tqdm: Any) -> type[Any]:
    """Return the class of the bars, a subclass of tqdm's class for a terminal or a notebook."""
    notebook = sys.modules.get("tqdm.notebook")
    is_text = notebook is None or not issubclass(tqdm, notebook.tqdm_notebook)
    return type("ProgressBar", (Bar, tqdm), {"_is_text": is_text})


class QuietStream:
    """A stream whose errors end the bar, and not the loop.

    tqdm does that for EIO only, the error of a terminal that is gone. A pipe that nobody reads or a full disk raise
    others.
    """

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def __eq__(self, other: object) -> bool:
        # tqdm asks whether this is sys.stderr.
        return bool(self._stream == other)

    def __hash__(self) -> int:
        return hash(self._stream)

    def write(self, text: str) -> Any:
        """Write a text. Every error of the system becomes EIO."""
        return self._call(self._stream.write, text)

    def flush(self) -> None:
        """Flush the stream. Every error of the system becomes EIO."""
        self._call(getattr(self._stream, "flush", int))

    @staticmethod
    def _call(function: Any, *arguments: Any) -> Any:
        try:
            return function(*arguments)
        except OSError as error:
            raise OSError(errno.EIO, str(error)) from error
