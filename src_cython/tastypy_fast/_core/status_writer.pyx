"""Change statuses in the blocks of a write transaction, without a cache.

The caller must not hold any of these blocks in a cache, because a cached block would overwrite the change.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport uint32_t
from libc.string cimport memcpy

from tastypy_fast._core.before_images cimport BeforeImages
from tastypy_fast._core.cache_entry cimport pack
from tastypy_fast._core.claim_record cimport claim_key
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

__all__ = ["raise_tries", "release_claims", "restore_status"]


def release_claims(txn, status, claims, dict lost not None, BeforeImages images=None, dict kept=None):
    """Release claims.

    ``lost`` maps a sequence number to the tries of the claim if its task was never yielded, and to None otherwise. The
    try of a task that was never yielded is subtracted, unless its tries were reset since. ``status`` and ``claims``
    are LMDB's handles. With ``images`` the change can be reverted. ``kept`` maps a sequence number to the new value of
    its claim, for tasks that stay claimed. No cache may hold any of the blocks.
    """
    cdef StatusWriter blocks = StatusWriter(txn, status)
    cdef uint32_t old, flags
    for seq in sorted(lost):
        old = blocks.get(seq)
        if old & CLAIMED:
            flags = old & FLAGS if kept and seq in kept else old & FLAGS & ~<uint32_t>CLAIMED
            counted = lost[seq]
            blocks.set(make_entry(flags, tries_of(old) - (counted is not None and counted <= tries_of(old))))
            if images is not None:
                images.note_status(seq, old)
        if kept and seq in kept and old & CLAIMED:
            txn.put(claim_key(seq), kept[seq], db=claims)
        else:
            txn.delete(claim_key(seq), db=claims)
    blocks.flush()


def restore_status(txn, status, claims, list images not None):
    """Restore statuses from before-images. No cache may hold any of the blocks.

    ``images`` are pairs of a sequence number and a status as on disk, in order. An empty status deletes the entry. A
    claim is kept unless its task is then deleted or finished.
    """
    cdef StatusWriter blocks = StatusWriter(txn, status)
    cdef uint32_t old, new
    cdef long long seq
    for number, image in images:
        new = 0
        memcpy(&seq, PyBytes_AS_STRING(number), 8)
        memcpy(&new, PyBytes_AS_STRING(image), PyBytes_GET_SIZE(image))
        old = blocks.get(seq)
        new &= ~<uint32_t>CLAIMED
        if old & CLAIMED:
            if new & PRESENT and not new & (DONE | ABORTED):
                new |= CLAIMED
            else:
                txn.delete(claim_key(seq), db=claims)
        blocks.set(new)
    blocks.flush()


def raise_tries(txn, status, dict tries not None):
    """Raise the tries of tasks to at least these numbers. ``tries`` maps a sequence number to a number.

    No cache may hold any of the blocks.
    """
    cdef StatusWriter blocks = StatusWriter(txn, status)
    cdef uint32_t old
    for seq in sorted(tries):
        old = blocks.get(seq)
        if old & PRESENT and tries_of(old) < tries[seq]:
            blocks.set(make_entry(old & FLAGS, tries[seq]))
    blocks.flush()


@cython.final
cdef class StatusWriter:
    """The status block that a transaction changes, and the claims to write with it."""

    def __cinit__(self, txn, status):
        self.txn = txn
        self.status = status
        self.number = -1
        self.claims = []

    cdef uint32_t get(self, long long seq) except? 0xffffffff:
        """Return the entry of a sequence number, and select it for the next ``set()``."""
        if seq // TASKS_PER_BLOCK != self.number:
            self.flush()
            decode_block(self.txn.get(pack(seq // TASKS_PER_BLOCK), None, self.status), &self.data)
            self.number = seq // TASKS_PER_BLOCK
        self.index = seq % TASKS_PER_BLOCK
        return self.data.entry[self.index]

    cdef long long find(self, long long seq, uint32_t flags, uint32_t mask, long long max_tries) except -2:
        """Find a task that has ``flags`` under ``mask`` and fewer than ``max_tries``, in the block of ``seq``.

        Returns the first sequence number from ``seq`` on, and selects its entry for the next ``set()``. Returns -1 if
        the block has none.
        """
        cdef uint32_t entry = self.get(seq)
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
