"""Define types for annotations: keys, pairs, claims, iterators, and the interface of private and shared stores."""

from __future__ import annotations

import builtins
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from datetime import datetime
from typing import IO, Any, Literal, NamedTuple, Protocol, TypeVar, Union, get_args, overload, runtime_checkable

from tastypy_fast._type_parameters import K, Key, T, T_co, V

__all__ = [
    "Claim",
    "ClaimIterator",
    "ClaimState",
    "Durability",
    "Key",
    "Mode",
    "Pairs",
    "ProgressBar",
    "StatusCounts",
    "StoreIterator",
    "StoreLike",
    "SupportsItems",
    "SupportsKeysAndGetItem",
    "SupportsSubmit",
    "TaskStatus",
    "TrackerLike",
]

Mode = Literal["w", "r"]
"""How a store is opened. ``"w"`` reads and writes, ``"r"`` only reads."""

Durability = Literal["full", "normal", "process", "unsafe"]
"""What a power cut can undo. ``full``: nothing. ``normal``: the last commit. ``process``: all since the last flush.
With ``unsafe`` it may damage the store."""

TaskStatus = Literal["new", "running", "to retry", "failed", "aborted", "done"]
"""The status of a task. Each task has exactly one, the first of these that is true. ``done``: it is marked done.
``running``: a living process has claimed it, or is trying it. ``aborted``: it is marked aborted. ``failed``: it has no
tries left. ``to retry``: it was tried, and has tries left, or there is no limit. ``new``: it was never tried."""

ClaimState = Literal["running", "unfinished", "waiting"]
"""The state of a claimed task. ``Claim`` defines the states."""

Self = TypeVar("Self")
K_co = TypeVar("K_co", covariant=True)
V_co = TypeVar("V_co", covariant=True)


class SupportsItems(Protocol[K_co, V_co]):
    """A mapping that has ``items()``."""

    def items(self) -> Iterable[tuple[K_co, V_co]]: ...


class SupportsKeysAndGetItem(Protocol[T, V_co]):
    """A mapping that has ``keys()`` and ``mapping[key]``."""

    def keys(self) -> Iterable[T]: ...
    def __getitem__(self, key: T, /) -> V_co: ...


class SupportsSubmit(Protocol):
    """What ``run(executor=)`` takes: an executor of ``concurrent.futures``, a client of Dask, or a class of your own.

    ``submit(function, *arguments)`` returns a future with ``add_done_callback()``, ``result()`` and ``cancel()``.
    """

    def submit(self, function: Callable[..., Any], /, *arguments: Any) -> Any: ...


Pairs = Union[  # noqa: UP007  (Python 3.10 cannot subscript a union of protocols)
    Mapping[K, V], SupportsItems[K, V], SupportsKeysAndGetItem[K, V], Iterable[tuple[K, V]]
]
"""An argument of ``update()`` and ``init``: a mapping or an iterable of pairs."""


class StatusCounts(NamedTuple):
    """The number of tasks of each ``TaskStatus``, read in one snapshot. The six numbers add up to ``tasks``.

    Example:
        >>> tracker = ProgressTracker(path, max_tries=3, init={"a": {"_done": True}, "b": {"_tries": 1}})
        >>> counts = tracker.count_by_status()
        >>> counts.done, counts.to_retry, counts.tasks
        (1, 1, 2)
        >>> counts.by_word()["to retry"]
        1
    """

    new: int = 0
    running: int = 0
    to_retry: int = 0
    failed: int = 0
    aborted: int = 0
    done: int = 0

    @property
    def tasks(self) -> int:
        """The number of all tasks."""
        return sum(self)

    @property
    def left(self) -> int:
        """The number of tasks that are new, running or to retry."""
        return self.new + self.running + self.to_retry

    def by_word(self) -> dict[TaskStatus, int]:
        """Return a dict from each status, such as ``"to retry"``, to its number of tasks."""
        return dict(zip(get_args(TaskStatus), self, strict=True))


class Claim(NamedTuple):
    """The claim of a worker on a task of a shared tracker.

    Attributes:
        process: The number of the worker's process.
        host: The name of the worker's host.
        since: When the task was claimed, in UTC.
        state: ``"running"``: the worker works on the task. A task that ``should_try()`` has claimed is running until
            it is finished or released. ``"unfinished"``: the worker's iterator has ended or yielded another task, and
            did not finish this one. It stays claimed for the worker's next iterator, so its status is "to retry" or
            "failed". ``"waiting"``: the task was claimed in a batch, and was not yielded yet.
    """

    process: int
    host: str
    since: datetime
    state: ClaimState


# Iterators


@runtime_checkable
class StoreIterator(Protocol[T_co]):
    """The iterator that ``iterkeys()``, ``todo_items()`` and similar methods return. It also yields later keys."""

    def __iter__(self) -> Iterator[T_co]: ...
    def __next__(self) -> T_co: ...


