from cpython.buffer cimport Py_buffer
from libc.stdint cimport uint32_t, uint64_t

cdef struct Extent:
    # The transaction that committed it, or 0 if it does not count.
    uint64_t transaction
    # Another number after the images were cleared.
    uint64_t generation
    # The offsets in the file at which the entries begin and end.
    uint64_t start
    uint64_t end

cdef class BeforeImages:
    cdef str path
    cdef int file
    cdef object mapped
    cdef Py_buffer view
    cdef Extent* extents
    # The extent of the last commit, and the number of the open transaction.
    cdef Extent committed
    cdef uint64_t transaction
    # What this process knows, from ``start`` on. ``written`` is where ``unwritten`` belongs in the file.
    cdef uint64_t generation
    cdef uint64_t start
    cdef uint64_t written
    cdef bytearray unwritten
    # Whether that includes the commits of the other processes.
    cdef bint is_current
    # Which images there are: for each block of sequence numbers a byte for each of them.
    cdef dict kinds
    cdef long long known

    cdef int begin(self, uint64_t transaction) except -1
    cdef int publish(self) except -1
    cdef int abandon(self) except -1
    cdef Extent mark(self) except *
    cdef int roll_back(self, Extent mark) except -1
    cdef long long count(self) except -1
    cdef bint has_record(self, long long seq) except -1
    cdef int note_added(self, long long seq) except -1
    cdef int note_status(self, long long seq, uint32_t status) except -1
    cdef int note_record(self, long long seq, uint32_t status, bytes record) except -1
    cdef int forget(self, long long seq) except -1
    cdef int clear(self) except -1
    cdef dict images(self)
    cdef dict images_at(self, uint64_t transaction)
    cdef int require_open(self) except -1
    cdef uint64_t end(self) noexcept
    cdef bint has_recorded(self) noexcept
    cdef bytes entries(self)
    cdef int catch_up(self) except -1
    cdef int know_nothing(self, const Extent* extent) except -1
    cdef int learn(self, bytes data) except -1
    cdef int kind_of(self, long long seq) except -1
    cdef int set_kind(self, long long seq, int kind) except -1
    cdef int append(self, long long seq, int change, const char* first, Py_ssize_t first_size, bytes rest) except -1
    cdef int write(self, bint required) except -1
    cdef bytes read(self, uint64_t start, uint64_t end)
    cdef const Extent* newest(self) noexcept
