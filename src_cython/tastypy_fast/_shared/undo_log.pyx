"""Record the before-images of changes in a shared store, so that ``revert()`` can restore the last sync.

The database ``images`` has one entry for each sequence number that any process changed since the last sync:

    empty                 the key was added after the last sync
    status                4 bytes: only the status of the task changed
    status and record     the record before its first change; the status is zero in a store without tasks

Only the first change of a key after a sync records an image. A sync clears the log, and ``revert()`` writes the images
back. A cache records the images of its own records in ``WriteCache.record_before_images()``.
"""

cimport cython

from tastypy_fast._core.store_base cimport StoreBase

from tastypy_fast._core.iterators import REVERTS
from tastypy_fast._core.key_codec import decode_key, index_key
from tastypy_fast._core.record_codec import decode_record
from tastypy_fast._core.status_writer import restore_status
from tastypy_fast._lmdb.page_format import NUMBER

__all__ = ["UndoLog"]

cdef enum:
    STATUS_SIZE = 4


cdef bytes key_in(bytes record):
    """Return the encoded key of a record."""
    return decode_record(record)[1]


@cython.final
cdef class UndoLog:
    """The undo log of one store, in the transaction or snapshot that ``store`` has open.

    ``store.before_image_count`` is the number of images. It is correct without a recount while only this process
    writes.
    """

    def __init__(self, StoreBase store not None):
        self.store = store
        self.is_count_lost = True

    # Recording

    cdef int record(self, bytes seq, bytes image) except -1:
        """Record the before-image of a packed sequence number, unless it has one."""
        cdef StoreBase store = self.store
        store.before_image_count += store.snapshot.put(seq, image, True, False, False, store.images)
        return 0

    cdef int record_many(self, list images) except -1:
        """Record pairs of packed sequence number and before-image. See record()."""
        cdef StoreBase store = self.store
        if len(images) == 1:
            seq, image = images[0]
            return self.record(seq, image)
        if images:
            store.before_image_count += store.snapshot.cursor(store.images).putmulti(images, True, False)[1]
        return 0

    cpdef int clear(self) except -1:
        """Clear the log, so that ``revert()`` restores the current state."""
        self.store.snapshot.drop(self.store.images, False)
        self.store.before_image_count = self.counted = 0
        return 0

    # Counting

    def count(self):
        """Return how many sequence numbers differ from the last sync."""
        return self.store.snapshot.stat(self.store.images)["entries"]

    cdef int note_other_writer(self) noexcept:
        """Mark the count as a lower bound, because another process may have recorded images since."""
        self.may_be_outdated = True
        return 0

    cdef int mark_count_unknown(self) noexcept:
        """Mark the count as unknown, because a part of the transaction was rolled back. is_full() counts again."""
        self.is_count_lost = True
        return 0

    cdef bint is_full(self, long long sync_at) except -1:
        """Return whether ``sync_at`` keys differ from the last sync, so that the automatic sync is due.

        While other processes write, the images are counted only after this process recorded a sixteenth of ``sync_at``.
        Counting them at each commit would take a third of the time of a small transaction.
        """
        cdef StoreBase store = self.store
        if self.is_count_lost or (self.may_be_outdated and (
                store.before_image_count >= sync_at
                or store.before_image_count - self.counted >= max(1, sync_at >> 4))):
            store.before_image_count = self.counted = self.count()
            self.may_be_outdated = self.is_count_lost = False
        return store.before_image_count >= sync_at

    # Restoring

    def changed_keys(self):
        """Yield the keys that differ from the last sync. It may yield a key twice. Cost: one read for each image."""
        cdef StoreBase store = self.store
        txn = store.snapshot
        for seq, image in txn.cursor(store.images):
            record = image[STATUS_SIZE:] or txn.get(seq, db=store.values)
            if record:  # else the key was added and deleted again
                yield decode_key(key_in(record))

    def forget_key(self, bytes key not None):
        """Make the current state of a key its restore point. Returns whether it exists, or existed at the last sync.

        Cost: one read for each image, because the key may have been deleted since, and added again with a new sequence
        number.
        """
        cdef StoreBase store = self.store
        txn = store.snapshot
        seq = txn.get(index_key(key), db=store.order)
        if seq is not None:
            txn.delete(seq, db=store.images)
        earlier = [number for number, image in txn.cursor(store.images)
                   if len(image) > STATUS_SIZE and key_in(image[STATUS_SIZE:]) == key]
        for number in earlier:
            txn.delete(number, db=store.images)
        return seq is not None or bool(earlier)

    def restore(self):
        """Write all before-images back, and clear the log. No cache may hold unwritten changes.

        The sequence numbers of keys that this deletes are not used again. An iterator of another process may have
        passed them already, and would skip a new key with this number.
        """
        cdef StoreBase store = self.store
        cdef list images
        txn = store.snapshot
        next_seq = store.next_free()
        images = list(txn.cursor(store.images))
        for seq, image in images:
            if not image:
                record = txn.get(seq, db=store.values)
                if record is not None:
                    index = index_key(key_in(record))
                    if txn.get(index, db=store.order) == seq:
                        txn.delete(index, db=store.order)
                    txn.delete(seq, db=store.values)
        for seq, image in images:
            record = image[STATUS_SIZE:]
            if record:
                # Delete the value first. If a small value replaced a large one of the same transaction, LMDB would
                # keep all pages of the large one.
                txn.delete(seq, db=store.values)
                txn.put(seq, record, db=store.values)
                txn.put(index_key(key_in(record)), seq, db=store.order)
        if store.status is not None:
            restore_status(txn, store.status, store.claims, [(seq, image[:STATUS_SIZE]) for seq, image in images])
        self.clear()
        # Increase this number, because the iterators of all processes seek again when it changes. Otherwise they would
        # skip restored keys.
        reverts = txn.get(REVERTS, db=store.meta)
        txn.put(REVERTS, NUMBER.pack(1 + (NUMBER.unpack(reverts)[0] if reverts else 0)), db=store.meta)
        txn.put(b"next", NUMBER.pack(next_seq), db=store.meta)
