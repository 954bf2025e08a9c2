"""Take tasks of a private tracker in batches, for a program that hands them to workers.

A try is counted when its task is finished, and not when it is taken: the program may be killed before a worker begins
the task. A queue keeps its position, and may be asked again after it had no task, where an iterator has ended for good.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdint cimport int32_t, uint32_t
from libc.string cimport memcpy

from tastypy_fast._core.cache_entry cimport ABSENT, Entry, pack
from tastypy_fast._core.iterators cimport StoreHandle
from tastypy_fast._core.key_codec cimport decode_key_at, encode_key
from tastypy_fast._core.record_codec cimport Record, parse_record
from tastypy_fast._core.status_block cimport ABORTED, DONE, ERROR, MAX_TRIES, PRESENT, tries_of
from tastypy_fast._core.task_cache cimport TaskCache

from tastypy_fast.exceptions import CalledClosedTrackerError, PersistentOrderedDictIntegrityError, UnstorableValueError

__all__ = ["TaskQueue", "TaskSlot"]

cdef enum:
    # To reach a record at most this far ahead, step over records instead of seeking.
    NEAR = 4


@cython.final
cdef class TaskQueue:
    """The tasks of a private tracker that are to be done, in the order in which they were added. One thread uses it."""

    def __init__(self, StoreHandle handle not None, bint allow_aborted):
        self.handle = handle
        self.mask = PRESENT | DONE | (0 if allow_aborted else ABORTED)
        self.position = -1
        self.open_tasks()

    cdef TaskCache open_tasks(self):
        """Return the cache, or raise if it cannot be written."""
        cdef TaskCache tasks = <TaskCache?>self.handle.open_cache()
        if self.closed:
            raise CalledClosedTrackerError("this queue of tasks was closed; open another one")
        if not tasks.writable:
            raise tasks.store.refuse_write()
        return tasks

    cdef long long limit(self) noexcept:
        """Return the number of tries at which a task is not tried again."""
        return min(self.handle.max_tries, MAX_TRIES) if self.handle.max_tries else MAX_TRIES

    def take(self, long long limit):
        """Return up to ``limit`` tasks after the position as tuples (key, number of the try, whether it has an error).

        A later call also returns tasks that were added since an empty answer. An error of a task is raised when no task
        before it is left to return.
        """
        cdef TaskCache tasks = self.open_tasks()
        cdef list taken = []
        cdef list chosen
        tasks.begin_op()
        try:
            tasks.resolve()
            if self.position < 0:
                tasks.read_all_statuses_from_dicts(True)
            elif tasks.borrowed:
                # Not all watched dicts, because there may be as many as there are tasks between two syncs.
                tasks.read_borrowed_statuses()
            if not tasks.status.compared:
                tasks.status.count()
            while len(taken) < limit:
                chosen = self.choose(tasks, limit - len(taken), not taken)
                if not chosen:
                    break
                try:
                    self.take_chosen(tasks, chosen, taken)
                except (PersistentOrderedDictIntegrityError, UnstorableValueError):
                    if not taken:
                        raise
                    break
        except Exception as error:
            tasks.store.reraise(error)
        finally:
            tasks.end_op()
        return taken

    cdef list choose(self, TaskCache tasks, long long limit, bint again):
        """Return the sequence numbers of the next tasks to do. With ``again``, read all watched dicts if none is found.
        """
        cdef list chosen = tasks.status.scan(self.position, limit, PRESENT, self.mask, self.limit())
        if not chosen and again:
            tasks.read_all_statuses_from_dicts(True)
            chosen = tasks.status.scan(self.position, limit, PRESENT, self.mask, self.limit())
        return chosen

    cdef int take_chosen(self, TaskCache tasks, list chosen, list taken) except -1:
        """Append each chosen task that is still to be done to ``taken``."""
        cdef dict new_entries = tasks.new_entries
        cdef Record record
        cdef Entry entry
        cdef bytes key
        cdef const unsigned char[::1] view
        cdef const unsigned char* data = NULL
        cdef Py_ssize_t size = 0
        cdef long long at = <long long>0x7fffffffffffffff
        cdef long long seq
        # Read through the memory map where values are large, because only the keys are needed.
        cdef bint mapped = tasks.store.has_large_values()
        txn = tasks.store.reader_of_buffers() if mapped else tasks.store.reader()
        cursor = txn.cursor(tasks.store.values)
        pairs = iter(())
        for place in chosen:
            seq = place
            entry = new_entries.get(place) if new_entries else None
            if entry is not None:
                key = entry.key
                item = self.task_at(tasks, seq, <const unsigned char*>PyBytes_AS_STRING(key), PyBytes_GET_SIZE(key))
            else:
                if not at <= seq <= at + NEAR:
                    cursor.set_range(pack(seq))
                    pairs = cursor.iternext()
                found = None
                for number, raw in pairs:
                    if mapped:
                        number = bytes(number)
                    memcpy(&at, PyBytes_AS_STRING(number), 8)
                    if at >= seq:
                        found = raw if at == seq else None
                        at += 1
                        break
                if found is None:
                    raise tasks.damaged("?", f"the task of sequence number {seq} has a status and no record")
                if mapped:
                    view = found
                    size = view.shape[0]
                    data = &view[0] if size else NULL
                else:
                    size = PyBytes_GET_SIZE(found)
                    data = <const unsigned char*>PyBytes_AS_STRING(found)
                try:
                    parse_record(data, size, &record)
                except PersistentOrderedDictIntegrityError as error:
                    raise tasks.damaged("?", f"record {seq}: {error}") from error
                item = self.task_at(tasks, seq, record.key, record.key_size)
            self.position = seq
            if item is not None:
                taken.append(item)
        return 0

    cdef object task_at(self, TaskCache tasks, long long seq, const unsigned char* key, Py_ssize_t size):
        """Return the tuple of a task, or None if a watched dict says that it is not to be done."""
        cdef Entry entry = None
        cdef uint32_t status
        cdef int32_t tries
        if tasks.entries or tasks.pinned.by_key:
            entry = tasks.entry_of(key[:size])
            if entry is not None and (not entry.exists or entry.seq != seq):
                return None
        status = tasks.status_at(seq, entry)
        tries = tries_of(status) + 1
        if status & self.mask != PRESENT or tries > self.limit():
            return None
        try:
            name = decode_key_at(key, size)
        except PersistentOrderedDictIntegrityError as error:
            raise tasks.damaged("?", f"record {seq}: {error}") from error
        return name, tries, (status & ERROR) != 0

    def claim(self, keys):
        """Choose those of these tasks that are to be done. The position stays.

        Returns a list with the number of the next try of each key, 0 if the task is not to be tried or the key was
        there before, and -1 if it does not exist. The queue does not know which of the tasks are being done.
        """
        cdef TaskCache tasks = self.open_tasks()
        cdef list encoded = [encode_key(key) for key in keys]
        cdef list seqs, found = []
        cdef set claimed = set()
        cdef Entry entry
        cdef Py_ssize_t index
        cdef long long seq
        cdef uint32_t status
        cdef int32_t tries
        tasks.begin_op()
        try:
            seqs = tasks.find_seqs(encoded)
            for index in range(len(encoded)):
                seq = seqs[index]
                if seq == ABSENT:
                    found.append(-1)
                    continue
                entry = tasks.entry_of(encoded[index])
                status = tasks.status_at(seq, entry)
                tries = tries_of(status) + 1
                if status & self.mask != PRESENT or tries > self.limit() or seq in claimed:
                    found.append(0)
                    continue
                claimed.add(seq)
                found.append(tries)
        finally:
            tasks.end_op()
        return found

    def restart(self):
        """Begin again at the first task. It may be one that is being done."""
        self.position = -1

    def close(self):
        """End the queue."""
        self.closed = True


@cython.final
cdef class TaskSlot:
    """Note the task that a thread or a coroutine of this process runs, in case it kills the process."""

    def __init__(self, StoreHandle handle not None):
        self.handle = handle
        handle.open_cache()

    def begin(self, key, int32_t tries):
        """Note a task and its tries. If the process is killed, the next one raises its tries to this number."""
        cdef TaskCache tasks = <TaskCache?>self.handle.open_cache()
        cdef bytes encoded = encode_key(key)
        cdef long long seq
        if not tasks.writable:
            raise tasks.store.refuse_write()
        tasks.begin_op()
        try:
            seq = tasks.find_seq(encoded)
            if seq == ABSENT:
                self.end()
                return
            if self.slot is None:
                self.slot = tasks.open_running_slot()
            self.slot.set_uncounted(seq, <const unsigned char*>PyBytes_AS_STRING(encoded), PyBytes_GET_SIZE(encoded),
                                    tries)
        finally:
            tasks.end_op()

    def end(self):
        """Note that no task is running."""
        if self.slot is not None:
            self.slot.clear()
