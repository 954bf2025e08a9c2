"""Changes laid over a transaction of LMDB: read through this, the databases are as if they had them.

It has the part of the interface of LMDB's transactions and cursors that a store reads with.

A change is a value, None for what is deleted, or a bytearray: changes of a block of statuses, which are laid over the
block that is there as it is read, because most are written many times before anybody reads them here.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING
from libc.string cimport memcpy

from tastypy_fast._core.cache_entry cimport pack
from tastypy_fast._core.sorted_changes cimport sorted_items
from tastypy_fast._core.status_block cimport latest, patched

from bisect import bisect_left, bisect_right
from itertools import islice

__all__ = ["Memtable", "MergedTransaction", "MergedCursor"]

# What a layer says of a key that it says nothing of.
MISSING = object()
cdef enum:
    # Changes of a block that are longer are made as short as can be: 4 kB.
    LONG = 8000


cdef object rank(bytes key, bint is_number):
    """What keys of a database are ordered by: LMDB compares order numbers as the machine does."""
    cdef long long number
    if not is_number:
        return key
    memcpy(&number, PyBytes_AS_STRING(key), 8)
    return number


cdef object patched_if(object found, object below):
    """The value that a change makes of the one below it, or of None."""
    if type(found) is not bytearray:
        return found
    return patched(None if below is None else bytes(below), found)


@cython.final
cdef class Memtable:
    """Changes of one database, by their keys. ``numbers``: these are numbers."""

    def __init__(self, bint numbers):
        self.changes = {}
        self.numbers = numbers
        self.ordered = []
        self.largest = -1

    def __len__(self):
        return len(self.changes)

    cpdef int change(self, bytes key, object value) except -1:
        """Note a change."""
        self.changes[key] = value
        if self.numbers:
            self.largest = max(self.largest, <long long>rank(key, True))
        return 0

    cdef int take(self, Memtable other) except -1:
        """Note all the changes of another one."""
        if other.has_patches:
            for key, value in other.changes.items():
                if type(value) is bytearray:
                    self.patch(key, value)
                else:
                    self.changes[key] = value
        else:
            self.changes.update(other.changes)
        self.largest = max(self.largest, other.largest)
        return 0

    cdef int patch(self, bytes key, bytearray changes) except -1:
        """Note changes of a block of statuses; the bytearray is the layer's own from here on."""
        cdef object found = self.changes.get(key, MISSING)
        self.has_patches = True
        if type(found) is bytearray:
            found += changes
            if len(found) > LONG:
                self.changes[key] = latest(found)
        else:
            self.change(key, changes if found is MISSING else patched(found, changes))
        return 0

    cdef list sort(self):
        """What the keys are ordered by, in order. (Only more are ever added, behind those that are there.)"""
        cdef list more
        if len(self.ordered) != len(self.changes):
            more = [rank(key, self.numbers) for key in islice(self.changes, len(self.ordered), None)]
            # A new list: somebody may walk along the one before. Two runs in order are quickly merged.
            more.sort()
            more = self.ordered + more
            more.sort()
            self.ordered = more
        return self.ordered

    cdef bytes key_of(self, object place):
        """The key that is ordered by this."""
        return pack(place) if self.numbers else place

    cdef object value_of(self, object place):
        """The change of the key that is ordered by this."""
        return self.changes[self.key_of(place)]

    def sorted_runs(self, Py_ssize_t most, Py_ssize_t size):
        """The changes in order, as lists of pairs, of so many and about so many bytes at the most."""
        cdef list pairs = sorted_items(self.changes, self.numbers)
        cdef Py_ssize_t start = 0, at = 0, held = 0
        for key, value in pairs:
            at += 1
            held += len(key) + (0 if value is None else len(value))
            if at - start == most or held >= size:
                yield pairs[start:at]
                start = at
                held = 0
        if start < at:
            yield pairs[start:]


cdef class MergedTransaction:
    """A transaction with changes over it.

    ``handles`` are the databases that have ``layers``. The first two have as many entries as each other, with the
    changes ``count``.
    """

    def __init__(self, txn not None, tuple handles not None, tuple layers not None, long long count):
        self.txn = txn
        self.handles = handles
        self.layers = layers
        self.count = count

    cdef Memtable layer_of(self, object db):
        cdef Py_ssize_t position
        for position in range(len(self.handles)):
            if self.handles[position] is db:
                return <Memtable>self.layers[position]
        return None

    cdef object look(self, bytes key, object db):
        """The value of a key; None when there is none."""
        cdef Memtable layer = self.layer_of(db)
        found = MISSING if layer is None else layer.changes.get(key, MISSING)
        if found is MISSING or type(found) is bytearray:
            below = self.txn.get(key, None, db)
            return below if found is MISSING else patched_if(found, below)
        return found

    def get(self, bytes key not None, default=None, db=None):
        """The value of a key."""
        found = self.look(key, db)
        return default if found is None else found

    def cursor(self, db):
        """A cursor on a database, which sees the changes."""
        cdef Memtable layer = self.layer_of(db)
        cursor = self.txn.cursor(db)
        return MergedCursor(cursor, layer) if layer is not None and layer.changes else cursor

    def stat(self, db):
        """LMDB's statistics of a database, with the changes where it is the number of entries that counts."""
        facts = self.txn.stat(db)
        if db is self.handles[0] or db is self.handles[1]:
            facts["entries"] = self.count
        return facts

    def id(self):
        """The number of the transaction."""
        return self.txn.id()

    def abort(self):
        """End it."""
        self.txn.abort()

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.abort()


