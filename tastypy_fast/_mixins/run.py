"""Add ``run()`` to the trackers: a whole pipeline in one call."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar, Generic

from tastypy_fast._type_parameters import K
from tastypy_fast.pipeline import RunReport
from tastypy_fast.types import SupportsSubmit

__all__ = ["RunMixin"]


class RunMixin(Generic[K]):
    """The part of a tracker that runs a function on its tasks. ``pipeline.runner`` does the work."""

    # Whether a try counts when a task is taken, and not when it ends.
    _counts_tries_of_claims: ClassVar[bool] = False

    # What a run could not write, because the disk was full for example. The next one writes it first.
    _unwritten_results: Sequence[Any] = ()

    def run(
        self,
        func: Callable[..., Any],
        *,
        workers: int | None = None,
        timeout: float | None = None,
        retries: int | None = None,
        progress: bool | dict[str, Any] = False,
        executor: str | SupportsSubmit | Callable[[], SupportsSubmit] | None = None,
        tasks: Iterable[K] | None = None,
        with_data: bool = False,
        allow_aborted: bool = False,
        backoff: float | Callable[[int], float] = 1.0,
        abort_on: type[BaseException] | tuple[type[BaseException], ...] = (),
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
        start_method: str | None = None,
        deadline: float | None = None,
        max_failures: float | None = None,
        on_result: Callable[[K, dict[str, Any] | None], object] | None = None,
        on_failure: Callable[[K, dict[str, Any], bool], object] | None = None,
        stop: threading.Event | None = None,
    ) -> RunReport:
        """Call ``func(key)`` for every task that is to be done, on all processors, and keep results and errors.

        A task is done when the function returns. Its result, the mark and the tasks that it adds are one commit. If the
        function raises, or its worker dies, the error is kept with the task as ``_error``, and the task is tried again
        until it has had ``max_tries`` tries. Nothing that a task does ends the run. A run that was stopped or killed is
        continued by the same call.

        The function returns None, a dict, which is mixed into the task, or another value that JSON can hold, which
        becomes the field ``result``. ``pipeline.TaskResult(data, add=keys)`` also adds tasks. It may raise
        ``pipeline.Abort(reason)``, and ``pipeline.Retry(after=seconds)`` to be tried again later.
        ``pipeline.current_task()`` tells it the number of the try and of the worker.

        Tasks run at least once. A task whose result was committed never runs again. After a kill of the program, the
        tasks that were running run again, and so do tasks whose results were not committed: those of the last half
        second. Tasks that ran in threads, as coroutines or inline have used up a try then, because one of them may have
        killed the program. Tasks that ran in worker processes have not.

        Ctrl-C hands out no more tasks, waits for those that run, commits, and raises KeyboardInterrupt. A second Ctrl-C
        ends running tasks; they have as many tries left as before. SIGTERM, SIGHUP, ``stop`` and ``deadline`` give
        running tasks 8 seconds. Signals are handled in the main thread only, and only if the program has no handlers of
        its own. The guide, "Failures, retries, timeouts", has the details.

        Args:
            func: The function. With processes, it runs in worker processes, so it must not use this tracker.
            workers: The number of tasks that run at once. The default is the number of processors that this process may
                use, or 100 coroutines.
            timeout: The longest time of one task, in seconds. A task that takes longer is killed with all processes
                that it has started (processes), or cancelled (async), and has failed.
            retries: How often a failed task is tried again in this run, within ``max_tries``. By default as often as
                ``max_tries`` allows; without ``max_tries``, not at all.
            progress: Whether to show a bar, as ``progress()`` does. A dict has options of tqdm.
            executor: Where tasks run: ``"processes"`` (the default), ``"threads"``, ``"async"`` (the default for a
                coroutine function), or ``"inline"``, in this thread, for debuggers. Or a client of a Dask cluster, an
                executor of ``concurrent.futures``, another object with ``submit(function, *arguments)``, or a function
                that makes one of these; see the guide, "More than one machine".
            tasks: The keys to run, in this order. By default all tasks that are to be done, in the order in which they
                were added, also those that are added during the run.
            with_data: Whether to call ``func(key, data)`` with a copy of the task's data.
            allow_aborted: Whether to run aborted tasks, too.
            backoff: The delay before a retry, in seconds: a random time up to this, doubled with each try, 300 at most.
                Or a function from the number of the failed try to the delay. The time of the next try is kept with the
                task, also when the program ends.
            abort_on: Exceptions that abort a task: it is not tried again.
            initializer: A function that each worker calls first.
            initargs: Its arguments.
            start_method: The start method of multiprocessing: ``"fork"``, ``"spawn"`` or ``"forkserver"``. The default
                is that of multiprocessing. The last two need a function that can be pickled; with the extra ``run``,
                lambdas and closures can be.
            deadline: The longest time of the run, in seconds. After it, no more tasks are handed out.
            max_failures: How many tasks may fail before the run ends, or, as a float below 1, which share of those that
                have ended, if they are at least 100. 0 ends the run with the first.
            on_result: Called as ``on_result(key, data)`` in this process when a result was recorded.
            on_failure: Called as ``on_failure(key, error, final)`` in this process when a try has failed. What these
                two raise ends the run after a commit.
            stop: An event that ends the run in order, for programs that handle signals themselves.

        Returns:
            How many tasks were done, failed, and are left, why the run ended, and the first errors.

        Raises:
            WorkerStartError: The workers cannot start, or the initializer raised. No try is counted.
            ExecutorLostError: The executor that was given broke, was shut down, or lost its scheduler. What was done is
                committed.
            UnsendableFunctionError: The function cannot be pickled, or cloudpickle is needed and not installed.
            RunInProgressError: Another thread is running this private tracker.
            KeyError: A key of ``tasks`` does not exist.
            KeyboardInterrupt: Ctrl-C.
            ValueError: An argument is wrong, or two contradict each other.
            ImportError: The extra ``progress`` is not installed, which ``progress`` needs.
            StorageError: The results cannot be written. They stay in memory, as after a failed ``sync()``.

        Cost:
            6 to 15 microseconds of this process for each task, and constant memory. Chunks of tasks are sent to the
            workers, so that short tasks cost no more. A commit each half second.

        Example:
            >>> tracker = ProgressTracker(path, max_tries=3)
            >>> tracker.add_many_if_absent(["a", "bb"])
            >>> report = tracker.run(len, workers=2)
            >>> report.done, tracker["bb"]["result"]
            (2, 2)
        """
        from tastypy_fast.pipeline.runner import RunOptions, run_tasks

        return run_tasks(self, func, RunOptions(
            workers=workers, timeout=timeout, retries=retries, progress=progress, executor=executor, tasks=tasks,
            with_data=with_data, allow_aborted=allow_aborted, backoff=backoff, abort_on=abort_on,
            initializer=initializer, initargs=initargs, start_method=start_method, deadline=deadline,
            max_failures=max_failures, on_result=on_result, on_failure=on_failure, stop=stop))
