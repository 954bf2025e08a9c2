"""Run a function on every task of a tracker: the loop behind ``tracker.run()``.

One thread takes tasks from the tracker, hands them to an executor, and commits what became of them. Workers never open
the store. A task is *in flight* from the moment when it is taken until its result is recorded.
"""

from __future__ import annotations

import contextlib
import inspect
import logging
import os
import pickle
import random
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from tastypy_fast._core.finishing import (
    FINISH_ABORTED,
    FINISH_DONE,
    FINISH_FAILED,
    FINISH_GIVEN_BACK,
    FINISH_POSTPONED,
    FINISH_RETRY,
)
from tastypy_fast.exceptions import ExecutorLostError
from tastypy_fast.pipeline import worker
from tastypy_fast.pipeline.executor import Event, Task, TaskExecutor
from tastypy_fast.pipeline.report import MAX_ERRORS, RunReport
from tastypy_fast.pipeline.result_recorder import ResultRecorder
from tastypy_fast.pipeline.signals import RunSignals
from tastypy_fast.pipeline.task_source import RESERVED, TaskSource
from tastypy_fast.pipeline.worker import Outcome, TaskFunction, describe_error, now_text, task_failure

__all__ = ["EXECUTORS", "RunOptions", "run_tasks"]

LOGGER = logging.getLogger("tastypy_fast")

EXECUTORS = ("processes", "threads", "async", "inline")
# The longest delay before a retry, in seconds.
MAX_BACKOFF = 300.0
# How long running tasks may go on after SIGTERM, SIGHUP, ``stop`` or ``deadline``, in seconds. Containers are killed
# after 10 seconds.
GRACE = 8.0
# How often ``stop`` is looked at, in seconds, and how long the loop sleeps otherwise.
POLL, LONGEST_WAIT = 0.1, 0.5
# How long tasks are handed out before results are handled again, in seconds.
HAND_OUT_SECONDS = 0.1
# A share of failures is compared with ``max_failures`` only after this number of tasks.
MIN_FINISHED = 100
# How many coroutines run at once by default.
ASYNC_WORKERS = 100


@dataclass(frozen=True)
class RunOptions:
    """The arguments of ``tracker.run()``."""

    workers: int | None = None
    timeout: float | None = None
    retries: int | None = None
    progress: bool | dict[str, Any] = False
    executor: Any = None
    tasks: Iterable[Any] | None = None
    with_data: bool = False
    allow_aborted: bool = False
    backoff: float | Callable[[int], float] = 1.0
    abort_on: type[BaseException] | tuple[type[BaseException], ...] = ()
    initializer: Callable[..., object] | None = None
    initargs: tuple[Any, ...] = ()
    start_method: str | None = None
    deadline: float | None = None
    max_failures: int | float | None = None
    on_result: Callable[[Any, dict[str, Any] | None], object] | None = None
    on_failure: Callable[[Any, dict[str, Any], bool], object] | None = None
    stop: threading.Event | None = None

    def check(self, function: Callable[..., Any]) -> None:
        """Raise TypeError or ValueError for an argument that cannot be right, before anything has begun."""
        if not callable(function):
            raise TypeError(f"run() takes a function, not {function!r}")
        _check_count("workers", self.workers, 1)
        _check_count("retries", self.retries, 0)
        _check_seconds("timeout", self.timeout)
        _check_seconds("deadline", self.deadline)
        if not callable(self.backoff) and not _is_number(self.backoff, 0):
            raise ValueError(f"backoff= takes seconds or a function of the number of the try, not {self.backoff!r}")
        is_share = isinstance(self.max_failures, float) and 0 < self.max_failures < 1
        if self.max_failures is not None and not is_share and not _is_count(self.max_failures, 0):
            raise ValueError("max_failures= takes a number of tasks, or a share between 0.0 and 1.0, not "
                             f"{self.max_failures!r}")
        if getattr(self.tasks, "counts_tries", False):
            raise TypeError("tasks= takes keys of which no try has been counted, and run() counts their tries; use "
                            "todo_keys() instead of try_keys()")
        kind = self.executor_name(function)
        if isinstance(self.executor, str) and self.executor not in EXECUTORS:
            raise ValueError(f"executor= takes one of {', '.join(map(repr, EXECUTORS))}, not {self.executor!r}")
        if not kind and not hasattr(self.executor, "submit") and not callable(self.executor):
            raise TypeError("executor= takes a name, an executor with submit(), or a function that makes one, not "
                            f"{self.executor!r}")
        is_async = is_coroutine_function(function)
        if is_async and kind != "async":
            raise ValueError(f"{_name_of(function)} is a coroutine function, which runs with executor=\"async\" only")
        if kind == "async" and not is_async:
            raise ValueError(f"{_name_of(function)} is no coroutine function (async def), as executor=\"async\" needs")
        if self.timeout is not None and kind in ("threads", "inline"):
            raise ValueError(f"timeout= has no effect with executor={kind!r}, because a thread cannot be ended; use "
                             "processes")
        if self.start_method is not None and kind != "processes":
            raise ValueError("start_method= is for executor=\"processes\"")
        if self.initializer is not None and not kind:
            raise ValueError("initializer= is for the executors of this package; pass it to the executor that you make")

    def executor_name(self, function: Callable[..., Any]) -> str:
        """Return the name of the executor, "" if it is an object."""
        if self.executor is None:
            return "async" if is_coroutine_function(function) else "processes"
        return self.executor if isinstance(self.executor, str) else ""

    def abort_classes(self) -> tuple[type[BaseException], ...]:
        classes = self.abort_on if isinstance(self.abort_on, tuple) else (self.abort_on,)
        for one in classes:
            if not (isinstance(one, type) and issubclass(one, BaseException)):
                raise TypeError(f"abort_on= takes classes of exceptions, not {one!r}")
        return classes


