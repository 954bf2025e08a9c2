"""Run tasks in a worker: what a function returns or raises becomes an outcome that can be sent.

This module imports the standard library only, and no other module of the package. So a worker on another machine needs
neither the package nor LMDB, because the module is sent to it by value.

A chunk is a list of tasks, each a tuple (key, number of the try, data). The outcomes have the order of the tasks. A
chunk ends early after CHUNK_SECONDS or CHUNK_BYTES; the tasks without an outcome have not begun.
"""

from __future__ import annotations

import contextvars
import pickle
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timezone
from typing import Any, NamedTuple

__all__ = [
    "ABORTED",
    "DONE",
    "FAILED",
    "RETRY",
    "Abort",
    "CurrentTask",
    "Outcome",
    "Retry",
    "TaskFunction",
    "TaskResult",
    "current_task",
    "describe_error",
    "run_chunk",
    "task_failure",
]

# A chunk ends after this time, in seconds, so that no task waits behind a long one while other workers are idle.
CHUNK_SECONDS = 0.2
# A chunk ends after so many bytes of results, because the program keeps them in memory.
CHUNK_BYTES = 1 << 20
# A task whose result is larger than this, in bytes, has failed.
MAX_RESULT = 64 << 20
# How much of an error is kept, in characters.
MAX_MESSAGE, MAX_TRACEBACK = 2000, 8000

# Errors of these modules are named without the module.
_WITHOUT_MODULE = ("builtins", "__main__", "__mp_main__", "tastypy_fast.exceptions")

# The kinds of outcomes.
DONE, FAILED, ABORTED, RETRY = range(4)


class Outcome(NamedTuple):
    """What became of one task.

    ``kind`` is DONE, FAILED, ABORTED or RETRY. ``data`` of a done task is None or the pickle of (dict or None, list of
    keys to add or None). For the other kinds, ``data`` is None and ``error`` is the dict that is kept as ``_error``.
    ``after`` and ``counted`` belong to RETRY: the delay in seconds (None: the backoff), and whether the try counts.
    """

    kind: int
    data: bytes | None = None
    error: dict[str, Any] | None = None
    after: float | None = None
    counted: bool = True


_DONE = Outcome(DONE)


def encode_item(outcome: Outcome) -> Any:
    """Return an outcome as it is sent: None, bytes or a tuple. ``wire.decode_outcome()`` reads it."""
    return tuple(outcome) if outcome.kind else outcome.data


class TaskResult:
    """The result of a task that also adds tasks, as a page of a crawl adds its links.

    The data, the mark "done" and the new tasks are saved together.

    Args:
        data: What the function would return otherwise: None, a dict that is mixed into the task, or another value,
            which becomes the field ``result``.
        add: The keys of tasks to add. Those that exist are skipped.

    Example:
        >>> from tastypy_fast.pipeline import TaskResult
        >>> TaskResult({"size": 3}, add=["/a", "/b"]).add
        ['/a', '/b']
    """

    __slots__ = ("add", "data")

    # Recognized by this, also in a subclass.
    _is_task_result = True

    def __init__(self, data: Any = None, *, add: Iterable[Any] = ()) -> None:
        self.data = data
        self.add = list(add)


class Abort(Exception):
    """Raise it in a task that must not be tried again. The task is aborted, and the reason is kept as its ``_error``.

    Args:
        reason: A text for the people who read the list of errors.

    Example:
        >>> from tastypy_fast.pipeline import Abort
        >>> raise Abort("the page is gone")
        Traceback (most recent call last):
        ...
        tastypy_fast.pipeline.worker.Abort: the page is gone
    """

    # Recognized by this and not by the class, because the class may have been sent by value.
    _task_outcome = ABORTED

    def __init__(self, reason: object = "") -> None:
        super().__init__(reason)


class Retry(Exception):
    """Raise it in a task that has to be tried again later, for example because a server asks for it.

    Args:
        after: The delay, in seconds. None stands for the delay of a failed try.
        count: Whether this try counts. Otherwise the task has as many tries left as before.
        reason: A text for the people who read the list of errors.

    Example:
        >>> from tastypy_fast.pipeline import Retry
        >>> Retry(after=30).count
        False
    """

    _task_outcome = RETRY

    def __init__(self, after: float | None = None, *, count: bool = False, reason: object = "") -> None:
        super().__init__(reason)
        if after is not None and not 0 <= after < float("inf"):
            raise ValueError(f"Retry(after=) takes seconds, not {after!r}")
        self.after = after
        self.count = count

    def __str__(self) -> str:
        return str(self.args[0]) or "the task asked to be tried again"


