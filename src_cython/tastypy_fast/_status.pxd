from libc.stdint cimport int32_t, uint16_t, uint32_t

from tastypy_fast._state cimport StoreState

cdef enum:
    PRESENT = 1
    DONE = 2
    ABORTED = 4
    CLAIMED = 8
    FLAGS = 15
    TRIES_SHIFT = 4
    ENTRIES = 500
    MAX_TRIES = 134217727  # 2**27 - 1: what the 28 bits of an entry hold

cdef struct Head:
    uint16_t present
    uint16_t done
    uint16_t aborted
    uint16_t tried
    uint16_t open      # neither done nor aborted
    uint16_t spare[3]

cdef struct Layout:
    Head head
    uint32_t entry[ENTRIES]

# What a log says of a block.
cdef struct StatusChange:
    uint32_t slot
    uint32_t entry

cdef inline int32_t tries_of(uint32_t entry) noexcept:
    return <int32_t>entry >> TRIES_SHIFT

cdef inline uint32_t make_entry(uint32_t flags, int32_t tries) noexcept:
    return (<uint32_t>tries << TRIES_SHIFT) | flags

cdef inline void add(Head* head, uint32_t entry, int sign) noexcept:
    if entry & PRESENT:
        head.present += sign
        head.done += sign * ((entry & DONE) != 0)
        head.aborted += sign * ((entry & ABORTED) != 0)
        head.tried += sign * (tries_of(entry) > 0)
        head.open += sign * ((entry & (DONE | ABORTED)) == 0)

cdef int decode_block(object raw, Layout* data) except -1

cdef class Block:
    cdef Layout data
    cdef unsigned char touched[ENTRIES]
    cdef int touched_count
    cdef bytes changes(self, Block target)

cdef class StatusTable:
    cdef StoreState environment
    cdef dict blocks
    cdef dict differing
    cdef Py_ssize_t room
    cdef long long last_number
    cdef Block last_block
    cdef readonly Py_ssize_t touched
    cdef long long totals[4]
    cdef bint totals_known
    cdef bint compared
    cdef long long openings
    cdef long long last_opened
    cdef long long abortions
    cdef long long last_aborted
    cdef uint32_t get(self, long long order) except? 0xffffffff
    cdef int set(self, long long order, uint32_t entry, bint count) except -1
    cdef bint untouch(self, long long order) except -1
    cdef list scan(self, long long after, int limit, uint32_t flags, uint32_t mask, long long max_tries)
    cdef int count(self) except -1
    cdef int write(self, object txn, set only, set skip) except -1
    cdef list changed(self, set only)
    cdef int written(self, set only, set skip) except -1
    cdef int trim(self) except -1
    cdef int forget(self) except -1
    cdef int add_head(self, Head* head) except -1
    cdef dict changes(self)
    cdef bint differs(self) except -1
    cdef int check(self) except -1
    cdef list touched_orders(self)
    cdef bytes on_disk(self, object txn, long long order)
    cdef int keep_images(self, object txn, long long number, Block block) except -1
    cdef Block load(self, long long number)
    cdef Block read(self, object txn, long long number)
