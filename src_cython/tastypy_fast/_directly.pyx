"""Single changes made in the open transaction of a shared store itself, past the cache.

Each is a whole transaction, for which the cache with all that it keeps between two syncs is a long way round. What is
done here leaves the cache empty, without any block of statuses, to be read again.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport int32_t, uint32_t
from libc.string cimport memcpy

from tastypy_fast._cache cimport Cache
from tastypy_fast._claimrecord cimport note_tries, try_comes_back
from tastypy_fast._entries cimport ABSENT, pack
from tastypy_fast._keys cimport encode_key
from tastypy_fast._records cimport build_record, dump_value
from tastypy_fast._state cimport StoreState
from tastypy_fast._statusblock cimport (
    ABORTED,
    CLAIMED,
    DONE,
    ENTRIES,
    FLAGS,
    MAX_TRIES,
    PRESENT,
    Layout,
    add as add_to_head,
    decode_block,
    make_entry,
    tries_of,
)
from tastypy_fast._tracking cimport TrackerCache

__all__ = ["find_tasks", "give_back", "mark_done_many", "restore_status"]


cdef bytes record_of(Cache cache, bytes key, object value):
    """What assign_directly() takes. Needs no transaction: others may write meanwhile. None where it would not do."""
    cdef int codec = 0
    cdef bytes payload
    if cache is None or cache.tracks or PyBytes_GET_SIZE(key) > 511:
        return None
    payload = dump_value(value, &codec)
    return build_record(codec, key, payload, cache.environment.gzipped)


cdef bint assign_directly(Cache cache, bytes key, bytes record) except -1:
    """Cache.put() for a transaction of its own. False where it has to go through the cache."""
    cdef StoreState store = cache.environment
    cdef bytes number
    if record is None or cache.has_changes() or store.wrote:
        return False
    cache.enter()
    try:
        txn = store.snapshot
        number = txn.get(key, None, store.order)
        if number is None:
            number = pack(store.allocate())
            txn.put(key, number, True, False, False, store.order)
            txn.put(number, record, True, True, False, store.values)
            image = b""
        else:
            before = txn.replace(number, record, store.values)
            if before is None:
                raise cache.damaged(cache.key_of(key), "the index names a record that is not there")
            image = bytes(4) + before
        store.image_count += txn.put(number, image, True, False, False, store.images)
        store.wrote = True
        cache.disk_count = -1
        cache.epoch += 1
        return True
    finally:
        cache.leave()


cdef int begin_directly(TrackerCache tasks) except -1:
    """Have nothing in the cache that is not in the transaction, and no block at all."""
    if tasks.entries or tasks.status.differs():
        tasks.sync(False)
    tasks.status.forget()
    # (for loops inside of the block)
    tasks.epoch += 1
    return 0


cdef int put_status(TrackerCache tasks, Blocks blocks, bytes number, uint32_t old, uint32_t new) except -1:
    """Change the status that ``blocks`` got last, from ``old`` to ``new``; ``number`` is its order number, packed.
    finish() writes it."""
    cdef StoreState store = tasks.environment
    blocks.set(new)
    blocks.images.append((number, PyBytes_FromStringAndSize(<const char*>&old, 4)))
    if old & ~new & CLAIMED:
        store.snapshot.delete(number, b"", store.claims)
    return 0


cdef int finish(TrackerCache tasks, Blocks blocks) except -1:
    """Write the statuses that were put, with what revert() comes back to, and the claims."""
    cdef StoreState store = tasks.environment
    blocks.flush()
    store.image_count += put_pairs(store.snapshot, store.images, blocks.images, False)
    put_pairs(store.snapshot, store.claims, blocks.claims, True)
    store.wrote = store.wrote or len(blocks.images) > 0
    return 0


cdef Py_ssize_t put_pairs(object txn, object db, list pairs, bint overwrite) except -1:
    """How many of them were put."""
    if len(pairs) == 1:
        number, value = pairs[0]
        return txn.put(number, value, True, overwrite, False, db)
    return txn.cursor(db).putmulti(pairs, True, overwrite)[1] if pairs else 0


cdef bint change_directly(TrackerCache tasks, bytes key, object original, uint32_t drop, uint32_t add,
                          int tries) except -1:
    """TrackerCache.change() for a transaction of its own. False where that one is to say what is wrong."""
    cdef StoreState store = tasks.environment
    cdef Blocks blocks
    cdef long long order
    cdef uint32_t old, new
    cdef int32_t count
    cdef bytes number
    tasks.enter()
    try:
        begin_directly(tasks)
        order = tasks.locate(key)
        if order == ABSENT:
            raise KeyError(original)
        blocks = Blocks(store.snapshot, store.status)
        old = blocks.get(order)
        count = 0 if tries == 2 else tries_of(old) + tries
        if not old & PRESENT or not -MAX_TRIES <= count <= MAX_TRIES:
            return False
        if old & CLAIMED:
            number = pack(order)
            if drop & CLAIMED:
                count -= tries == 0 and try_comes_back(store, number, old)
            elif tries:
                note_tries(store, number, 0 if tries == 2 else tries, count)
        new = make_entry((old & FLAGS & ~drop) | add, count)
        if new != old:
            put_status(tasks, blocks, pack(order), old, new)
            finish(tasks, blocks)
        return True
    finally:
        tasks.leave()


def find_tasks(TrackerCache tasks not None, list keys not None):
    """What mark_done_many() takes: the keys, the same encoded, and the order numbers they have now, -1 for none."""
    cdef list encoded = [encode_key(key) for key in keys]
    tasks.enter()
    try:
        return keys, encoded, tasks.locate_many(encoded)
    finally:
        tasks.leave()


def mark_done_many(TrackerCache tasks not None, list keys not None, list encoded not None, list orders not None):
    """Mark tasks done. KeyError when one is not there; the caller undoes the rest then.

    An order number that was found before the transaction holds if it still is one of a task: none is given out twice.
    """
    cdef StoreState store = tasks.environment
    cdef Blocks blocks
    cdef Py_ssize_t position
    cdef long long order
    cdef uint32_t old
    cdef int32_t count
    cdef bytes number
    tasks.enter()
    try:
        begin_directly(tasks)
        blocks = Blocks(store.snapshot, store.status)
        for position in range(len(orders)):
            order = orders[position]
            old = 0 if order < 0 else blocks.get(order)
            if not old & PRESENT:
                order = tasks.locate(encoded[position])
                if order == ABSENT:
                    raise KeyError(keys[position])
                old = blocks.get(order)
                if not old & PRESENT:
                    raise tasks.damaged(keys[position], "the task has no status")
            if old & (DONE | CLAIMED) != DONE:
                number = pack(order)
                count = tries_of(old)
                if old & CLAIMED:
                    count -= try_comes_back(store, number, old)
                put_status(tasks, blocks, number, old, make_entry((old & FLAGS & ~<uint32_t>CLAIMED) | DONE, count))
        finish(tasks, blocks)
    finally:
        tasks.leave()


def give_back(txn, status, claims, dict lost not None, images=None, dict kept=None):
    """Take claims away. ``lost``: order number to None, or to how many tries a task that was never handed out had
    when it was claimed: it gets that one back, if nobody has set them back since.

    ``status``, ``claims`` and ``images`` are LMDB's handles, the last one where the change is to be revertible. What is
    in ``kept`` keeps its claim, as the entry of the database that is given there.
    Works on the blocks in the transaction: no cache may hold any of them.
    """
    cdef Blocks blocks = Blocks(txn, status)
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
    cdef Blocks blocks = Blocks(txn, status)
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
cdef class Blocks:
    """Status blocks in a transaction, changed one after the other; and what finish() puts with them, as pairs."""

    def __cinit__(self, txn, status):
        self.txn = txn
        self.status = status
        self.number = -1
        self.images = []
        self.claims = []

    cdef uint32_t get(self, long long order) except? 0xffffffff:
        """The entry of an order number, which the next set() changes."""
        if order // ENTRIES != self.number:
            self.flush()
            decode_block(self.txn.get(pack(order // ENTRIES), None, self.status), &self.data)
            self.number = order // ENTRIES
        self.slot = order % ENTRIES
        return self.data.entry[self.slot]

    cdef long long find(self, long long order, uint32_t flags, uint32_t mask, long long max_tries) except -2:
        """The first order number from ``order`` on, in its block, with these flags under ``mask`` and fewer tries;
        -1 where the block has none. What is found is what the next set() changes."""
        cdef uint32_t entry = self.get(order)
        while True:
            if entry & mask == flags and tries_of(entry) < max_tries:
                return self.number * ENTRIES + self.slot
            if self.slot == ENTRIES - 1:
                return -1
            self.slot += 1
            entry = self.data.entry[self.slot]

    cdef int set(self, uint32_t entry) except -1:
        add_to_head(&self.data.head, self.data.entry[self.slot], -1)
        add_to_head(&self.data.head, entry, 1)
        self.data.entry[self.slot] = entry
        return 0

    cdef int flush(self) except -1:
        if self.number >= 0:
            if self.data.head.present:
                raw = PyBytes_FromStringAndSize(<const char*>&self.data, sizeof(Layout))
                self.txn.put(pack(self.number), raw, db=self.status)
            else:
                self.txn.delete(pack(self.number), db=self.status)
        return 0
