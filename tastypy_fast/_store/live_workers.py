"""Create and read the worker files of a shared store, which show the living workers and the progress of each.

A worker is a process that claims tasks of a shared tracker or holds the automatic sync. It keeps its file ``workers/N``
in the store's folder locked. The system always releases the lock when the process ends, so an unlocked file belongs to
a dead worker. N is reused. A worker's number is random and never reused.

    offset 0    worker's number, 8 bytes; 0 for an unused file
           8    process id, 8 bytes
          16    start of the worker, 8 bytes (seconds since 1970, double)
          24    host name, 64 bytes
         128    496 slots of 8 bytes: how many tasks each iterator has yielded (see _core.worker_slots)

All numbers are in the machine's byte order. The file is mapped into memory. So counting a task is one write to memory,
and other processes can read the count after this one was killed.
"""

from __future__ import annotations

import fcntl
import itertools
import mmap
import os
import secrets
import socket
import struct
import time
from typing import Any, NamedTuple

from tastypy_fast._core.claim_record import ClaimRecord, read_claims
from tastypy_fast._core.worker_slots import FAILED_SLOT, REMOTE_SLOTS, SLOTS, WorkerSlots, count_of, has_ended
from tastypy_fast._lmdb.page_format import NUMBER
from tastypy_fast._lmdb.safe_files import make_folder, open_folder, open_regular, standard_descriptors_taken
from tastypy_fast._lmdb.store_dir import DATA, WORKERS, creation_error
from tastypy_fast.exceptions import PersistentOrderedDictException, UnsafeFileError
from tastypy_fast.types import ClaimState

__all__ = ["WorkerFacts", "WorkerFile", "counts_as_tried", "find_orphaned_claims", "read_worker_files", "stop_slot"]

SIZE = 4096
SLOTS_AT = 128
_HEAD = struct.Struct("=QQd64s")


class WorkerFacts(NamedTuple):
    """The content of a worker file, and whether its worker is alive."""

    number: int
    process: int
    since: float
    host: str
    slots: tuple[int, ...]
    is_alive: bool

    def state_of(self, claim: ClaimRecord) -> ClaimState:
        """Return the state of a task that this worker has claimed.

        "waiting" means that the iterator has not yielded it yet. "running" means that the iterator yielded it last, or
        that ``should_try()`` or a queue claimed it. "unfinished" means that the iterator has ended or yielded another
        task since, and did not finish this one. It stays claimed for the worker's next iterator.
        """
        if claim.slot == FAILED_SLOT:
            return "unfinished"
        if claim.slot == 0 or claim.slot > FAILED_SLOT:
            return "running"
        slot = self.slots[claim.slot]
        count = count_of(slot)
        if claim.position >= count:
            return "waiting"
        return "unfinished" if claim.position + 1 < count or has_ended(slot) else "running"


class WorkerFile:
    """The worker file of this process.

    Create it inside the store's write transaction, because only one process at a time may search for an unused file.
    """

    def __init__(self, path: str, needed: set[int]) -> None:
        """Lock an unused file. The files of workers with a number in ``needed`` are not reused, even if dead."""
        self.number = secrets.randbits(62) + 1
        self._folder = os.path.join(path, WORKERS)
        try:
            self._file = self._lock_file(os.path.join(path, DATA), needed)
            try:
                # mmap duplicates the descriptor.
                with standard_descriptors_taken():
                    self._map = mmap.mmap(self._file, SIZE)
            except BaseException:
                os.close(self._file)
                raise
        except UnsafeFileError:
            raise
        except OSError as error:
            raise creation_error(error, path, "no task can be claimed and no sync held", "the worker file") from error
        self._unused_slots = list(range(SLOTS - 1, 0, -1))
        self._map[:8] = bytes(8)
        self.worker_slots = slots_in(self._map)
        self.worker_slots.clear()
        host = socket.gethostname().encode("utf-8", "replace")[:64]
        self._map[: _HEAD.size] = _HEAD.pack(self.number, os.getpid(), time.time(), host)

    def _lock_file(self, model: str, needed: set[int]) -> int:
        make_folder(self._folder, model)
        for number in itertools.count():
            file = open_regular(os.path.join(self._folder, str(number)), os.O_RDWR | os.O_CREAT, model)
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                status = os.fstat(file)
                # A hard link may be another file outside the store, which must not be written.
                if status.st_nlink == 1 and NUMBER.unpack(os.pread(file, 8, 0).ljust(8, b"\0"))[0] not in needed:
                    # Write the whole file now, because a full disk would end the process at a page fault later.
                    size = status.st_size
                    while size < SIZE:
                        size += os.pwrite(file, bytes(SIZE - size), size)
                    return file
            except BlockingIOError:
                pass
            except BaseException:
                os.close(file)
                raise
            os.close(file)
        raise AssertionError("itertools.count() does not end")

    def open_slot(self) -> int:
        """Return the number of an unused slot for an iterator."""
        if not self._unused_slots:
            raise PersistentOrderedDictException(
                f"{SLOTS - 1} loops over tasks are running on this store in this process, which is the limit. End some "
                f"or close() their iterators"
            )
        return self._unused_slots.pop()

    def close_slot(self, slot: int) -> None:
        """Free a slot, so that another iterator can use it."""
        self._unused_slots.append(slot)

    def end(self) -> None:
        """Mark the file as unused and close it. The claims of the worker were released before."""
        self._map[:8] = bytes(8)
        self.leave_to_parent()

    def leave_to_parent(self) -> None:
        """Close the file in a forked child, which is another worker. The parent keeps the lock."""
        self.worker_slots.close()
        self._map.close()
        os.close(self._file)


