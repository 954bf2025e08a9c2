from libc.stdint cimport int32_t, uint32_t, uint64_t

cpdef enum:
    SLOT_COUNT = 256

cdef struct Slot:
    # 0 if no task is running; else 1 << 63 | size of the key << 32 | tries.
    uint64_t state
    unsigned char key[512]

cdef class RunningTasks:
    cdef Py_buffer view
    cdef Slot* slots
    cdef bint is_open
    # The sequence number of the task in each slot; -1 if none is running.
    cdef long long seqs[SLOT_COUNT]
    # Whether the running try is not among the task's tries yet, because run() counts it when it ends.
    cdef unsigned char is_uncounted[SLOT_COUNT]
    # Whether an iterator or a thread has the slot, and the number of slots up to the last one that was ever used.
    cdef unsigned char taken[SLOT_COUNT]
    cdef int used
    # The slots of the tasks that threads run outside an iterator.
    cdef dict of_threads

    cdef RunningSlot open_slot(self)
    cdef int set_of_thread(self, long long seq, bytes key, int32_t tries) except -1
    cdef int note(self, int slot, long long seq, const unsigned char* key, Py_ssize_t size, int32_t tries) except -1
    cdef void write(self, int slot, long long seq, const unsigned char* key, Py_ssize_t size, int32_t tries) noexcept
    cdef void follow(self, long long seq, uint32_t status) noexcept
    cdef void move(self, long long seq, long long new_seq) noexcept
    cdef void clear(self) noexcept
    cdef int take(self) noexcept
    cdef void release(self, int slot) noexcept
    cpdef close(self)

cdef class RunningSlot:
    cdef RunningTasks tasks
    cdef int number

    cdef int set(self, long long seq, const unsigned char* key, Py_ssize_t size, int32_t tries) except -1
    cdef int set_uncounted(self, long long seq, const unsigned char* key, Py_ssize_t size, int32_t tries) except -1
    cdef void clear(self) noexcept
    cdef void end(self) noexcept
