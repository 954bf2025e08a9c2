from libc.stdint cimport int32_t, uint16_t, uint32_t

# Not in the enum, because the constants of a C enum are ints, and these are larger.
cdef extern from *:
    """
    #define STATUS_ERROR 0x80000000u
    #define STATUS_FLAGS 0x8000000Fu
    """
    const uint32_t ERROR "STATUS_ERROR"
    const uint32_t FLAGS "STATUS_FLAGS"

# The layout of a status block: see status_block.pyx. Python modules import these constants, too.
cpdef enum:
    PRESENT = 1
    DONE = 2
    ABORTED = 4
    CLAIMED = 8
    TRIES_SHIFT = 4
    TASKS_PER_BLOCK = 500
    # 2**26 - 1: the largest number that the 27 bits of an entry hold.
    MAX_TRIES = 67108863

cdef struct Head:
    uint16_t present
    uint16_t done
    uint16_t aborted
    uint16_t tried
    uint16_t open      # neither done nor aborted
    uint16_t spare[3]

cdef struct Layout:
    Head head
    uint32_t entry[TASKS_PER_BLOCK]

# One change in a patch of a status block, as the write-ahead log stores it.
cdef struct StatusChange:
    uint32_t slot
    uint32_t entry

cdef inline int32_t tries_of(uint32_t entry) noexcept:
    # Shift the flag ERROR out first, so that the sign bit of the number is the highest bit.
    return <int32_t>(entry << 1) >> (TRIES_SHIFT + 1)

cdef inline uint32_t make_entry(uint32_t flags, int32_t tries) noexcept:
    return (<uint32_t>tries << TRIES_SHIFT & ~FLAGS) | flags

cdef inline void add_to_head(Head* head, uint32_t entry, int sign) noexcept:
    if entry & PRESENT:
        head.present += sign
        head.done += sign * ((entry & DONE) != 0)
        head.aborted += sign * ((entry & ABORTED) != 0)
        head.tried += sign * (tries_of(entry) > 0)
        head.open += sign * ((entry & (DONE | ABORTED)) == 0)

cdef inline int count_candidates(const Head* head, uint32_t flags, uint32_t mask) noexcept:
    """Return how many tasks of a block can have these ``flags`` under ``mask``."""
    if flags & DONE:
        return head.done
    if flags & ABORTED:
        return head.aborted
    if mask & ABORTED:
        return head.open
    return head.present - head.done if mask & DONE else head.present

cdef int decode_block(object raw, Layout* data) except -1
cdef int check_changes(const unsigned char* data, Py_ssize_t size) except -1
cdef bytearray latest(bytearray changes)
cpdef bytes patched(object raw, bytearray changes)

cdef class Block:
    cdef Layout data
    # The entries on disk of the touched slots; NULL before the first touch.
    cdef uint32_t* before
    cdef unsigned char touched[TASKS_PER_BLOCK]
    cdef int touched_count
    cdef int touch(self, int slot, unsigned char how) except -1
    cdef int mark_clean(self, int slot) except -1
    cdef int mark_all_clean(self) except -1
    cdef int check(self) except -1
    cdef bytearray changes(self, Block target)