def slots_in(file: mmap.mmap) -> WorkerSlots:
    """Return the slots of a mapped worker file."""
    return WorkerSlots(memoryview(file)[SLOTS_AT:])


def stop_slot(path: str, number: int, slot: int, position: int) -> bool:
    """Call ``WorkerSlots.stop()`` on the file of another worker, and return its result.

    Returns False if the file is missing or cannot be written, because the task may then have been yielded.
    """
    folder = os.path.join(path, WORKERS)
    for name in os.listdir(folder):
        try:
            file = open_regular(os.path.join(folder, name), os.O_RDWR)
        except OSError:
            continue
        try:
            if os.fstat(file).st_size == SIZE and NUMBER.unpack(os.pread(file, 8, 0))[0] == number:
                with standard_descriptors_taken(), mmap.mmap(file, SIZE) as mapped:
                    slots = slots_in(mapped)
                    try:
                        return slots.stop(slot, position)
                    finally:
                        slots.close()
        finally:
            os.close(file)
    return False


def read_worker_files(path: str, own: int = 0) -> list[WorkerFacts]:
    """Return all workers that have a file, including dead ones whose file was not reused yet.

    ``own`` is the number of this process's worker. It counts as alive, because this process cannot detect its own lock.
    """
    found = []
    folder = os.path.join(path, WORKERS)
    try:
        os.close(open_folder(folder))
        names = os.listdir(folder)
    except FileNotFoundError:
        return []
    for name in names:
        try:
            file = open_regular(os.path.join(folder, name), os.O_RDONLY)
        except FileNotFoundError:
            continue
        try:
            data = os.pread(file, SIZE, 0)
            if len(data) == SIZE:
                number, process, since, host = _HEAD.unpack_from(data)
                slots = struct.unpack_from(f"={SLOTS}Q", data, SLOTS_AT)
                if number:
                    is_alive = number == own or _is_locked(file)
                    text = host.rstrip(b"\0").decode("utf-8", "replace")
                    found.append(WorkerFacts(number, process, since, text, slots, is_alive))
        finally:
            os.close(file)
    return found


def _is_locked(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    return False


def find_orphaned_claims(txn: Any, claims: Any, path: str, own: int = 0) -> dict[int, int | None]:
    """Return the claims of dead workers as a dict for ``release_claims()``.

    It maps the sequence number to the tries of a claim whose try does not count, and otherwise to None.
    """
    workers = {worker.number: worker for worker in read_worker_files(path, own)}
    lost: dict[int, int | None] = {}
    for seq, claim in read_claims(txn, claims):
        worker = workers.get(claim.worker)
        if worker is None or not worker.is_alive:
            lost[seq] = None if counts_as_tried(claim, worker) else claim.tries
    return lost


def counts_as_tried(claim: ClaimRecord, worker: WorkerFacts | None) -> bool:
    """Return whether the try of a claim counts, although its worker has died. ``worker`` is None if its file is gone.

    It does not if its iterator never yielded the task. Nor does it if the task ran in another process: the death of the
    worker is not the task's fault then, and it may not even have begun.
    """
    return claim.slot < REMOTE_SLOTS and (worker is None or worker.state_of(claim) != "waiting")
