"""Open a store with the class for its kind."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, NamedTuple

from tastypy_fast import (
    PersistentOrderedDict,
    ProgressTracker,
    SharedPersistentOrderedDict,
    SharedProgressTracker,
    StoreInUseError,
    StoreKindError,
    StoreNotFoundError,
)
from tastypy_fast._inspect.lock_holders import find_lock_holders
from tastypy_fast._inspect.store_info import read_store_info
from tastypy_fast._paths import resolved
from tastypy_fast.cli.exit_codes import CANNOT_OPEN, CommandError

__all__ = [
    "TASK_FIELDS",
    "Reader",
    "StoreIdentity",
    "Writer",
    "identify_store",
    "is_tracker",
    "open_reader",
    "open_tracker",
    "open_writer",
    "require_tracker",
]

# The fields of a task that hold its status.
TASK_FIELDS = {"_done", "_aborted", "_tries"}
NO_TASKS = "the store at {} is a plain dict, which has no tasks; use a tracker"

Reader = PersistentOrderedDict | ProgressTracker
Writer = SharedPersistentOrderedDict | SharedProgressTracker


def open_reader(path: str, max_tries: int = 0) -> Reader:
    """Open a store read-only. Other processes may write it meanwhile. The last sync is visible."""
    try:
        return ProgressTracker(path, max_tries, mode="r")
    except StoreKindError:
        return PersistentOrderedDict(path, mode="r")


def is_tracker(store: object) -> bool:
    """Return whether a store is a tracker."""
    return isinstance(store, (ProgressTracker, SharedProgressTracker))


def require_tracker(store: Any) -> Any:
    """Return the store if it is a tracker. Raises CommandError otherwise."""
    if not is_tracker(store):
        raise CommandError(NO_TASKS.format(store.path), CANNOT_OPEN)
    return store


class StoreIdentity(NamedTuple):
    """The kind of a store, and its ``file_size``, which opening it to write must pass on to leave it unchanged."""

    is_tracker: bool
    file_size: int


def identify_store(path: str) -> StoreIdentity:
    """Return the kind and file size of the store at a path. Raises the errors of opening it."""
    with open_reader(path) as reader:
        return StoreIdentity(is_tracker(reader), read_store_info(reader._store).file_size)


def open_writer(path: str, create: type[Writer] | None = None) -> Writer:
    """Open a store to write, shared with other processes. Raises CommandError if a process has it open privately.

    If there is no store and ``create`` is given, make one of that class.
    """
    try:
        found = identify_store(path)
    except StoreNotFoundError:
        if create is None:
            raise
        return create(path)
    kind = SharedProgressTracker if found.is_tracker else SharedPersistentOrderedDict
    with _naming_the_owner(path):
        return kind(path, file_size=found.file_size)


def open_tracker(path: str, max_tries: int = 0, private: bool = False) -> ProgressTracker | SharedProgressTracker:
    """Open a tracker to run its tasks, shared with other processes unless ``private``. Raises the same errors."""
    found = identify_store(path)
    if not found.is_tracker:
        raise CommandError(NO_TASKS.format(path), CANNOT_OPEN)
    if private:
        return ProgressTracker(path, max_tries, file_size=found.file_size)
    with _naming_the_owner(path):
        return SharedProgressTracker(path, max_tries, file_size=found.file_size)


@contextlib.contextmanager
def _naming_the_owner(path: str) -> Iterator[None]:
    """Turn the error of a store that a process has open privately into one that names this process."""
    try:
        yield
    except StoreInUseError as error:
        owner = find_lock_holders(resolved(path)).text or "another process"
        raise CommandError(
            f"{owner} has the store at {path} open privately, so nothing was changed; wait until it closes the store "
            f"(reading works meanwhile), or use a shared class in that process", CANNOT_OPEN
        ) from error
