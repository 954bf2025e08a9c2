"""Change statuses inside a write transaction, one status block after the other, without a cache.

The caller must not hold any of these blocks in a cache, because a cached block would overwrite the change.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport uint32_t
from libc.string cimport memcpy

from tastypy_fast._core.cache_entry cimport pack
from tastypy_fast._core.status_block cimport (
    ABORTED,
    CLAIMED,
    DONE,
    TASKS_PER_BLOCK,
    FLAGS,
    PRESENT,
    Layout,
    add_to_head,
    decode_block,
    make_entry,
    tries_of,
)

__all__ = ["give_back", "restore_status"]


def give_back(txn, status, claims, dict lost not None, images=None, dict kept=None):
    """Take claims away. ``lost``: order number to None, or to how many tries a task that was never handed out had
    when it was claimed: it gets that one back, if nobody has set them back since.

    ``status``, ``claims`` and ``images`` are LMDB's handles, the last one where the change is to be revertible. What is
    in ``kept`` keeps its claim, as the entry of the database that is given there.
    Works on the blocks in the transaction: no cache may hold any of them.
    """
    cdef StatusWriter blocks = StatusWriter(txn, status)
    cdef uint32_t old, flags
    for order in sorted(lost):
        number = pack(order)
        old = blocks.get(order)
        if old & CLAIMED:
            flags = old & FLAGS if kept and order in kept else old & FLAGS & ~<uint32_t>CLAIMED
            counted = lost[order]
            blocks.set(make_entry(flags, tries_of(old) - (counted is not None and counted <= tries_of(old))))
            if images is not None:
                txn.put(number, PyBytes_FromStringAndSize(<const char*>&old, 4), overwrite=False, db=images)
        if kept and order in kept and old & CLAIMED:
            txn.put(number, kept[order], db=claims)
        else:
            txn.delete(number, db=claims)
    blocks.flush()


def restore_status(txn, status, claims, list images not None):
    """Bring statuses back: ``images`` are pairs of order number and status, both as on disk, in order; an empty
    status is none. A claim stays as it is, but where its task is gone or finished. As give_back() otherwise."""
    cdef StatusWriter blocks = StatusWriter(txn, status)
    cdef uint32_t old, new
    cdef long long order
    for number, image in images:
        new = 0
        memcpy(&order, PyBytes_AS_STRING(number), 8)
        memcpy(&new, PyBytes_AS_STRING(image), PyBytes_GET_SIZE(image))
        old = blocks.get(order)
        new &= ~<uint32_t>CLAIMED
        if old & CLAIMED:
            if new & PRESENT and not new & (DONE | ABORTED):
                new |= CLAIMED
            else:
                txn.delete(number, db=claims)
        blocks.set(new)
    blocks.flush()


@cython.final
cdef class StatusWriter:
    """Status blocks in a transaction, changed one after the other; and what finish() puts with them, as pairs."""

    def __cinit__(self, txn, status):
        self.txn = txn
        self.status = status
        self.number = -1
        self.images = []
        self.claims = []

    cdef uint32_t get(self, long long order) except? 0xffffffff:
        """The entry of an order number, which the next set() changes."""
        if order // TASKS_PER_BLOCK != self.number:
            self.flush()
            decode_block(self.txn.get(pack(order // TASKS_PER_BLOCK), None, self.status), &self.data)
            self.number = order // TASKS_PER_BLOCK
        self.index = order % TASKS_PER_BLOCK
        return self.data.entry[self.index]

    cdef long long find(self, long long order, uint32_t flags, uint32_t mask, long long max_tries) except -2:
        """The first order number from ``order`` on, in its block, with these flags under ``mask`` and fewer tries;
        -1 where the block has none. What is found is what the next set() changes."""
        cdef uint32_t entry = self.get(order)
        while True:
            if entry & mask == flags and tries_of(entry) < max_tries:
                return self.number * TASKS_PER_BLOCK + self.index
            if self.index == TASKS_PER_BLOCK - 1:
                return -1
            self.index += 1
            entry = self.data.entry[self.index]

    cdef int set(self, uint32_t entry) except -1:
        add_to_head(&self.data.head, self.data.entry[self.index], -1)
        add_to_head(&self.data.head, entry, 1)
        self.data.entry[self.index] = entry
        return 0

    cdef int flush(self) except -1:
        if self.number >= 0:
            if self.data.head.present:
                raw = PyBytes_FromStringAndSize(<const char*>&self.data, sizeof(Layout))
                self.txn.put(pack(self.number), raw, db=self.status)
            else:
                self.txn.delete(pack(self.number), db=self.status)
        return 0