@runtime_checkable
class ClaimIterator(StoreIterator[T_co], Protocol[T_co]):
    """The iterator that ``try_keys()``, ``try_values()`` and ``try_items()`` return. It counts a try of each task.

    On a shared tracker it claims the task first.
    """

    def close(self) -> None:
        """End the iteration.

        On a shared tracker, tasks that were claimed and not yielded are released, and their tries are subtracted.
        """


class ProgressBar(Protocol[T_co]):
    """A tqdm bar, which ``progress()`` returns. Only the most used members are declared here."""

    n: Any
    total: Any
    failed: int
    aborted: int

    def __iter__(self) -> Iterator[T_co]: ...
    def __enter__(self: Self) -> Self: ...
    def __exit__(self, *exception: Any) -> None: ...
    def update(self, n: float | None = 1) -> bool | None: ...
    def close(self) -> None: ...
    def __getattr__(self, name: str, /) -> Any: ...


# The interface of private and shared stores


@runtime_checkable
class StoreLike(Protocol[K, V]):
    """A store, private or shared: ``PersistentOrderedDict``, ``SharedPersistentOrderedDict`` and the trackers.

    Use it to annotate an argument that may be any of them. ``isinstance(x, StoreLike)`` checks only that attributes
    with these names exist. Before Python 3.12 this reads the properties, so it raises CalledClosedTrackerError for a
    closed store.

    Example:
        >>> from tastypy_fast.types import StoreLike
        >>> def swap(store: StoreLike[str, int], one: str, other: str) -> None:
        ...     with store.locked():
        ...         store[one], store[other] = store[other], store[one]
        >>> pod = PersistentOrderedDict[str, int](path, init={"a": 1, "b": 2})
        >>> swap(pod, "a", "b")
        >>> pod.items()
        [('a', 2), ('b', 1)]
    """

    @property
    def path(self) -> str: ...
    @property
    def mode(self) -> Mode: ...
    @property
    def durability(self) -> Durability: ...
    @property
    def gzipped(self) -> bool: ...
    @property
    def file_size(self) -> int: ...
    @property
    def closed(self) -> bool: ...
    @property
    def set(self) -> Any: ...
    @set.setter
    def set(self, value: Any) -> None: ...

    def __getitem__(self, key: K, /) -> V: ...
    def __setitem__(self, key: K, value: V, /) -> None: ...
    def __delitem__(self, key: K, /) -> None: ...
    def __contains__(self, key: object, /) -> bool: ...
    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[K]: ...
    def __reversed__(self) -> Iterator[K]: ...
    def __enter__(self: Self) -> Self: ...
    def __exit__(self, *exception: object) -> None: ...

    # With a default these return Any, because mypy and pyright infer V in generic functions only from this form.
    @overload
    def get(self, key: K) -> V | None: ...
    @overload
    def get(self, key: K, default: Any) -> Any: ...
    def get_many(self, keys: Iterable[K]) -> Iterator[tuple[K, V]]: ...
    @overload
    def pop(self, key: K) -> V: ...
    @overload
    def pop(self, key: K, default: Any) -> Any: ...
    def setdefault(self, key: K, default: V) -> V: ...
    def popitem(self, last: bool = True) -> tuple[K, V]: ...
    def move_to_end(self, key: K) -> None: ...
    def update(self, /, *mappings: Pairs[K, V], **pairs: V) -> None: ...
    def clear(self) -> None: ...

    def keys(self) -> list[K]: ...
    def values(self) -> list[V]: ...
    def items(self) -> list[tuple[K, V]]: ...
    def copy(self) -> dict[K, V]: ...
    def __or__(self, other: Mapping[Any, Any], /) -> dict[Any, Any]: ...
    def __ror__(self, other: Mapping[Any, Any], /) -> dict[Any, Any]: ...
    def iterkeys(self) -> StoreIterator[K]: ...
    def itervalues(self) -> StoreIterator[V]: ...
    def iteritems(self) -> StoreIterator[tuple[K, V]]: ...

    def sync(self) -> None: ...
    def sync_key(self, key: K) -> None: ...
    def mark_dirty(self, key: K) -> None: ...
    def dirty(self) -> builtins.set[K]: ...
    def revert(self) -> None: ...
    def hold(self) -> None: ...
    def unhold(self) -> None: ...
    def locked(self: Self) -> AbstractContextManager[Self, None]: ...
    def close(self) -> None: ...

    def export_json(self, folder: str | os.PathLike[str]) -> int: ...
    def export_jsonl(self, target: str | os.PathLike[str] | IO[str] | IO[bytes]) -> int: ...
    def import_jsonl(self, source: str | os.PathLike[str] | IO[str] | IO[bytes]) -> int: ...


