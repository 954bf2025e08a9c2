"""Take tasks from a tracker: first those whose retry is due, then new ones, in the order of the tracker or of the user.

A task that has failed waits here until it is tried again. At most MAX_WAITING wait in memory. The time of the next try
of all others is in their ``_error`` only. When nothing else is left, the source goes through the tracker again, and
finds them. Tasks that the user has chosen all wait in memory, because they would not be found again.
"""

from __future__ import annotations

import copy
import heapq
import time
from collections import deque
from collections.abc import Iterable
from itertools import chain, count, islice
from typing import Any

from tastypy_fast._core.finishing import FINISH_GIVEN_BACK, FINISH_POSTPONED, FINISH_RELEASED
from tastypy_fast.pipeline.executor import Task
from tastypy_fast.pipeline.result_recorder import ResultRecorder
from tastypy_fast.pipeline.worker import now_text, parse_time

__all__ = ["MAX_WAITING", "TaskSource"]

MAX_WAITING = 10_000
# A shared tracker that had no more tasks is asked again after this time, in seconds, because others may add some.
ASK_AGAIN = 0.5
# The longest time of one take(), in seconds, if the user's keys come slowly, or if most tasks may not be tried yet.
TAKE_SECONDS = 0.05
# The keys of a task's dict that are the tracker's own.
RESERVED = frozenset(("_done", "_aborted", "_tries", "_error", "_run"))


