"""Note which tasks a private tracker is running, in mapped memory that survives a killed process.

A try is counted in memory when a task is yielded, and is on disk after the next sync. If the task kills its process
before that, the try would be lost, and the task would be tried for ever. So the key and the number of tries of each
running task also stand in a mapped file (see ``_store.running_file``). The next process that opens the store reads
this file, and raises the tries on disk to this number.

A task is running from the moment when an iterator yields it, or ``should_try()`` returns True. It ends when the
iterator or the thread gets its next task, or when it is marked done or aborted. Each iterator has a slot. Each
thread has one for ``should_try()`` and for the last task of an iterator that was deleted.

The state of a slot is cleared before its key is written, and set after that. So a kill at any moment leaves a whole
slot or an empty one. A power cut may leave anything, so the file of another boot is ignored.
"""

cimport cython
from cpython.buffer cimport PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdint cimport int32_t, uint32_t, uint64_t
from libc.string cimport memcpy

from struct import Struct

from tastypy_fast._core.locks import is_alive, this_thread

from tastypy_fast._core.key_codec cimport MAX_INDEX_KEY, index_key
from tastypy_fast._core.status_block cimport ABORTED, DONE, PRESENT, tries_of
from tastypy_fast._lmdb.atomic cimport store64

__all__ = ["SLOTS_SIZE", "WAITING_TRIES", "RunningTasks", "pack_tries", "read_slots", "unpack_tries"]

# The name in the database meta of the tries of tasks that are not in the store yet: size of the key 2, tries 4, key.
WAITING_TRIES = b"tries"
_entry = Struct("=Hi")

SLOTS_SIZE = SLOT_COUNT * sizeof(Slot)

cdef uint64_t RUNNING = 1ULL << 63


@cython.final
cdef class RunningTasks:
    """The slots in the mapped file of one store. More iterators and threads than slots are not noted."""

    def __cinit__(self, file):
        cdef int slot
        PyObject_GetBuffer(file, &self.view, PyBUF_WRITABLE)
        self.is_open = True
        if self.view.len != SLOTS_SIZE:
            raise ValueError("the buffer does not have the size of the slots")
        self.slots = <Slot*>self.view.buf
        self.of_threads = {}
        for slot in range(SLOT_COUNT):
            self.seqs[slot] = -1
            self.taken[slot] = self.is_uncounted[slot] = False

    def __dealloc__(self):
        self.close()

    cpdef close(self):
        """Release the mapped file. Nothing is noted after that."""
        if self.is_open:
            self.is_open = False
            self.used = 0
            PyBuffer_Release(&self.view)

    cdef int take(self) noexcept:
        """Return the number of a slot that nobody has, or -1."""
        cdef int slot
        if self.is_open:
            for slot in range(SLOT_COUNT):
                if not self.taken[slot]:
                    self.taken[slot] = True
                    self.used = max(self.used, slot + 1)
                    return slot
        return -1

    cdef void release(self, int slot) noexcept:
        if slot >= 0:
            self.taken[slot] = False
            self.seqs[slot] = -1
            if self.is_open:
                store64(&self.slots[slot].state, 0)

    cdef int note(self, int slot, long long seq, const unsigned char* key, Py_ssize_t size, int32_t tries) except -1:
        """Note a task in a slot. ``key`` is its encoded key."""
        cdef bytes digest
        if size > MAX_INDEX_KEY:
            digest = index_key(key[:size])
            key = <const unsigned char*>PyBytes_AS_STRING(digest)
            size = PyBytes_GET_SIZE(digest)
        self.write(slot, seq, key, size, tries)
        return 0

    cdef void write(self, int slot, long long seq, const unsigned char* key, Py_ssize_t size, int32_t tries) noexcept:
        """Note a task in a slot. ``key`` is its key in the index."""
        cdef Slot* at = &self.slots[slot]
        if slot < 0 or not self.is_open:
            return
        store64(&at.state, 0)
        memcpy(at.key, key, size)
        self.seqs[slot] = seq
        self.is_uncounted[slot] = False
        store64(&at.state, RUNNING | <uint64_t>size << 32 | <uint32_t>tries)

    cdef void follow(self, long long seq, uint32_t status) noexcept:
        """Follow a change of a task's status. A task that is done, aborted or deleted is not running any more."""
        cdef int slot
        cdef int32_t tries
        cdef uint64_t* state
        for slot in range(self.used):
            if self.seqs[slot] == seq:
                state = &self.slots[slot].state
                if status & (DONE | ABORTED) or not status & PRESENT:
                    self.seqs[slot] = -1
                    store64(state, 0)
                else:
                    tries = tries_of(status) + self.is_uncounted[slot]
                    store64(state, (state[0] & ~<uint64_t>0xffffffff) | <uint32_t>tries)

    cdef void move(self, long long seq, long long new_seq) noexcept:
        """Follow a task to its new sequence number."""
        cdef int slot
        for slot in range(self.used):
            if self.seqs[slot] == seq:
                self.seqs[slot] = new_seq

    cdef void clear(self) noexcept:
        """Note that no task is running, because revert() has taken the tries back."""
        cdef int slot
        for slot in range(self.used):
            self.seqs[slot] = -1
            store64(&self.slots[slot].state, 0)

    cdef RunningSlot open_slot(self):
        """Return a slot for an iterator."""
        cdef RunningSlot slot = RunningSlot.__new__(RunningSlot)
        slot.tasks = self
        slot.number = self.take()
        return slot

    cdef int set_of_thread(self, long long seq, bytes key, int32_t tries) except -1:
        """Note the task that the calling thread runs outside an iterator."""
        cdef unsigned long long thread = this_thread()
        if thread not in self.of_threads:
            self.forget_ended_threads()
            self.of_threads[thread] = self.take()
        return self.note(self.of_threads[thread], seq, <const unsigned char*>PyBytes_AS_STRING(key),
                         PyBytes_GET_SIZE(key), tries)

    def forget_ended_threads(self):
        """Free the slots of threads that have ended."""
        for thread in [thread for thread in self.of_threads if not is_alive(thread)]:
            self.release(self.of_threads.pop(thread))

    def leave_to_thread(self, int slot):
        """Make the task of a deleted iterator the running task of the calling thread."""
        cdef unsigned long long thread = this_thread()
        before = self.of_threads.get(thread)
        self.of_threads[thread] = slot
        if before is not None:
            self.release(before)


