"""Look up many keys: a thousand at a time, in the order of the index, each thousand in one snapshot.

Neighbours in the index share pages that are in the processor's caches by then. The same holds for the records, which
are read in the order of their seqs. Each is read by ``get()`` of the transaction. ``Cursor.getmulti()`` takes longer,
because it copies the keys, makes a tuple for each pair, and releases the interpreter lock three times for each.

A record is decoded when its pair is yielded. So memory holds one decoded value, and a damaged record raises only after
the pairs before it. No operation is open while code of the caller runs: the iterator over the keys, and the loop.
"""

cimport cython
from cpython.exc cimport PyErr_CheckSignals
from cpython.mem cimport PyMem_Free, PyMem_Malloc
from cpython.ref cimport PyObject

from tastypy_fast._core.cache_entry cimport Entry, pack
from tastypy_fast._core.iterators cimport StoreHandle
from tastypy_fast._core.key_codec cimport index_key, wanted_key
from tastypy_fast._core.key_order cimport SortItem, sort_by_key, sort_by_rank
from tastypy_fast._core.record_codec cimport Record, record_payload
from tastypy_fast._core.store_base cimport StoreBase
from tastypy_fast._core.sync_writer cimport unpack_seq
from tastypy_fast._core.write_cache cimport WriteCache

from tastypy_fast.exceptions import PersistentOrderedDictIntegrityError

__all__ = ["LookupIterator"]

cdef enum:
    # The number of keys that are looked up at once.
    MOST_KEYS = 1000
    # About the largest size of their records together.
    MOST_BYTES = 64 << 20

# Returned by step() at the end.
cdef object END = object()


@cython.final
@cython.no_gc
@cython.freelist(1000)
cdef class Lookup:
    """A key that is looked up, and what was found."""

    cdef int copy_value(self, WriteCache cache, Entry entry) except -1:
        """Copy the value of a key that is in memory. An exception is raised when the pair would be yielded."""
        if not entry.exists:
            return 0
        try:
            self.content = cache.copy_of_entry(entry)
            self.kind = VALUE
        except Exception as error:
            self.fail(error)
        return 0

    cdef int fail(self, object error) except -1:
        self.content = error
        self.kind = FAILURE
        return 0

    cdef object pair(self, WriteCache cache):
        """Return the key and its value."""
        cdef Record record
        cdef bytes payload
        cdef object key = self.key if self.key is not None else cache.key_of(self.encoded)
        if self.kind == FAILURE:
            raise self.content
        if self.kind == VALUE:
            return key, self.content
        cache.parse_found(self.encoded, self.content, &record)
        try:
            payload = record_payload(&record)
        except PersistentOrderedDictIntegrityError as error:
            raise cache.damaged(key, error) from error
        return key, cache.decode_with(self.encoded, self.status, record.codec, payload)


cdef Lookup make_lookup(object key, bytes encoded):
    cdef Lookup lookup = Lookup.__new__(Lookup)
    # The caller's object, if nobody can see that it is not the store's.
    lookup.key = key if type(key) is str or type(key) is int else None
    lookup.encoded = encoded
    lookup.index = index_key(encoded)
    return lookup


cdef class LookupIterator:
    """Yield pairs of the keys that exist and copies of their values, in the order of ``keys``.

    Threads may share an iterator. Each step that changes a list is atomic because of the interpreter lock.
    """

    def __init__(self, store not None, keys):
        self.store = store
        self.pending = []
        self.found = []
        self.handle().open_cache()
        self.keys = iter(keys)

    cdef StoreHandle handle(self):
        """Return the handle through which the store is read now."""
        return <StoreHandle?>self.store

    def __iter__(self):
        return self

    def __next__(self):
        if self.store is None:
            raise StopIteration
        self.running += 1
        try:
            pair = self.step()
        finally:
            self.running -= 1
        if pair is END:
            if self.running == 0:
                self.release()
            raise StopIteration
        return pair

    cdef object step(self):
        cdef WriteCache cache = self.handle().open_cache()
        while not self.found:
            # Nothing below asks for signals while no key exists.
            PyErr_CheckSignals()
            if self.pending:
                self.refill()
            elif self.failure is not None:
                failure, self.failure = self.failure, None
                raise failure
            elif not self.read_keys():
                return END
        return (<Lookup>self.found.pop()).pair(cache)

    cdef bint read_keys(self) except -1:
        """Read the next thousand keys. Returns False at their end."""
        cdef bytes encoded
        cdef Py_ssize_t count = 0
        if self.keys is None:
            return False
        try:
            for key in self.keys:
                encoded = wanted_key(key)
                if encoded is not None:
                    self.pending.append(make_lookup(key, encoded))
                count += 1
                if count == MOST_KEYS:
                    return True
        except Exception as error:
            if not self.pending:
                raise
            self.failure = error
            return True
        self.keys = None
        return count > 0

    cdef int refill(self) except -1:
        """Look up the keys that were read."""
        cdef WriteCache cache = self.handle().open_cache()
        cdef list fresh = [], wanted = self.pending, found
        self.pending = fresh
        try:
            found = look_up(cache, wanted, fresh)
        except BaseException:
            # Another step looks them up, for example after an interrupt.
            self.pending[:0] = wanted
            raise
        # Another thread may have found pairs meanwhile.
        self.found[:0] = found
        return 0

    cdef int release(self) except -1:
        """Let go of the store after the end, as the iterator of a dict does."""
        # Clear the fields first, because the end of the last reference to a store runs its finalizers.
        _store, _keys = self.store, self.keys
        self.store = self.keys = None
        return 0