class TaskSource:
    """The tasks of one run.

    ``keys`` are the keys that the user has chosen, in his order, or None for all. ``in_process`` says that tasks run in
    this process: they get deep copies of their data, and a task that kills the process has had a try.
    """

    def __init__(self, tracker: Any, recorder: ResultRecorder, keys: Iterable[Any] | None, allow_aborted: bool,
                 with_data: bool, in_process: bool) -> None:
        self._tracker = tracker
        self._recorder = recorder
        self._keys = None if keys is None else iter(keys)
        self._with_data = with_data
        self._in_process = in_process
        self._began = _next_millisecond()
        self._queue = tracker._open_queue(allow_aborted, remote=not in_process)
        self._given_back: deque[Task] = deque()
        # A heap of (time of time.monotonic(), serial number, key, retries in this run).
        self._waiting: list[tuple[float, int, Any, int]] = []
        self._serial = count()
        # The keys of ``keys`` whose results are not in the tracker yet, because the user may name one twice. Those that
        # have ended since the recorder's flush of this number.
        self._taken: set[Any] = set()
        self._ended: deque[tuple[int, Any]] = deque()
        self._ask_at = 0.0
        self._has_overflowed = False
        # Whether the last take() ended early, and the next one may have more.
        self.has_paused = False

    # Taking

    def take(self, number: int) -> list[Task]:
        """Return up to ``number`` tasks to run now. An empty list does not mean that none will come."""
        self.has_paused = False
        now = time.monotonic()
        tasks: list[Task] = []
        while self._given_back and len(tasks) < number:
            tasks.append(self._given_back.popleft())
        try:
            if self._waiting and len(tasks) < number:
                tasks += self._take_due(number - len(tasks), now)
            while len(tasks) < number and now >= self._ask_at:
                wanted = number - len(tasks)
                found, is_end = self._take_new(wanted) if self._keys is None else self._take_chosen(wanted)
                tasks += found
                if is_end:
                    self._ask_at = now + ASK_AGAIN
                elif len(tasks) < number and time.monotonic() > now + TAKE_SECONDS:
                    self.has_paused = True
                    break
            if self._with_data:
                self._read_data(tasks)
        except BaseException:
            self.give_back(tasks)
            raise
        return tasks

    def _take_due(self, number: int, now: float) -> list[Task]:
        due: list[tuple[float, int, Any, int]] = []
        while self._waiting and len(due) < number and self._waiting[0][0] <= now:
            due.append(heapq.heappop(self._waiting))
        if not due:
            return []
        # The wait must be on record before the try that ends it.
        self._recorder.flush()
        tries = self._queue.claim([key for _, _, key, _ in due])
        return [Task(key, number, None, retries) for (_, _, key, retries), number in zip(due, tries, strict=True)
                if number > 0]

    def _take_new(self, number: int) -> tuple[list[Task], bool]:
        found = self._queue.take(number)
        tasks = []
        for key, tries, has_error in found:
            task = Task(key, tries)
            if not has_error or self._may_be_tried_now(task):
                tasks.append(task)
        return tasks, len(found) < number

    def _take_chosen(self, number: int) -> tuple[list[Task], bool]:
        assert self._keys is not None
        while self._ended and self._ended[0][0] < self._recorder.flushes:
            self._taken.discard(self._ended.popleft()[1])
        keys: list[Any] = []
        is_end = True
        end = time.monotonic() + TAKE_SECONDS
        for key in islice(self._keys, number):
            is_end = False
            if key not in self._taken:
                self._taken.add(key)
                keys.append(key)
            if time.monotonic() > end:
                break
        found = self._queue.claim(keys) if keys else []
        tasks = []
        for key, tries in zip(keys, found, strict=True):
            if tries < 0:
                self.give_back([Task(key, tries) for key, tries in zip(keys, found, strict=True) if tries > 0])
                raise KeyError(key)
            if tries:
                tasks.append(Task(key, tries))
            else:
                self._taken.discard(key)
        return tasks, is_end

    def _may_be_tried_now(self, task: Task) -> bool:
        """Return whether a task with an ``_error`` may be tried now. Otherwise it waits, or is left for another run."""
        value = self._tracker.get(task.key)
        error = value.get("_error") if value is not None else None
        if not isinstance(error, dict):
            return True
        due = parse_time(error.get("retry_at"))
        if due is None:
            if (parse_time(error.get("at")) or 0.0) < self._began:
                return True
            # It has failed for good since this run began, in this run or in one beside it.
            self._recorder.add(task, FINISH_GIVEN_BACK)
            return False
        retries = error.get("retries", 0)
        task.retries = retries if type(retries) is int and (parse_time(error.get("at")) or 0.0) >= self._began else 0
        delay = due - time.time()
        if delay <= 0:
            return True
        self._recorder.add(task, FINISH_POSTPONED if self.wait(task, delay) else FINISH_GIVEN_BACK)
        return False

    def _read_data(self, tasks: list[Task]) -> None:
        for task in tasks:
            if task.data is None:
                value = self._tracker.get(task.key) or {}
                data = {name: item for name, item in value.items() if name not in RESERVED}
                task.data = copy.deepcopy(data) if self._in_process else data

    # Returning

    def put_back(self, task: Task) -> None:
        """Return a task that has not begun, so that it is the next to be taken. It stays claimed."""
        self._given_back.append(task)

    def return_first(self, tasks: list[Task]) -> None:
        """Return the first tasks that were taken, so that they are not claimed until they are taken again."""
        self.give_back(tasks)
        self._recorder.flush()
        self._queue.restart()
        self.ask_again()
        if self._keys is not None:
            keys = [task.key for task in tasks]
            self._taken.difference_update(keys)
            self._keys = chain(keys, self._keys)

    def wait(self, task: Task, seconds: float) -> bool:
        """Let a task be taken again after some time. Returns False if too many tasks wait already."""
        if len(self._waiting) >= MAX_WAITING and self._keys is None:
            self._has_overflowed = True
            return False
        heapq.heappush(self._waiting, (time.monotonic() + seconds, next(self._serial), task.key, task.retries))
        return True

    def end(self, task: Task) -> None:
        """Forget a task that is done, failed or aborted, when its result is in the tracker."""
        if self._keys is not None:
            self._ended.append((self._recorder.flushes, task.key))

    def give_back(self, tasks: Iterable[Task]) -> None:
        """Return tasks whose tries have not begun or were ended by a stop: these tries do not count."""
        for task in tasks:
            self._recorder.add(task, FINISH_GIVEN_BACK)

    # Ending

    def next_due(self) -> float | None:
        """Return when the next retry is due (``time.monotonic()``), or None if no task waits."""
        return self._waiting[0][0] if self._waiting else None

    def ask_again(self) -> None:
        """Ask the tracker at the next ``take()``, because tasks may have been added."""
        self._ask_at = 0.0

    def begin_again(self) -> bool:
        """Go through the tracker again, if tasks wait in the store only. No task may be in flight."""
        if not self._has_overflowed:
            return False
        self._has_overflowed = False
        self._recorder.flush()
        self._queue.restart()
        self.ask_again()
        return True

    def close(self) -> None:
        """Give back what waits here, and end the queue. The recorder commits it."""
        self.give_back(self._given_back)
        self._given_back.clear()
        for _, _, key, retries in self._waiting:
            # The claim ends. The try that failed stays counted.
            self._recorder.add(Task(key, 0, None, retries), FINISH_RELEASED)
        self._waiting.clear()
        try:
            self._recorder.flush()
        finally:
            self._queue.close()


def _next_millisecond() -> float:
    """Wait for the beginning of a millisecond, and return its time.

    The time of an error is kept in whole milliseconds. So each error before this call has an earlier time, and each one
    after it has not.
    """
    began = parse_time(now_text(time.time() + 0.001))
    assert began is not None
    # (more is left if the clock was set back meanwhile)
    while 0 < (left := began - time.time()) <= 0.002:
        time.sleep(left)
    return began