@cython.final
@cython.no_gc
cdef class RunningSlot:
    """The slot of one iterator."""

    def __dealloc__(self):
        if self.number >= 0:
            if self.tasks.is_open and self.tasks.seqs[self.number] >= 0:
                # "key = next(tracker.try_keys())" runs its task after the iterator is deleted.
                self.tasks.leave_to_thread(self.number)
            else:
                self.tasks.release(self.number)

    cdef int set(self, long long seq, const unsigned char* key, Py_ssize_t size, int32_t tries) except -1:
        """Note the task that the iterator yields."""
        return self.tasks.note(self.number, seq, key, size, tries)

    cdef int set_uncounted(self, long long seq, const unsigned char* key, Py_ssize_t size, int32_t tries) except -1:
        """Note a task whose try is counted when it ends. ``tries`` includes it."""
        self.tasks.note(self.number, seq, key, size, tries)
        if self.number >= 0:
            self.tasks.is_uncounted[self.number] = True
        return 0

    cdef void clear(self) noexcept:
        """Note that no task is running in this slot. It stays reserved."""
        if self.number >= 0:
            self.tasks.seqs[self.number] = -1
            if self.tasks.is_open:
                store64(&self.tasks.slots[self.number].state, 0)

    cdef void end(self) noexcept:
        """Note that the iterator has come to its end, so that its last task is not running any more."""
        self.tasks.release(self.number)
        self.number = -1


def read_slots(bytes data not None):
    """Return the key in the index and the tries of each running task, from the slots of a file."""
    cdef const Slot* slots = <const Slot*>PyBytes_AS_STRING(data)
    cdef uint64_t state
    cdef Py_ssize_t size
    cdef int slot
    found = []
    if len(data) == SLOTS_SIZE:
        for slot in range(SLOT_COUNT):
            state = slots[slot].state
            size = state >> 32 & 0x7fffffff
            if state & RUNNING and 0 < size <= sizeof(slots[slot].key):
                found.append((slots[slot].key[:size], <int32_t><uint32_t>(state & 0xffffffff)))
    return found


def pack_tries(dict tries not None):
    """Return the entry of the database meta for tries of tasks that are not in the store."""
    return b"".join(_entry.pack(len(key), number) + key for key, number in tries.items())


def unpack_tries(bytes raw):
    """Return what ``pack_tries()`` has packed; an empty dict for None."""
    cdef Py_ssize_t at = 0
    found = {}
    while raw is not None and at + _entry.size < len(raw):
        size, number = _entry.unpack_from(raw, at)
        at += _entry.size + size
        found[raw[at - size:at]] = number
    return found