cdef class MergedCursor:
    """A cursor on a database with a layer over it. It stands at ``place``, or nowhere."""

    def __init__(self, cursor not None, Memtable layer not None):
        self.cursor = cursor
        self.layer = layer

    def key(self):
        """The key where the cursor stands; nothing when that is nowhere."""
        return b"" if self.place is None else self.place

    cdef bint stand_at_first(self, object pairs) except -1:
        self.place = None
        for key, _ in pairs:
            self.place = bytes(key)
            return True
        return False

    def first(self):
        """Go to the first key."""
        return self.stand_at_first(self.forwards(None))

    def last(self):
        """Go to the last key."""
        cdef Memtable layer = self.layer
        cdef bytes key
        if layer.numbers:
            # Nearly always it is the last one on disk, or the last one of the changes: no order is needed to find it.
            key = bytes(self.cursor.key()) if self.cursor.last() else None
            if layer.largest > (-1 if key is None else rank(key, True)):
                key = pack(layer.largest)
            if key is not None and layer.changes.get(key, MISSING) is not None:
                self.place = key
                return True
        return self.stand_at_first(self.backwards(None, True))

    def prev(self):
        """Go to the key before."""
        return self.stand_at_first(self.backwards(self.place, False))

    def set_range(self, bytes key not None):
        """Go to the first key from this one on."""
        return self.stand_at_first(self.forwards(key))

    def set_key(self, bytes key not None):
        """Go to this key."""
        found = self.layer.changes.get(key, MISSING)
        self.place = key if (self.cursor.set_key(key) if found is MISSING else found is not None) else None
        return self.place is not None

    def iternext(self):
        """Pairs from where the cursor stands on."""
        return self.forwards(self.place)

    def iterprev(self):
        """Pairs from where the cursor stands backwards."""
        return self.backwards(self.place, True)

    def __iter__(self):
        return self.iternext()

    def forwards(self, start):
        """Pairs from a key on, or all."""
        cdef Py_ssize_t at = 0
        cdef Memtable layer = self.layer
        cdef list ordered = layer.sort()
        if start is None:
            found = self.cursor.first()
        else:
            found = self.cursor.set_range(start)
            at = bisect_left(ordered, rank(start, layer.numbers))
        if found:
            for key, value in self.cursor.iternext():
                place = rank(bytes(key), layer.numbers)
                while at < len(ordered) and ordered[at] < place:
                    changed = patched_if(layer.value_of(ordered[at]), None)
                    if changed is not None:
                        yield layer.key_of(ordered[at]), changed
                    at += 1
                if at < len(ordered) and ordered[at] == place:
                    value = patched_if(layer.value_of(ordered[at]), value)
                    at += 1
                    if value is None:
                        continue
                yield key, value
        while at < len(ordered):
            changed = patched_if(layer.value_of(ordered[at]), None)
            if changed is not None:
                yield layer.key_of(ordered[at]), changed
            at += 1

    def backwards(self, start, bint included):
        """Pairs from a key backwards, itself ``included`` or not, or all."""
        cdef Py_ssize_t at
        cdef Memtable layer = self.layer
        cdef list ordered = layer.sort()
        at = len(ordered)
        if start is None or not self.cursor.set_range(start):
            found = self.cursor.last()
        else:
            found = True if included and bytes(self.cursor.key()) == start else self.cursor.prev()
        if start is not None:
            at = (bisect_right if included else bisect_left)(ordered, rank(start, layer.numbers))
        if found:
            for key, value in self.cursor.iterprev():
                place = rank(bytes(key), layer.numbers)
                while at > 0 and ordered[at - 1] > place:
                    at -= 1
                    changed = patched_if(layer.value_of(ordered[at]), None)
                    if changed is not None:
                        yield layer.key_of(ordered[at]), changed
                if at > 0 and ordered[at - 1] == place:
                    at -= 1
                    value = patched_if(layer.value_of(ordered[at]), value)
                    if value is None:
                        continue
                yield key, value
        while at > 0:
            at -= 1
            changed = patched_if(layer.value_of(ordered[at]), None)
            if changed is not None:
                yield layer.key_of(ordered[at]), changed

    def getmulti(self, keys):
        """The pairs of those keys that are there."""
        cdef list wanted = [], found = [], patches = []
        for key in keys:
            value = self.layer.changes.get(key, MISSING)
            if value is MISSING:
                wanted.append(key)
            elif type(value) is bytearray:
                patches.append((key, patched_if(value, self.cursor.get(key))))
            elif value is not None:
                found.append((key, value))
        if wanted:
            found += self.cursor.getmulti(wanted)
        return found + patches
