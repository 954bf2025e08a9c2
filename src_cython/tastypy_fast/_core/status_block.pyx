"""Define the layout of a status block, which holds for 500 tasks whether they are done or aborted, and their tries.

A block holds the statuses of 500 consecutive seqs: the task with seq n has entry n % 500 of block n // 500. Two blocks
fill a page of 4 kB. The blocks of a million tasks have 4 MB, which one loop scans. All numbers are in the machine's
byte order, as in LMDB's own structures:

    header      8 x 16 bits   tasks here, done, aborted, tried at least once, neither done nor aborted; 3 spare
    entry * 500 32 bits       bit 0 the task exists, bit 1 done, bit 2 aborted, bit 3 claimed,
                              bits 4..30 tries, signed, bit 31 the task's data have an error, ``_error``

Bit 31 is derived from the data, which it lets a scan find without reading them. It is a hint: read the data to be sure.
Up to format 3 it belonged to the tries, so a task with a negative number of them has it until its status is written
again. A task that got its ``_error`` in that format lacks it likewise.
"""

cimport cython
from cpython.bytearray cimport PyByteArray_AS_STRING, PyByteArray_FromStringAndSize, PyByteArray_GET_SIZE
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.mem cimport PyMem_Free, PyMem_Malloc
from libc.stdint cimport uint16_t, uint32_t
from libc.string cimport memcmp, memcpy, memset

from struct import Struct

from tastypy_fast.exceptions import PersistentOrderedDictIntegrityError

__all__ = [
    "ABORTED",
    "CLAIMED",
    "DONE",
    "ERROR",
    "FLAGS",
    "HEAD",
    "MAX_TRIES",
    "PRESENT",
    "STATUSES",
    "TASKS_PER_BLOCK",
    "TRIES_SHIFT",
    "Block",
    "block_facts",
    "count_failed",
    "failed_in",
    "has_failed",
    "make_status",
    "patched",
    "tries_in",
]

# The flags as Python objects.
globals().update({"ERROR": ERROR, "FLAGS": FLAGS})
# The header of a block, and a whole block, for Python modules that read blocks.
HEAD = Struct("=8H")
STATUSES = Struct(f"{HEAD.format}{TASKS_PER_BLOCK}I")
if HEAD.size != sizeof(Head) or STATUSES.size != sizeof(Layout):
    raise ImportError("the compiler lays out status blocks differently; build tastypy_fast with another compiler")


cdef int decode_block(object raw, Layout* data) except -1:
    if raw is None:
        memset(data, 0, sizeof(Layout))
    elif PyBytes_GET_SIZE(raw) != sizeof(Layout):
        raise PersistentOrderedDictIntegrityError("a block of statuses has the wrong size")
    else:
        memcpy(data, PyBytes_AS_STRING(raw), sizeof(Layout))
    return 0


cpdef bytes patched(object raw, bytearray changes):
    """Apply changes to a block, and return the result. None is an empty block.

    ``changes`` are StatusChange structs, the latest last.
    """
    cdef Layout data
    cdef StatusChange change
    cdef Py_ssize_t at
    decode_block(raw, &data)
    for at in range(0, PyByteArray_GET_SIZE(changes), <Py_ssize_t>sizeof(StatusChange)):
        memcpy(&change, PyByteArray_AS_STRING(changes) + at, sizeof(StatusChange))
        add_to_head(&data.head, data.entry[change.slot], -1)
        add_to_head(&data.head, change.entry, 1)
        data.entry[change.slot] = change.entry
    return PyBytes_FromStringAndSize(<const char*>&data, sizeof(Layout))


cdef int check_changes(const unsigned char* data, Py_ssize_t size) except -1:
    """Raise an error unless these bytes are valid changes of a block."""
    cdef StatusChange change
    cdef Py_ssize_t at
    if size % <Py_ssize_t>sizeof(StatusChange):
        raise PersistentOrderedDictIntegrityError("a batch of the log does not parse")
    for at in range(0, size, <Py_ssize_t>sizeof(StatusChange)):
        memcpy(&change, data + at, sizeof(StatusChange))
        if change.slot >= TASKS_PER_BLOCK:
            raise PersistentOrderedDictIntegrityError("a batch of the log does not parse")
    return 0


cdef bytearray latest(bytearray changes):
    """Return the last change of each slot."""
    cdef dict found = {}
    cdef Py_ssize_t at
    for at in range(0, PyByteArray_GET_SIZE(changes), <Py_ssize_t>sizeof(StatusChange)):
        found[bytes(changes[at:at + 4])] = bytes(changes[at + 4:at + 8])
    return bytearray().join([slot + entry for slot, entry in found.items()])


