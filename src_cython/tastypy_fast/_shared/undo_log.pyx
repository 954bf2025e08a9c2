"""Restore the last sync of a shared store from the before-images of its changes (see ``_core.before_images``).

Every transaction records the images of what it changes. A sync clears them, and ``revert()`` writes them back.
"""

cimport cython

from tastypy_fast._core.store_base cimport StoreBase
from tastypy_fast._core.sync_writer cimport unpack_seq

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
    """The undo log of one store, in the write transaction or snapshot that ``store`` has open.

    Only ``changed_keys()`` is for a snapshot.
    """

    def __init__(self, StoreBase store not None):
        self.store = store

    cdef dict images(self):
        """Return the images of packed sequence numbers. Returns None if this snapshot is too old to see them."""
        cdef StoreBase store = self.store
        if store.writable:
            return store.images.images()
        return store.images.images_at(store.snapshot.id())

    def count(self):
        """Return how many sequence numbers differ from the last sync."""
        return self.store.images.count()

    def changed_keys(self):
        """Return the keys that differ from the last sync. Returns None if a newer snapshot is needed.

        Cost: one read for each image.
        """
        cdef StoreBase store = self.store
        cdef dict images = self.images()
        cdef set found = set()
        if images is None:
            return None
        txn = store.snapshot
        for seq, image in images.items():
            record = image[STATUS_SIZE:] or txn.get(seq, db=store.values)
            if record:  # else the key was added and deleted again
                found.add(decode_key(key_in(record)))
        return found

    def forget_key(self, bytes key not None):
        """Make the current state of a key its restore point. Returns whether it exists, or existed at the last sync.

        Cost: one read for each image, because the key may have been deleted since, and added again with a new sequence
        number.
        """
        cdef StoreBase store = self.store
        seq = store.snapshot.get(index_key(key), db=store.order)
        earlier = [number for number, image in self.images().items()
                   if len(image) > STATUS_SIZE and key_in(image[STATUS_SIZE:]) == key]
        for number in earlier:
            store.images.forget(unpack_seq(store, number))
        if seq is not None:
            store.images.forget(unpack_seq(store, seq))
        return seq is not None or bool(earlier)

    def restore(self):
        """Write all before-images back, and clear the log. No cache may hold unwritten changes.

        The sequence numbers of keys that this deletes are not used again. An iterator of another process may have
        passed them already, and would skip a new key with this number.
        """
        cdef StoreBase store = self.store
        cdef dict images
        txn = store.snapshot
        next_seq = store.next_free()
        images = self.images()
        for seq, image in images.items():
            if not image:
                record = txn.get(seq, db=store.values)
                if record is not None:
                    index = index_key(key_in(record))
                    if txn.get(index, db=store.order) == seq:
                        txn.delete(index, db=store.order)
                    txn.delete(seq, db=store.values)
        for seq, image in images.items():
            record = image[STATUS_SIZE:]
            if record:
                # Delete the value first. If a small value replaced a large one of the same transaction, LMDB would
                # keep all pages of the large one.
                txn.delete(seq, db=store.values)
                txn.put(seq, record, db=store.values)
                txn.put(index_key(key_in(record)), seq, db=store.order)
        if store.status is not None:
            statuses = [(seq, image[:STATUS_SIZE]) for seq, image in images.items()]
            restore_status(txn, store.status, store.claims, statuses)
        store.images.clear()
        # Increase this number, because the iterators of all processes seek again when it changes. Otherwise they would
        # skip restored keys.
        reverts = txn.get(REVERTS, db=store.meta)
        txn.put(REVERTS, NUMBER.pack(1 + (NUMBER.unpack(reverts)[0] if reverts else 0)), db=store.meta)
        txn.put(b"next", NUMBER.pack(next_seq), db=store.meta)
