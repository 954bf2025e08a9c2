"""Iterating while the store changes.

An iterator remembers the order number that it handed out last, reads a chunk of what comes after it, and
asks the cache about each key again before handing it out. Whenever a sync or a revert has changed what is
on disk (the cache's ``epoch``), it lets the rest of its chunk go and seeks again. No read transaction of
its own stays open between two steps.
"""

from bisect import bisect_left, bisect_right
from weakref import ref

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.string cimport memcpy

from tastypy_fast._core.write_cache cimport WriteCache
from tastypy_fast._core.cache_entry cimport Copy, Entry, pack
from tastypy_fast._core.key_codec cimport decode_key_at
from tastypy_fast._core.record_codec cimport Record, parse_record, record_payload
from tastypy_fast._core.store_base cimport StoreBase

from tastypy_fast.exceptions import CalledClosedTrackerError, PersistentOrderedDictIntegrityError

__all__ = ["ITEMS", "KEYS", "REVERTS", "VALUES", "StoreHandle", "StoreIterator"]

cdef enum:
    FIRST_CHUNK = 16
    LARGEST_CHUNK = 512
    # A chunk ends with the record that takes it past this.
    CHUNK_BYTES = 1 << 20

# Under what name the number of reverts is in the database meta.
REVERTS = b"reverts"
# What was in a chunk and is not to be handed out any more.
GONE = object()
cdef long long END = <long long>0x7fffffffffffffff


cdef class StoreHandle:
    """What an iterator needs to know of the instance that it came from."""

    cdef WriteCache open_cache(self):
        if self.cache is None:
            raise CalledClosedTrackerError("this store was closed; open it again to use it")
        return self.cache

    cdef long long threshold(self):
        if self.cache.writes_through:
            return 1
        return 0 if self.held or self.blocks else self.sync_at


