"""The environments of the loops of py-lmdb: never flushed, with the writer lock, and flushed as tastypy_fast does it.

The last has the flush points of ``tastypy_fast/_lmdb/flush_points.py``, and nothing else of the package: the slot
that protects the last flush point, the note of it on the disk, and a thread that flushes. So it shows what flush points
cost in LMDB and in the kernel, whatever is built on them.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from fcntl import LOCK_EX, LOCK_UN, lockf
from threading import Event, Thread
from typing import Any, Protocol

import lmdb

from tastypy_fast._lmdb import boot_id
from tastypy_fast._lmdb.flush_points import FlushPoints

__all__ = ["PAGE", "BareEnvironment", "FlushedEnvironment", "LockedEnvironment", "NeverFlushed", "OpenEnvironment"]

# As in tastypy_fast (``write_transaction.pyx``): about what a small commit writes, what the thread waits for, and what
# makes the commit flush itself.
COMMIT_SIZE, FLUSH_SIZE, FLUSH_LIMIT = 24 << 10, 4 << 20, 16 << 20
# Each scattered change of a large commit writes a page.
PAGE = 4096


class BareEnvironment(Protocol):
    """What the loops need. ``begin()`` is that of py-lmdb."""

    env: Any
    begin: Callable[..., AbstractContextManager[Any]]

    def writing(self, size: int = 0) -> AbstractContextManager[Any]:
        """Return a context with a write transaction, which adds about ``size`` bytes to those of a small one."""

    def sync(self) -> None:
        """Flush what was committed."""

    def close(self) -> None:
        """Close the environment."""


OpenEnvironment = Callable[[str, int], BareEnvironment]


def _open(path: str, databases: int) -> Any:
    os.makedirs(path, exist_ok=True)
    return lmdb.open(path, map_size=1 << 36, max_dbs=databases, sync=False)


class NeverFlushed:
    """An environment that is flushed by ``sync()`` only, so a power cut may destroy it."""

    def __init__(self, path: str, databases: int = 0) -> None:
        self.env = _open(path, databases)
        self.begin = self.env.begin

    def writing(self, _size: int = 0) -> Any:
        return self.env.begin(write=True)

    def sync(self) -> None:
        self.env.sync(True)

    def close(self) -> None:
        self.env.close()


class LockedEnvironment(NeverFlushed):
    """An environment that is never flushed, whose writers take a record lock before that of LMDB.

    LMDB's own lock can lose the wakeup of a process that is killed (``writer_lock.pyx``).
    """

    def __init__(self, path: str, databases: int = 0) -> None:
        super().__init__(path, databases)
        self._file = os.open(os.path.join(path, "writer"), os.O_RDWR | os.O_CREAT)
        self._transaction: Any = None

    def writing(self, _size: int = 0) -> LockedEnvironment:
        return self

    def __enter__(self) -> Any:
        lockf(self._file, LOCK_EX, 1)
        self._transaction = self.env.begin(write=True)
        return self._transaction

    def __exit__(self, kind: type | None, *_: object) -> None:
        if kind:
            self._transaction.abort()
        else:
            self._transaction.commit()
        lockf(self._file, LOCK_UN, 1)

    def close(self) -> None:
        super().close()
        os.close(self._file)


class FlushedEnvironment:
    """An environment with flush points. The processes that open it later have to close it first."""

    def __init__(self, path: str, databases: int = 0) -> None:
        is_first = not os.path.exists(path)
        if is_first:
            # The lock file has to be mapped before LMDB opens it.
            _open(path, databases).close()
        self._points = FlushPoints(path, boot_id.boot_id() or bytes(16))
        self._points.open()
        self.env = _open(path, databases)
        self.begin = self.env.begin
        if not self._points.has_layout(self.env):
            raise NotImplementedError("LMDB's lock file has a layout that is not known")
        if is_first:
            self._points.begin()
        else:
            self._points.join()
        assert self._points.slot is not None
        self._slot = self._points.slot
        self._transaction: Any = None
        self._since = self._waiting = self._size = 0
        self._due, self._is_open = Event(), True
        self._thread = Thread(target=self._flush_when_due, daemon=True)
        self._thread.start()

    def writing(self, size: int = 0) -> FlushedEnvironment:
        self._size = COMMIT_SIZE + size
        return self

    def __enter__(self) -> Any:
        self._transaction = self.env.begin(write=True)
        self._points.keep_slot()
        return self._transaction

    def __exit__(self, kind: type | None, *_: object) -> None:
        if kind:
            self._transaction.abort()
            return
        number = self._transaction.id()
        self._transaction.commit()
        flushed = self._slot.get() or 0
        if flushed != self._since:
            self._since, self._waiting = flushed, 0
        self._waiting += self._size
        size = max(self._waiting, (number - flushed) * COMMIT_SIZE)
        if size >= FLUSH_LIMIT:
            self._points.flush()
        elif size >= FLUSH_SIZE:
            self._due.set()

    def _flush_when_due(self) -> None:
        while self._is_open:
            self._due.wait()
            self._due.clear()
            if self._is_open:
                self._points.flush()

    def sync(self) -> None:
        self._points.flush()

    def close(self) -> None:
        self._is_open = False
        self._due.set()
        self._thread.join()
        self.env.close()
        self._points.close()