class CurrentTask(NamedTuple):
    """The task that a function is running.

    ``key`` is its key. ``tries`` is the number of this try: 1 for the first. ``slot`` is the number of the worker, from
    0 to ``workers`` - 1, for example to choose a GPU; a worker that replaces a dead one has its slot. ``data`` is the
    task's data with ``with_data=True``, else None.
    """

    key: Any
    tries: int
    slot: int
    data: dict[str, Any] | None = None


def _current() -> contextvars.ContextVar[CurrentTask]:
    """Return the variable with the task of this thread. It is no global, because that could not be sent by value."""
    try:
        return sys._tastypy_fast_current_task  # type: ignore[attr-defined, no-any-return]
    except AttributeError:
        variable: contextvars.ContextVar[CurrentTask] = contextvars.ContextVar("current_task")
        return vars(sys).setdefault("_tastypy_fast_current_task", variable)  # type: ignore[no-any-return]


def current_task() -> CurrentTask:
    """Return the task that the calling function runs for ``tracker.run()``.

    Returns:
        Its key, the number of this try, and the number of the worker.

    Raises:
        RuntimeError: No task is running in this thread.

    Cost:
        A lookup of a context variable.

    Example:
        >>> from tastypy_fast.pipeline import current_task
        >>> tracker = ProgressTracker(path, init={"a": {}})
        >>> def work(key):
        ...     return {"try": current_task().tries}
        >>> tracker.run(work, executor="inline").done, tracker["a"]["try"]
        (1, 1)
    """
    try:
        return _current().get()
    except LookupError:
        raise RuntimeError(
            "no task is running here; current_task() is for functions that tracker.run() calls") from None


def now_text(seconds: float | None = None) -> str:
    """Return a time of ``time.time()``, by default now, as the text that is kept with tasks."""
    moment = datetime.fromtimestamp(time.time() if seconds is None else seconds, timezone.utc)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def parse_time(text: object) -> float | None:
    """Return the ``time.time()`` of a text that ``now_text()`` made, or None for anything else."""
    if not isinstance(text, str):
        return None
    try:
        return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()
    except ValueError:
        return None


def shorten(text: str, limit: int) -> str:
    """Return a text of at most ``limit`` characters, with the beginning and the end of a longer one."""
    if len(text) <= limit:
        return text
    half = (limit - 5) // 2
    return f"{text[:half]}\n...\n{text[-half:]}"


def describe_error(error: BaseException | str, skip_frames: int = 0) -> dict[str, Any]:
    """Return the dict that is kept as ``_error`` of a task: type, message, traceback and time.

    ``skip_frames`` is the number of frames at the beginning of the traceback that belong to this package. An exception
    of ours may have an attribute ``_task_error``, a dict of more fields, as the exit code of a command. It may have the
    field "type", too. Then no traceback is kept, because the fields say what failed.
    """
    if isinstance(error, str):
        return {"type": "Error", "message": _printable(shorten(error, MAX_MESSAGE)), "at": now_text()}
    kind = type(error)
    name = kind.__qualname__ if kind.__module__ in _WITHOUT_MODULE else f"{kind.__module__}.{kind.__qualname__}"
    try:
        message = str(error)
    except BaseException as failure:
        message = f"<str() of the error raised {type(failure).__name__}>"
    message = _printable(shorten(message, MAX_MESSAGE))
    fields = getattr(error, "_task_error", None)
    if isinstance(fields, dict):
        return {"type": name, "message": message, **fields, "at": now_text()}
    frames = error.__traceback__
    for _ in range(skip_frames):
        frames = frames.tb_next if frames is not None else None
    try:
        lines = traceback.format_exception(kind, error, frames)
    except BaseException as failure:
        lines = [f"<the traceback could not be formatted: {type(failure).__name__}>\n"]
    return {"type": name, "message": message, "traceback": _printable(shorten("".join(lines), MAX_TRACEBACK)),
            "at": now_text()}