cdef class StoreIterator:
    """Keys, values or pairs in the order in which the keys were added, or backwards."""

    def __cinit__(self):
        self.finished = True

    def __init__(self, StoreHandle owner not None, int kind, bint backwards=False):
        self.finished = False
        self.owner = owner
        self.cache = owner.open_cache()
        self.kind = kind
        self.backwards = backwards
        self.position = END if backwards else -1
        self.orders = self.records = []
        self.limit = FIRST_CHUNK
        self.cache_version = -1

    def __iter__(self):
        return self

    def seek(self, long long position):
        """Go on behind this order number (before it, backwards), which another iterator came to."""
        self.position = position
        self.orders = self.records = []
        self.at = 0

    def __next__(self):
        cdef long long order, before
        if self.finished:
            raise StopIteration
        while True:
            if self.owner.cache is None:
                self.owner.open_cache()
            if self.at >= len(self.records) or self.is_outdated():
                self.refill()
                if not self.records:
                    self.finished = True
                    self.cache.passing = None
                    if self.cache.recent is self.copied:
                        self.cache.recent = None
                    self.copied = None
                    raise StopIteration
            order = self.orders[self.at]
            item = self.records[self.at]
            self.at += 1
            before = self.position
            self.position = order
            result = self.offer(order, item, before)
            if result is not GONE:
                return result
            if self.is_reverted:
                # What comes next is looked for anew: a revert() may have brought back what lies before this one.
                self.is_reverted = False
                if self.position == order:
                    # (else another thread is further in this loop)
                    self.seek(before)

    cdef bint is_outdated(self) except -1:
        """Whether the rest of the chunk may not be what comes next any more."""
        return self.cache_version != self.cache.cache_version or self.cache.is_stale()

    cdef int enter_for(self, long long order, long long before) except -1:
        """Have the cache to hand out an element, to which the loop came from ``before``."""
        try:
            self.cache.begin_op()
        except BaseException:
            # Nothing was handed out, so that it comes when the loop is asked again, unless another thread is further.
            if self.position == order:
                self.seek(before)
            raise
        return 0

    cdef object offer(self, long long order, object item, long long before):
        """What to hand out for an element of the chunk, or GONE. The loop came from ``before``."""
        if not self.cache.store.transient and (not self.cache.tracks or self.kind == KEYS):
            return self.offer_now(order, item)
        # A task has its status to be read, too: nobody may come between. And where others write, the record is
        # asked for again if the store is not as it was when the chunk was read.
        self.enter_for(order, before)
        try:
            item = self.as_it_is_now(order, item)
            return GONE if item is None or self.is_overtaken(order) else self.offer_now(order, item)
        finally:
            self.cache.end_op()

    cdef object as_it_is_now(self, long long order, object item):
        """An element of the chunk, read again if others have written since; None where it does not come next any more.
        The caller holds the lock."""
        if self.seen == self.cache.seen or not self.cache.store.transient:
            return item
        if self.reverts != self.count_reverts():
            self.is_reverted = True
            return None
        return self.read_again(order, item)

    cdef object count_reverts(self):
        """How often a shared store was reverted so far."""
        return self.cache.get(REVERTS, self.cache.store.meta)

    cdef bint is_overtaken(self, long long order) except -1:
        """Whether another cache (clone=False) has written since the chunk was looked at, before this thread got the
        lock: it is read anew then, from this element on."""
        if self.cache.store.transient or self.cache_version == self.cache.cache_version:
            return False
        self.seek(order + 1 if self.backwards else order - 1)
        return True

    cdef object read_again(self, long long order, object item):
        """An element of the chunk as it is on disk now; None when it was deleted. (An order number always has
        the same key.)"""
        cdef StoreBase store = self.cache.store
        if self.bare:
            return item if store.reader().cursor(store.values).set_key(pack(order)) else None
        return self.cache.record_at(order)

    cdef object offer_now(self, long long order, object item):
        cdef Entry entry
        cdef Record record
        entry = self.look_at(order, item, &record)
        if entry is not None and (not entry.alive or entry.order != order and (entry is item or entry.moved)):
            return GONE
        if entry is None and self.kind == KEYS and not self.bare:
            self.note_passing(order, item)
        return self.hand(self.cache, entry, &record, order)

    cdef Entry look_at(self, long long order, object item, Record* record):
        """Find the key in an element of the chunk; returns what the cache has for it."""
        cdef bytes raw
        if type(item) is Entry:
            raw = (<Entry>item).key
            record.key = <const unsigned char*>PyBytes_AS_STRING(raw)
            record.key_size = PyBytes_GET_SIZE(raw)
            return <Entry>item
        raw = item
        if self.bare:
            record.key = <const unsigned char*>PyBytes_AS_STRING(raw)
            record.key_size = PyBytes_GET_SIZE(raw)
        else:
            try:
                parse_record(<const unsigned char*>PyBytes_AS_STRING(raw), PyBytes_GET_SIZE(raw), record)
            except PersistentOrderedDictIntegrityError as error:
                raise damaged(self.cache, order, error) from error
        if self.cache.entries or self.cache.shelf:
            return self.cache.entry_of(record.key[:record.key_size])
        return None

    cdef int note_passing(self, long long order, object item) except -1:
        """Keep the record of a key that is handed out: who loops over keys often asks for the value next."""
        cdef WriteCache cache = self.cache
        cache.passing = item
        cache.passing_order = order
        cache.passing_epoch = self.cache_version
        cache.passing_seen = cache.seen
        return 0

    cdef object hand(self, WriteCache cache, Entry entry, Record* record, long long order):
        cdef object key = None, value
        cdef Copy copied
        if self.kind != VALUES:
            try:
                key = decode_key_at(record.key, record.key_size)
            except PersistentOrderedDictIntegrityError as error:
                raise damaged(cache, order, error) from error
            if self.kind == KEYS:
                return key
        # One for the whole loop: it says what was handed out last.
        copied = self.copied
        if copied is None:
            copied = self.copied = Copy.__new__(Copy)
            cache.loops = [loop for loop in cache.loops if loop() is not None] + [ref(self)]
        if copied.watched is not None:
            copied.watched = None
        if entry is None:
            value = self.decode(cache, record, order, copied)
        elif entry.value is not None:
            value = cache.copy_of(entry, copied)
        else:
            copied.codec = entry.codec
            copied.payload = entry.payload
            value = cache.decode(entry.key, order, entry.codec, entry.payload)
        copied.key = key
        copied.order = order
        copied.value = value
        copied.status = cache.shown
        copied.era = cache.era
        cache.recent = copied
        cache.recent_key = key
        cache.recent_order = order
        return value if self.kind == VALUES else (key, value)

    def at_copy(self):
        """The copy that was handed out last, of a loop that is not at its end."""
        return self.copied

    cdef object decode(self, WriteCache cache, Record* record, long long order, Copy copied):
        cdef bytes payload
        try:
            payload = record_payload(record)
            copied.codec = record.codec
            copied.payload = payload
        except PersistentOrderedDictIntegrityError as error:
            raise cache.damaged(cache.key_of(record.key[:record.key_size]), error) from error
        try:
            return cache.decode(b"", order, record.codec, payload)
        except PersistentOrderedDictIntegrityError:
            # (only an error names the key)
            return cache.decode(record.key[:record.key_size], order, record.codec, payload)

    cdef int refill(self) except -1:
        cdef list orders = [], records = []
        cdef WriteCache cache = self.cache
        cdef long long seen
        cache.begin_op()
        try:
            cache.resolve()
            if self.cache_version != cache.cache_version:
                # The chunk that there is goes now: an exception below must not leave it to be handed out.
                self.orders = self.records = []
                # Asked again after a sync only: where another process writes, a wrong answer costs time, no more.
                self.bare = self.kind == KEYS and cache.store.has_large_values()
                self.cache_version = cache.cache_version
            if cache.store.transient:
                self.reverts = self.count_reverts()
            cut = self.read_disk(orders, records)
            if cache.new_entries:
                self.add_new(orders, records, cut)
            seen = cache.seen
        except Exception as error:
            raise cache.store.translated(error) from error
        finally:
            cache.end_op()
        self.orders = orders
        self.records = records
        self.seen = seen
        self.at = 0
        self.limit = min(self.limit * 2, LARGEST_CHUNK)
        return 0

    cdef int read_disk(self, list orders, list records) except -1:
        """Read a chunk. Returns whether there may be more on disk behind it."""
        cdef Py_ssize_t size = 0
        cdef Record record
        cdef const unsigned char[::1] view
        cdef long long order
        cdef StoreBase store = self.cache.store
        # Keys of large values: the values stay where they are, unread.
        txn = store.reader_of_buffers() if self.bare else store.reader()
        cursor = txn.cursor(store.values)
        if self.backwards:
            if self.position != END and cursor.set_range(pack(self.position)):
                found = cursor.prev()
            else:
                found = cursor.last()
            pairs = cursor.iterprev()
        else:
            found = cursor.set_range(pack(self.position + 1))
            pairs = cursor.iternext()
        if not found:
            return False
        for number, raw in pairs:
            if self.bare:
                view = raw
                parse_record(&view[0] if view.shape[0] else NULL, view.shape[0], &record)
                memcpy(&order, PyBytes_AS_STRING(bytes(number)), 8)
                records.append(record.key[:record.key_size])
                size += record.key_size
            else:
                memcpy(&order, PyBytes_AS_STRING(number), 8)
                records.append(raw)
                size += PyBytes_GET_SIZE(raw)
            orders.append(order)
            if len(orders) >= self.limit or size >= CHUNK_BYTES:
                return True
        return False

    cdef int add_new(self, list orders, list records, bint cut) except -1:
        """Merge in what is only in memory so far, which nearly always comes behind all that is on disk."""
        cdef list numbers = self.cache.new_orders, pairs = []
        cdef dict entries = self.cache.new_entries
        cdef long long bound = -1 if self.backwards else END
        if self.backwards:
            first = bisect_right(numbers, orders[len(orders) - 1]) if cut else 0
            places = range(bisect_left(numbers, self.position) - 1, first - 1, -1)
        else:
            last = bisect_right(numbers, orders[len(orders) - 1]) if cut else len(numbers)
            places = range(bisect_right(numbers, self.position), last)
        for place in places:
            number = numbers[place]
            entry = entries.get(number)
            if entry is None:
                # Deleted: its number goes later, with others.
                continue
            if len(pairs) == self.limit:
                # More come in the next chunk, and with them what is on disk behind these.
                bound = pairs[len(pairs) - 1][0]
                break
            pairs.append((number, entry))
        if not pairs:
            return 0
        for position in range(len(orders)):
            if orders[position] > bound if self.backwards else orders[position] < bound:
                pairs.append((orders[position], records[position]))
        if orders:
            pairs.sort(key=first_of, reverse=self.backwards)
        orders[:] = [number for number, _ in pairs]
        records[:] = [record for _, record in pairs]
        return 0


def first_of(pair):
    return pair[0]


cdef object damaged(WriteCache cache, long long order, object error):
    return cache.store.damaged(f"record {order}: {error}")
