"""The processes that work on the tasks of a shared tracker, or hold the sync of a shared store, and which of them live.

Each has a file ``workers/N`` in the store's folder, which it keeps locked: the system lets go of the lock when the
process ends, however it ends. N is reused, the worker's number never is.

    offset 0    worker's number, 8 bytes; 0: nobody's
           8    process number, 8 bytes
          16    when it began, 8 bytes (seconds since 1970, double)
          24    name of the host, 64 bytes
         128    496 lanes of 8 bytes: how many keys the iterators that use it have handed out (see _lanes)

All is in the machine's byte order, and the file is mapped: handing out a key is one store into memory, and the
number is there for the others when the process was killed.
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

from tastypy_fast._core.claim_record import ClaimRecord, read_claim
from tastypy_fast._core.worker_slots import LEFT, SLOTS, WorkerSlots, count_of, has_ended
from tastypy_fast._lmdb.safe_files import make_folder, open_folder, open_regular, standard_descriptors_taken
from tastypy_fast._lmdb.store_dir import DATA, WORKERS, creation_error
from tastypy_fast.exceptions import PersistentOrderedDictException, UnsafeFileError
from tastypy_fast.types import ClaimState

__all__ = ["WorkerFacts", "WorkerFile", "find_orphaned_claims", "read_worker_files", "stop_claim"]

SIZE = 4096
SLOTS_AT = 128
_NUMBER = struct.Struct("=q")
_HEAD = struct.Struct("=QQd64s")


class WorkerFacts(NamedTuple):
    """What a worker's file says."""

    number: int
    process: int
    since: float
    host: str
    worker_slots: tuple[int, ...]
    is_alive: bool

    def state_of(self, claim: ClaimRecord) -> ClaimState:
        """What has become of a task that this worker has claimed.

        "waiting": its loop has not handed it out yet. "failed": its loop has ended, or gone on to another one, and left
        it unfinished; it stays this worker's for the next loop. "running": its loop, or its gate, has handed it out.
        """
        if claim.slot == LEFT:
            return "failed"
        if claim.slot == 0:
            return "running"
        slot = self.worker_slots[claim.slot]
        count = count_of(slot)
        if claim.position >= count:
            return "waiting"
        return "failed" if claim.position + 1 < count or has_ended(slot) else "running"


class WorkerFile:
    """This process as a worker on one store. Made inside of the store's write transaction, as only one process
    may look for a free file at a time."""

    def __init__(self, path: str, needed: set[int]) -> None:
        """``needed``: numbers of workers, dead ones perhaps, whose file is not to be taken over."""
        self.number = secrets.randbits(62) + 1
        self._folder = os.path.join(path, WORKERS)
        try:
            self._file = self._take_file(os.path.join(path, DATA), needed)
            try:
                # (the map has a descriptor of its own)
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

    def _take_file(self, model: str, needed: set[int]) -> int:
        make_folder(self._folder, model)
        for number in itertools.count():
            file = open_regular(os.path.join(self._folder, str(number)), os.O_RDWR | os.O_CREAT, model)
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                status = os.fstat(file)
                # (a file with another name, a hard link, may be something else there)
                if status.st_nlink == 1 and _NUMBER.unpack(os.pread(file, 8, 0).ljust(8, b"\0"))[0] not in needed:
                    # Written and not just made longer: a page that the disk has no room for ends the process later.
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
        raise AssertionError("there are always more numbers")

    def open_slot(self) -> int:
        """A lane for an iterator; its places begin with what the one before it has left there."""
        if not self._unused_slots:
            raise PersistentOrderedDictException(
                f"{SLOTS - 1} loops over tasks are running on this store in this process, and there may be no more; "
                f"end some, or close() their iterators"
            )
        return self._unused_slots.pop()

    def close_slot(self, slot: int) -> None:
        """Let another iterator have it."""
        self._unused_slots.append(slot)

    def end(self) -> None:
        """No worker any more. Its claims were given back."""
        self._map[:8] = bytes(8)
        self.leave_to_parent()

    def leave_to_parent(self) -> None:
        """A forked child is another worker; the lock stays with the parent's copy of the file."""
        self.worker_slots.close()
        self._map.close()
        os.close(self._file)


def slots_in(file: mmap.mmap) -> WorkerSlots:
    """The lanes of a mapped file."""
    return WorkerSlots(memoryview(file)[SLOTS_AT:])


def stop_claim(path: str, number: int, slot: int, position: int) -> bool:
    """Lanes.stop() of another worker. (False, too, where its file cannot be written, or is there no more: it cannot be
    told that the task was not handed out.)"""
    folder = os.path.join(path, WORKERS)
    for name in os.listdir(folder):
        try:
            file = open_regular(os.path.join(folder, name), os.O_RDWR)
        except OSError:
            continue
        try:
            if os.fstat(file).st_size == SIZE and _NUMBER.unpack(os.pread(file, 8, 0))[0] == number:
                with standard_descriptors_taken(), mmap.mmap(file, SIZE) as mapped:
                    worker_slots = slots_in(mapped)
                    try:
                        return worker_slots.stop(slot, position)
                    finally:
                        worker_slots.close()
        finally:
            os.close(file)
    return False


def read_worker_files(path: str, own: int = 0) -> list[WorkerFacts]:
    """All workers on a store that are known, also dead ones whose file nobody has taken over yet.

    ``own`` is the number of this process's worker, which lives.
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
                worker_slots = struct.unpack_from(f"={SLOTS}Q", data, SLOTS_AT)
                if number:
                    is_alive = number == own or _is_locked(file)
                    text = host.rstrip(b"\0").decode("utf-8", "replace")
                    found.append(WorkerFacts(number, process, since, text, worker_slots, is_alive))
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
    """The claims of workers that are gone, as give_back() wants them."""
    workers = {worker.number: worker for worker in read_worker_files(path, own)}
    lost: dict[int, int | None] = {}
    for order, raw in txn.cursor(claims):
        claim = read_claim(raw)
        worker = workers.get(claim.worker)
        if worker is None or not worker.is_alive:
            waits = worker is not None and worker.state_of(claim) == "waiting"
            lost[_NUMBER.unpack(order)[0]] = claim.tries if waits else None
    return lost