@cython.final
cdef class Block:
    """One block in memory.

    ``touched[i]`` is 0 if entry i equals the disk. Otherwise it is 1 if the status itself counts as dirty, and 2 if the
    task's cache entry counts instead. ``before`` has the entries on disk of touched slots. It is NULL before the first
    touch.
    """

    def __cinit__(self):
        memset(self.touched, 0, TASKS_PER_BLOCK)
        self.touched_count = 0

    def __dealloc__(self):
        PyMem_Free(self.before)

    cdef int touch(self, int slot, unsigned char how) except -1:
        """Record the entry on disk of a slot whose entry is about to differ from it."""
        if self.before == NULL:
            self.before = <uint32_t*>PyMem_Malloc(TASKS_PER_BLOCK * sizeof(uint32_t))
            if self.before == NULL:
                raise MemoryError("no memory for a block of statuses")
        self.before[slot] = self.data.entry[slot]
        self.touched[slot] = how
        self.touched_count += 1
        return 0

    cdef int mark_clean(self, int slot) except -1:
        """Mark a touched slot as equal to the disk."""
        self.touched[slot] = 0
        self.touched_count -= 1
        return 0

    cdef int mark_all_clean(self) except -1:
        """Mark every slot as equal to the disk."""
        memset(self.touched, 0, TASKS_PER_BLOCK)
        self.touched_count = 0
        PyMem_Free(self.before)
        self.before = NULL
        return 0

    cdef int check(self) except -1:
        """Raise AssertionError if the block contradicts itself. Returns how many slots have ``touched`` 1."""
        cdef Head head
        cdef int slot, touched = 0, alone = 0
        memset(&head, 0, sizeof(Head))
        for slot in range(TASKS_PER_BLOCK):
            add_to_head(&head, self.data.entry[slot], 1)
            touched += self.touched[slot] != 0
            alone += self.touched[slot] == 1
            if self.touched[slot] and self.before[slot] == self.data.entry[slot]:
                raise AssertionError("a status is dirty, but equals the disk")
        if memcmp(&head, &self.data.head, 5 * sizeof(uint16_t)) or touched != self.touched_count:
            raise AssertionError("a block of statuses contradicts its own header")
        return alone

    cdef bytearray changes(self, Block target):
        """Return the entries of ``target`` in the touched slots of this block, as StatusChange structs."""
        cdef StatusChange found[TASKS_PER_BLOCK]
        cdef int first, slot, count = 0
        cdef uint32_t four
        for first in range(0, TASKS_PER_BLOCK, 4):
            # Test four slots at once, because few are touched.
            memcpy(&four, self.touched + first, 4)
            if four:
                for slot in range(first, first + 4):
                    if self.touched[slot]:
                        found[count].slot = slot
                        found[count].entry = target.data.entry[slot]
                        count += 1
        return PyByteArray_FromStringAndSize(<const char*>found, count * sizeof(StatusChange))


def block_facts(bytes raw):
    """Return (header, header computed from the entries, slots with a task, claimed slots) of a block, for _check()."""
    cdef Layout data
    cdef Head head
    cdef int slot
    decode_block(raw, &data)
    memset(&head, 0, sizeof(Head))
    for slot in range(TASKS_PER_BLOCK):
        add_to_head(&head, data.entry[slot], 1)
    return (
        (data.head.present, data.head.done, data.head.aborted, data.head.tried, data.head.open),
        (head.present, head.done, head.aborted, head.tried, head.open),
        [slot for slot in range(TASKS_PER_BLOCK) if data.entry[slot] & PRESENT],
        [slot for slot in range(TASKS_PER_BLOCK) if data.entry[slot] & CLAIMED],
    )


# Statuses for Python modules

def make_status(bint done, bint aborted, int32_t tries):
    """Return the entry of a task with this status and without an error."""
    return make_entry(PRESENT | (DONE if done else 0) | (ABORTED if aborted else 0), tries)


def tries_in(uint32_t entry):
    """Return the number of tries in an entry."""
    return tries_of(entry)


# A task has failed if only PRESENT is set of the flags ``bits``, and it has ``min_tries`` or more tries. 0 means never.

cdef inline bint is_failed(uint32_t entry, int32_t min_tries, uint32_t bits) noexcept:
    return entry & bits == PRESENT and 0 < min_tries <= tries_of(entry)


def has_failed(uint32_t entry, int32_t min_tries, uint32_t bits):
    """Return whether a task with this entry has failed."""
    return is_failed(entry, min_tries, bits)


def count_failed(bytes block not None, int32_t min_tries, uint32_t bits):
    """Return how many tasks of a block have failed."""
    cdef const Layout* data = layout_of(block)
    cdef int slot, count = 0
    for slot in range(TASKS_PER_BLOCK):
        count += is_failed(data.entry[slot], min_tries, bits)
    return count


def failed_in(bytes block not None, int32_t min_tries, uint32_t bits):
    """Return a dict of the failed tasks of a block: slot to tries."""
    cdef const Layout* data = layout_of(block)
    cdef int slot
    return {slot: tries_of(data.entry[slot]) for slot in range(TASKS_PER_BLOCK)
            if is_failed(data.entry[slot], min_tries, bits)}


cdef const Layout* layout_of(bytes block) except NULL:
    if PyBytes_GET_SIZE(block) != sizeof(Layout):
        raise PersistentOrderedDictIntegrityError("a block of statuses has the wrong size")
    return <const Layout*>PyBytes_AS_STRING(block)
