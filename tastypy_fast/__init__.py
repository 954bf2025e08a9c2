"""An ordered dict and a task tracker that live on disk."""

import sys as _sys
import typing as _typing

if _sys.platform == "win32":
    raise ImportError(
        "tastypy_fast runs on Linux and macOS only, because it needs POSIX file locks (fcntl) and memory maps that "
        "Windows does not have. On Windows, use it inside WSL (Windows Subsystem for Linux), with the store in WSL's "
        "own file system"
    )

from pkgutil import extend_path as _extend_path

# In a checkout, "python -m tastypy_fast.demo" imports the source tree, which lacks the compiled modules. This line adds
# the path of the installed package, which has them.
__path__ = _extend_path(__path__, __name__)

from tastypy_fast.exceptions import (
    CalledClosedTrackerError,
    DamagedInputError,
    DiskFullError,
    DuplicateKeyError,
    ExecutorLostError,
    ForkedStoreError,
    InvalidKeyError,
    NetworkFileSystemWarning,
    NewerFormatError,
    NotAStoreError,
    NotLockedError,
    PersistentOrderedDictException,
    PersistentOrderedDictIntegrityError,
    ReadOnlyStoreError,
    RunInProgressError,
    StorageError,
    StoreAccessError,
    StoreConflictError,
    StoreInUseError,
    StoreKindError,
    StoreNotFoundError,
    StorePathError,
    TasksFailedError,
    UnsafeFileError,
    UnsendableFunctionError,
    UnstorableValueError,
    WorkerStartError,
)
from tastypy_fast.pod import DEFAULT_FILE_SIZE, DEFAULT_SYNC_AT, DEFAULT_SYNC_EVERY, POD, PersistentOrderedDict
from tastypy_fast.shared_pod import SharedPersistentOrderedDict, SharedPOD
from tastypy_fast.shared_tracker import SharedProgressTracker, SharedTracker
from tastypy_fast.tracker import ProgressTracker, Tracker
from tastypy_fast.types import Claim

if _typing.TYPE_CHECKING:
    from tastypy_fast import maintenance as maintenance
else:

    def __getattr__(name):
        # Import it at the first use, because most programs do not need it.
        if name == "maintenance":
            from importlib import import_module

            return import_module("tastypy_fast.maintenance")
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    def __dir__():
        return sorted({*globals(), "maintenance"})


__version__ = "0.1.0"

__all__ = [
    "DEFAULT_FILE_SIZE",
    "DEFAULT_SYNC_AT",
    "DEFAULT_SYNC_EVERY",
    "POD",
    "CalledClosedTrackerError",
    "Claim",
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
    "PersistentOrderedDict",
    "PersistentOrderedDictException",
    "PersistentOrderedDictIntegrityError",
    "ProgressTracker",
    "ReadOnlyStoreError",
    "RunInProgressError",
    "SharedPOD",
    "SharedPersistentOrderedDict",
    "SharedProgressTracker",
    "SharedTracker",
    "StorageError",
    "StoreAccessError",
    "StoreConflictError",
    "StoreInUseError",
    "StoreKindError",
    "StoreNotFoundError",
    "StorePathError",
    "TasksFailedError",
    "Tracker",
    "UnsafeFileError",
    "UnsendableFunctionError",
    "UnstorableValueError",
    "WorkerStartError",
]
