"""Define the exceptions of this package.

Every error that the package raises on purpose derives from ``PersistentOrderedDictException``. It also derives from the
builtin exception in brackets, so that existing ``except`` clauses catch it::

    PersistentOrderedDictException
     ├── DuplicateKeyError                       (ValueError)                add() of an existing key
     ├── InvalidKeyError                         (TypeError, ValueError)     key of a wrong type
     ├── UnstorableValueError                    (TypeError, ValueError)     value that JSON cannot hold
     ├── CalledClosedTrackerError                (ValueError)                use after close()
     ├── ReadOnlyStoreError                      (io.UnsupportedOperation)   write with mode="r"
     ├── ForkedStoreError                        (RuntimeError)              write of a private store in a forked child
     ├── StoreConflictError                      (ValueError)                options that differ from an open instance
     ├── StorePathError                          (NotADirectoryError, ValueError)  path that cannot be a store's
     ├── StoreNotFoundError                      (FileNotFoundError)         no store to read
     ├── NotAStoreError                          (FileExistsError)           folder with other files in it
     ├── StoreInUseError                         (BlockingIOError)           another process has the store
     ├── NotLockedError                          (RuntimeError)              unlock() without lock()
     ├── StoreKindError                          (TypeError)                 tracker opened as a dict, or reverse
     ├── RunInProgressError                      (RuntimeError)              second run() of a private tracker
     ├── WorkerStartError                        (RuntimeError)              workers of run() that cannot start
     ├── ExecutorLostError                       (ConnectionError)           executor or scheduler that run() has lost
     ├── UnsendableFunctionError                 (TypeError)                 function that no worker can be sent
     ├── TasksFailedError                        (RuntimeError)              raise_for_failed() after a run
     ├── NewerFormatError                        (NotImplementedError)       store of a newer version
     ├── DiskFullError                           (OSError)                   no space left
     ├── StorageError                            (OSError)                   other error of the system or of LMDB
     │    ├── StoreAccessError                   (PermissionError)           no permission, or read-only file system
     │    └── UnsafeFileError                                                link, pipe or device instead of a file
     └── PersistentOrderedDictIntegrityError                                 damaged files
          └── DamagedInputError                  (ValueError)                damaged file to import

A missing key raises a plain ``KeyError``, and a wrong argument a plain ``TypeError`` or ``ValueError``.

``NetworkFileSystemWarning`` is a ``UserWarning`` and not an error, because the store is opened nevertheless.
"""

import io

__all__ = [
    "CalledClosedTrackerError",
    "DamagedInputError",
    "DiskFullError",
    "DuplicateKeyError",
    "ExecutorLostError",
    "ForkedStoreError",
    "InvalidKeyError",
    "NetworkFileSystemWarning",
    "NewerFormatError",
    "NotAStoreError",
    "NotLockedError",
    "PersistentOrderedDictException",
    "PersistentOrderedDictIntegrityError",
    "ReadOnlyStoreError",
    "RunInProgressError",
    "StorageError",
    "StoreAccessError",
    "StoreConflictError",
    "StoreInUseError",
    "StoreKindError",
    "StoreNotFoundError",
    "StorePathError",
    "TasksFailedError",
    "UnsafeFileError",
    "UnsendableFunctionError",
    "UnstorableValueError",
    "WorkerStartError",
]


class PersistentOrderedDictException(Exception):
    """Base class of every error that this package raises on purpose. Catch it to catch all of them."""


class DuplicateKeyError(PersistentOrderedDictException, ValueError):
    """Raised by ``add()`` if the key exists.

    Use ``add_if_absent()`` if the key may exist.
    """


class InvalidKeyError(PersistentOrderedDictException, TypeError, ValueError):
    """Raised if a key is neither a ``str``, nor an ``int``, nor a tuple of these.

    Convert the key, for example with ``str(path)``.
    """


class UnstorableValueError(PersistentOrderedDictException, TypeError, ValueError):
    """Raised if a value has a part that JSON, or a column of a table, cannot hold.

    The message names the place inside the value. Convert that part to a str, a number, a list or a dict.
    """


class CalledClosedTrackerError(PersistentOrderedDictException, ValueError):
    """Raised if an instance is used after ``close()``, or after its ``with`` block.

    Open the store again.
    """


class ReadOnlyStoreError(PersistentOrderedDictException, io.UnsupportedOperation):
    """Raised by a write to a store that was opened with ``mode="r"``.

    Open it with ``mode="w"``.
    """


class ForkedStoreError(PersistentOrderedDictException, RuntimeError):
    """Raised by a write to a private store in a forked child of the process that opened it.

    Use a shared class if several processes write.
    """


class StoreConflictError(PersistentOrderedDictException, ValueError):
    """Raised if options differ from those of an instance that this process has open on the same path.

    ``durability`` must also be that of the other processes which share the store.

    Pass the same options, or close the open instance first.
    """


