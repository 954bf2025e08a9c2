"""Keep the file ``running`` of a private tracker, in which a killed process leaves the tasks that it was running.

    magic 8, boot 16, device and inode of data.mdb 16, zeros up to 64 bytes; then the slots (see _core.running_tasks)

The file exists while a tracker that has counted a try is open. The next process that opens the store to write, alone,
reads it and raises the tries on disk (``Store._count_tries_of_killed()``). Tries of tasks that were never synced, and
so are not in the store, wait in the database meta (``b"tries"``) until a private tracker adds the task. A shared
tracker has claims instead.
"""

from __future__ import annotations

import mmap
import os
import struct
from contextlib import suppress

from tastypy_fast._core.running_tasks import SLOTS_SIZE, RunningTasks, read_slots
from tastypy_fast._lmdb.boot_id import boot_id
from tastypy_fast._lmdb.safe_files import open_regular, standard_descriptors_taken
from tastypy_fast._lmdb.store_dir import DATA, RUNNING, creation_error

__all__ = ["RunningFile", "read_running", "remove_running"]

_HEADER = struct.Struct("=8s16sQQ")
_MAGIC = b"running1"
_SLOTS_AT = 64
SIZE = _SLOTS_AT + SLOTS_SIZE


class RunningFile:
    """The mapped file of this process. It is removed when the store is closed."""

    def __init__(self, path: str) -> None:
        self._name = os.path.join(path, RUNNING)
        try:
            file = open_regular(self._name, os.O_RDWR | os.O_CREAT, os.path.join(path, DATA))
            try:
                os.ftruncate(file, 0)
                # Write the whole file now, because a full disk would end the process at a page fault later.
                data = _header(path).ljust(SIZE, b"\0")
                while data:
                    data = data[os.write(file, data):]
                with standard_descriptors_taken():
                    self._map = mmap.mmap(file, SIZE)
            except BaseException:
                with suppress(OSError):
                    os.unlink(self._name)
                raise
            finally:
                os.close(file)
        except OSError as error:
            raise creation_error(error, path, "no try can be counted", RUNNING) from error
        self.tasks = RunningTasks(memoryview(self._map)[_SLOTS_AT:])

    def leave_to_parent(self) -> None:
        """Close the file in a forked child, whose iterators must not change the parent's slots."""
        self.tasks.close()
        with suppress(BufferError):
            self._map.close()

    def end(self) -> None:
        """Close and remove the file, because the store is closed."""
        self.leave_to_parent()
        with suppress(OSError):
            os.unlink(self._name)


def _header(path: str) -> bytes:
    status = os.lstat(os.path.join(path, DATA))
    return _HEADER.pack(_MAGIC, boot_id() or b"", status.st_dev, status.st_ino)


def read_running(path: str) -> list[tuple[bytes, int]]:
    """Return the key in the index and the tries of each task that a killed process was running.

    Returns nothing for a file of another boot, whose content a power cut may have left, or of another data file.
    """
    try:
        file = open_regular(os.path.join(path, RUNNING), os.O_RDONLY)
    except FileNotFoundError:
        return []
    try:
        data = os.pread(file, SIZE, 0)
    finally:
        os.close(file)
    if len(data) != SIZE or data[:_HEADER.size] != _header(path):
        return []
    return read_slots(data[_SLOTS_AT:])


def remove_running(path: str) -> None:
    """Remove the file of a killed process, after its tries are on disk."""
    with suppress(FileNotFoundError):
        os.unlink(os.path.join(path, RUNNING))
