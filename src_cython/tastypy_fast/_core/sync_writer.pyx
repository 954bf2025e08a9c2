"""Write the changed entries of a cache into the databases ``order`` and ``values``: the part of a sync on disk.

The functions know a store and entries, not the cache. Which entries a sync writes, and what the cache notes afterwards,
is in ``write_cache``.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.string cimport memcmp, memcpy

from tastypy_fast._core.cache_entry cimport ABSENT, Entry, IndexItems, RecordItems, pack
from tastypy_fast._core.key_codec cimport MAX_INDEX_KEY, index_key
from tastypy_fast._core.store_base cimport StoreBase
from tastypy_fast._core.wal cimport LoggedTransaction, as_logged, delete_near

from tastypy_fast._core.cache_entry import seq_of_entry

__all__ = []

cdef enum:
    # Records whose seqs are no further apart are in one page, most likely.
    NEAR = 8


cdef long long unpack_seq(StoreBase store, object raw) except -1:
    """Decode the seq in an index entry."""
    cdef long long number = -1
    if PyBytes_GET_SIZE(raw) == 8:
        memcpy(&number, PyBytes_AS_STRING(raw), 8)
    if number < 0:
        raise store.damaged("an index entry holds no sequence number")
    return number


cdef list insert_keys(StoreBase store, object txn, list changes):
    """Insert the keys of new entries into the index, and give seqs to those that have none.

    Returns the entries whose keys were there after all, as pairs with what the index holds. That is None for a key
    whose index key is a digest, because another key may have the same one.
    """
    cdef Entry entry
    cdef list fresh = [], absent = [], found = []
    # The write-ahead log need not look for keys that are known to be new.
    cdef LoggedTransaction logged = as_logged(txn)
    order_db = store.order
    # New keys go into the index blindly. If a key was there after all, the index still holds its old seq, which tells
    # so. That is one descent of the tree for each key of a fill instead of two.
    for item in changes:
        entry = item
        if entry.exists and entry.disk_seq < 0 and not entry.relocated:
            if entry.seq < 0:
                entry.seq = store.allocate()
            if PyBytes_GET_SIZE(entry.key) > MAX_INDEX_KEY \
                    and txn.get(index_key(entry.key), None, order_db) is not None:
                found.append((entry, None))
                continue
            (absent if logged is not None and entry.disk_seq == ABSENT else fresh).append(entry)
    if absent:
        logged.add_new_keys(IndexItems(absent))
    if fresh:
        cursor = txn.cursor(order_db)
        if cursor.putmulti(IndexItems(fresh), True, False)[1] != len(fresh):
            for item in fresh:
                entry = item
                raw = txn.get(index_key(entry.key), None, order_db)
                if unpack_seq(store, raw) != entry.seq:
                    found.append((entry, raw))
    return found


cdef bint write_records(StoreBase store, object txn, list changes, bint again) except -1:
    """Write and delete records, and change the index where an entry got another seq. Return whether any was deleted.

    ``again``: this transaction may have written some of the values before. LMDB would put a small value over the pages
    of a large one that were written there, and keep all of them. So delete it first.
    """
    cdef Entry entry
    cdef bytes index
    cdef long long last = -1, previous_appended = -1, previous_replaced = -1
    cdef list appended = [], replaced = []
    cdef bint deleted = False, in_order = True
    cdef LoggedTransaction logged = as_logged(txn)
    values = store.values
    order_db = store.order
    cursor = txn.cursor(values)
    index_cursor = None
    if logged is not None:
        last = logged.last_seq()
    elif cursor.last():
        last = unpack_seq(store, cursor.key())
    for item in changes:
        entry = item
        if entry.disk_seq >= 0 and entry.seq != entry.disk_seq:
            index = index_key(entry.key)
            if logged is not None:
                logged.delete_existing(pack(entry.disk_seq), values)
            else:
                delete_near(cursor, pack(entry.disk_seq))
            deleted = True
            if entry.exists:
                txn.put(index, pack(entry.seq), db=order_db)
            elif logged is not None:
                logged.delete_existing(index, order_db)
            else:
                if index_cursor is None:
                    index_cursor = txn.cursor(order_db)
                delete_near(index_cursor, index)
        elif entry.relocated:
            txn.put(index_key(entry.key), pack(entry.seq), db=order_db)
        if not entry.exists:
            continue
        if entry.seq > last:
            in_order = in_order and entry.seq > previous_appended
            previous_appended = entry.seq
            appended.append(entry)
        else:
            in_order = in_order and entry.seq > previous_replaced
            previous_replaced = entry.seq
            replaced.append(entry)
    if not in_order:
        appended.sort(key=seq_of_entry)
        replaced.sort(key=seq_of_entry)
    if again:
        for item in replaced:
            txn.delete(pack((<Entry>item).seq), db=values)
    if replaced:
        cursor.putmulti(RecordItems(replaced, store.gzipped))
    if appended:
        items = RecordItems(appended, store.gzipped)
        if cursor.putmulti(items, True, True, True)[1] != len(appended):
            raise store.damaged("records could not be appended in order")
    return deleted


# Estimates, by which the store decides whether a sync goes into the write-ahead log.


cdef Py_ssize_t count_places(list changes) except -1:
    """Estimate in how many places of the databases changes lie. Neighbours count as one place."""
    cdef Entry entry
    cdef bytes key, last_key = b""
    cdef long long last = -NEAR
    cdef Py_ssize_t places = 0
    for item in changes:
        entry = item
        if entry.disk_seq >= 0 and entry.exists:
            places += not -NEAR < entry.disk_seq - last < NEAR
            last = entry.disk_seq
        else:
            key = entry.key
            places += not are_near(last_key, key)
            last_key = key
    return places


cdef Py_ssize_t count_key_places(list keys) except -1:
    """Estimate in how many places of the index new keys lie."""
    cdef bytes key, last_key = b""
    cdef Py_ssize_t places = 0
    for key in keys:
        places += not are_near(last_key, key)
        last_key = key
    return places


cdef bint are_near(bytes before, bytes key) noexcept:
    """Return whether a key comes after another one and shares the first half with it, so that they are neighbours."""
    cdef const char* a = PyBytes_AS_STRING(before)
    cdef const char* b = PyBytes_AS_STRING(key)
    cdef Py_ssize_t half = (PyBytes_GET_SIZE(key) + 1) // 2, most = min(PyBytes_GET_SIZE(before), PyBytes_GET_SIZE(key))
    return half <= most and memcmp(a, b, half) == 0 and memcmp(a + half, b + half, most - half) <= 0


cdef Py_ssize_t count_bytes(list changes) except -1:
    """Estimate how many bytes a sync writes."""
    cdef Entry entry
    cdef Py_ssize_t size = 0
    for item in changes:
        entry = item
        size += PyBytes_GET_SIZE(entry.key) + (PyBytes_GET_SIZE(entry.payload) if entry.payload is not None else 0)
    return size