cdef list look_up(WriteCache cache, list wanted, list later):
    """Return the lookups whose keys exist, the last one first, all from one snapshot.

    If values are large, the last lookups are left, and put at the beginning of ``later``.
    """
    cdef StoreBase store = cache.store
    cdef Lookup lookup
    cdef Entry entry
    cdef list now, on_disk = []
    cdef Py_ssize_t most
    cdef bint in_memory
    cache.begin_op()
    try:
        if cache.tracks:
            # The status of a task in memory is found by its seq.
            cache.resolve()
        most = count_that_fit(store)
        now = wanted[:most]
        in_memory = len(cache.entries) > 0 or len(cache.pinned.by_key) > 0
        for lookup in now:
            lookup.kind = NOTHING
            entry = cache.entry_of(lookup.encoded) if in_memory else None
            if entry is not None:
                lookup.copy_value(cache, entry)
            else:
                on_disk.append(lookup)
        if on_disk:
            read_records(cache, on_disk)
    except Exception as error:
        store.reraise(error)
    finally:
        cache.end_op()
    later[:0] = wanted[most:]
    return [lookup for lookup in reversed(now) if lookup.kind != NOTHING]


cdef Py_ssize_t count_that_fit(StoreBase store) except -1:
    """Return the number of keys whose values take MOST_BYTES, if these are as large as the average."""
    cdef dict facts = store.reader().stat(store.values)
    cdef long long size = facts["overflow_pages"] * facts["psize"]
    return max(1, min(MOST_KEYS, <long long>MOST_BYTES * <long long>facts["entries"] // size)) if size else MOST_KEYS


cdef int read_records(WriteCache cache, list wanted) except -1:
    """Read the records of the keys that the index has, and the statuses of their tasks."""
    cdef StoreBase store = cache.store
    cdef Py_ssize_t count = len(wanted), indexed = 0, at
    cdef SortItem* items = <SortItem*>PyMem_Malloc(count * sizeof(SortItem) + 1)
    cdef Lookup lookup
    cdef object get = store.reader().get, order = store.order, values = store.values
    if items == NULL:
        raise MemoryError
    try:
        for at in range(count):
            lookup = wanted[at]
            items[at].key = <PyObject*>lookup.index
            items[at].item = <PyObject*>lookup
        sort_by_key(items, count)
        for at in range(count):
            lookup = <Lookup>items[at].item
            number = get(lookup.index, None, order)
            if number is None:
                continue
            try:
                items[indexed].rank = unpack_seq(store, number)
            except PersistentOrderedDictIntegrityError as error:
                lookup.fail(error)
                continue
            items[indexed].item = items[at].item
            indexed += 1
        sort_by_rank(items, indexed)
        for at in range(indexed):
            lookup = <Lookup>items[at].item
            # A record that does not exist is an error when the pair is yielded.
            lookup.kind = RECORD
            lookup.content = get(pack(items[at].rank), None, values)
            if cache.tracks:
                try:
                    lookup.status = cache.status_of_seq(items[at].rank)
                except PersistentOrderedDictIntegrityError as error:
                    lookup.fail(error)
    finally:
        PyMem_Free(items)
    return 0