class StorePathError(PersistentOrderedDictException, NotADirectoryError, ValueError):
    """Raised if a path cannot be the path of a store or of a new file.

    The path is empty, or a part of it is a file, or the target lies inside the source. Use another path.
    """


class StoreNotFoundError(PersistentOrderedDictException, FileNotFoundError):
    """Raised if there is no store to read at a path.

    Check the path, or create the store by opening it with ``mode="w"``.
    """


class NotAStoreError(PersistentOrderedDictException, FileExistsError):
    """Raised if a folder contains files that are not a store of this package. Nothing in it is changed.

    Use another path or an empty folder.
    """


class StoreInUseError(PersistentOrderedDictException, BlockingIOError):
    """Raised if another process has the store open and excludes this one.

    The message names the process if it is known. Wait for it to end, read with ``mode="r"``, or use a shared class in
    every process. Never remove a lock file, because the system releases a lock when its process ends.
    """


class NotLockedError(PersistentOrderedDictException, RuntimeError):
    """Raised if ``lock()`` and ``unlock()`` of a shared store do not match, or if blocks end in the wrong order.

    Use ``with store.locked():``.
    """


class StoreKindError(PersistentOrderedDictException, TypeError):
    """Raised if a tracker is opened as a plain dict, or a plain dict as a tracker.

    Open the store with the class that created it.
    """


class RunInProgressError(PersistentOrderedDictException, RuntimeError):
    """Raised by ``run()`` of a private tracker while another ``run()`` of the same tracker is in progress.

    Wait for it to end. Several programs can run the tasks of one shared tracker.
    """


class WorkerStartError(PersistentOrderedDictException, RuntimeError):
    """Raised by ``run()`` if its workers cannot start. No try of a task is counted.

    The initializer raised, and the message has its traceback; or workers ended before they were ready. Correct the
    initializer. If workers are started by ``spawn`` or ``forkserver``, call ``run()`` below ``if __name__ ==
    "__main__":``, because each worker imports the main module.
    """


class ExecutorLostError(PersistentOrderedDictException, ConnectionError):
    """Raised by ``run()`` if the executor that it was given breaks, is shut down, or loses its scheduler.

    What was done is committed, and no try of a task in flight is counted. Make a new executor or cluster, and call
    ``run()`` again. An executor that is given as a function that makes it is made anew instead.
    """


class UnsendableFunctionError(PersistentOrderedDictException, TypeError):
    """Raised by ``run()`` if a function, or an argument of the initializer, cannot be sent to worker processes.

    Define the function at the top level of a module, or ``pip install 'tastypy_fast[run]'``, which also sends lambdas
    and nested functions.
    """


class TasksFailedError(PersistentOrderedDictException, RuntimeError):
    """Raised by ``raise_for_failed()`` of a run's report if tasks have failed. The message has the first ten errors.

    The errors of all tasks are kept with them. The report is the attribute ``report``.
    """

    def __init__(self, message: str, report: object = None) -> None:
        super().__init__(message, report)
        self.report = report

    def __str__(self) -> str:
        return str(self.args[0])


class NewerFormatError(PersistentOrderedDictException, NotImplementedError):
    """Raised if a store was written by a newer version of this package, or by another version of LMDB.

    Update the package. The store is not damaged.
    """


class DiskFullError(PersistentOrderedDictException, OSError):
    """Raised if the disk is full, or if a file would exceed a size limit. The changes are still in memory.

    Free some space, then call ``sync()`` again.
    """


class StorageError(PersistentOrderedDictException, OSError):
    """Raised if the system or LMDB refuses an operation for any other reason. The message has the reason."""


class StoreAccessError(StorageError, PermissionError):
    """Raised if this process has no permission for the files of a store, or if the file system is read-only.

    Change the permissions, or open the store with ``mode="r"`` if reading is enough.
    """


class UnsafeFileError(StorageError):
    """Raised if a symbolic link, a pipe or a device is where a store has a file or folder.

    Nothing was read or written through it. Remove it if you do not know why it is there.
    """


class PersistentOrderedDictIntegrityError(PersistentOrderedDictException):
    """Raised if the files of a store are damaged.

    Restore a backup, or call ``maintenance.repair()``, which writes all readable data into a new store.
    """


class DamagedInputError(PersistentOrderedDictIntegrityError, ValueError):
    """Raised if a file to import is not in its format. The message gives the file and the line.

    ``import_json()`` then imports nothing, and ``import_jsonl()`` keeps the lines before it. Correct the file and
    import it again.
    """


class NetworkFileSystemWarning(UserWarning):
    """A store was opened on a network file system, where locks and memory maps are not reliable.

    Each path is reported once in a process, on Linux only. Move the store to a local disk. If only one machine uses it
    and you accept the risk, ignore the warning::

        warnings.filterwarnings("ignore", category=tastypy_fast.NetworkFileSystemWarning)
    """
