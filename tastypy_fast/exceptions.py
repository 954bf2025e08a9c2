"""What can go wrong, by name.

Every error that the package raises on purpose is below ``PersistentOrderedDictException``, and is
also the builtin that a caller would think of first::

    PersistentOrderedDictException
     ├── DuplicateKeyError                       (ValueError)        add() of a key that is there
     ├── InvalidKeyError                         (TypeError, ValueError)
     ├── UnstorableValueError                    (TypeError, ValueError)
     ├── CalledClosedTrackerError                (ValueError)        use after close()
     ├── ReadOnlyStoreError                      (io.UnsupportedOperation)
     ├── ForkedStoreError                        (RuntimeError)      a private store written in a forked child
     ├── StoreConflictError                      (ValueError)        options that disagree with an open instance
     ├── StorePathError                          (NotADirectoryError, ValueError)
     ├── StoreNotFoundError                      (FileNotFoundError)
     ├── NotAStoreError                          (FileExistsError)   the folder holds something else
     ├── StoreInUseError                         (BlockingIOError)   another process has it
     ├── NotLockedError                          (RuntimeError)      unlock() without lock()
     ├── StoreKindError                          (TypeError)         a plain store opened as a tracker
     ├── NewerFormatError                        (NotImplementedError)
     ├── DiskFullError                           (OSError)
     ├── StorageError                            (OSError)           any other refusal of the system or of LMDB
     │    ├── StoreAccessError              (PermissionError)   no right to open it, or a read-only file system
     │    └── UnsafeFileError                                        a link, a pipe or a device in a store's folder
     └── PersistentOrderedDictIntegrityError                         the files are damaged
          └── DamagedInputError                  (ValueError)        a file to be imported is not in its format

A missing key is an ordinary ``KeyError``, a wrong argument an ordinary ``TypeError`` or ``ValueError``.

``NetworkFileSystemWarning`` is a ``UserWarning`` and not an error: the store is opened all the same.
"""

import io

__all__ = [
    "CalledClosedTrackerError",
    "DamagedInputError",
    "DiskFullError",
    "DuplicateKeyError",
    "ForkedStoreError",
    "InvalidKeyError",
    "NetworkFileSystemWarning",
    "NewerFormatError",
    "NotAStoreError",
    "NotLockedError",
    "PersistentOrderedDictException",
    "PersistentOrderedDictIntegrityError",
    "ReadOnlyStoreError",
    "StorageError",
    "StoreAccessError",
    "StoreConflictError",
    "StoreInUseError",
    "StoreKindError",
    "StoreNotFoundError",
    "StorePathError",
    "UnsafeFileError",
    "UnstorableValueError",
]


class PersistentOrderedDictException(Exception):
    """The root of every error that this package raises on purpose."""


class DuplicateKeyError(PersistentOrderedDictException, ValueError):
    """A task was added whose key is there already."""


class InvalidKeyError(PersistentOrderedDictException, TypeError, ValueError):
    """A key is neither a ``str``, nor an ``int``, nor a tuple of these."""


class UnstorableValueError(PersistentOrderedDictException, TypeError, ValueError):
    """A value holds something that JSON, or a column of a table, cannot hold; the message says where it is."""


class CalledClosedTrackerError(PersistentOrderedDictException, ValueError):
    """A store was used after it was closed."""


class ReadOnlyStoreError(PersistentOrderedDictException, io.UnsupportedOperation):
    """A store that was opened with ``mode="r"`` was asked to write."""


class ForkedStoreError(PersistentOrderedDictException, RuntimeError):
    """A private store was written in a forked child of the process that opened it."""


class StoreConflictError(PersistentOrderedDictException, ValueError):
    """The options disagree with those of an instance that this process has open on the same path."""


class StorePathError(PersistentOrderedDictException, NotADirectoryError, ValueError):
    """A path, or a part of it, is a file; or it is empty or names nothing; or a target is inside of its source."""


class StoreNotFoundError(PersistentOrderedDictException, FileNotFoundError):
    """There is no store to read at the path."""


class NotAStoreError(PersistentOrderedDictException, FileExistsError):
    """The folder holds something that is not a store of this package."""


class StoreInUseError(PersistentOrderedDictException, BlockingIOError):
    """Another process has the store open in a way that excludes this one."""


class NotLockedError(PersistentOrderedDictException, RuntimeError):
    """``unlock()`` was called by a thread that does not hold the lock of a shared store."""


class StoreKindError(PersistentOrderedDictException, TypeError):
    """A tracker was opened as a plain dict, or a plain dict as a tracker."""


class NewerFormatError(PersistentOrderedDictException, NotImplementedError):
    """The store was written by a newer version of this package."""


class DiskFullError(PersistentOrderedDictException, OSError):
    """The disk is full, or a limit on the size of files was met. What was to be written is still in memory."""


class StorageError(PersistentOrderedDictException, OSError):
    """The system or the storage engine refused an operation."""


class StoreAccessError(StorageError, PermissionError):
    """The system does not let this process open a store, because of the rights of its files or a read-only disk."""


class UnsafeFileError(StorageError):
    """A symbolic link, a pipe or a device stands where a store has a file or folder. Nothing was written through it."""


class PersistentOrderedDictIntegrityError(PersistentOrderedDictException):
    """The files of a store are damaged."""


class DamagedInputError(PersistentOrderedDictIntegrityError, ValueError):
    """A file that was to be imported is not in its format; the message says where."""


class NetworkFileSystemWarning(UserWarning):
    """A store was opened on a network file system, where locks and memory maps are not reliable.

    Each path is reported once in a process, on Linux only. Move the store to a local disk. If only one machine uses it
    and you accept the risk, ignore the warning::

        warnings.filterwarnings("ignore", category=tastypy_fast.NetworkFileSystemWarning)
    """
