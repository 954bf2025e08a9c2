"""What the last sync of a shared store left: the keys that differ from it now, and the way back.

For each order number that was changed since, by any process, the database ``images`` has what was there at the
sync: four bytes of status and the record, the status alone where nothing else was changed, or nothing at all for
a key that was added since.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

from tastypy_fast._core.iterators import REVERTS
from tastypy_fast._core.key_codec import decode_key, index_key
from tastypy_fast._core.record_codec import decode_record
from tastypy_fast._core.status_writer import restore_status
from tastypy_fast._core.store_base import StoreBase
from tastypy_fast._lmdb.page_format import NUMBER
from tastypy_fast._shared.hold import drop_all, keep_holder
from tastypy_fast._shared.worker import claimant_of
from tastypy_fast._shared.write_transaction import WriteTransaction

__all__ = ["changed_keys", "revert", "set_hold", "sync_key"]

_STATUS = 4


def _encoded_key(record: bytes) -> bytes:
    return decode_record(record)[1]


def changed_keys(store: StoreBase, txn: Any) -> Iterator[Any]:
    """The keys that differ from the last sync; one may come twice. Cost: a look at each of their records."""
    for order, image in txn.cursor(store.images):
        record = image[_STATUS:] or txn.get(order, db=store.values)
        if record:  # else it was added and deleted again
            yield decode_key(_encoded_key(record))


def sync_key(transaction: WriteTransaction, key: bytes) -> bool:
    """Take a key as synced. False when it is neither there nor was at the last sync."""
    transaction.cache.sync(False)
    store, txn = transaction, transaction.snapshot
    order = txn.get(index_key(key), db=store.order)
    found = order is not None
    if order is not None:
        txn.delete(order, db=store.images)
    # It may have been deleted since, or deleted and added again.
    earlier = [number for number, image in txn.cursor(store.images)
               if len(image) > _STATUS and _encoded_key(image[_STATUS:]) == key]
    for number in earlier:
        txn.delete(number, db=store.images)
    transaction.written_directly()
    transaction.flushes = True
    return found or bool(earlier)


def set_hold(transaction: WriteTransaction, held: bool) -> None:
    """Suspend the automatic sync for all processes, as long as this one lives, or take it up again."""
    if held:
        keep_holder(transaction, claimant_of(transaction.store).number)
    else:
        drop_all(transaction)
    # The automatic sync comes with the next change, not with this one.
    transaction.sync_at = sys.maxsize


def revert(transaction: WriteTransaction) -> None:
    """Put everything back to what it was at the last sync."""
    transaction.cache.sync(False)
    store, txn = transaction, transaction.snapshot
    # What was added and is gone leaves its number: a loop in some process may have passed it.
    first_free = transaction.first_free()
    images = [(order, image) for order, image in txn.cursor(store.images)]
    for order, image in images:
        if not image:
            record = txn.get(order, db=store.values)
            if record is not None:
                index = index_key(_encoded_key(record))
                if txn.get(index, db=store.order) == order:
                    txn.delete(index, db=store.order)
                txn.delete(order, db=store.values)
    for order, image in images:
        record = image[_STATUS:]
        if record:
            # (deleted first: see write_changes())
            txn.delete(order, db=store.values)
            txn.put(order, record, db=store.values)
            txn.put(index_key(_encoded_key(record)), order, db=store.order)
    if store.status is not None:
        restore_status(txn, store.status, store.claims, [(order, image[:_STATUS]) for order, image in images])
    transaction.drop_images()
    # (loops in all processes look for what comes next anew)
    reverts = txn.get(REVERTS, db=store.meta)
    txn.put(REVERTS, NUMBER.pack(1 + (NUMBER.unpack(reverts)[0] if reverts else 0)), db=store.meta)
    txn.put(b"next", NUMBER.pack(first_free), db=store.meta)
    transaction.written_directly()