def _is_count(value: object, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _is_number(value: object, least: float) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and least <= value < float("inf")


def _check_count(name: str, value: object, least: int) -> None:
    if value is not None and not _is_count(value, least):
        raise ValueError(f"{name}= takes an integer of {least} or more, not {value!r}")


def _check_seconds(name: str, value: object) -> None:
    if value is not None and not (_is_number(value, 0) and value != 0):
        raise ValueError(f"{name}= takes a number of seconds above 0, not {value!r}")


def is_coroutine_function(function: Any) -> bool:
    """Return whether a function is ``async def``, also in a partial or as the method ``__call__`` of an object."""
    while hasattr(function, "func") and hasattr(function, "keywords"):  # functools.partial
        function = function.func
    call = type(function).__call__ if not inspect.isroutine(function) and not isinstance(function, type) else None
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(call)


def _name_of(function: Any) -> str:
    described = getattr(function, "described_as", None)  # of the task of a command: its text
    if isinstance(described, str):
        return described
    name = getattr(function, "__qualname__", None) or type(function).__qualname__
    module = getattr(function, "__module__", None)
    return f"{module}.{name}" if module else str(name)


def usable_cpus() -> int:
    """Return the number of processors that this process may use."""
    try:
        return len(os.sched_getaffinity(0)) or 1
    except AttributeError:  # macOS
        return os.cpu_count() or 1


def make_executor(function: Callable[..., Any], options: RunOptions, wakeup: int | None,
                  running: Callable[[], Any]) -> TaskExecutor:
    """Return the executor that the options choose. It is not started."""
    kind = options.executor_name(function)
    if not kind:
        from tastypy_fast.pipeline.futures_executor import FuturesExecutor

        return FuturesExecutor(TaskFunction(function, options.with_data, options.abort_classes()), options.executor,
                               options.workers, timeout=options.timeout, wakeup=wakeup)
    call = TaskFunction(function, options.with_data, options.abort_classes())
    common: dict[str, Any] = {"initializer": options.initializer, "initargs": options.initargs, "wakeup": wakeup}
    if kind == "processes":
        from tastypy_fast.pipeline.worker_pool import ProcessPool

        return ProcessPool(call, options.workers or usable_cpus(), timeout=options.timeout,
                           start_method=options.start_method, **common)
    from tastypy_fast.pipeline.in_process import AsyncExecutor, InlineExecutor, ThreadExecutor

    common["running"] = running
    if kind == "threads":
        return ThreadExecutor(call, options.workers or usable_cpus(), **common)
    if kind == "async":
        return AsyncExecutor(call, options.workers or ASYNC_WORKERS, timeout=options.timeout, **common)
    return InlineExecutor(call, **common)


def run_tasks(tracker: Any, function: Callable[..., Any], options: RunOptions,
              report: RunReport | None = None) -> RunReport:
    """Run a function on the tasks of a tracker. See ``tracker.run()``.

    ``report`` counts while the run goes on, so a caller who has made it knows what an interrupted run has done.
    """
    report = RunReport() if report is None else report
    options.check(function)
    executor: TaskExecutor | None = None
    signals = RunSignals(lambda: executor is not None and executor.in_task)
    began = time.time()
    info: dict[str, Any] = {"function": _name_of(function), "begun": now_text(began)}
    tracker._begin_run()
    try:
        with signals:
            executor = make_executor(function, options, signals.wakeup, tracker._open_running_slot)
            executor.prefetch = not (executor.in_process and tracker._counts_tries_of_claims)
            info["workers"] = executor.workers
            tracker._save_run(info)
            _Run(tracker, options, executor, signals, report).run()
        report.left = _count_left(tracker, options.allow_aborted)
        report.seconds = round(time.time() - began, 3)
        tracker._save_run({**info, "ended": now_text(), "reason": report.reason})
    except BaseException as error:
        # The error itself is more important than its record, for which there may be no space.
        with contextlib.suppress(Exception):
            tracker._save_run({**info, "ended": now_text(), "reason": type(error).__name__})
        if isinstance(error, KeyboardInterrupt) and signals.number not in (None, signal.SIGINT):
            # SIGTERM has ended a task or a function of the user in this thread.
            signals.raise_again()
        raise
    finally:
        tracker._end_run()
    signals.raise_again()
    return report


def _count_left(tracker: Any, allow_aborted: bool) -> int:
    counts = tracker._count_progress(allow_aborted)
    return int(counts.tasks - counts.finished)


class _Run:
    """One run, while its executor is running."""

    def __init__(self, tracker: Any, options: RunOptions, executor: TaskExecutor, signals: RunSignals,
                 report: RunReport) -> None:
        self._tracker = tracker
        self._options = options
        self._executor = executor
        self._signals = signals
        self._report = report
        self._recorder = ResultRecorder(tracker, self._on_saved, self._on_refused)
        self._bar: Any = None
        # The failed tries for on_failure(), and the number of results, recorded or not.
        self._failures: list[tuple[Any, dict[str, Any], bool]] = []
        self._results = 0
        # When no more tasks are handed out: when running tasks are ended, a time of time.monotonic().
        self._kill_at: float | None = None
        self._is_draining = False
        # Whether there may be more tasks for idle workers, because handing out was ended early.
        self._has_more = False
        self._deadline = float("inf") if options.deadline is None else time.monotonic() + options.deadline

    def run(self) -> None:
        options = self._options
        if options.progress:
            more = options.progress if isinstance(options.progress, dict) else {}
            self._bar = self._tracker.progress(allow_aborted=options.allow_aborted, **more)
        try:
            keys = None if options.tasks is None else self._chosen_keys(iter(options.tasks))
            self._source = TaskSource(self._tracker, self._recorder, keys, options.allow_aborted,
                                      options.with_data, self._executor.in_process)
            try:
                self._recorder.flush()
                self._run_executor()
            finally:
                try:
                    self._source.close()
                finally:
                    self._recorder.leave_to_next_run()
                self._recorder.commit()
            # The last results may have been refused.
            self._call_on_failure()
        finally:
            self._report.workers_lost = self._executor.workers_lost
            if self._bar is not None:
                self._bar.close()

    def _run_executor(self) -> None:
        first = self._source.take(1)
        if not first and self._source.next_due() is None:
            return  # there is nothing to do, so no worker is started
        if self._executor.prefetch:
            for task in first:
                self._source.put_back(task)
        else:
            # The initializer may take long, and a kill of the program meanwhile must not cost the task its try.
            self._source.return_first(first)
        try:
            self._executor.start()
            self._loop()
        except BaseException:
            # No task waits for a retry from now on: a result that is still refused ends its claim.
            self._is_draining = True
            # Tasks in flight are tried again, and this try does not count, because it was ended from outside.
            self._source.give_back(self._executor.kill())
            raise
        self._executor.close()

    def _loop(self) -> None:
        executor, source, recorder = self._executor, self._source, self._recorder
        while True:
            self._look_for_reasons_to_end()
            if self._kill_at is not None and time.monotonic() >= self._kill_at:
                source.give_back(executor.kill())
                return
            if not self._is_draining:
                self._hand_out()
            if not executor.is_busy() and not self._continue_without_tasks():
                return
            try:
                events = executor.step(self._seconds_to_wait())
            except ExecutorLostError:
                if not self._is_draining:
                    raise
                # The run ends anyway. Ctrl-C reaches the processes of other executors, too.
                self._kill_at = 0.0
                continue
            for event in events:
                self._handle(event)
            # What workers have sent is not needed during the commit.
            events = []
            if not executor.prefetch:
                # A kill of the program costs tasks their only try until they are finished in the tracker.
                recorder.flush()
            self._call_on_failure()
            recorder.commit_if_due()
            if self._bar is not None:
                self._bar.update()

    # Handing out

    def _hand_out(self) -> None:
        executor, source = self._executor, self._source
        end = time.monotonic() + HAND_OUT_SECONDS
        self._has_more = False
        while number := executor.room():
            if tasks := source.take(number):
                executor.put(tasks)
            elif not source.has_paused:
                if not self._recorder.has_new_tasks:
                    return
                # Workers are idle, and results bring more tasks.
                self._recorder.flush()
                source.ask_again()
                continue
            if time.monotonic() >= end:
                self._has_more = True
                return

    def _chosen_keys(self, keys: Iterator[Any]) -> Iterator[Any]:
        """Yield the user's keys. Ctrl-C ends them, also while the iterator waits for the next one."""
        signals = self._signals
        while True:
            try:
                signals.raises_from = 1
                key = next(keys)
            except StopIteration:
                return
            except KeyboardInterrupt:
                if signals.count:
                    return
                raise
            finally:
                signals.raises_from = 0
            yield key

    def _continue_without_tasks(self) -> bool:
        """Return whether the run goes on although no task is in flight."""
        self._recorder.flush()
        if self._is_draining:
            return False
        self._source.ask_again()
        self._hand_out()
        if self._executor.is_busy() or self._has_more or self._executor.room() == 0:
            return True  # without a task there is no room only while no worker is ready
        return self._source.next_due() is not None or self._source.begin_again()

    def _seconds_to_wait(self) -> float:
        if self._has_more and not self._is_draining:
            return 0.0
        now = time.monotonic()
        wait = min(POLL if self._options.stop is not None else LONGEST_WAIT, self._recorder.seconds_left(),
                   max(0.0, self._deadline - now))
        due = None if self._is_draining else self._source.next_due()
        if due is not None:
            wait = min(wait, max(0.0, due - now))
        if self._kill_at is not None:
            wait = min(wait, max(0.0, self._kill_at - now))
        return wait

    # Ending

    def _look_for_reasons_to_end(self) -> None:
        signals = self._signals
        signals.drain()
        signals.suspend_if_wanted(self._executor.suspend, self._executor.resume)
        if signals.count:
            # Ctrl-C waits for what is running, because a person can press it again.
            is_patient = signals.count == 1 and signals.number == signal.SIGINT
            if is_patient and not self._is_draining and self._executor.is_busy():
                LOGGER.warning("run() waits for the tasks that are running; Ctrl-C again ends them")
            grace = float("inf") if is_patient else GRACE
            self._drain("stopped", 0.0 if signals.count > 1 else grace)
        elif self._options.stop is not None and self._options.stop.is_set():
            self._drain("stopped", GRACE)
        elif time.monotonic() >= self._deadline:
            self._deadline = float("inf")
            self._drain("deadline", GRACE)

    def _drain(self, reason: str, grace: float) -> None:
        """Hand out no more tasks, and end those that are still running after ``grace`` seconds."""
        if not self._is_draining:
            self._is_draining = True
            self._report.reason = reason
            self._kill_at = time.monotonic() + grace
            self._executor.begin_no_more()
        elif grace == 0.0:
            self._kill_at = 0.0

    # What became of tasks

    def _handle(self, event: Event) -> None:
        task, outcome = event
        if outcome is None:
            if self._is_draining:
                self._source.give_back([task])
            else:
                self._source.put_back(task)
        elif outcome.kind == worker.DONE:
            self._handle_done(task, outcome)
        elif outcome.kind == worker.ABORTED:
            assert outcome.error is not None
            self._source.end(task)
            self._report.aborted += 1
            error = {**outcome.error, "try": task.tries}
            self._recorder.add(task, FINISH_ABORTED, error)
            self._failures.append((task.key, error, True))
        else:
            self._handle_failed(task, outcome)

    def _handle_done(self, task: Task, outcome: Outcome) -> None:
        data: dict[str, Any] | None = None
        new_keys: list[Any] | None = None
        if outcome.data is not None:
            try:
                data, new_keys = pickle.loads(outcome.data)
            except BaseException as error:
                self._handle_failed(task, Outcome(worker.FAILED, None, describe_error(error)))
                return
            if data is not None and not RESERVED.isdisjoint(data):
                names = ", ".join(sorted(RESERVED.intersection(data)))
                self._handle_failed(task, Outcome(worker.FAILED, None, task_failure(
                    "ValueError", f"the result has the keys {names}, which belong to the tracker")))
                return
        self._source.end(task)
        self._results += 1
        self._recorder.add(task, FINISH_DONE, data, new_keys, len(outcome.data or b""))

    def _handle_failed(self, task: Task, outcome: Outcome) -> None:
        assert outcome.error is not None
        error = {**outcome.error, "try": task.tries}
        if error["type"] == "TaskTimeout":
            self._report.timed_out += 1
        if outcome.kind == worker.RETRY and not outcome.counted:
            # The task is tried again, however often.
            self._wait(task, error, outcome.after, is_try=False)
        elif self._has_tries_left(task):
            task.retries += 1
            self._report.retried += 1
            self._wait(task, error, outcome.after, is_try=True)
            self._failures.append((task.key, error, False))
        else:
            self._fail(task, error)

    def _has_tries_left(self, task: Task) -> bool:
        max_tries, retries = self._tracker.max_tries, self._options.retries
        if max_tries and task.tries >= max_tries:
            return False
        return bool(max_tries) if retries is None else task.retries < retries

    def _delay(self, tries: int) -> float:
        """Return the delay before the next try: at random, so that tasks that failed together come apart.

        This is "full jitter": https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/
        """
        backoff = self._options.backoff
        if callable(backoff):
            return max(0.0, float(backoff(tries)))
        return random.uniform(0.0, min(MAX_BACKOFF, backoff * 2.0 ** min(max(tries, 1) - 1, 60)))

    def _wait(self, task: Task, error: dict[str, Any], seconds: float | None, is_try: bool) -> None:
        """Let a task wait for its next try, and record why. ``seconds`` is None for the backoff.

        The time of the next try is kept with the task, also when the program ends before it.
        """
        if seconds is None:
            seconds = self._delay(task.tries)
        error["retry_at"] = now_text(time.time() + seconds)
        if not self._is_draining and self._source.wait(task, seconds):
            self._recorder.add(task, FINISH_RETRY if is_try else FINISH_POSTPONED, error)
        else:
            error["retries"] = task.retries
            self._source.end(task)
            self._recorder.add(task, FINISH_FAILED if is_try else FINISH_GIVEN_BACK, error)

    def _fail(self, task: Task, error: dict[str, Any]) -> None:
        self._source.end(task)
        report = self._report
        report.failed += 1
        if len(report.errors) < MAX_ERRORS:
            report.errors.append((task.key, error))
        self._recorder.add(task, FINISH_FAILED, error)
        self._failures.append((task.key, error, True))
        limit = self._options.max_failures
        if limit is not None and not self._is_draining:
            finished = self._results + report.failed
            if report.failed > limit if isinstance(limit, int) else (
                    finished >= MIN_FINISHED and report.failed > limit * finished):
                self._drain("max_failures", GRACE)

    def _on_saved(self, task: Task, data: dict[str, Any] | None) -> None:
        self._report.done += 1
        if self._options.on_result is not None:
            self._call(self._options.on_result, task.key, data)

    def _call(self, function: Callable[..., object], *arguments: Any) -> None:
        """Call a function of the user, which a second Ctrl-C ends."""
        self._signals.raises_from = 2
        try:
            function(*arguments)
        finally:
            self._signals.raises_from = 0

    def _on_refused(self, task: Task, error: Exception) -> None:
        """Fail a task whose result cannot be stored. Its function would return the same again, but it has its tries."""
        self._handle_failed(task, Outcome(worker.FAILED, None, describe_error(error)))

    def _call_on_failure(self) -> None:
        """Call the user's function for the tries that have failed, after all of them are recorded: it may raise."""
        failures, self._failures = self._failures, []
        if self._options.on_failure is not None:
            for key, error, is_final in failures:
                self._call(self._options.on_failure, key, error, is_final)