def _printable(text: str) -> str:
    """Replace lone surrogates, which JSON cannot hold."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def task_failure(type_name: str, message: str, **more: Any) -> dict[str, Any]:
    """Return the ``_error`` of a task that no exception ended: its worker died, or it took too long."""
    return {"type": type_name, "message": message, **more, "at": now_text()}


def exit_facts(exit_code: int | None) -> dict[str, Any]:
    """Return the fields of ``_error`` for an exit code, which is negative for a signal, and None if unknown."""
    if exit_code is None:
        return {}
    if exit_code >= 0:
        return {"exit_code": exit_code}
    try:
        return {"signal": signal.Signals(-exit_code).name}
    except ValueError:
        return {"signal": f"signal {-exit_code}"}


def exit_text(exit_code: int | None) -> str:
    """Return an exit code as a text: "exit code 1", "SIGKILL"."""
    facts = exit_facts(exit_code)
    return facts.get("signal") or (f"exit code {exit_code}" if facts else "an unknown exit code")


class TaskFunction(NamedTuple):
    """The function of a run, and how to call it."""

    function: Callable[..., Any]
    with_data: bool = False
    abort_on: tuple[type[BaseException], ...] = ()

    def __call__(self, task: tuple[Any, int, Any], slot: int) -> Outcome:
        """Run one task in this thread, and return what became of it. Raises only KeyboardInterrupt."""
        key, tries, data = task
        variable = _current()
        token = variable.set(CurrentTask(key, tries, slot, data))
        began = time.monotonic()
        try:
            result = self.function(key, data) if self.with_data else self.function(key)
            return outcome_of(result)
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            return self.outcome_of_error(error, began)
        finally:
            variable.reset(token)

    async def run_async(self, task: tuple[Any, int, Any], slot: int) -> Outcome:
        """Run one task whose function is a coroutine function. Otherwise the same as a call. Raises nothing."""
        key, tries, data = task
        variable = _current()
        token = variable.set(CurrentTask(key, tries, slot, data))
        began = time.monotonic()
        try:
            result = await (self.function(key, data) if self.with_data else self.function(key))
            return outcome_of(result)
        except BaseException as error:
            return self.outcome_of_error(error, began)
        finally:
            variable.reset(token)

    def outcome_of_error(self, error: BaseException, began: float) -> Outcome:
        """Return the outcome of a task that raised. ``began`` is a time of ``time.monotonic()``. Raises nothing."""
        try:
            return self._outcome_of_error(error, began)
        except BaseException:
            # Its class is hostile, or there is no memory for its description.
            return Outcome(FAILED, None, task_failure("Error", "the task raised an error that cannot be described"))

    def _outcome_of_error(self, error: BaseException, began: float) -> Outcome:
        wanted = getattr(type(error), "_task_outcome", None)
        info = describe_error(error, 1)
        info["seconds"] = round(time.monotonic() - began, 3)
        if wanted is None:
            return Outcome(ABORTED if isinstance(error, self.abort_on) else FAILED, None, info)
        # A request of the task's own, in which its traceback is of no use.
        info["type"] = type(error).__name__
        info.pop("traceback", None)
        if wanted == RETRY:
            after = error.after  # type: ignore[attr-defined]
            count = bool(error.count)  # type: ignore[attr-defined]
            return Outcome(RETRY, None, info, None if after is None else float(after), count)
        return Outcome(ABORTED, None, info)


def outcome_of(result: Any) -> Outcome:
    """Return the outcome of a task whose function returned ``result``. Raises if it cannot be sent."""
    if result is None:
        return _DONE
    add = None
    # By its attributes and not by its class, because the class may have been sent by value.
    if getattr(type(result), "_is_task_result", False):
        result, add = result.data, result.add or None
    if isinstance(result, dict):
        # The items of a defaultdict can be sent, even where its factory cannot.
        result = dict(result)
    elif result is not None:
        result = {"result": result}
    data = pickle.dumps((result, add), 5)
    if len(data) > MAX_RESULT:
        return Outcome(FAILED, None, task_failure(
            "ResultTooLarge", f"the result has {len(data):,} bytes; the limit is {MAX_RESULT:,}. Write it to a file, "
            f"and return the file's name"))
    return Outcome(DONE, data)


def run_chunk(
    function: Callable[[tuple[Any, int, Any], int], Outcome], tasks: Sequence[tuple[Any, int, Any]], slot: int = 0,
    on_task: Callable[[int, float], object] | None = None, outcomes: list[Outcome] | None = None,
) -> list[Outcome]:
    """Run tasks until the chunk's time is up, and return the outcomes of those that have begun.

    They are appended to ``outcomes``, if it is given, as soon as they are known.

    ``on_task(index, time)`` is called before each task, with its place in the chunk and ``time.monotonic()``. If it
    returns False, the chunk ends before that task.
    """
    outcomes = [] if outcomes is None else outcomes
    size = 0
    now = time.monotonic()
    end = now + CHUNK_SECONDS
    for index, task in enumerate(tasks):
        if on_task is not None and on_task(index, now) is False:
            break
        outcome = function(task, slot)
        outcomes.append(outcome)
        if outcome.data is not None:
            size += len(outcome.data)
        now = time.monotonic()
        if now >= end or size >= CHUNK_BYTES:
            break
    return outcomes
