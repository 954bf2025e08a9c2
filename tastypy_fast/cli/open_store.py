"""Opening a store as what it is."""

from __future__ import annotations

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
from tastypy_fast.cli.exit_codes import CANNOT_OPEN, Failure

__all__ = [
    "SPECIAL",
    "Reader",
    "StoreIdentity",
    "Writer",
    "identify_store",
    "is_tracker",
    "open_reader",
    "open_writer",
    "require_tracker",
]

# What a task has beside its data.
SPECIAL = {"_done", "_aborted", "_tries"}

Reader = PersistentOrderedDict | ProgressTracker
Writer = SharedPersistentOrderedDict | SharedProgressTracker


def open_reader(path: str, max_tries: int = 0) -> Reader:
    """A store to read, beside whoever writes it: what was last synced."""
    try:
        return ProgressTracker(path, max_tries, mode="r")
    except StoreKindError:
        return PersistentOrderedDict(path, mode="r")


def is_tracker(store: object) -> bool:
    """Whether a store holds tasks."""
    return isinstance(store, (ProgressTracker, SharedProgressTracker))


def require_tracker(store: Any) -> Any:
    """An error for what only trackers have."""
    if not is_tracker(store):
        raise Failure(f"the store at {store.path} is a plain dict and has no tasks", CANNOT_OPEN)
    return store


class StoreIdentity(NamedTuple):
    """What a store is. (Who opens it alone says how it is to be written out later: ``file_size`` leaves it as it was.)
    """

    is_tracker: bool
    file_size: int


def identify_store(path: str) -> StoreIdentity:
    """What the store at a path is. Raises what opening it raises."""
    with open_reader(path) as reader:
        return StoreIdentity(is_tracker(reader), read_store_info(reader._store).file_size)


def open_writer(path: str, create: type[Writer] | None = None) -> Writer:
    """A store to write, together with others that share it. Failure where one process has it for itself.

    ``create``: what to make where there is no store yet.
    """
    try:
        found = identify_store(path)
    except StoreNotFoundError:
        if create is None:
            raise
        return create(path)
    kind = SharedProgressTracker if found.is_tracker else SharedPersistentOrderedDict
    try:
        return kind(path, file_size=found.file_size)
    except StoreInUseError as error:
        owner = find_lock_holders(resolved(path)).text or "another process"
        raise Failure(
            f"{owner} has the store at {path} to itself, so that nothing was changed; wait for it to end (reading "
            f"works meanwhile), or use the shared classes there", CANNOT_OPEN
        ) from error