@runtime_checkable
class TrackerLike(StoreLike[K, dict[str, Any]], Protocol[K]):
    """A tracker, private or shared: ``ProgressTracker`` and ``SharedProgressTracker``.

    Example:
        >>> from tastypy_fast.types import TrackerLike
        >>> def work(tracker: TrackerLike[str]) -> None:
        ...     for key in tracker.try_keys(batch=100):
        ...         tracker.mark_done(key)
        >>> for cls in ProgressTracker, SharedProgressTracker:
        ...     with cls[str](cls.__name__, init={"a": {}}) as tracker:
        ...         work(tracker)
        ...         print(tracker.num_done())
        1
        1
    """

    @property
    def max_tries(self) -> int: ...
    @property
    def kept_max_tries(self) -> int: ...

    def add(self, key: K) -> None: ...
    def add_if_absent(self, key: K) -> None: ...
    def add_many(self, keys_iterable: Iterable[K]) -> None: ...
    def add_many_if_absent(self, keys_iterable: Iterable[K]) -> None: ...

    def mark_done(self, key: K, data: dict[str, Any] | None = None) -> None: ...
    def mark_done_many(self, keys_iterable: Iterable[K]) -> None: ...
    def record_error(self, key: K, error: BaseException | str) -> None: ...
    def mark_not_done(self, key: K) -> None: ...
    def abort(self, key: K) -> None: ...
    def unabort(self, key: K) -> None: ...
    def increment_tries(self, key: K) -> None: ...
    def decrement_tries(self, key: K) -> None: ...
    def reset_tries(self, key: K) -> None: ...
    def release(self, key: K) -> None: ...

    def done(self, key: K) -> bool: ...
    def aborted(self, key: K) -> bool: ...
    def tries(self, key: K) -> int: ...
    def status(self, key: K) -> TaskStatus: ...
    def count_by_status(self) -> StatusCounts: ...
    def should_do(self, key: K, allow_aborted: bool = False) -> bool: ...
    def should_do_add(self, key: K, allow_aborted: bool = False) -> bool: ...
    def should_try(self, key: K, allow_aborted: bool = False) -> bool: ...
    def should_try_add(self, key: K, allow_aborted: bool = False) -> bool: ...

    def num_done(self) -> int: ...
    def num_aborted(self) -> int: ...
    def num_tried(self) -> int: ...
    def fraction_done(self) -> float: ...
    def fraction_aborted(self) -> float: ...
    def fraction_tried(self) -> float: ...
    def percent_done(self, decimals: int = 2) -> str: ...
    def percent_not_done(self, decimals: int = 2) -> str: ...
    def percent_aborted(self, decimals: int = 2) -> str: ...
    def percent_not_aborted(self, decimals: int = 2) -> str: ...
    def percent_tried(self, decimals: int = 2) -> str: ...
    def percent_not_tried(self, decimals: int = 2) -> str: ...

    def todo_keys(self, allow_aborted: bool = False) -> StoreIterator[K]: ...
    def todo_values(self, allow_aborted: bool = False) -> StoreIterator[dict[str, Any]]: ...
    def todo_items(self, allow_aborted: bool = False) -> StoreIterator[tuple[K, dict[str, Any]]]: ...
    def try_keys(self, allow_aborted: bool = False, *, batch: int = 1) -> ClaimIterator[K]: ...
    def try_values(self, allow_aborted: bool = False, *, batch: int = 1) -> ClaimIterator[dict[str, Any]]: ...
    def try_items(self, allow_aborted: bool = False, *, batch: int = 1) -> ClaimIterator[tuple[K, dict[str, Any]]]: ...
    def aborted_keys(self) -> StoreIterator[K]: ...
    def aborted_values(self) -> StoreIterator[dict[str, Any]]: ...
    def aborted_items(self) -> StoreIterator[tuple[K, dict[str, Any]]]: ...

    # It returns a RunReport of tastypy_fast.pipeline, a higher layer.
    def run(
        self,
        func: Callable[..., Any],
        *,
        workers: int | None = None,
        timeout: float | None = None,
        retries: int | None = None,
        progress: bool | dict[str, Any] = False,
        executor: str | None = None,
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
    ) -> Any: ...

    @overload
    def progress(
        self, iterable: None = None, *, allow_aborted: bool = False, **options: Any
    ) -> ProgressBar[K]: ...
    @overload
    def progress(self, iterable: Iterable[T], *, allow_aborted: bool = False, **options: Any) -> ProgressBar[T]: ...
    def to_arrow(
        self,
        *,
        columns: Iterable[str] | None = None,
        status: TaskStatus | Iterable[TaskStatus] | None = None,
        as_json: Iterable[str] = (),
    ) -> Any: ...
    def to_pandas(
        self,
        *,
        columns: Iterable[str] | None = None,
        status: TaskStatus | Iterable[TaskStatus] | None = None,
        as_json: Iterable[str] = (),
        **options: Any,
    ) -> Any: ...
    def to_polars(
        self,
        *,
        columns: Iterable[str] | None = None,
        status: TaskStatus | Iterable[TaskStatus] | None = None,
        as_json: Iterable[str] = (),
    ) -> Any: ...
