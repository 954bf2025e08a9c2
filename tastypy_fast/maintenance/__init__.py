"""Care for stores: copies while others write, space given back, damage found and what is left brought out of it.

    from tastypy_fast import maintenance
    maintenance.copy("results.pod", "results.copy")

Every function works in a process of its own, which ends with the caller's: neither a damaged file nor a store that the
caller has open itself can do harm. What the caller has in memory and has not synced is no part of the store.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from typing import TypeVar

from tastypy_fast._formats.atomic_output import atomic_output, new_path
from tastypy_fast._lmdb.store_dir import no_store_error
from tastypy_fast._paths import Path, resolved
from tastypy_fast.exceptions import (
    DiskFullError,
    PersistentOrderedDictException,
    PersistentOrderedDictIntegrityError,
    StorageError,
)
from tastypy_fast.maintenance._compact import clear_up, compact_here, copy_here
from tastypy_fast.maintenance._repair import Repair, repair_here
from tastypy_fast.maintenance._subprocess import SubprocessDied, run_in_subprocess
from tastypy_fast.maintenance._verify import verify_here

__all__ = ["Repair", "compact", "copy", "repair", "verify"]

T = TypeVar("T")


def copy(path: Path, target: Path) -> None:
    """Copy a store of any class to ``target``, which must be new or an empty folder, whoever writes it meanwhile.

    The copy is the store as of one moment: everything that was synced before, for a shared store everything that any
    process has written. Nobody waits for it, but the file of a store that is written much grows while it is read. The
    copy has no free space inside, and appears at ``target`` when it is whole and on the disk. Cost: reading and writing
    everything once.

    Raises StoreNotFoundError, NotAStoreError (also where there is something at ``target``), StorePathError (also where
    ``target`` is inside of the store), DiskFullError, StorageError and PersistentOrderedDictIntegrityError; ``target``
    is as it was then.

    >>> pod = PersistentOrderedDict(path, init={"a": 1})
    >>> pod.sync()
    >>> copy(path, path + ".copy")
    >>> PersistentOrderedDict(path + ".copy").items()
    [('a', 1)]
    """
    source = _found(path)
    place = new_path(target, "copy to", source, "the store that is copied")
    with _our_errors(source), atomic_output(place) as folder:
        os.mkdir(folder)
        _result(run_in_subprocess(copy_here, source, folder))


def compact(path: Path) -> tuple[int, int]:
    """Give the space that is free inside of a store back to the disk. The size of its data file before and after.

    Nobody may have the store open, not even to read (StoreInUseError, and nothing is changed). Needs room for a copy
    meanwhile; cost: reading and writing everything once. A kill at any moment leaves the old store or the new one,
    whole and on the disk. It may leave the file ``data.compacted`` besides, which goes away with the next compaction.

    Raises StoreInUseError, StoreNotFoundError, StorePathError, NotAStoreError, PersistentOrderedDictIntegrityError,
    DiskFullError and StorageError; the store is as it was then.

    >>> with PersistentOrderedDict(path, init={number: "x" * 1000 for number in range(1000)}) as pod:
    ...     pod.sync()
    ...     for number in range(1, 1000):
    ...         del pod[number]
    >>> before, after = compact(path)
    >>> before > 1_000_000, after < 50_000
    (True, True)
    """
    path = _found(path)
    try:
        with _our_errors(path):
            return _result(run_in_subprocess(compact_here, path))
    except BaseException:
        clear_up(path)
        raise


def verify(path: Path) -> list[str]:
    """What is wrong with a store of any class, a sentence each; nothing for a sound one.

    Looks at every page of the data file, then at every record, the index, the statuses, the claims and the log. Only
    reads, also beside processes that write. Safe on a file from a stranger: the storage engine gets it only when its
    structure was found to be sound, and in a process of its own. A folder that is no store is one finding. What a value
    has lost without ceasing to be JSON (a digit for another one) cannot be found, nor an older value under its key, nor
    that the last commit is gone where nothing in the file refers to it. Cost: a walk over everything; memory is
    constant but for a byte for each page of 4 kB. At most some thousand findings are told.

    Raises StoreNotFoundError where there is nothing at ``path``, StorePathError where that is no path (it is empty),
    NewerFormatError, and StorageError when it cannot be read.

    >>> PersistentOrderedDict(path, init={"a": 1}).close()
    >>> verify(path)
    []
    """
    path = _found(path)
    found = []
    with closing(run_in_subprocess(verify_here, path)) as findings:
        try:
            with _our_errors(path, crash=False):
                for finding in findings:
                    found.append(finding)  # (those before a crash are kept)
        except SubprocessDied as end:
            found.append(_crashed(end))
    return found


def repair(path: Path, target: Path) -> Repair:
    """Make a new store at ``target``, which must be new or an empty folder, of what can be read of a damaged one. That
    is only read.

    Records keep their order; the index, the counts and the statuses are made anew from what is there, the log included.
    A task whose status or data cannot be read is kept as not done. Of a damaged page, everything is kept that the store
    itself could still read. All that is lost is told in ``lost``, by its key where the index has it still, and every
    page that may be another one or an older one. The engine does not get the damaged file. Cost: a walk over
    everything; memory is constant but for what is lost. The new store appears at ``target`` when it is whole and on the
    disk.

    Raises StoreInUseError while a process has the store open to write, PersistentOrderedDictIntegrityError where
    nothing can be read, StoreNotFoundError, NewerFormatError, NotAStoreError (also where there is something at
    ``target``), StorePathError (also where ``target`` is inside of the store), DiskFullError and StorageError;
    ``target`` is as it was then.

    >>> PersistentOrderedDict(path, init={"a": 1, "b": 2}).close()
    >>> repair(path, path + ".new")
    Repair(kept=2, lost=[], undone=0)
    """
    source = _found(path)
    place = new_path(target, "repair into", source, "the store that is repaired")
    with _our_errors(source), atomic_output(place) as folder:
        os.mkdir(folder)
        return _result(run_in_subprocess(repair_here, source, folder))


def _found(path: Path) -> str:
    """The resolved path of what is there. Raises StoreNotFoundError and StorePathError."""
    real = resolved(path)
    if not os.path.lexists(real):
        raise no_store_error(real)
    return real


def _result(values: Generator[T, None, None]) -> T:
    with closing(values):
        return next(values)


@contextmanager
def _our_errors(path: str, crash: bool = True) -> Iterator[None]:
    """What the system says, and the end of the other process, in our words."""
    try:
        yield
    except SubprocessDied as end:
        if not end.crashed:
            raise StorageError(errno.EINTR, f"the process that was at it has ended ({end})", path) from end
        if not crash:
            raise
        raise PersistentOrderedDictIntegrityError(f"the store at {path} is damaged: {_crashed(end)}") from end
    except PersistentOrderedDictException:
        raise
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        number, text = error.errno or errno.EIO, error.strerror or str(error)
        if full:
            raise DiskFullError(number, f"there is no room ({text}); the store is as it was", path) from error
        raise StorageError(number, f"the system refuses ({text})", error.filename or path) from error


def _crashed(end: SubprocessDied) -> str:
    return f"reading it ends the process ({end}); repair() brings what is left of it into a new store"
